import json
import shutil

import numpy as np
import pytest
from PIL import Image

from medssl.backbones.backbone import Backbone
from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.data.load import load_data
from medssl.errors import BackboneError, BundleError, DataError, ImageError, LibraryError
from medssl.heads.head import ClassificationHead
from tests.conftest import UNCHOSEN
from tests.models import save_model

QUIET = {"progress": False, **UNCHOSEN}
COLORS = {"blue": (60, 90, 200), "green": (60, 180, 80), "red": (210, 70, 60)}


def make_folder(folder, seed=0, count=20, shift=0):
    """Class folders of noisy colour pictures, two pictures a group by metadata."""
    rng = np.random.default_rng(seed)
    lines = ["file_name,label,group_id,source"]
    for label, color in COLORS.items():
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(rng.normal(np.roll(color, shift), 45, (40, 52, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
            lines.append(f"{label}/{index}.png,{label},{label}-{index // 2},camera")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("colours") / "data")


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("built")
    backbone = Backbone.from_pretrained(save_model("dinov2", place / "backbone"))
    bundle = build_bundle(data, "colours", backbone, place / "bundle", cache_dir=place / "cache", **QUIET)
    return bundle, place / "bundle"


def test_the_folder_holds_what_the_design_names(built):
    _, folder = built
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"head/config.json", "head/model.safetensors", "metrics.json", "README.md"} <= found
    assert any(name.startswith("cases/") and name.endswith(".parquet") for name in found)
    assert not list(folder.parent.glob(".bundle*")), "nothing is left beside it"


def test_the_cases_open_as_a_plain_data_set(built):
    from datasets import Dataset

    _, folder = built
    cases = Dataset.from_parquet(str(next(folder.glob("cases/*.parquet"))), cache_dir=str(folder.parent / "hf"))
    assert cases.features["label"].names == sorted(COLORS)
    assert cases.features["embedding"].length == 48
    assert max(cases[0]["image"].size) <= 224
    assert set(cases["split"]) == {"train", "val", "test"}


def test_a_reloaded_bundle_analyses_bit_identically(built, data):
    bundle, folder = built
    again = Bundle.load(folder)
    path = data / "red" / "3.png"
    one, two = bundle.analyze(path), again.analyze(path)
    assert one.prediction == two.prediction
    assert [(c.id, c.score) for c in one.cases] == [(c.id, c.score) for c in two.cases]
    assert np.array_equal(one.explanation.heatmap, two.explanation.heatmap)
    assert again.metrics == bundle.metrics and again.card == bundle.card


def test_one_encode_serves_class_cases_and_explanation(built, data, monkeypatch):
    bundle, _ = built
    counted, plain = [], bundle.backbone.encode
    monkeypatch.setattr(bundle.backbone, "encode", lambda *a, **k: (counted.append(1), plain(*a, **k))[1])
    analysis = bundle.analyze(data / "blue" / "0.png")
    assert len(counted) == 1
    assert analysis.explanation.forward_passes == 2 * analysis.explanation.masks


def test_steps_grow_from_class_to_cases_to_heatmap(built, data):
    bundle, _ = built
    told = []
    first, second, third = bundle.steps(
        data / "blue" / "1.png", progress=lambda fraction, text: told.append((fraction, text))
    )
    assert first.cases is None and first.explanation is None
    assert len(second.cases) == 6 and second.explanation is None
    assert third.explanation.heatmap.shape == (40, 52)
    assert first.prediction == second.prediction == third.prediction
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told) and told[-1][0] == 1.0
    json.dumps(third.to_dict(), allow_nan=False)


def test_another_explainer_can_be_chosen_and_its_heatmap_verified(built, data):
    bundle, _ = built
    assert list(bundle.explainers)[0] == "vit_cx" and "grad_cam" in bundle.explainers
    told = []
    *_, explained, verified = bundle.steps(
        data / "red" / "2.png", method="grad_cam", verify=True, progress=lambda fraction, _text: told.append(fraction)
    )
    assert explained.explanation.method == "grad_cam" and explained.verification is None
    assert told == sorted(told) and told[-1] == 1.0
    assert verified.explanation is explained.explanation and verified.verification.target == "red"
    again = bundle.verify(data / "red" / "2.png", explained.explanation)
    assert again.deletion == verified.verification.deletion and again.insertion == verified.verification.insertion
    plain = json.loads(json.dumps(verified.to_dict(), allow_nan=False))
    assert plain["verification"]["insertion"]["value"] == again.insertion.value and plain["seconds"]["verify"] > 0
    with pytest.raises(BundleError, match="no explainer 'lime'.*vit_cx"):
        bundle.analyze(data / "red" / "2.png", method="lime")


