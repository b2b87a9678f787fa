"""Publishing, and what another process then has."""

from __future__ import annotations

import json
import shutil

import pytest

from medssl.bundle.bundle import Bundle
from medssl.bundle.finetuned import TuningPlan, build_finetuned
from medssl.bundle.manifest import write_manifest
from medssl.hub.card_signature import is_edited
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from tests.conftest import ROOT, TINY_TASKS, UNCHOSEN, sample
from tests.hub.conftest import READ, Failed
from tests.hub.steps import summary

HEAD, CASES, BACKBONE = (
    "me/medssl-shapes-tiny-dinov2",
    "me/medssl-shapes-tiny-dinov2-cases",
    "me/medssl-backbone-tiny-dinov2",
)


def commits(hub):
    return {repo.repo_id: len(repo.commits) for repo in hub.repos.values()}


def config(hub, repo_id):
    return json.loads(hub.repos["model", repo_id].files["config.json"])


@pytest.fixture(scope="module")
def image(tiny_data):
    return str(sample(tiny_data["shapes"], "stripes"))


@pytest.fixture(scope="module")
def expected(tiny_bundle_folders, image):
    return summary(Bundle.load(tiny_bundle_folders["shapes"]), image)


def test_another_process_gets_the_same_numbers(published, hub, reader, expected, image):
    assert reader.do("analyze", place=HEAD, image=image) == expected
    revision = published["head"]["revision"]
    assert reader.do("analyze", place=HEAD, image=image, revision=revision) == expected


def test_body_and_head_are_tied_to_one_revision_of_each_other(published, hub):
    found = config(hub, HEAD)
    assert found["published"]["cases"]["repo_id"] == CASES
    assert found["published"]["cases"]["revision"] == hub.repos["dataset", CASES].commits[-1][0]
    encoder = hub.repos["model", BACKBONE]
    assert (found["backbone"]["id"], found["backbone"]["revision"]) == (BACKBONE, encoder.commits[-1][0])
    assert all(repo.private for repo in hub.repos.values() if repo.repo_id.startswith("me/medssl-"))
    assert set(hub.repos["model", HEAD].files) >= {"config.json", "model.safetensors", "metrics.json", "README.md"}
    assert published["cases"]["changed"] and published["head"]["changed"] and published["backbone"]["changed"]
    assert all(place not in json.dumps(found) for place in ("/tmp", "/home", "/root"))


def test_the_head_opens_without_its_bundle(published, reader):
    found = reader.do("head", place=HEAD)
    assert found["labels"] == ["dots", "plain", "stripes"] and found["same"]
    assert found["backbone"]["id"] == BACKBONE


def test_publishing_again_makes_no_commit(published, hub, publisher, reader, tiny_bundle_folders, tiny_backbone):
    before = commits(hub)
    again = publisher.do(
        "publish", place=str(tiny_bundle_folders["shapes"]), namespace="me", backbone=str(tiny_backbone)
    )
    assert not any(again[part]["changed"] for part in ("head", "cases", "backbone"))
    assert again["head"]["revision"] == published["head"]["revision"]
    pulled = reader.do("publish", place=HEAD, namespace="me")
    assert pulled["head"]["revision"] == published["head"]["revision"]
    assert commits(hub) == before


def test_the_cases_are_a_data_set_that_a_library_takes(published, reader, tiny_bundle_folders, image):
    found = reader.do("cases", repo_id=CASES, folder=str(tiny_bundle_folders["shapes"]), image=image)
    assert found["type"] == "float32" and found["shape"] == [found["splits"]["train"], 32]
    assert set(found["splits"]) == {"train", "val", "test"} and sum(found["splits"].values()) == 60
    assert found["labels"] == ["dots", "plain", "stripes"] and found["image"] == [64, 64]
    assert found["found"] == found["expected"] and len(found["found"]) == 10


def test_a_hand_edited_card_stays(published, hub, publisher, tiny_bundle_folders, tiny_backbone, tmp_path):
    settings = {"namespace": "me", "backbone": str(tiny_backbone)}
    heads, cases = hub.repos["model", HEAD], hub.repos["dataset", CASES]
    for repo in (heads, cases):
        assert not is_edited(repo.files["README.md"].decode())
        repo.commit({**repo.files, "README.md": repo.files["README.md"].replace(b"## What it is", b"## By my hand")})
    before = commits(hub)
    same = publisher.do("publish", place=str(tiny_bundle_folders["shapes"]), **settings)
    assert commits(hub) == before and same["head"]["kept_card"] and same["cases"]["kept_card"]
    assert "edited by hand" in " ".join(same["lines"])

    folder = shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "shapes")
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "seed": 7}))
    write_manifest(folder)
    changed = publisher.do("publish", place=str(folder), **settings)
    assert changed["head"]["changed"] and not changed["cases"]["changed"]
    assert json.loads(heads.files["metrics.json"])["seed"] == 7
    assert b"By my hand" in heads.files["README.md"] and b"By my hand" in cases.files["README.md"]


@pytest.mark.parametrize("broken", ["head", "cases"])
def test_an_interrupted_publish_leaves_no_head_without_cases(broken, hub, publisher, reader, tiny_bundle_folders):
    name = f"medssl-broken-{broken}"
    repos = {"head": f"me/{name}", "cases": f"me/{name}-cases"}
    place = {"place": str(tiny_bundle_folders["tints"]), "namespace": "me", "name": name}
    backbone = str(Bundle.load(tiny_bundle_folders["tints"]).head.backbone["id"])
    hub.broken.add(repos[broken])
    try:
        with pytest.raises(Failed) as failed:
            publisher.do("publish", **place, backbone=backbone)
    finally:
        hub.broken.clear()
    assert failed.value.kind == "BundleError" and "Traceback" not in failed.value.text
    head = hub.repos.get(("model", repos["head"]))
    assert head is None or "config.json" not in head.files
    with pytest.raises(Failed) as failed:
        reader.do("load", place=repos["head"])
    assert failed.value.kind == "BundleError"

    parquet = len(hub.repos["dataset", repos["cases"]].commits)
    done = publisher.do("publish", **place, backbone=backbone)
    assert done["head"]["changed"] and reader.do("load", place=repos["head"]) == name
    if broken == "head":
        assert len(hub.repos["dataset", repos["cases"]].commits) == parquet, "the cases were there already"


