"""A bundle is not measured on the images that it was fitted on, whatever they are called now."""

import shutil

import numpy as np
import pytest
from PIL import Image

from medssl.bundle.evaluate import evaluate_bundle
from medssl.errors import DataError
from tests.conftest import TINY_TASKS, make_folder


def test_known_images_are_said_and_not_counted(tiny_bundles, tiny_data, tmp_path):
    bundle = tiny_bundles["shapes"]
    fresh = make_folder(tmp_path / "data", TINY_TASKS["shapes"], seed=77, count=30)
    splits = dict(zip(bundle.cases["id"], bundle.cases["split"], strict=True))
    table = (fresh / "metadata.csv").read_text()
    for index, path in enumerate(sorted(tiny_data["shapes"].glob("dots-*.png"))[:8]):
        Image.open(path).save(fresh / f"renamed{index}.bmp")
        table += f"renamed{index}.bmp,dots,test,new-{index},elsewhere\n"
    (fresh / "metadata.csv").write_text(table)
    figures = evaluate_bundle(bundle, fresh, "all", cache_dir=tmp_path / "cache", progress=False)
    assert 0 < figures["known_images"] <= 8
    assert figures["images"] == 30 + 8 - figures["known_images"]
    assert set(splits.values()) == {"train", "val", "test"}


def test_the_bundles_own_test_split_is_measured_as_in_the_build(tiny_bundles, tiny_data, tmp_path):
    bundle = tiny_bundles["shapes"]
    figures = evaluate_bundle(bundle, tiny_data["shapes"], "test", cache_dir=tmp_path, progress=False)
    assert figures["known_images"] == 0
    assert figures["classification"]["accuracy"] == bundle.metrics["classification"]["accuracy"]


def test_nothing_but_known_images_is_refused(tiny_bundles, tiny_data, tmp_path):
    with pytest.raises(DataError, match="training or validation images.*nothing to measure on"):
        evaluate_bundle(tiny_bundles["shapes"], tiny_data["shapes"], "train", cache_dir=tmp_path, progress=False)


def test_unreadable_files_and_missing_splits_are_said(tiny_bundles, tmp_path):
    fresh = make_folder(tmp_path / "data", TINY_TASKS["shapes"], seed=78, count=30)
    (fresh / "dots-000.png").write_bytes(b"broken")
    figures = evaluate_bundle(tiny_bundles["shapes"], fresh, "all", cache_dir=tmp_path, progress=False)
    assert figures["unreadable"] == ["dots-000.png"] and figures["images"] == 29
    table = (fresh / "metadata.csv").read_text().replace(",test,", ",train,")
    (fresh / "metadata.csv").write_text(table)
    with pytest.raises(DataError, match="no split 'test'; it has: train, val"):
        evaluate_bundle(tiny_bundles["shapes"], fresh, cache_dir=tmp_path, progress=False)
    for label in TINY_TASKS["shapes"]:
        (tmp_path / "plain" / label).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "plain" / label / "1.png")
    with pytest.raises(DataError, match="no split 'test'; it has: none"):
        evaluate_bundle(tiny_bundles["shapes"], tmp_path / "plain", cache_dir=tmp_path, progress=False)
    shutil.rmtree(tmp_path / "plain")


def test_other_pictures_of_known_patients_are_counted_and_said(tiny_bundles, tmp_path, capsys):
    bundle = tiny_bundles["shapes"]
    fresh = make_folder(tmp_path / "data", TINY_TASKS["shapes"], seed=78, count=30)
    known = next(g for g, s in zip(bundle.cases["group_id"], bundle.cases["split"], strict=True) if s == "train")
    lines = (fresh / "metadata.csv").read_text().splitlines()
    place = lines[0].split(",").index("group_id")
    for number in range(1, len(lines)):
        cells = lines[number].split(",")
        cells[place] = known.upper() if number <= 4 else f"elsewhere-{number}"
        lines[number] = ",".join(cells)
    (fresh / "metadata.csv").write_text("\n".join(lines))
    figures = evaluate_bundle(bundle, fresh, "all", cache_dir=tmp_path / "cache", progress=False)
    assert figures["known_groups"] == 4 and figures["images"] == 30