def test_auto_takes_the_explainer_that_the_build_chose(built, data, monkeypatch):
    bundle, _ = built
    picture = data / "red" / "2.png"
    assert bundle.analyze(picture).explained_by.startswith("ViT-CX, not checked")
    assert bundle.analyze(picture).explanation.method == "vit_cx"

    def found(low):
        gap = {"value": 0.2, "low": low, "high": 0.3, "n": 12, "groups": 9}
        return {"explainer_check": {"explainers": {"grad_cam": {"insertion_minus_deletion": 0.4, "less_random": gap}}}}

    monkeypatch.setattr(bundle, "metrics", found(0.1))
    chosen = bundle.analyze(picture)
    assert chosen.explanation.method == "grad_cam" and "+0.200 [+0.100, +0.300]" in chosen.explained_by
    assert chosen.to_dict()["explained_by"] == chosen.explained_by
    assert bundle.open(picture).explanation().method == "grad_cam"
    monkeypatch.setattr(bundle, "metrics", found(-0.1))
    none = bundle.analyze(picture, verify=True)
    assert none.explanation is None and none.verification is None and none.cases
    assert none.explained_by.startswith("No heatmap is shown")
    with pytest.raises(BundleError, match="no explainer of this model beats random maps.*Name one as method"):
        bundle.open(picture).explanation()
    by_hand = bundle.analyze(picture, method="grad_cam")
    assert by_hand.explanation.method == "grad_cam" and "does not beat random maps" in by_hand.explained_by


def test_a_case_is_explained_on_both_sides(built, data):
    bundle, _ = built
    image = data / "green" / "3.png"
    case = bundle.analyze(image, top_k=2, explain=False).cases[1]
    found, by_id = bundle.explain_case(image, case), bundle.explain_case(image, case.id)
    assert by_id.case == case and np.array_equal(by_id.explanation.heatmap, found.explanation.heatmap)
    assert found.explanation.target == case.id and found.explanation.probability == pytest.approx(case.score, abs=1e-5)
    assert found.explanation.heatmap.shape == (40, 52)
    assert found.mirrored.heatmap.shape == case.image.size[::-1]
    # The thumbnail is the case's own picture here: the same cosine, but for low precision of stored embeddings.
    assert found.mirrored.probability == pytest.approx(case.score, abs=0.01)
    with pytest.raises(LibraryError, match="no case 'nobody'"):
        bundle.explain_case(image, "nobody")


def test_the_class_is_right_and_the_cases_agree(built, data):
    bundle, _ = built
    for label in COLORS:
        analysis = bundle.analyze(data / label / "5.png", explain=False)
        assert analysis.prediction.label == label
        assert sum(case.label == label for case in analysis.cases) >= 5
        assert analysis.prediction.label in analysis.prediction.prediction_set
        assert sum(analysis.prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_an_image_is_never_its_own_case_and_a_group_can_be_left_out(built, data):
    bundle, _ = built
    train = [row for row in bundle.cases.remove_columns("image") if row["split"] == "train"]
    names = {row["group_id"] for row in train}
    path = next(p for p in sorted((data / "red").glob("*.png")) if f"red-{int(p.stem) // 2}" in names)
    group = f"red-{int(path.stem) // 2}"
    cases = bundle.analyze(path, explain=False, top_k=len(train)).cases
    assert len(cases) == len(train) - 1
    without = bundle.analyze(path, explain=False, top_k=len(train), exclude_group=group).cases
    assert group not in {case.group_id for case in without}
    assert len(without) == sum(row["group_id"] != group for row in train)


def test_only_train_cases_are_searched(built):
    bundle, _ = built
    splits = dict(zip(bundle.cases["id"], bundle.cases["split"], strict=True))
    assert len(bundle.library) == sum(split == "train" for split in splits.values())


def test_an_unfamiliar_picture_is_flagged(built, data):
    bundle, _ = built
    known = bundle.analyze(data / "green" / "2.png", explain=False).prediction
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    strange = Image.fromarray(
        np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.zeros((64, 64))], -1).astype(np.uint8)
    )
    unknown = bundle.analyze(strange, explain=False).prediction
    assert known.familiarity > unknown.familiarity
    assert unknown.familiar is False


