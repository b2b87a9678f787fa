"""One answer for a group, or for each series: of all its pictures, those that decide, the groups that are like it."""

import json

import numpy as np
import pytest
from PIL import Image

from medssl.bundle.group_rule import Grouped
from medssl.errors import BundleError
from medssl.images import read_images
from tests.images.test_pictures import SECOND, frames_of, shuffled, zipped


@pytest.fixture(scope="module")
def bundle(tiny_bundles):
    return tiny_bundles["shapes"]


@pytest.fixture(scope="module")
def group(tiny_data):
    return sorted(tiny_data["shapes"].glob("dots-*.png"))[:6]


@pytest.fixture(scope="module")
def analysis(bundle, group):
    return bundle.analyze_group(group, "dots-0")


def test_the_build_chose_a_rule_and_measured_groups(bundle):
    metrics = bundle.metrics
    assert metrics["group_rule"]["fitted"]["images"] > metrics["group_rule"]["fitted"]["groups"]
    level = metrics["group_level"]
    assert level["groups"] == metrics["groups"] and level["images"] == metrics["images"]
    assert level["classification"]["accuracy"]["n"] == level["groups"]
    assert {"auroc", "ece", "conformal_coverage"} <= set(level["classification"])


def test_the_answer_is_that_of_all_pictures_together(bundle, analysis):
    each = np.array([list(row.prediction.probabilities.values()) for row in analysis.rows])
    together = bundle.group_rule.probabilities(each, Grouped.of(["x"] * 6))[0]
    assert list(analysis.prediction.probabilities.values()) == pytest.approx(together.tolist())
    assert analysis.prediction.label == bundle.labels[int(together.argmax())]
    assert analysis.prediction.label in analysis.prediction.prediction_set
    assert analysis.rule == bundle.group_rule.sentence()


def test_the_pictures_that_decide_are_those_whose_absence_costs_most(bundle, group, analysis):
    label = analysis.prediction.label
    assert analysis.deciding
    for decider in analysis.deciding:
        rest = [path for path in group if path.name != decider.row.entry.file]
        without = bundle.analyze_group(rest, "dots-0").prediction.probabilities[label]
        assert (
            decider.effect == pytest.approx(analysis.prediction.probability - without, abs=1e-4) and decider.effect > 0
        )
    effects = [decider.effect for decider in analysis.deciding]
    assert effects == sorted(effects, reverse=True)


def test_the_groups_like_it_are_others(bundle, analysis):
    train = [row for row in bundle.cases if row["split"] == "train"]
    ids = [group.group_id for group in analysis.similar]
    assert len(set(ids)) == 5 and "dots-0" not in ids and set(ids) <= {row["group_id"] for row in train}
    scores = [group.score for group in analysis.similar]
    assert scores == sorted(scores, reverse=True)
    assert all(group.images == sum(row["group_id"] == group.group_id for row in train) for group in analysis.similar)
    assert all(row.nearest.group_id != "dots-0" for row in analysis.rows)


def test_a_file_of_many_frames_is_a_group(bundle, tmp_path):
    (tmp_path / "three.tif").write_bytes(frames_of("TIFF"))
    found = bundle.analyze_group(tmp_path / "three.tif", "patient")
    assert len(found.rows) == 3
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["images"] == 3 and plain["group_id"] == "patient" and len(plain["rows"]) == 3


def test_an_unreadable_picture_is_counted_and_a_group_without_any_refused(bundle, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match="No picture of group 'x' could be read"):
        bundle.analyze_group(tmp_path, "x")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "good.png")
    found = bundle.analyze_group(read_images(tmp_path), "x")
    assert found.to_dict()["unreadable"] == 1 and len(found.deciding) == 0


@pytest.fixture(scope="module")
def parts(group):
    """Two series, and files of none, by their names."""
    first, second = shuffled(range(1, 4)), shuffled(range(11, 15), series=SECOND)
    loose = {f"0-{path.name}": path.read_bytes() for path in group[:2]}
    return [{f"{at}-{name}": data for name, data in part.items()} for at, part in enumerate((first, second), 1)], loose


def test_each_series_has_the_answer_that_it_has_alone(bundle, parts):
    (first, second), loose = parts
    found = bundle.analyze_group(zipped({**loose, **first, **second}))
    assert [answer.series for answer in found.answers] == ["", "series 1", "series 2"]
    assert [len(answer.rows) for answer in found.answers] == [2, 3, 4] and len(found.rows) == 9
    plain = found.to_dict()
    assert plain["prediction"] is None and plain["deciding"] == plain["similar_groups"] == []
    for answer, told, files in zip(found.answers, plain["answers"], (loose, first, second), strict=True):
        alone = bundle.analyze_group(zipped(files))
        assert answer.prediction.probabilities == pytest.approx(alone.prediction.probabilities, abs=1e-5)
        assert [one.row.entry.file for one in answer.deciding] == [one.row.entry.file for one in alone.deciding]
        assert [near.group_id for near in answer.similar] == [near.group_id for near in alone.similar]
        assert all(found.rows[one.row.number] is one.row for one in answer.deciding)
        single = alone.to_dict()
        assert single["answers"][0]["prediction"] == single["prediction"] and told["images"] == single["images"]
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_several_series_are_mixed_only_where_an_id_says_that_they_are_one(bundle, parts):
    (first, second), _ = parts
    mixed = zipped({**first, **second})
    apart = bundle.analyze_group(mixed)
    for name in ("prediction", "deciding", "similar"):
        with pytest.raises(BundleError, match="2 series, each with an answer of its own.*group_id"):
            getattr(apart, name)
    one = bundle.analyze_group(mixed, "patient 17")
    each = np.array([list(row.prediction.probabilities.values()) for row in one.rows])
    together = bundle.group_rule.probabilities(each, Grouped.of(["x"] * 7))[0]
    assert list(one.prediction.probabilities.values()) == pytest.approx(together.tolist())
    assert [answer.series for answer in one.answers] == [""] and one.to_dict()["images"] == 7


def test_a_series_of_which_nothing_can_be_read_is_said_beside_the_answers(bundle, parts):
    (first, _), _ = parts
    found = bundle.analyze_group(zipped({**first, "bad.png": b"no picture"}))
    assert [answer.series for answer in found.answers] == ["series 1"]
    plain = found.to_dict()
    assert plain["prediction"] == plain["answers"][0]["prediction"] and plain["unreadable"] == 1
    assert "Nothing of pictures without a series could be read" in plain["notes"][-1]


def test_an_earlier_bundle_answers_by_the_default(bundle, group, monkeypatch):
    monkeypatch.setattr(bundle, "metrics", {})
    assert "built before groups" in bundle.analyze_group(group).rule
