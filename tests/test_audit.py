"""The audit finds what is planted, and nothing in clean data; on real data it finds the known confounds."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from medssl.audit import audit_data
from medssl.data import load_data

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("file_name", "label", "split", "group_id", "source")


class Folder:
    """An image folder that is written file by file; `write` gives the data set."""

    def __init__(self, root):
        self.root, self.rows = root, []
        root.mkdir()

    def add(self, name, label, split="train", group="", source="", image=None, **options):
        if isinstance(image, bytes):
            (self.root / name).write_bytes(image)
        else:
            image.save(self.root / name, **options)
        self.rows.append(dict(zip(COLUMNS, (name, label, split, group, source), strict=True)))

    def write(self):
        with open(self.root / "metadata.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return load_data(self.root)


def blobs(seed, size=64, tint=(1, 1, 1)):
    """A smooth random picture, equal statistics for every seed."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (9, 9)).astype(np.uint8)
    grey = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(grey[..., None] * tint, 0, 255).astype(np.uint8))


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
    assert "near duplicate" not in kinds(audit_data(folder.write(), progress=False))


def test_group_across_splits(clean):
    clean.add("again.png", "a", "test", "g0", image=blobs(99))
    found = kinds(audit_data(clean.write(), progress=False))["group across splits"]
    assert (found.severity, found.count, found.examples) == ("error", 1, ["g0: test, train"])


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
    source = next(item for item in audit.shortcuts if item.name == "source")
    assert source.best_class == "c" and source.balanced_accuracy < 0.8


def test_a_source_for_each_image_is_no_confound(clean):
    for row in clean.rows:
        row["source"] = row["file_name"]
    assert kinds(audit_data(clean.write(), progress=False)) == {}


def test_same_seed_same_audit_in_plain_json(clean):
    clean.add("leak.png", "a", "test", "x1", image=blobs(0))
    data = clean.write()
    first = audit_data(data, seed=3, progress=False).to_dict()
    assert json.loads(json.dumps(first)) == first == audit_data(data, seed=3, progress=False).to_dict()


def script(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_script(clean, tmp_path):
    clean.write()
    done = script("--data", clean.root, "--out", tmp_path / "findings.json")
    assert done.returncode == 0 and "60 images audited" in done.stdout and "audit" in done.stderr, done.stderr
    assert json.loads((tmp_path / "findings.json").read_text("utf-8"))["findings"] == []
    clean.add("broken.png", "a", image=b"x")
    clean.write()
    done = script("--data", clean.root, "--quiet")
    assert done.returncode == 1 and "broken.png" in done.stdout and not done.stderr


def test_script_that_cannot_run(clean, tmp_path):
    clean.write()
    for arguments in (("--data", tmp_path / "gone"), ("--data", clean.root, "--out", tmp_path / "no" / "x.json")):
        done = script(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert done.stdout == ""


REAL = os.environ.get("MEDSSL_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="MEDSSL_REAL_DATA is not set: the audit of the real images was not tested")
def test_real_brain_source_gives_the_label_away():
    audit = audit_data(load_data(Path(REAL) / "data" / "brain"), progress=False)
    assert audit.undecodable == [] and audit.errors == []
    assert "no_tumor 1.00" in kinds(audit)["source confound"].message
    border = next(item for item in audit.shortcuts if item.name == "border")
    assert border.best_class == "no_tumor" and border.auroc["no_tumor"] > 0.95