def test_the_metrics_and_the_card_tell_everything(built):
    bundle, folder = built
    metrics = json.loads((folder / "metrics.json").read_text())
    accuracy = metrics["classification"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    for key in ("classification", "retrieval", "unfamiliar", "audit", "seed", "groups", "images"):
        assert key in metrics
    card = (folder / "README.md").read_text()
    for text in ("never a diagnosis", "Audit", bundle.backbone.revision, "seed 0", "blue, green, red", "scikit-learn"):
        assert text in card


def test_building_twice_gives_the_same_bundle(built, data, tmp_path):
    bundle, folder = built
    again = build_bundle(data, "colours", bundle.backbone, tmp_path / "bundle", cache_dir=tmp_path, **QUIET)
    assert again.metrics == bundle.metrics
    for name in ("head/model.safetensors", "head/config.json", "metrics.json"):
        assert (folder / name).read_bytes() == (tmp_path / "bundle" / name).read_bytes()


@pytest.mark.parametrize("family", ["dinov2-registers", "vit", "deit", "resnet"])
def test_every_family_goes_the_whole_way(family, data, tmp_path):
    backbone = Backbone.from_pretrained(save_model(family, tmp_path / "backbone"))
    bundle = build_bundle(data, "colours", backbone, tmp_path / "bundle", cache_dir=tmp_path, **QUIET)
    again = Bundle.load(tmp_path / "bundle")
    path = data / "green" / "7.png"
    one, two = bundle.analyze(path), again.analyze(path)
    assert one.prediction == two.prediction and one.prediction.label == "green"
    assert np.array_equal(one.explanation.heatmap, two.explanation.heatmap)
    assert one.explanation.heatmap.shape == (40, 52)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no bundle folder"),
        (lambda folder: shutil.rmtree(folder / "cases"), "no cases"),
        (lambda folder: shutil.rmtree(folder / "head"), "head.*is missing"),
        (lambda folder: next(folder.glob("cases/*")).write_bytes(b"junk"), "not what the bundle's manifest says"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "not what the bundle's manifest says"),
        (lambda folder: (folder / "manifest.json").unlink() or (folder / "metrics.json").write_text("{"), "be read"),
        (lambda folder: (folder / "manifest.json").unlink() or shutil.rmtree(folder / "head"), "could not be loaded"),
    ],
)
def test_a_broken_bundle_is_refused(built, tmp_path, break_it, message):
    folder = shutil.copytree(built[1], tmp_path / "copy")
    break_it(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.load(folder)


def test_a_wrong_backbone_or_head_is_refused(built, tmp_path):
    bundle, folder = built
    other = Backbone.from_pretrained(save_model("dinov2", tmp_path / "other", seed=5))
    with pytest.raises(BundleError, match="revision"):
        Bundle.load(folder, backbone=other)
    head = ClassificationHead.from_linear(
        bundle.head.linear.weight, bundle.head.linear.bias, ["x", "y", "z"], bundle.backbone
    )
    with pytest.raises(BundleError, match="labels"):
        Bundle(head, bundle.cases, bundle.backbone)


def test_a_missing_backbone_folder_says_how_to_hand_it_in(built, tmp_path):
    folder = shutil.copytree(built[1], tmp_path / "copy")
    path = folder / "head" / "config.json"
    config = json.loads(path.read_text())
    config["backbone"]["id"] = str(tmp_path / "gone")
    path.write_text(json.dumps(config))
    (folder / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"gone.*Bundle\.load\(path, backbone="):
        Bundle.load(folder)
    assert Bundle.load(folder, backbone=built[0].backbone).labels == built[0].labels


def test_saving_never_overwrites_a_folder_that_is_no_bundle(built, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep")
    with pytest.raises(BundleError, match="no bundle"):
        built[0].save(tmp_path / "precious")
    assert (tmp_path / "precious" / "file").read_text() == "keep"


def test_a_failed_save_leaves_the_old_bundle_whole(built, tmp_path, monkeypatch):
    bundle, _ = built
    bundle.save(tmp_path / "bundle")
    before = (tmp_path / "bundle" / "metrics.json").read_bytes()

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(type(bundle.cases), "to_parquet", broken)
    with pytest.raises(BundleError, match="cannot be written.*disk full"):
        bundle.save(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "metrics.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_unknown_target_and_bad_image(built, data):
    bundle, _ = built
    with pytest.raises(BundleError, match="no class 'purple'.*blue, green, red"):
        bundle.analyze(data / "red" / "0.png", target="purple")
    with pytest.raises(ImageError):
        bundle.analyze(b"nothing")


def test_broken_files_are_left_out_and_named(data, built, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "red" / "0.png").write_bytes(b"broken")
    bundle = build_bundle(folder, "colours", built[0].backbone, cache_dir=tmp_path, **QUIET)
    assert len(bundle.cases) == 59
    assert "red/0.png" in json.dumps(bundle.metrics["audit"])


def test_labels_that_do_not_fit_are_refused(data, built, tmp_path):
    with pytest.raises(DataError, match="purple"):
        build_bundle(data, "colours", built[0].backbone, labels=["blue", "purple"], cache_dir=tmp_path, **QUIET)
    with pytest.raises(BackboneError):
        build_bundle(data, "colours", "no-such-backbone", **QUIET)


def test_the_task_is_suggested_by_familiarity(built, tmp_path):
    bundle, _ = built
    folder = make_folder(tmp_path / "other", seed=1, shift=1)
    for path in folder.rglob("*.png"):
        array = np.asarray(Image.open(path)).copy()
        array[::4] = 255 - array[::4]
        Image.fromarray(array).save(path)
    other = build_bundle(folder, "stripes", bundle.backbone, cache_dir=tmp_path, **QUIET)
    bundles = {"colours": bundle, "stripes": other}
    striped = sorted(folder.rglob("*.png"))
    right = [suggest_task(bundles, path)[0].name == "stripes" for path in striped[:12]]
    assert np.mean(right) > 0.8
    dataset = load_data(folder)
    assert {s.name for s in suggest_task(bundles, dataset[0]["image"]["path"])} == set(bundles)
