"""The audit finds what is planted, and nothing in clean data; on real data it finds the known confounds."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medssl.audit.audit import Audit, audit_data, audit_neighbors
from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import embed, with_embeddings
from medssl.data.load import load_data
from tests import warm
from tests.folders import Folder, blobs

ROOT = Path(__file__).resolve().parents[2]


TURNED = {
    "mirrored left-right": Image.Transpose.FLIP_LEFT_RIGHT,
    "mirrored top-bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "turned by 180 degrees": Image.Transpose.ROTATE_180,
    # The turn that makes the copy the first picture again.
    "turned by 90 degrees": Image.Transpose.ROTATE_270,
    "turned by 270 degrees": Image.Transpose.ROTATE_90,
    "mirrored on the diagonal": Image.Transpose.TRANSPOSE,
    "mirrored on the other diagonal": Image.Transpose.TRANSVERSE,
}


@pytest.fixture
def clean(tmp_path):
    """60 different pictures of two labels that nothing trivial tells apart, in three splits."""
    folder = Folder(tmp_path / "data")
    for index in range(60):
        split = ("train", "train", "train", "val", "test")[index // 2 % 5]
        folder.add(f"{index}.png", "ab"[index % 2], split, f"g{index // 2}", "", blobs(index))
    return folder


def kinds(audit):
    return {finding.kind: finding for finding in audit.findings}


def test_clean_data_has_no_findings(clean):
    audit = audit_data(clean.write(), progress=False)
    assert audit.findings == [] and audit.undecodable == [] and audit.images == 60
    assert all(abs(item.balanced_accuracy - 0.5) < 0.25 for item in audit.shortcuts), audit.shortcuts
    assert "0 error" in audit.table()


def test_broken_files_are_named_and_do_not_stop_it(clean):
    clean.add("empty.png", "a", image=b"")
    clean.add("cut.png", "b", image=(clean.root / "1.png").read_bytes()[:300])
    clean.add("text.jpg", "b", image=b"not an image at all")
    audit = audit_data(clean.write(), progress=False)
    assert audit.undecodable == ["empty.png", "cut.png", "text.jpg"]
    found = kinds(audit)["undecodable"]
    assert (found.severity, found.count) == ("error", 3) and "text.jpg" in str(found.examples)


def test_all_files_broken(tmp_path):
    folder = Folder(tmp_path / "data")
    for index in range(4):
        folder.add(f"{index}.png", "ab"[index % 2], image=b"x")
    audit = audit_data(folder.write(), progress=False)
    assert len(audit.undecodable) == 4 and audit.shortcuts == [] and len(audit.errors) == 1


def test_exact_duplicates_leaks_and_conflicts(clean):
    clean.add("same.bmp", "a", "train", "g0", image=blobs(0))
    clean.add("leak.png", "a", "test", "x1", image=blobs(0))
    clean.add("conflict.png", "a", "train", "x2", image=blobs(1))
    audit = audit_data(clean.write(), progress=False)
    found = kinds(audit)
    assert set(found) == {"exact duplicate", "exact duplicate across splits", "label conflict, exact duplicate"}
    assert found["exact duplicate"].count == 3 and found["exact duplicate"].severity == "warning"
    leak, conflict = found["exact duplicate across splits"], found["label conflict, exact duplicate"]
    assert (leak.severity, leak.count, leak.examples) == ("error", 1, ["0.png (train) = leak.png (test)"])
    assert (conflict.severity, conflict.examples) == ("error", ["1.png (b) = conflict.png (a)"])


def altered(image, how):
    if how == "brighter":
        return image.point(lambda value: value * 0.9 + 12)
    if how == "contrast":
        return ImageEnhance.Contrast(image).enhance(1.08)
    return image.resize((48, 48), Image.Resampling.BICUBIC) if how == "smaller" else image


@pytest.mark.parametrize("how", ["jpeg", "brighter", "contrast", "smaller"])
def test_near_duplicates(clean, how):
    options = {"quality": 60} if how == "jpeg" else {}
    suffix = "jpg" if how == "jpeg" else "png"
    for index in (0, 7, 20, 33):
        clean.add(
            f"near{index}.{suffix}", "ab"[index % 2], "test", f"n{index}", image=altered(blobs(index), how), **options
        )
    clean.add(f"other.{suffix}", "a", "train", "n1", image=altered(blobs(11), how), **options)
    found = kinds(audit_data(clean.write(), progress=False))
    assert set(found) == {"near duplicate", "near duplicate across splits", "label conflict, near duplicate"}
    assert found["near duplicate"].count == 5
    leaks = found["near duplicate across splits"]
    assert leaks.severity == "error" and f"33.png (train) = near33.{suffix} (test)" in leaks.examples
    assert found["label conflict, near duplicate"].examples == [f"11.png (b) = other.{suffix} (a)"]


def test_one_layout_is_no_duplicate(tmp_path):
    """Discs on black, as retinas are: raw thumbnails correlate above 0.97, yet no two are one picture."""
    folder = Folder(tmp_path / "data")
    rows, columns = np.mgrid[:64, :64] - 31.5
    disc = ((rows**2 + columns**2) < 900)[..., None]
    thumbnails = []
    for index in range(40):
        inside = 150 + (np.asarray(blobs(index), float) - 128) * 0.15
        image = Image.fromarray((disc * inside).astype(np.uint8))
        thumbnails.append(np.asarray(image.convert("L").resize((32, 32)), float).ravel())
        folder.add(f"{index}.png", "ab"[index % 2], image=image)
    assert np.corrcoef(thumbnails).min() > 0.95
    assert not {"near duplicate", "turned copy"} & set(kinds(audit_data(folder.write(), progress=False)))


def test_plain_discs_are_no_turned_copies(tmp_path):
    """As retinas behind a cataract: what is left of them fits in every pose."""
    folder = Folder(tmp_path / "data")
    rows, columns = np.mgrid[:64, :64] - 31.5
    for index in range(40):
        tilt = np.random.default_rng(index).normal(0, 0.3, 2)
        gray = (rows**2 + columns**2 < 900) * (150 + tilt[0] * rows + tilt[1] * columns)
        folder.add(f"{index}.png", "ab"[index % 2], image=Image.fromarray(gray.astype(np.uint8)))
    assert "turned copy" not in kinds(audit_data(folder.write(), progress=False))


@pytest.mark.parametrize("turn", TURNED)
def test_turned_copies(clean, turn):
    for index in (0, 7, 33):
        image = blobs(index).transpose(TURNED[turn])
        clean.add(f"turned{index}.jpg", "ab"[index % 2], "test", f"n{index}", image=image, quality=85)
    clean.add("other.png", "a", "train", "n1", image=blobs(11).transpose(TURNED[turn]))
    audit = audit_data(clean.write(), progress=False)
    found = kinds(audit)
    assert set(found) == {"turned copy", "turned copy across splits", "label conflict, turned copy"}
    assert (found["turned copy"].severity, found["turned copy"].count) == ("info", 4)
    leaks = found["turned copy across splits"]
    assert (leaks.severity, leaks.count) == ("error", 3)
    assert f"33.png (train) = turned33.jpg (test), {turn}" in leaks.examples
    assert {pair.turn for pair in leaks.pairs} == {turn} and min(pair.similarity for pair in leaks.pairs) > 0.97
    assert found["label conflict, turned copy"].severity == "warning"


def test_group_across_splits(clean):
    clean.add("again.png", "a", "test", "g0", image=blobs(99))
    found = kinds(audit_data(clean.write(), progress=False))["group across splits"]
    assert (found.severity, found.count, found.examples) == ("error", 1, ["g0: test, train"])
    (pair,) = found.pairs
    assert pair.rows[1] == 60 and pair.rows[0] in (0, 1) and pair.files[1] == "again.png" and pair.similarity < 0.9


def test_pairs_are_kept_as_data_with_rows_of_the_data_set(clean):
    clean.add("broken.png", "a", image=b"x")
    clean.add("leak.png", "a", "test", "x1", image=blobs(0))
    data = clean.write()
    (pair,) = kinds(audit_data(data, progress=False))["exact duplicate across splits"].pairs
    assert [data[row]["file_name"] for row in pair.rows] == pair.files == ["0.png", "leak.png"]
    assert (pair.similarity, pair.measure, pair.turn) == (1.0, "equal pixels", "")


def test_the_most_similar_pairs_are_kept(clean):
    for copy in range(70):
        clean.add(f"copy{copy}.png", "a", "train", "g0", image=blobs(0))
    found = kinds(audit_data(clean.write(), progress=False))["exact duplicate"]
    assert found.count == 70 and len(found.pairs) == 50


def test_class_imbalance(clean):
    for index in range(100, 200):
        clean.add(f"{index}.png", "a", "train", f"g{index}", image=blobs(index))
    found = kinds(audit_data(clean.write(), progress=False))["class imbalance"]
    assert found.severity == "info" and "a 130, b 30" in found.message


@pytest.mark.parametrize(("fact", "told"), [("size", "image size"), ("colour", "mean colour"), ("rim", "border")])
def test_shortcuts(tmp_path, fact, told):
    folder = Folder(tmp_path / "data")
    for index in range(60):
        tell = index % 2 == 1
        image = blobs(
            index, 72 if fact == "size" and tell else 64, (1, 0.8, 0.8) if fact == "colour" and tell else (1, 1, 1)
        )
        if fact == "rim" and tell:
            image.paste((0, 0, 0), (0, 0, 64, 3))
        folder.add(f"{index}.png", "ab"[index % 2], image=image)
    audit = audit_data(folder.write(), progress=False)
    scores = {item.name: item.balanced_accuracy for item in audit.shortcuts}
    assert scores[told] > 0.9
    assert any(item.kind == "shortcut" and f"From {told} alone" in item.message for item in audit.findings)
    if fact != "size":
        assert scores["image size"] == 0.5
    assert audit.errors == []


def test_source_that_gives_one_of_three_labels_away(tmp_path):
    """As in brain: two labels share a source, so the overall accuracy stays modest, but one label is given away."""
    folder = Folder(tmp_path / "data")
    for index in range(60):
        label = "abc"[index % 3]
        folder.add(f"{index}.png", label, source="clinic 2" if label == "c" else "clinic 1", image=blobs(index))
    audit = audit_data(folder.write(), progress=False)
    found = kinds(audit)["source confound"]
    assert found.severity == "warning" and "c 1.00" in found.message
    association = next(item for item in audit.associations if item.name == "source")
    assert association.v_by_class["c"] == pytest.approx(1) and association.v_by_class["a"] < 0.6
    assert association.counts == {"clinic 1": {"a": 20, "b": 20, "c": 0}, "clinic 2": {"a": 0, "b": 0, "c": 20}}
    assert "Cramer's V" in audit.table() and "clinic 2" in audit.table()
    source = next(item for item in audit.shortcuts if item.name == "source")
    assert source.best_class == "c" and source.balanced_accuracy < 0.8


def framed(index, side):
    """A picture on a black ground that shows `side` px of it, brightness and content of no class."""
    image = Image.new("RGB", (64, 64))
    image.paste(blobs(index).point(lambda value: 60 + value * 0.7).resize((side, 64)), ((64 - side) // 2, 0))
    return image


@pytest.mark.parametrize("confounded", [True, False])
def test_a_camera_for_a_label(tmp_path, confounded):
    """As in eye: no source column says so, but one of three labels was taken with another camera."""
    folder = Folder(tmp_path / "data")
    for index in range(90):
        narrow = index % 3 == 2 if confounded else index // 3 % 3 == 2
        folder.add(f"{index}.png", "abc"[index % 3], image=framed(index, 40 if narrow else 60))
    audit = audit_data(folder.write(), progress=False)
    found, frame = kinds(audit), next((item for item in audit.associations if item.name == "frame"), None)
    assert ("camera confound" in found) == confounded
    if confounded:
        assert found["camera confound"].severity == "warning" and "c 1.00" in found["camera confound"].message
        assert frame.v_by_class["c"] > 0.9
    else:
        assert frame.strongest < 0.3 and audit.findings == []


def test_random_labels_and_sources_are_no_confound(tmp_path):
    rng = np.random.default_rng(0)
    folder = Folder(tmp_path / "data")
    for index in range(120):
        label, source = rng.choice(list("abc")), rng.choice(["north", "south"])
        folder.add(f"{index}.png", str(label), group=f"g{index // 3}", source=str(source), image=blobs(index))
    audit = audit_data(folder.write(), progress=False)
    assert audit.findings == [] and audit.associations[0].v < 0.2
    assert all(item.low < item.balanced_accuracy < item.high for item in audit.shortcuts)
    assert sum(item.low <= item.chance <= item.high for item in audit.shortcuts) >= len(audit.shortcuts) - 1


def test_a_source_for_each_image_is_no_confound(clean):
    for row in clean.rows:
        row["source"] = row["file_name"]
    assert kinds(audit_data(clean.write(), progress=False)) == {}


def test_same_seed_same_audit_in_plain_json(clean):
    clean.add("leak.png", "a", "test", "x1", image=blobs(0))
    data = with_embeddings(clean.write(), np.random.default_rng(0).normal(size=(61, 8)))
    audit = audit_data(data, seed=3, progress=False)
    first = audit.to_dict()
    assert json.loads(json.dumps(first)) == first == audit_data(data, seed=3, progress=False).to_dict()
    assert Audit.from_dict(first) == audit and audit.neighbors is not None


def test_an_audit_of_before_embeddings_is_read(clean):
    found = audit_data(clean.write(), progress=False).to_dict()
    for name in ("associations", "neighbors"):
        del found[name]
    assert Audit.from_dict(found).neighbors is None


def test_embeddings_add_what_hashes_miss(clean, tiny_backbone):
    """A cropped copy: no hash agrees, and to the backbone it is the same picture."""
    clean.add("crop.png", "a", "test", "x1", image=blobs(0).crop((1, 1, 63, 63)).rotate(3, fillcolor=(128,) * 3))
    data = clean.write()
    vectors = np.random.default_rng(0).normal(size=(61, 16))
    vectors[60] = vectors[0] + 0.01 * vectors[1]
    before = audit_data(data, progress=False)
    assert "exact duplicate" not in kinds(before) and "Nearest images" not in before.table()
    after = audit_neighbors(before, with_embeddings(data, vectors))
    leaks = kinds(after)["alike in embedding across splits"]
    assert (leaks.severity, leaks.examples) == ("warning", ["0.png (train) = crop.png (test)"])
    assert "Nearest images" in after.table() and after.findings[: len(before.errors)] == before.errors
    embedded = embed(data, Backbone.from_pretrained(tiny_backbone), cache_dir=clean.root.parent, progress=False)
    assert audit_data(embedded, progress=False) == audit_neighbors(before, embedded)


def script(*arguments):
    return warm.run([ROOT / "scripts" / "audit.py", *arguments])


def test_script(clean, tmp_path):
    clean.write()
    done = script("--data", clean.root, "--out", tmp_path / "findings.json")
    assert done.returncode == 0 and "60 images audited" in done.stdout and "audit" in done.stderr, done.stderr
    assert json.loads((tmp_path / "findings.json").read_text("utf-8"))["findings"] == []
    clean.add("broken.png", "a", image=b"x")
    clean.write()
    done = script("--data", clean.root, "--quiet")
    assert done.returncode == 1 and "broken.png" in done.stdout and not done.stderr


def test_script_with_a_backbone(clean, tiny_backbone, tmp_path):
    clean.add("broken.png", "b", image=b"x")
    clean.write()
    more = ("--backbone", tiny_backbone, "--cache", tmp_path, "--out", tmp_path / "findings.json", "--quiet")
    done = script("--data", clean.root, *more)
    assert done.returncode == 1 and "Nearest images by their embeddings" in done.stdout, done.stderr
    found = json.loads((tmp_path / "findings.json").read_text("utf-8"))
    assert found["neighbors"]["images"] == 60 and found["neighbors"]["same_group"]["value"] == 0


def test_script_that_cannot_run(clean, tmp_path):
    clean.write()
    for arguments in (("--data", tmp_path / "gone"), ("--data", clean.root, "--out", tmp_path / "no" / "x.json")):
        done = script(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert done.stdout == ""


REAL = os.environ.get("MEDSSL_REAL_DATA")


needs_real = pytest.mark.skipif(
    not REAL, reason="MEDSSL_REAL_DATA is not set: the audit of the real images was not tested"
)


@needs_real
def test_real_brain_source_gives_the_label_away():
    audit = audit_data(load_data(Path(REAL) / "data" / "brain"), progress=False)
    found = kinds(audit)
    assert audit.undecodable == []
    assert found["source confound"].severity == "warning" and "no_tumor 1.00" in found["source confound"].message
    source = next(item for item in audit.associations if item.name == "source")
    assert source.v_by_class["no_tumor"] > 0.95 and source.groups == 364
    border = next(item for item in audit.shortcuts if item.name == "border")
    assert border.best_class == "no_tumor" and border.auroc["no_tumor"] > 0.95
    # Pictures of no tumour are there mirrored and turned, in different splits; nothing else leaks.
    assert [item.kind for item in audit.errors] == ["turned copy across splits"]
    assert all(file.startswith("no_tumor/") for pair in found["turned copy"].pairs for file in pair.files)


@needs_real
def test_real_eye_camera_gives_the_label_away():
    """No source column tells: all are said to come from one set."""
    audit = audit_data(load_data(Path(REAL) / "data" / "eye"), progress=False)
    found = kinds(audit)["camera confound"]
    assert found.severity == "warning" and "diabetic_retinopathy 1.00" in found.message
    (frame,) = audit.associations
    assert frame.name == "frame" and max(frame.v_by_class, key=frame.v_by_class.get) == "diabetic_retinopathy"
    assert frame.v_by_class["diabetic_retinopathy"] > 0.7 and frame.p_value < 1e-6


@needs_real
def test_real_lung_has_no_camera_or_source_confound():
    found = kinds(audit_data(load_data(Path(REAL) / "data" / "lung"), progress=False))
    assert not {"camera confound", "source confound"} & set(found)
    assert "turned copy" in found and "turned copy across splits" not in found
