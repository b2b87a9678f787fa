"""The card of a pretrained backbone: what it saw, how it was trained, what that cost and what was measured."""

import json

import pytest

from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.errors import PretrainError
from medssl.pretrain.card import write_backbone_card
from medssl.pretrain.recipe import Recipe
from tests.conftest import ROOT


def facts(**more):
    run = {"images": {"brain": 12, "other": 3}, "processes": 1, "steps": 40, "seconds": 120.0, "skipped": []}
    return {**Recipe(seed=7).to_dict(), **run, "hardware": {"name": "a CPU", "bf16": True, "threads": 2}, **more}


def test_the_whole_card(tmp_path):
    first = facts(images={"lung": 5})
    (tmp_path / "pretraining.json").write_text(json.dumps(facts(init="first", started_from=first)))
    card = write_backbone_card(tmp_path, "small", "| a table |", "apache-2.0").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and NOT_FOR_DIAGNOSIS in card
    assert card.index("Run 1") < card.index("lung: 5 images") < card.index("Run 2") < card.index("brain: 12 images")
    assert "CC BY 4.0 (figshare 1512427)" in card and "other: 3 images, no labels used (licence: not stated)" in card
    assert "seed 7" in card and "init first" in card and "2 minutes, 1 process(es) on a CPU, 2 threads, bf16" in card
    assert "centring sinkhorn" in card and "| a table |" in card and 'from_pretrained("small")' in card


def test_a_card_without_figures_says_so(tmp_path):
    (tmp_path / "pretraining.json").write_text(json.dumps(facts()))
    card = write_backbone_card(tmp_path, "small").read_text()
    assert "Not measured." in card and "Run 2" not in card


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(PretrainError, match="pretraining.json"):
        write_backbone_card(tmp_path, "small")


def test_of_a_report_only_what_was_measured_is_taken(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import card

    parts = [
        "# A study",
        "Answer.",
        "## Scores",
        "| a |",
        "![plot](a.png)",
        "## Audit of the data",
        "x",
        "## Data",
        "| b |",
    ]
    report = "\n\n".join(parts)
    assert card.measured(report).split() == "### Scores | a | ### Data | b |".split()