def test_thumbnails_can_stay_at_home(
    published, hub, publisher, reader, tiny_bundle_folders, tiny_backbone, image, expected
):
    done = publisher.do(
        "publish",
        place=str(tiny_bundle_folders["shapes"]),
        namespace="me",
        name="medssl-blind",
        images=False,
        backbone=str(tiny_backbone),
    )
    cases = hub.repos["dataset", done["cases"]["repo_id"]]
    assert not any(b"JFIF" in data for data in cases.files.values())
    found = reader.do("analyze", place="me/medssl-blind", image=image)
    assert found == {**expected, "thumbnails": [False] * 6}


def test_what_cannot_be_published_is_said(published, hub, publisher, tiny_bundle_folders, tiny_backbone):
    before = commits(hub)
    shapes = {"place": str(tiny_bundle_folders["shapes"]), "namespace": "me", "backbone": str(tiny_backbone)}
    for settings, words in (
        ({"token": "hf_wrong"}, "refuses the token"),
        ({"token": READ}, "Hub"),
        ({"private": False}, "is private; you asked for public"),
        ({"backbone": None}, "--backbone DIR"),
        ({"namespace": "not a name"}, "no namespace"),
    ):
        with pytest.raises(Failed, match=words) as failed:
            publisher.do("publish", **{**shapes, **settings})
        assert failed.value.kind == "BundleError"
    assert commits(hub) == before


def test_the_script_publishes_and_its_dry_run_asks_nobody(hub, publisher, tiny_bundle_folders, tiny_backbone):
    asked, name = len(hub.calls), "me/by-script"
    encoder = ["--backbone", str(tiny_backbone), "--namespace", "me"]
    both = ["--bundle", str(tiny_bundle_folders["shapes"]), *encoder, "--name", "by-script"]
    plan = publisher.do("script", name="publish.py", arguments=[*both, "--dry-run"])
    assert plan["code"] == 0 and len(hub.calls) == asked, plan["error"]
    for words in (
        f"private data set repo {name}-cases: 36 train, 12 val, 12 test",
        "with thumbnails",
        "## Calibration",
        "license is unknown; name it by --license",
    ):
        assert words in plan["out"]
    done = publisher.do("script", name="publish.py", arguments=[*both, "--no-images", "--license", "CC BY 4.0"])
    assert done["code"] == 0 and f"head: {name} at " in done["out"] and hub.repos["model", name].private, done["error"]
    refused = publisher.do("script", name="publish.py", arguments=both, token=None)
    assert refused["code"] == 2 and "needs a token" in refused["error"] and "Traceback" not in refused["error"]
    assert b"license: cc-by-4.0" in hub.repos["model", name].files["README.md"]
    alone = publisher.do(
        "script", name="publish.py", arguments=[*encoder, "--name", "encoder", "--public", "--license", "mit"]
    )
    assert b"license: mit\n" in hub.repos["model", "me/encoder"].files["README.md"]
    assert "me/encoder at " in alone["out"] and not hub.repos["model", "me/encoder"].private
    assert set(hub.repos["model", "me/encoder"].files) >= {"config.json", "model.safetensors", "README.md"}


def test_a_demo_bundle_needs_no_backbone_on_the_hub(hub, publisher, reader):
    folder = ROOT / "medssl" / "demo" / "bundles" / "lung-demo"
    done = publisher.do("publish", place=str(folder), namespace="me", private=False, license="apache-2.0")
    assert done["head"]["repo_id"] == "me/medssl-lung-demo-medssl-tiny" and done["backbone"] is None
    assert not done["notes"], "its pictures are medssl's own"
    picture = str(ROOT / "docs" / "demo.png")
    assert reader.do("analyze", place=done["head"]["repo_id"], image=picture) == summary(Bundle.load(folder), picture)


def test_a_tuned_backbone_travels_with_its_bundle(hub, publisher, reader, tiny_data, tiny_backbone, image, tmp_path):
    recipe = FineTuneRecipe(epochs=1, batch_size=12, rank=2)
    plan = TuningPlan(tmp_path / "tuned-dinov2", recipe, anyway=True)
    settings = {"labels": TINY_TASKS["shapes"], "cache_dir": tmp_path / "cache", "progress": False, **UNCHOSEN}
    build_finetuned(tiny_data["shapes"], "shapes", tiny_backbone, tmp_path / "bundle", plan, **settings)
    done = publisher.do("publish", place=str(tmp_path / "bundle"), namespace="tuner", backbone=str(plan.out))
    expected = summary(Bundle.load(tmp_path / "bundle"), image)
    assert reader.do("analyze", place=done["head"]["repo_id"], image=image) == expected
    encoder = hub.repos["model", done["backbone"]["repo_id"]]
    told = config(hub, done["head"]["repo_id"])["backbone"]
    assert (told["id"], told["revision"]) == (encoder.repo_id, encoder.commits[-1][0])
    facts, card = json.loads(encoder.files["finetuning.json"]), encoder.files["README.md"].decode()
    assert facts["base"]["name"] == tiny_backbone.name and encoder.repo_id in card
    assert str(tmp_path) not in json.dumps(facts) + card and not is_edited(card)
