"""metrics.json of a bundle: each field of a wrong type or missing is refused by its name."""

import copy
import json
import shutil

import pytest

from medssl.bundle import Bundle
from medssl.bundle.manifest import write_manifest
from medssl.bundle.stored_metrics import DEEPEST, check_metrics
from medssl.errors import BundleError

FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 20, "groups": 10, "higher_is_better": True}
ROW = {"name": "few", "n": 3, "groups": 2, "coverage": 0.9, "low": 0.8, "high": 1.0, "group_coverage": 0.9}
ROW |= {"mean_set_size": 1.2}
METRICS = {
    "data": "spots",
    "split": "test",
    "images": 20,
    "groups": 10,
    "seed": 3,
    "resamples": 1000,
    "classification": {
        "accuracy": FIGURE,
        "per_class_recall": {"few": FIGURE},
        "reliability": [{"confidence": 0.7, "accuracy": 0.6, "low": 0.5, "high": 0.7, "n": 4}],
        "coverage": {"by_class": [ROW, {**ROW, "name": "many", "n": 0, "coverage": None}]},
    },
    "retrieval": {"precision_at_1": FIGURE},
    "unfamiliar": {"own": FIGURE, "others": {"tints": FIGURE}},
    "audit": {
        "images": 100,
        "findings": [{"kind": "x", "severity": "warning", "count": 1, "message": "m", "examples": ["a.png"]}],
        "shortcuts": [{"name": "border", "balanced_accuracy": 0.7, "chance": 0.5, "auroc": {"few": 0.8}}],
    },
    "faithfulness": {
        **{"data": "spots", "split": "test", "images": 8, "groups": 4, "seed": 3, "steps": 14, "method": "vit_cx"},
        "ViT-CX: deletion": FIGURE,
    },
    "head_choice": {
        **{"asked": "auto", "chosen": "patch", "images": 20, "groups": 10, "seed": 3},
        **{"linear": FIGURE, "patch": FIGURE, "patch_minus_linear": FIGURE},
    },
    "reading_choice": {
        **{"asked": "auto", "chosen": "cls", "pooling": "cls", "images": 20, "groups": 10, "seed": 3},
        "tried": {"cls": {"pooling": "cls", "balanced_accuracy": FIGURE, "best_minus_this": FIGURE}},
    },
    "space_choice": {
        **{"asked": "auto", "chosen": "plain", "images": 20, "groups": 10, "seed": 3, "chosen_minus_plain": FIGURE},
        "tried": {"plain": {name: FIGURE for name in ("precision_at_1", "precision_at_5", "map_at_10")}},
    },
    "retrieval_plain": {"precision_at_1": FIGURE},
    "explainer_check": {"explainers": {"vit_cx": {"less_random": FIGURE}}},
}
REQUIRED = [
    "classification.accuracy.value",
    "classification.accuracy.low",
    "classification.accuracy.higher_is_better",
    "classification.per_class_recall.few.value",
    "classification.coverage.by_class.0.n",
    "classification.coverage.by_class.0.coverage",
    "classification.coverage.by_class.0.mean_set_size",
    "classification.reliability.0.confidence",
    "retrieval.precision_at_1.value",
    "unfamiliar.others.tints.value",
    "reading_choice.pooling",
    "reading_choice.tried",
    "reading_choice.tried.cls.best_minus_this",
    "space_choice.chosen",
    "space_choice.groups",
    "space_choice.chosen_minus_plain",
    "space_choice.tried.plain.map_at_10",
    "audit.images",
    "audit.findings",
    "audit.findings.0.kind",
    "audit.findings.0.message",
    "audit.shortcuts.0.auroc",
    "audit.shortcuts.0.chance",
    "faithfulness.data",
    "faithfulness.steps",
    "faithfulness.method",
    "faithfulness.ViT-CX: deletion.low",
    "head_choice.asked",
    "head_choice.chosen",
    "head_choice.patch_minus_linear",
    "explainer_check.explainers",
    "explainer_check.explainers.vit_cx.less_random",
    "explainer_check.explainers.vit_cx.less_random.groups",
]


def leaves(value, path=()):
    """The places of all numbers and texts in plain JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def changed(path, value=None, drop=False):
    """METRICS with another value in one place, or without it."""
    metrics = copy.deepcopy(METRICS)
    inner = metrics
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return metrics


def keys_of(dotted):
    return tuple(int(key) if key.isdigit() else key for key in dotted.split("."))


def test_what_fits_passes():
    check_metrics(METRICS, "metrics.json")
    check_metrics({}, "metrics.json")
    check_metrics({**METRICS, "unfamiliar": {}}, "metrics.json")


@pytest.mark.parametrize("path", list(leaves(METRICS)), ids=str)
@pytest.mark.parametrize("value", [{"a": []}, [[]]], ids=str)
def test_a_wrong_type_anywhere_is_refused_by_its_name(path, value):
    with pytest.raises(BundleError, match=r"metrics\.json") as refused:
        check_metrics(changed(path, value), "metrics.json")
    names = [str(key) for key in path if isinstance(key, str)]
    assert any(name in str(refused.value) for name in names[-2:]) and "\n" not in str(refused.value)


@pytest.mark.parametrize("dotted", REQUIRED)
def test_a_missing_field_is_refused_by_its_name(dotted):
    path = keys_of(dotted)
    with pytest.raises(BundleError, match=r"metrics\.json") as refused:
        check_metrics(changed(path, drop=True), "metrics.json")
    assert str(path[-1]) in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.8", True])
def test_a_figure_is_a_finite_number(value):
    with pytest.raises(BundleError, match="accuracy"):
        check_metrics(changed(("classification", "accuracy", "value"), value), "metrics.json")


def test_deep_nesting_is_refused():
    deep: dict = {}
    for _ in range(DEEPEST + 5):
        deep = {"a": deep}
    with pytest.raises(BundleError, match="nested more than"):
        check_metrics(deep, "metrics.json")


def test_the_bundle_is_refused_at_load(tiny_bundle_folders, tmp_path):
    folder = shutil.copytree(tiny_bundle_folders["shapes"], tmp_path / "bundle")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({**metrics, "classification": {"accuracy": {"value": "high"}}}))
    write_manifest(folder)
    with pytest.raises(
        BundleError, match=r"metrics\.json of .* does not fit: classification\.accuracy\.value is 'high'"
    ):
        Bundle.load(folder)
