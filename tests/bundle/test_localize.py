"""When a build fits a localizer, what it records, and what a bundle on disk needs of it."""

import csv
import shutil

import pytest

from medssl.bundle.build import BuildOptions, build_bundle
from medssl.bundle.bundle import Bundle
from medssl.bundle.localize import describe_localizer, why_no_localizer
from medssl.bundle.manifest import MANIFEST_FILE, write_manifest
from medssl.data.load import load_data
from medssl.errors import BundleError
from tests.conftest import UNCHOSEN


def with_boxes(source, place, keep):
    """A copy of the data with the boxes of those lines only for which `keep(number within its class and split)`."""
    shutil.copytree(source, place)
    with open(place / "metadata.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {}
    for row in rows:
        key = row["label"], row["split"]
        seen[key] = seen.get(key, -1) + 1
        if not keep(*key, seen[key]):
            row.update(dict.fromkeys(("box_left", "box_top", "box_right", "box_bottom"), ""))
    with open(place / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return place


def test_the_figures_are_recorded_and_said(lesion_bundle):
    record = lesion_bundle.metrics["localizer"]
    assert record["labels"] == ["cold", "warm"] and record["pictures"] == 24
    said = describe_localizer(record)
    assert "fitted on 24 pictures" in said and "validation pictures" in said and "test pictures" in said
    assert lesion_bundle.localizer.config.hit_rate == record["held_out"]["hit_rate"]


def test_too_few_boxes_give_none_and_a_reason(lesion_data, tiny_backbone, tmp_path):
    few = with_boxes(lesion_data, tmp_path / "few", lambda label, split, number: number < (3 if label == "warm" else 9))
    assert "3 of warm; 5 of each class are needed" in why_no_localizer(load_data(few))
    bundle = build_bundle(few, "discs", tiny_backbone, progress=False, **UNCHOSEN)
    assert bundle.localizer is None
    assert "Lesion map: none, too few training pictures" in describe_localizer(bundle.metrics["localizer"])


def test_without_boxes_nothing_is_said(tiny_bundles):
    for bundle in tiny_bundles.values():
        assert bundle.localizer is None and "localizer" not in bundle.metrics


def test_a_handful_in_train_alone_is_enough(lesion_data, tiny_backbone, tmp_path):
    """Five boxes a class, as they are drawn in minutes, and none in validation: folds of train decide."""
    five = with_boxes(lesion_data, tmp_path / "five", lambda _, split, number: split == "train" and number < 5)
    bundle = build_bundle(five, "discs", tiny_backbone, progress=False, **UNCHOSEN)
    held = bundle.metrics["localizer"]["held_out"]
    assert held["name"] == "held-out training" and held["hit_rate"]["n"] == 10
    assert "test" not in bundle.metrics["localizer"]


def test_it_can_be_left_out(lesion_data, tiny_backbone):
    bundle = build_bundle(lesion_data, "discs", tiny_backbone, progress=False, localizer=False, **UNCHOSEN)
    assert bundle.localizer is None and "localizer" not in bundle.metrics
    assert BuildOptions().localizer


def test_a_damaged_localizer_is_refused_and_a_bundle_without_one_loads(lesion_bundle_folder, tmp_path):
    folder = shutil.copytree(lesion_bundle_folder, tmp_path / "b")
    weights = folder / "localizer" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match="localizer/model.safetensors is not what the bundle's manifest says"):
        Bundle.load(folder)
    shutil.rmtree(folder / "localizer")
    with pytest.raises(BundleError, match="localizer.*is missing, but the bundle's manifest lists it"):
        Bundle.load(folder)
    write_manifest(folder)
    assert Bundle.load(folder).localizer is None
    shutil.copytree(lesion_bundle_folder / "localizer", folder / "localizer")
    with pytest.raises(BundleError, match="localizer/config.json is not in the bundle's manifest"):
        Bundle.load(folder)
    assert (folder / MANIFEST_FILE).is_file()
