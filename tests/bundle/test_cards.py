"""The whole text of both cards, and how a card of another's hand is told from medssl's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import DatasetCard, ModelCard

from medssl.bundle.cards.cases import size_category, write_cases_card
from medssl.bundle.cards.model import write_card
from medssl.bundle.group_rule import GroupRule
from medssl.bundle.repos import BundleRepos
from medssl.data.tasks import TASKS, Task
from medssl.heads.config import HeadConfig, Thresholds
from medssl.heads.head import ClassificationHead
from medssl.hub.card_signature import is_edited, is_same, sign
from medssl.hub.licenses import license_fields
from medssl.images.preprocess import Preprocess

WHOLE = Path(__file__).resolve().parent / "cards"
REPOS = BundleRepos("me/medssl-spots-small", "me/medssl-spots-small-cases", "lab/small", "abc123")


def figure(value, better=True):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 20, "groups": 10, "higher_is_better": better}


METRICS = {
    "data": "spots",
    "split": "test",
    "images": 20,
    "groups": 10,
    "seed": 3,
    "resamples": 1000,
    "classification": {
        "accuracy": figure(0.8),
        "macro_f1": figure(0.75),
        "auroc": figure(0.9),
        "ece": figure(0.12, False),
        "nll": figure(0.5, False),
        "conformal_coverage": figure(0.85, None),
        "mean_set_size": figure(1.25, False),
        "per_class_recall": {"few": figure(0.7), "many": figure(0.85)},
        "confusion_matrix": {"labels": ["few", "many"], "rows_true_columns_predicted": [[7, 3], [1, 9]]},
    },
    "retrieval": {"precision_at_1": figure(0.65)},
    "unfamiliar": {"own": figure(0.05, None), "others": {"tints": figure(0.88, None)}},
    "audit": {
        "images": 100,
        "findings": [
            {"kind": "shortcut", "severity": "warning", "count": 1, "message": "Colour tells.", "examples": ["a.png"]}
        ],
        "undecodable": [],
        "shortcuts": [
            {"name": "border", "balanced_accuracy": 0.75, "chance": 0.5, "auroc": {"few": 0.8, "many": 0.7}},
        ],
    },
    "faithfulness": {
        **{"data": "spots", "split": "test", "images": 8, "groups": 4, "seed": 3, "steps": 14, "method": "vit_cx"},
        "ViT-CX: deletion": figure(0.3, False),
        "Random map (control): deletion": figure(0.4, False),
    },
}


@pytest.fixture
def bundle():
    task = Task("spots", "Spots", ("few", "many"), "drawing", "drawn", "CC BY 4.0", "nobody 2026", synthetic=True)
    config = HeadConfig(
        labels=["few", "many"],
        embedding_dim=4,
        backbone={"id": "/home/somebody/small", "revision": "sha256:0", "dimension": 4},
        pooling="cls",
        preprocess=Preprocess(size=(56, 56), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        temperature=1.5,
        thresholds=Thresholds(conformal_probability=0.25, familiarity=0.5),
        fitted_on={
            "data": "spots",
            "train_images": 60,
            "train_groups": 30,
            "val_images": 20,
            "val_groups": 10,
            "C": 0.1,
            "C_chosen_by": "validation likelihood",
            "class_weight": "none",
            "seed": 3,
        },
        task=task.to_dict(),
        versions={"python": "3.11", "torch": "2.13"},
    )
    head = ClassificationHead(config)
    rows = {
        "split": ["train", "train", "val", "test"],
        "label": [0, 1, 0, 1],
        "group_id": ["a", "a", "b", "c"],
    }
    features = Features(split=Value("string"), label=ClassLabel(names=["few", "many"]), group_id=Value("string"))
    cases = Dataset.from_dict(rows, features)
    return SimpleNamespace(
        head=head,
        task=task,
        labels=head.labels,
        metrics=METRICS,
        cases=cases,
        name="spots",
        card="",
        group_rule=GroupRule.of(METRICS, head.thresholds),
    )


@pytest.mark.parametrize("name", ["model", "cases", "local"])
def test_the_whole_card(bundle, name):
    made = {
        "model": lambda: write_card(bundle, repos=REPOS, license="Apache-2.0"),
        "cases": lambda: write_cases_card(bundle, REPOS, images=True),
        "local": lambda: write_card(bundle, "the audit's own table"),
    }[name]()
    file = WHOLE / f"{name}.md"
    assert made == file.read_text("utf-8"), f"if that is meant, write it anew: {file}"


def test_the_metadata_is_what_the_hub_reads(bundle):
    data = ModelCard(write_card(bundle, repos=REPOS, license="apache-2.0")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "medssl", "image-classification")
    assert data.base_model == "lab/small" and data.datasets == ["me/medssl-spots-small-cases"]
    found = {result.metric_name: (result.metric_type, result.metric_value) for result in data.eval_results}
    assert found["accuracy"] == ("accuracy", 0.8) and found["macro_f1"] == ("f1", 0.75)
    assert found["auroc"] == ("roc_auc", 0.9) and found["precision_at_1"] == ("precision_at_1", 0.65)
    assert {result.dataset_type for result in data.eval_results} == {"me/medssl-spots-small-cases"}
    cases = DatasetCard(write_cases_card(bundle, REPOS, images=False)).data
    assert cases.license == "cc-by-4.0" and cases.size_categories == ["n<1K"]
    assert cases.task_categories == ["image-classification"]


def test_a_card_can_be_written_of_a_bundle_that_nobody_measured(bundle):
    bundle.metrics = {}
    card = write_card(bundle)
    assert card.count("Not measured.") == 2 and "not audited" in card and ModelCard(card).data.eval_results is None


def test_no_folder_of_the_publisher_is_in_a_published_card(bundle):
    for card in (write_card(bundle, repos=REPOS), write_cases_card(bundle, REPOS, images=True)):
        assert "/home" not in card and "a.png" not in card


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("not stated by the source", {"license": "unknown"}),
        ("CC BY 4.0 (figshare 1)", {"license": "other", "license_name": "cc-by-4.0-figshare-1"}),
    ],
)
def test_a_license_in_words_becomes_the_hubs(words, fields):
    assert license_fields(words) == fields


def test_sizes():
    assert [size_category(count) for count in (5, 1000, 20_000, 5_000_000)] == [
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "1M<n<10M",
    ]


def test_a_hand_is_told_from_medssl(bundle):
    card = write_card(bundle, repos=REPOS, license="apache-2.0")
    assert not is_edited(card) and not is_edited("") and not is_edited("---\ndataset_info: {}\n---\n")
    assert not is_edited(card.replace("library_name: medssl\n", "").replace("\n---", "\nlibrary_name: medssl\n---", 1))
    assert not is_edited(card.replace("---\n", "---\nconfigs:\n- config_name: default\n", 1))
    for edited in (
        card.replace("Spots", "Dots", 1),
        card.replace("license: apache-2.0", "license: mit"),
        card.replace("written by medssl", "written by me"),
        card + "\nMore.\n",
        "# My own card\n",
        "---\nlicense: [\n---\n",
    ):
        assert is_edited(edited)
    assert not is_edited(sign(card + "\nMore.\n"))
    assert is_same(card, card.replace("- few", "- few")) and not is_same(card, sign(card + "\nMore.\n"))


def test_the_license_of_the_head_is_the_one_given_or_unknown(bundle):
    assert ModelCard(write_card(bundle)).data.license == "unknown"
    data = ModelCard(write_card(bundle, license="My own terms, v2")).data
    assert (data.license, data.license_name) == ("other", "my-own-terms-v2")


def test_a_card_promises_no_more_than_was_done(bundle):
    bundle.head = ClassificationHead(replace(bundle.head.config, thresholds=Thresholds(), fitted_on={}))
    bundle.metrics = {}
    card = write_card(bundle)
    for claim in ("covers the true class", "fitted on the validation images", "test split above"):
        assert claim in write_card(SimpleNamespace(**{**vars(bundle), **measured(bundle)})) and claim not in card
    assert "were not calibrated" in card


def test_a_registered_task_does_not_vouch_for_the_images_given(bundle):
    assert "it cannot tell" not in write_card(bundle) + write_cases_card(bundle, REPOS, images=True)
    bundle.task = TASKS["brain"]
    for card in (write_card(bundle), write_cases_card(bundle, REPOS, images=True)):
        assert "whether the images given are those, it cannot tell" in card
    assert not TASKS["brain-demo"].registered


def measured(bundle):
    """The same bundle, calibrated and measured."""
    config = replace(
        bundle.head.config, thresholds=Thresholds(conformal_probability=0.2), fitted_on={"val_images": 20, "C": 1.0}
    )
    return {"head": ClassificationHead(config), "metrics": METRICS}


HOSTILE = [
    "a|b",
    "```\n# Mine",
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m",
    "](http://evil) [x](y)",
    "--- \n---\n",
]


def renamed(value: object, names: dict[str, str]) -> object:
    """Plain JSON with these keys and texts renamed."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def hostile_bundle(bundle, text):
    """The bundle with that text in every place where a label, a name or a message stands."""
    names = {"few": text, "many": f"{text}2", "spots": text, "Colour tells.": text, "border": text, "tints": text}
    names |= {"drawing": text, "drawn": text, "nobody 2026": text, "CC BY 4.0": text, "Spots": text}
    task = Task.from_dict(renamed(bundle.task.to_dict(), names))
    config = bundle.head.config
    config = replace(
        config,
        labels=list(task.labels),
        fitted_on=renamed(config.fitted_on, names),
        backbone={**config.backbone, "id": f"/home/somebody/{text.replace('/', '')}"},
        versions={text: text},
    )
    cases = bundle.cases.cast_column("label", ClassLabel(names=list(task.labels)))
    changed = {"head": ClassificationHead(config), "task": task, "labels": list(task.labels), "cases": cases}
    return SimpleNamespace(**{**vars(bundle), **changed, "metrics": renamed(METRICS, names), "name": text})


