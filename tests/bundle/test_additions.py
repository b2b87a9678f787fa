"""Cases that are added to a bundle and taken back: searched, refused, marked, whole or not at all."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from medssl.bundle.additions import add_cases, add_opened, undo_addition
from medssl.bundle.bundle import Bundle
from medssl.bundle.cards.additions import START, with_additions
from medssl.bundle.manifest import check_manifest
from medssl.cli.main import VERBS
from medssl.errors import BundleError, DataError
from medssl.hub.card_signature import is_edited
from medssl.images.read import image_id, read_image
from tests.conftest import draw, sample


@pytest.fixture
def folder(tiny_bundle_folders, tmp_path):
    """A copy of a bundle that may be changed."""
    return shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "shapes")


@pytest.fixture(scope="module")
def tiny(tiny_bundles):
    return tiny_bundles["shapes"]


def new_data(place, rows, seed=77):
    """A folder of new pictures: (name, label, group, split, picture or None for a drawn one)."""
    random = np.random.default_rng(seed)
    place.mkdir()
    with open(place / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "group_id", "split", "source"])
        for name, label, group, split, picture in rows:
            (picture or Image.fromarray(draw(label, random))).save(place / name)
            writer.writerow([name, label, group, split, "clinic"])
    return place


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_new_cases_are_found_and_taken_back_by_id(folder, tiny, tmp_path):
    before = bytes_of(folder)
    data = new_data(
        tmp_path / "new", [("a.png", "dots", "new-1", "", None), ("b.png", "plain", "new-2", "train", None)]
    )
    added = add_cases(folder, data, cache_dir=tmp_path / "cache", progress=False, bundle=tiny)
    assert len(added.cases) == 2 and not added.refused and check_manifest(folder)
    loaded = Bundle.load(folder, backbone=tiny.backbone)
    assert len(loaded.library) == len(tiny.library) + 2
    picture = read_image(data / "a.png")
    assert added.cases[0] == image_id(picture)
    found = loaded.library.search(tiny.open(picture).embedding, 1)[0]
    assert (found.id, found.label, found.group_id, found.source) == (added.cases[0], "dots", "new-1", "clinic")
    assert found.score == pytest.approx(1.0, abs=1e-3)  # bf16 rounds a batch and a picture alone differently
    shutil.rmtree(data)
    assert loaded.head.state_dict().keys() == tiny.head.state_dict().keys()
    assert all((loaded.head.state_dict()[name] == value).all() for name, value in tiny.head.state_dict().items())
    assert loaded.metrics["classification"] == tiny.metrics["classification"]
    assert loaded.metrics["additions"][0]["cases"] == added.cases
    assert "Measured before cases were added" in loaded.card and not is_edited(loaded.card)
    undone = undo_addition(folder, added.cases[1], tiny)
    assert len(undone.library) == len(tiny.library) + 1
    undone = undo_addition(folder, added.id, tiny)
    assert len(undone.library) == len(tiny.library) and "additions" not in undone.metrics
    after = bytes_of(folder)
    assert after["README.md"] == before["README.md"] and after["metrics.json"] == before["metrics.json"]
    assert after["model.safetensors"] == before["model.safetensors"]


def test_what_must_not_enter_is_refused_and_nothing_is_written(folder, tiny, tiny_data, tmp_path):
    before = bytes_of(folder)
    groups = dict(zip(tiny.cases["split"][:], tiny.cases["group_id"][:], strict=True))
    twice = Image.fromarray(draw("dots", np.random.default_rng(5)))
    data = new_data(
        tmp_path / "new",
        [
            ("known.png", "dots", "x-1", "", read_image(sample(tiny_data["shapes"], "dots"))),
            ("test-group.png", "dots", groups["test"], "", None),
            ("val-group.png", "dots", groups["val"], "", None),
            ("test-split.png", "dots", "x-2", "test", None),
            ("one.png", "dots", "x-3", "", twice),
            ("other.png", "dots", "x-3", "", twice),
        ],
    )
    (data / "known.png").rename(data / "known-2.png")
    text = (data / "metadata.csv").read_text().replace("known.png", "known-2.png")
    (data / "metadata.csv").write_text(text)
    with pytest.raises(BundleError, match="Nothing was added: 5 of the pictures") as refused:
        add_cases(folder, data, cache_dir=tmp_path / "cache", progress=False, bundle=tiny)
    assert "same pixels" in str(refused.value) and "must stay apart" in str(refused.value)
    assert bytes_of(folder) == before and not list(folder.parent.glob(".shapes*"))
    added = add_cases(folder, data, True, tmp_path / "cache", progress=False, bundle=tiny)
    assert added.cases == [image_id(twice)] and len(added.refused) == 5
    with pytest.raises(BundleError, match="Nothing was added"):
        add_cases(folder, data, True, tmp_path / "cache", progress=False, bundle=tiny)


def test_unknown_labels_ids_and_places_are_refused(folder, tiny, tmp_path):
    data = new_data(tmp_path / "new", [("a.png", "dots", "g", "", None)])
    (data / "metadata.csv").write_text("file_name,label\na.png,moon\n")
    with pytest.raises(DataError, match="moon"):
        add_cases(folder, data, progress=False, bundle=tiny)
    with pytest.raises(BundleError, match="no addition or added case"):
        undo_addition(folder, tiny.cases["id"][0], tiny)
    with pytest.raises(BundleError, match="no folder here"):
        undo_addition("somebody/a-bundle-on-the-hub", "x", tiny)
    assert "add" in VERBS


def test_a_bundle_built_anew_meanwhile_is_left_alone(folder, tiny_bundles, shapes_image):
    other = tiny_bundles["tints"]
    with pytest.raises(BundleError, match="built anew"):
        add_opened(folder, other.open(shapes_image), other, other.labels[0])


def test_an_opened_picture_is_added_with_its_confirmed_label(folder, tiny):
    opened = tiny.open(Image.fromarray(draw("stripes", np.random.default_rng(9))))
    added = add_opened(folder, opened, tiny, "stripes")
    (found,) = [case for case in added.bundle.cases if case["id"] == opened.picture.id]
    assert found["split"] == "train" and found["group_id"] == f"added-{opened.picture.id}"
    assert 0 <= found["map_x"] <= 1 and 0 <= found["map_y"] <= 1
    with pytest.raises(BundleError, match="Allowed: dots, plain, stripes"):
        add_opened(folder, opened, tiny, "moon")
    with pytest.raises(BundleError, match="same pixels"):
        add_opened(folder, opened, tiny, "stripes")


def test_regions_grow_and_shrink_with_the_cases(lesion_bundle_folder, lesion_bundle, tmp_path):
    folder = shutil.copytree(lesion_bundle_folder, tmp_path / "lesions")
    opened = lesion_bundle.open(Image.fromarray(draw("violet", np.random.default_rng(4))))
    added = add_opened(folder, opened, lesion_bundle, lesion_bundle.labels[0])
    assert len(added.bundle.regions.tokens) == len(lesion_bundle.regions.tokens) + 1
    found = added.bundle.open(Image.fromarray(draw("violet", np.random.default_rng(5)))).regions((0, 0, 1, 1), 500)
    assert added.cases[0] in [match.case.id for match in found]
    undone = undo_addition(folder, added.id, lesion_bundle)
    np.testing.assert_array_equal(undone.regions.tokens, lesion_bundle.regions.tokens)


def test_a_card_edited_by_hand_stays_known_as_edited():
    metrics = {"additions": [{"id": "ab", "date": "2026-01-02", "data": "d", "cases": ["1", "2"]}]}
    marked = with_additions("# Mine\n\n## Figures\n\nAll good.\n", metrics)
    assert marked.index(START) < marked.index("All good.") and "2 on 2026-01-02 (ab)" in marked and is_edited(marked)
    assert START not in with_additions(marked, {}) and with_additions("", {}) == ""
    assert with_additions("# No figures\n", metrics).count(START) == 1


def test_a_patient_of_test_is_known_however_the_id_is_spelled(folder, tiny, tmp_path):
    groups = dict(zip(tiny.cases["split"][:], tiny.cases["group_id"][:], strict=True))
    rows = [
        ("a.png", "dots", f" {groups['test'].upper()} ", "", None),
        ("b.png", "dots", groups["train"].upper(), "", None),
    ]
    data = new_data(tmp_path / "new", rows)
    added = add_cases(folder, data, True, tmp_path / "cache", progress=False, bundle=tiny)
    assert len(added.cases) == 1 and "must stay apart" in added.refused[0].reason
    cases = Bundle.load(folder, backbone=tiny.backbone).cases
    row = cases["id"][:].index(added.cases[0])
    assert cases["group_id"][row] == groups["train"]
