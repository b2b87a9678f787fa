"""The card of a bundle: what it is, what it was measured to do, and what it is not for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCardData

from medssl.backbones.registry import BACKBONES
from medssl.bundle.cards.additions import additions_block
from medssl.bundle.repos import BundleRepos
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC
from medssl.explain.choice import AUTO
from medssl.heads.choice import describe_choice
from medssl.heads.config import Thresholds
from medssl.heads.patch import PatchHead
from medssl.heads.reading_choice import describe_reading_choice
from medssl.hub.card_signature import sign
from medssl.hub.licenses import UNKNOWN, license_fields
from medssl.library.fit_space import describe_space_choice
from medssl.library.space import NAMES_IN_WORDS
from medssl.metrics.coverage import format_coverage
from medssl.metrics.metric import format_metrics
from medssl.pretrain.finetune_guard import describe_finetune
from medssl.templates import environment
from medssl.text import printable

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle
    from medssl.heads.head import Head

TEMPLATE = environment("medssl.bundle", "cards").get_template("model.md.jinja")
CALIBRATION = ("ece", "nll", "conformal_coverage", "mean_set_size")
# The Hub's name of a metric's kind, where it has one; model-index shows the others under their own.
HUB_METRICS = {"macro_f1": "f1", "auroc": "roc_auc"}
TAGS = ("medssl", "medical-imaging", "vit-cx", "similar-cases", "research-only")


def describe_head(head: Head) -> tuple[str, str]:
    """What the head is, and with what settings it was fitted, in words."""
    fitted = head.fitted_on
    if not isinstance(head, PatchHead):
        return "A linear head", f"C = {fitted.get('C', 'not stated')} ({fitted.get('C_chosen_by', 'not stated')})"
    tokens = "final tokens" if head.layer is None else f"tokens of block {head.layer}"
    kind = (
        f"A head that looks at patches (a class's evidence is its mean over the top {head.share:.0%} of the {tokens})"
    )
    penalty, chosen = fitted.get("penalty", "not stated"), fitted.get("chosen_by", "not stated")
    return kind, f"penalty = {penalty}, layer and share ({chosen})"


def shortcut_cells(shortcut: dict) -> tuple[str, ...]:
    """One row of what predicts the label without the disease: from what, how well, by chance, which class best."""
    auroc = shortcut["auroc"]
    best = max(auroc, key=auroc.__getitem__, default=None)
    ends = f" [{shortcut['low']:.2f}, {shortcut['high']:.2f}]" if {"low", "high"} <= set(shortcut) else ""
    accuracy, chance = f"{shortcut['balanced_accuracy']:.2f}{ends}", f"{shortcut['chance']:.2f}"
    return shortcut["name"], accuracy, chance, "-" if best is None else f"{best} ({auroc[best]:.2f})"


def flagged_shares(metrics: dict) -> list[str]:
    """Which share of which images is flagged as unfamiliar, in words."""
    unfamiliar = metrics.get("unfamiliar") or {}
    own = {"own test split": unfamiliar["own"]} if "own" in unfamiliar else {}
    shares = {**own, **unfamiliar.get("others", {})}
    return [
        f"{name} {'-' if share['value'] is None else format(share['value'], '.1%')}" for name, share in shares.items()
    ]


def eval_results(bundle: Bundle, dataset: str) -> list[EvalResult]:
    """The measured figures for the model-index."""
    figures = {**bundle.metrics.get("classification", {}), **bundle.metrics.get("retrieval", {})}
    split = bundle.metrics.get("split", "test")
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=f"{printable(bundle.task.title)}, {printable(split)} split",
            dataset_split=split,
            metric_type=HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(figure["value"], 4),
        )
        for name, figure in figures.items()
        if isinstance(figure, dict) and isinstance(figure.get("value"), float)
    ]


def model_metadata(bundle: Bundle, repos: BundleRepos | None, license: str) -> ModelCardData:
    """The model card's metadata, as the Hub reads it."""
    name = printable((repos.head if repos else bundle.name).split("/")[-1])
    backbone = repos.backbone if repos else bundle.head.backbone["id"]
    results = eval_results(bundle, repos.cases if repos else bundle.task.name)
    return ModelCardData(
        **license_fields(license),
        library_name="medssl",
        pipeline_tag="image-classification",
        tags=[*TAGS, *(["synthetic"] if bundle.task.synthetic else [])],
        datasets=[repos.cases] if repos else None,
        base_model=backbone if backbone not in BACKBONES and re.fullmatch(r"[\w.-]+/[\w.-]+", backbone) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name,
        eval_results=results or None,
    )