def structure(card: str) -> list[str]:
    """The kinds of all parts of a card's Markdown, in order, down to what is in a line."""
    markdown_it = pytest.importorskip("markdown_it")
    parts = markdown_it.MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text)
    kinds = []
    for part in parts:
        kinds.append(f"{part.type} {part.tag}")
        inner = [child.type for child in part.children or () if not child.type.startswith("text")]
        kinds += inner
    return kinds


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["model", "local", "cases"])
def test_no_label_or_name_breaks_a_card(bundle, kind, text):
    make = {
        "model": lambda one: write_card(one, repos=REPOS),
        "local": lambda one: write_card(one, f"findings\n{text}\nend"),
        "cases": lambda one: write_cases_card(one, REPOS, images=True),
    }[kind]
    card = make(hostile_bundle(bundle, text))
    assert structure(card) == structure(make(bundle))
    assert not is_edited(card) and all(char.isprintable() or char == "\n" for char in card)
    named = set(ModelCard(card).data.to_dict()) - {"license_name"}
    assert named == set(ModelCard(make(bundle)).data.to_dict())


def test_a_card_is_written_of_figures_that_say_little(bundle):
    none = {"value": None, "low": None, "high": None, "higher_is_better": None}
    bundle.metrics = {
        "classification": {"accuracy": none},
        "unfamiliar": {"own": {"value": None}},
        "audit": {
            "images": 3,
            "findings": [],
            "shortcuts": [{"name": "x", "balanced_accuracy": 0.5, "chance": 0.5, "auroc": {}, "low": 0.1}],
        },
    }
    card = write_card(bundle)
    assert "? images of ? groups" in card and "| x | 0.50 | 0.50 | - |" in card and "own test split -" in card
