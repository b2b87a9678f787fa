"""The benchmark of explainers on a tiny bundle: its table, its figures, and what it refuses."""

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl.bundle.bundle import Bundle
from medssl.bundle.manifest import write_manifest
from medssl.data.load import load_data
from medssl.errors import DataError
from medssl.hub.card_signature import is_edited

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))

import faithfulness  # noqa: E402
import variants  # noqa: E402

BOX = {"box_left": "0.1", "box_top": "0.2", "box_right": "0.6", "box_bottom": "0.7"}


def arguments(*given):
    parser = argparse.ArgumentParser()
    faithfulness.add_arguments(parser)
    return parser.parse_args([*map(str, given), "--quiet"])


@pytest.fixture(scope="module")
def boxed_data(tiny_data, tmp_path_factory):
    """The shapes folder, every third image of it with a box."""
    folder = tmp_path_factory.mktemp("boxed") / "shapes"
    folder.mkdir()
    for file in tiny_data["shapes"].glob("*.png"):
        (folder / file.name).write_bytes(file.read_bytes())
    with open(tiny_data["shapes"] / "metadata.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *BOX])
        writer.writeheader()
        writer.writerows(row | (BOX if number % 3 == 0 else {}) for number, row in enumerate(rows))
    return folder


@pytest.fixture(scope="module")
def measured(tiny_bundle_folders, boxed_data, tmp_path_factory):
    text = tmp_path_factory.mktemp("table") / "table.md"
    given = ("--bundle", tiny_bundle_folders["shapes"], "--data", boxed_data, "--n", 6, "--explainers", "vit_cx")
    parsed = arguments(*given, "--steps", 4, "--sanity", 2, "--resamples", 50, "--out-md", text)
    return faithfulness.run(parsed), faithfulness.run(parsed), text.read_text("utf-8")


def test_every_figure_has_an_interval_and_the_control_stands_beside(measured):
    figures, _, text = measured
    (found,) = figures["bundles"].values()
    assert json.loads(json.dumps(figures)) == figures
    assert found["images"] == 6 and found["boxes"] == 4 and found["box_area"] == pytest.approx(0.25, abs=0.02)
    assert list(found["explainers"]) == ["vit_cx", "random"]
    for name, row in found["explainers"].items():
        for metric in ("deletion", "insertion", "insertion_minus_deletion", "pointing", "energy", "randomisation"):
            figure = row[metric]
            assert figure is None or figure["low"] is None or figure["low"] <= figure["value"] <= figure["high"]
        assert row["deletion"]["n"] == 6 and row["pointing"]["n"] == row["energy"]["n"] == 4
        assert 0 <= row["pointing"]["value"] <= 1 and row["forward_passes"]["value"] >= 1
        assert ("difference" in row) == (name != "random")
    vit_cx, random = (found["explainers"][name]["insertion_minus_deletion"]["value"] for name in ("vit_cx", "random"))
    assert found["explainers"]["vit_cx"]["difference"]["value"] == pytest.approx(vit_cx - random)
    assert found["explainers"]["random"]["randomisation"] == found["explainers"]["random"]["randomisation"] | {
        "value": pytest.approx(1),
        "n": 2,
    }
    assert "deletion ↓" in text and "6 images of" in text and text.count("\n| ") >= 4


def test_the_same_seed_gives_the_same_figures(measured):
    def plain(figures):
        (found,) = figures["bundles"].values()
        return {
            (name, metric): figure
            for name, row in found["explainers"].items()
            for metric, figure in row.items()
            if metric != "seconds"
        }

    first, second, _ = measured
    assert plain(first) == plain(second)


def test_images_with_a_box_come_first_and_the_seed_chooses(boxed_data):
    dataset = load_data(boxed_data)
    rows = faithfulness.choose(dataset, "test", 6, 0)
    boxed = [dataset[row]["box_left"] is not None for row in rows]
    assert boxed == sorted(boxed, reverse=True) and {dataset[row]["split"] for row in rows} == {"test"}
    assert rows == faithfulness.choose(dataset, "test", 6, 0)
    assert rows != faithfulness.choose(dataset, "test", 6, 1)
    assert len(faithfulness.choose(dataset, "all", 1000, 0)) == len(dataset) == 60
    with pytest.raises(DataError, match="no split 'exam'; found: test, train, val"):
        faithfulness.choose(dataset, "exam", 6, 0)


def test_means_weigh_groups_and_leave_out_what_is_unknown():
    found = faithfulness.summarize("energy", [0.2, 0.4, np.nan], ["a", "b", "c"], 200, 0)
    assert found["value"] == pytest.approx(0.3) and found["n"] == found["groups"] == 2
    assert found["low"] == pytest.approx(0.2) and found["high"] == pytest.approx(0.4)
    assert faithfulness.summarize("energy", [np.nan], ["a"], 10, 0) is None
    perfect = faithfulness.summarize("pointing", [1.0] * 5, list("abcde"), 50, 0)
    assert perfect["high"] == 1 and 0.4 < perfect["low"] < 0.6
    assert faithfulness.summarize("deletion", [1.0], ["a"], 50, 0)["low"] is None


def test_every_explainer_that_fits_is_measured_by_default(tiny_bundle_folders, tiny_data):
    from medssl.explain.registry import EXPLAINERS

    given = ("--bundle", tiny_bundle_folders["tints"], "--data", tiny_data["tints"], "--n", 1, "--steps", 2)
    (found,) = faithfulness.run(arguments(*given, "--resamples", 10))["bundles"].values()
    assert list(found["explainers"]) == [name for name in EXPLAINERS if name != "evidence_map"]
    assert found["boxes"] == 0 and found["box_area"] is None
    assert all(row["pointing"] is None and row["deletion"]["n"] == 1 for row in found["explainers"].values())


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="2 bundles and 1 data sets"):
        faithfulness.run(arguments("--bundle", "a", "b", "--data", "c"))
    with pytest.raises(DataError, match="--n 0"):
        faithfulness.run(arguments("--bundle", "a", "--data", "c", "--n", 0))


