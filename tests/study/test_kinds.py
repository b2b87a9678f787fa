"""Groups of backbones as data, and how a backbone's kind is told from its source."""

import pytest

from medssl.backbones.registry import BACKBONES, SELF, SUPERVISED
from medssl.errors import BackboneError
from medssl.study.kinds import CONTROL, GROUPS, KINDS, TUNED, UNKNOWN, choose_group, kind_of


def test_every_member_is_known_or_wants_a_folder():
    assert set(GROUPS) == {"paper", "dinov2-sizes", "offline"}
    for group in GROUPS.values():
        names = [member.name for member in group.members]
        assert len(set(names)) == len(names)
        for member in group.members:
            assert member.kind in KINDS
            assert (member.kind == CONTROL) == (member.twin_of in names)
            if member.source:
                assert BACKBONES[member.source].supervision == member.kind


def test_paper_and_offline_hold_all_three_kinds():
    for name in ("paper", "offline"):
        assert {member.kind for member in GROUPS[name].members} == set(KINDS) - {TUNED}


def test_folders_take_the_place_of_members_and_the_control_follows_its_model():
    folders = {"simclr": "a", "byol": "b", "vit-tiny": "c"}
    sources, kinds = choose_group("offline", folders)
    assert sources == {"medssl-tiny": "medssl-tiny", **folders, "random": "random:medssl-tiny"}
    assert kinds["vit-tiny"] == SUPERVISED and kinds["random"] == CONTROL and kinds["simclr"] == SELF
    sources, _ = choose_group("offline", {"medssl-tiny": "mine", "vit-tiny": "c"}, ["simclr", "byol"])
    assert sources == {"medssl-tiny": "mine", "random": "random:mine", "vit-tiny": "c"}
    # A control may stand alone.
    assert choose_group("paper", without=[m.name for m in GROUPS["paper"].members if m.name != "random"])[0] == {
        "random": "random:dinov2-base"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no group of backbones 'nothing'. Allowed: paper"),
        (("offline", {"resnet": "x"}), "resnet is not in the group offline. Its members: medssl-tiny"),
        (("offline", {}, ["vit"]), "vit is not in the group"),
        (("offline", {"simclr": "a"}), "takes byol from a folder.*--folder byol=DIR, or --without byol"),
        (("dinov2-sizes", {}, [m.name for m in GROUPS["dinov2-sizes"].members]), "All members"),
    ],
)
def test_what_cannot_be_chosen_is_said(arguments, message):
    with pytest.raises(BackboneError, match=message):
        choose_group(*arguments)


def test_a_kind_is_told_by_the_source(tmp_path):
    assert kind_of("dinov2-base") == kind_of("facebook/dinov2-base") == kind_of("medssl-tiny") == SELF
    assert kind_of("resnet-50") == SUPERVISED and kind_of("random:resnet-50") == CONTROL
    assert kind_of(tmp_path) == UNKNOWN
    (tmp_path / "pretraining.json").write_text("{}")
    assert kind_of(tmp_path) == SELF
