"""The card of a pretrained backbone: what it saw, how it was trained, what that cost and what was measured."""

import json

import pytest
from huggingface_hub import ModelCard

from medssl.data.tasks import NOT_FOR_DIAGNOSIS
from medssl.errors import PretrainError
from medssl.pretrain.card import plain_backbone_card, write_backbone_card
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


def test_the_card_says_only_what_is_true_of_this_folder(tmp_path):
    (tmp_path / "pretraining.json").write_text(json.dumps(facts(init="facebook/dinov2-small", started_from=None)))
    card = write_backbone_card(tmp_path, "small").read_text()
    assert card.startswith("---\nlicense: unknown\n") and "is not stated" in card
    for claim in ("The weights are medssl's", "demo works", "few thousand", "small image encoder"):
        assert claim not in card
    assert "15 images of 2 data sets (brain, other), beside what its start had seen" in card
    assert "started from `facebook/dinov2-small`, whose own license" in card
    assert "as medssl's task of that name: Cheng" in card, "a folder's name alone proves nothing"


def test_a_license_in_words_is_named(tmp_path):
    (tmp_path / "pretraining.json").write_text(json.dumps(facts()))
    data = ModelCard(write_backbone_card(tmp_path, "small", license="Our terms: 1.0").read_text()).data
    assert (data.license, data.license_name) == ("other", "our-terms-1.0")
    assert ModelCard(plain_backbone_card("me/enc")).data.license == "unknown"
    assert ModelCard(plain_backbone_card("me/enc", "mit")).data.license == "mit"


def structure(card):
    """The kinds of all parts of a card's Markdown, in order, down to what is in a line."""
    parts = pytest.importorskip("markdown_it").MarkdownIt("commonmark").parse(ModelCard(card).text)
    return [[part.type, *(child.type for child in part.children or () if "text" not in child.type)] for part in parts]


def card_named(folder, text):
    """The card of a run with that text in every name."""
    folder.mkdir()
    run = facts(images={text: 3}, init=text, options={text: 1}, hardware={"name": text, "bf16": True, "threads": 2})
    (folder / "pretraining.json").write_text(json.dumps(run))
    return write_backbone_card(folder, text).read_text()


@pytest.mark.parametrize("text", ["a|b", "```\n# x", "<img src=x>", "\x1b[31m", '")\nimport os', "`"])
def test_no_name_breaks_the_card(tmp_path, text):
    card = card_named(tmp_path / "a", text)
    assert structure(card) == structure(card_named(tmp_path / "b", "x")) and "\x1b" not in card
    assert structure(plain_backbone_card(text)) == structure(plain_backbone_card("x"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": 3}, "method is 3"),
        ({"method": "x]\nlicense: mit"}, "method is"),
        ({"options": []}, "options is"),
        ({"images": {"a": "many"}}, r"images\.a is 'many'"),
        ({"seconds": "long"}, "seconds is 'long'"),
        ({"hardware": {"name": "x", "bf16": True}}, r"hardware\.threads: field required"),
        ({"started_from": {"method": "dino"}}, "started_from in .*options: field required"),
        ({"started_from": 3}, "started_from is 3"),
    ],
)
def test_facts_that_do_not_fit_are_refused_by_file_and_field(tmp_path, change, words):
    (tmp_path / "pretraining.json").write_text(json.dumps(facts(**change)))
    with pytest.raises(PretrainError, match=rf"pretraining\.json does not fit: {words}|{words}") as refused:
        write_backbone_card(tmp_path, "small")
    assert "pretraining.json" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_facts_are_refused(tmp_path, text):
    (tmp_path / "pretraining.json").write_text(text)
    with pytest.raises(PretrainError, match=r"pretraining\.json"):
        write_backbone_card(tmp_path, "small")
