"""The endpoints of many pictures, over HTTP: the rows of Bundle.analyze_many, the answer of analyze_group, a report."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from tests.conftest import sample
from tests.images.test_pictures import SECOND, shuffled, zipped


@pytest.fixture
def pictures(tiny_data, broken_file, tmp_path):
    """A picture of each class, a zip of two of them, and a file that is none."""
    files = [sample(tiny_data["shapes"], label) for label in ("dots", "plain", "stripes")]
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for file in files[:2]:
            archive.write(file, file.name)
    return [*files, tmp_path / "both.zip", broken_file]


def ask(client, endpoint, files, **values):
    return client.predict(images=[handle_file(str(file)) for file in files], **values, api_name=endpoint)


def test_many_gives_the_rows_of_python_and_says_what_cannot_be_read(client, pictures, tiny_bundles):
    answer = ask(client, "/analyze_many", pictures, task="shapes")
    rows = answer["rows"]
    assert (
        answer["task"] == "shapes" and len(rows) == 6 and [bool(row["error"]) for row in rows] == [False] * 5 + [True]
    )
    expected = [tiny_bundles["shapes"].analyze(file, explain=False) for file in (*pictures[:3], *pictures[:2])]
    for row, analysis in zip(rows, expected, strict=False):
        assert row["label"] == analysis.prediction.label and row["prediction_set"] == analysis.prediction.prediction_set
        assert row["probability"] == pytest.approx(analysis.prediction.probability, abs=0.02)
        assert row["case_id"] == analysis.cases[0].id
    assert rows[3]["file"] == f"{pictures[0].stem} (2){pictures[0].suffix}"


def test_a_group_gets_one_answer(client, pictures, tiny_bundles):
    answer = ask(client, "/analyze_group", pictures[:3], group_id="p1", task="shapes")
    python = tiny_bundles["shapes"].analyze_group(pictures[:3], "p1").to_dict()
    assert answer["prediction"]["label"] == python["prediction"]["label"] and answer["rule"] == python["rule"]
    assert answer["similar_groups"][0]["group_id"] == python["similar_groups"][0]["group_id"]
    assert answer["images"] == 3 and answer["group_id"] == "p1"


@pytest.fixture
def two_series(tmp_path):
    """A zip of two series mixed."""
    first, second = shuffled(range(1, 4)), shuffled(range(11, 15), series=SECOND)
    mixed = {f"{at}-{name}": data for at, part in enumerate((first, second)) for name, data in part.items()}
    (tmp_path / "study.zip").write_bytes(zipped(mixed))
    return tmp_path / "study.zip"


def test_each_series_gets_one_answer_and_a_named_group_one_for_all(client, two_series, tiny_bundles):
    answer = ask(client, "/analyze_group", [two_series], task="shapes")
    python = tiny_bundles["shapes"].analyze_group(two_series).to_dict()
    assert answer["prediction"] is None and len(answer["rows"]) == 7
    for told, expected in zip(answer["answers"], python["answers"], strict=True):
        assert (told["series"], told["images"]) == (expected["series"], expected["images"])
        assert told["prediction"]["probabilities"] == pytest.approx(expected["prediction"]["probabilities"], abs=0.02)
    named = ask(client, "/analyze_group", [two_series], group_id="p1", task="shapes")
    assert len(named["answers"]) == 1 and named["prediction"] == named["answers"][0]["prediction"]


def test_a_report_brings_the_answer_that_it_is_made_of(client, two_series, pictures):
    made = ask(client, "/report_many", [two_series], together=True, task="shapes")
    assert made["answer"] == ask(client, "/analyze_group", [two_series], task="shapes")
    facts = json.loads(Path(made["json"]).read_text("utf-8"))
    assert [one["images"] for one in facts["group"]["answers"]] == [3, 4] and facts["group"]["prediction"] is None
    made = ask(client, "/report_many", pictures, task="shapes")
    assert made["answer"] == ask(client, "/analyze_many", pictures, task="shapes")


@pytest.mark.parametrize("together", [False, True])
def test_a_report_of_many_names_none_of_them(client, pictures, together):
    made = ask(client, "/report_many", pictures, together=together, task="shapes")
    facts, html = json.loads(Path(made["json"]).read_text("utf-8")), Path(made["html"]).read_text("utf-8")
    assert facts["counts"]["pictures"] == 6 and bool(facts["group"]) is together
    assert not any(file.name in html or file.name in json.dumps(facts) for file in pictures)


def test_the_report_leaves_out_the_groups_own_cases_as_the_answer_does(client, pictures, tiny_bundles):
    bundle = tiny_bundles["shapes"]
    case = bundle.library.case_at(0)
    own = {"group_id": case.group_id, "task": "shapes"}
    files = [pictures[0]]
    answer = ask(client, "/analyze_group", files, **own)
    made = ask(client, "/report_many", files, together=True, **own)
    facts = json.loads(Path(made["json"]).read_text("utf-8"))
    for told in (answer["similar_groups"], facts["group"]["similar_groups"]):
        assert told and case.group_id not in [group["group_id"] for group in told]
    assert facts["pictures"][0]["case_group"] == answer["rows"][0]["case_group"] != case.group_id


def test_nothing_or_a_wrong_word_is_refused(client, pictures):
    with pytest.raises(AppError, match="image"):
        ask(client, "/analyze_many", [], task="shapes")
    with pytest.raises(AppError, match="shapes"):
        ask(client, "/analyze_many", pictures, task="nothing")