def local_name(backbone: dict) -> str:
    """The backbone as a card names it that stays here: a folder without those above it."""
    identity, revision = str(backbone["id"]), str(backbone["revision"])
    return Path(identity).name if revision.startswith("sha256:") else identity


def promise_facts(thresholds: Thresholds) -> dict:
    """Whether prediction sets were calibrated, for how many percent, and whether validation is enough to promise it."""
    adaptive, level = thresholds.adaptive, thresholds.conformal_level
    return {
        "calibrated": adaptive is not None or thresholds.conformal_probability is not None,
        "promised": adaptive is None or adaptive.promised(level) >= level,
        "level": format(100 * level, "g"),
    }


def measured_facts(metrics: dict) -> dict:
    """What was measured, as the template takes it; the tables are Markdown."""
    classification = metrics.get("classification") or {}
    figures = {**classification, **metrics.get("retrieval", {})}
    audit, faithfulness = metrics.get("audit") or {}, metrics.get("faithfulness") or {}
    group_level = metrics.get("group_level") or {}
    group_classification = group_level.get("classification")
    return {
        "metrics": metrics,
        "additions": additions_block(metrics),
        "measured": bool(classification),
        "figures": format_metrics({name: figure for name, figure in figures.items() if name not in CALIBRATION}),
        "figures_plain": format_metrics(metrics["retrieval_plain"]) if "retrieval_plain" in metrics else "",
        "calibration": format_metrics({name: figures[name] for name in CALIBRATION if name in figures}),
        "coverage": format_coverage(classification),
        "group_level": group_level,
        "group_figures": format_metrics(group_classification) if group_classification else "",
        "flagged": flagged_shares(metrics),
        "audit": audit,
        "shortcuts": [shortcut_cells(shortcut) for shortcut in audit.get("shortcuts", [])],
        "faithfulness": faithfulness,
        "faithfulness_figures": format_metrics(faithfulness),
    }


def describe_choices(metrics: dict) -> list[str]:
    """How reading, head and space came about, one sentence each, where the metrics hold it."""
    described = (
        ("reading_choice", describe_reading_choice),
        ("head_choice", describe_choice),
        ("space_choice", describe_space_choice),
    )
    return [describe(metrics[name]) for name, describe in described if name in metrics]


def write_card(bundle: Bundle, audit_table: str = "", repos: BundleRepos | None = None, license: str = UNKNOWN) -> str:
    """The bundle's README.md: metadata, then given, derived and measured facts, in Markdown.

    `audit_table` takes the place of what the metrics hold of the audit; `repos` are where it is published; `license` is
    that of the head.
    """
    head = bundle.head
    kind, settings = describe_head(head)
    return sign(
        TEMPLATE.render(
            metadata=model_metadata(bundle, repos, license).to_yaml(),
            not_for_diagnosis=NOT_FOR_DIAGNOSIS,
            synthetic=SYNTHETIC,
            task=bundle.task,
            head=head,
            fitted=head.fitted_on,
            versions=[f"{name} {version}" for name, version in head.versions.items()],
            kind=kind,
            settings=settings,
            repos=repos,
            name=repos.head if repos else bundle.name,
            backbone=repos.backbone if repos else local_name(head.backbone),
            revision=repos.backbone_revision if repos else head.backbone["revision"],
            audit_table=audit_table,
            choices=describe_choices(bundle.metrics),
            space=NAMES_IN_WORDS[head.reading.space],
            finetune=describe_finetune(bundle.metrics["finetune"]) if "finetune" in bundle.metrics else "",
            first_heatmap=bundle.explainer_choice.line(AUTO) if "explainer_check" in bundle.metrics else "",
            group_rule=bundle.group_rule.sentence(),
            **measured_facts(bundle.metrics),
            **promise_facts(head.thresholds),
        )
    )