def test_the_likeness_to_a_case_is_measured_too(tiny_bundle_folders, tiny_data):
    given = ("--bundle", tiny_bundle_folders["shapes"], "--data", tiny_data["shapes"], "--n", 3, "--of", "case")
    figures = faithfulness.run(arguments(*given, "--explainers", "grad_cam", "--steps", 3))
    (found,) = figures["bundles"].values()
    row = found["explainers"]["grad_cam"]
    assert row["pointing"] is None and -1 <= row["deletion"]["value"] <= row["insertion"]["high"] <= 1


def test_every_variant_of_vit_cx_is_measured_against_it(tiny_bundle_folders, boxed_data):
    parser = argparse.ArgumentParser()
    variants.add_arguments(parser)
    given = ["--bundle", str(tiny_bundle_folders["shapes"]), "--data", str(boxed_data), "--n", "2", "--steps", "2"]
    figures = variants.run(parser.parse_args([*given, "--quiet"]))
    assert figures["split"] == "val"
    chosen = variants.run(parser.parse_args([*given, "--quiet", "--variants", "none", "centered"]))
    (few,) = chosen["bundles"].values()
    assert list(few["explainers"]) == ["vit_cx", "none", "centered", "random"]
    with pytest.raises(DataError, match="no variant other. Allowed: first_order"):
        variants.run(parser.parse_args([*given, "--variants", "other"]))
    (found,) = figures["bundles"].values()
    rows = found["explainers"]
    assert len(rows) == 16 and "difference" not in rows["vit_cx"]
    assert all(np.isfinite(row["difference"]["value"]) for name, row in rows.items() if name != "vit_cx")
    assert len({row["insertion"]["value"] for row in rows.values()}) > 10  # other maps, not the same by other names
    assert rows["vit_cx"]["forward_passes"]["value"] > rows["none"]["forward_passes"]["value"]
    assert rows["cls_selected"]["forward_passes"]["value"] < rows["vit_cx"]["forward_passes"]["value"]


def test_insertion_may_start_from_the_mean_color():
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.3
    values = np.random.default_rng(0).permutation(64).reshape(8, 8).astype(np.float32)

    class Looking:
        def scores(self, _score, images):
            return (images.flatten(1) ** 2).sum(dim=1) / 100

    ways = {start: faithfulness.Asked(0, 4, start) for start in ("blur", "mean")}
    found = {
        start: faithfulness.curve_figures(Looking(), None, pixels, [values], asked)[0] for start, asked in ways.items()
    }
    order = np.argsort(-values.ravel())
    scores = []
    for count in (0, 16, 32, 48, 64):
        image = torch.zeros(3, 64)
        image[:, order[:count].copy()] = pixels.reshape(3, 64)[:, order[:count].copy()]
        scores.append(float(Looking().scores(None, image.reshape(1, 3, 8, 8))))
    expected = np.trapezoid(scores, np.linspace(0, 1, 5))
    assert found["mean"]["insertion"] == pytest.approx(expected) != pytest.approx(found["blur"]["insertion"])
    assert found["mean"]["deletion"] == found["blur"]["deletion"]
    assert found["mean"]["insertion_minus_deletion"] == pytest.approx(expected - found["mean"]["deletion"])


def test_figures_are_recorded_in_bundle_and_card_unless_the_card_was_edited(tiny_bundle_folders, boxed_data, tmp_path):
    place = tmp_path / "shapes"
    shutil.copytree(tiny_bundle_folders["shapes"], place)
    given = ("--bundle", place, "--data", boxed_data, "--n", 3, "--steps", 3, "--resamples", 20)
    wanted = ("--explainers", "vit_cx", "occlusion", "--record", "occlusion")
    before = Bundle.load(place)
    figures = faithfulness.run(arguments(*given, *wanted))
    found, after = figures["bundles"][str(place)]["explainers"], Bundle.load(place)
    kept = after.metrics["faithfulness"]
    assert kept["Occlusion: deletion"] == found["occlusion"]["deletion"] and kept["images"] == 3
    assert kept["Random map (control): insertion"] == found["random"]["insertion"]
    assert f"{found['occlusion']['insertion']['value']:.3f}" in after.card and not is_edited(after.card)
    assert {**after.metrics, "faithfulness": None} == {**before.metrics, "faithfulness": None}
    (place / "README.md").write_text(after.card.replace("## Limits", "## My limits"))
    write_manifest(place)
    faithfulness.run(arguments(*given, "--explainers", "vit_cx", "--record", "vit_cx"))
    again = Bundle.load(place)
    assert again.metrics["faithfulness"]["method"] == "vit_cx" and "## My limits" in again.card
    with pytest.raises(DataError, match="needs that explainer"):
        faithfulness.run(arguments(*given, "--explainers", "vit_cx", "--record", "rise"))
    with pytest.raises(DataError, match="a card's insertion starts from blur"):
        faithfulness.run(arguments(*given, "--explainers", "vit_cx", "--record", "vit_cx", "--insert-into", "mean"))
