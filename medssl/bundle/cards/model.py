"""The card of a bundle: what it is, what it was measured to do, and what it is not for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCardData

from medssl.backbones.registry import BACKBONES
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC
from medssl.heads.patch import PatchHead
from medssl.hub.card_signature import sign
from medssl.metrics.coverage import format_coverage
from medssl.metrics.metric import format_metrics

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle
    from medssl.heads.head import Head

LICENCE = "apache-2.0"
CALIBRATION = ("ece", "nll", "conformal_coverage", "mean_set_size")
# The Hub's name of a metric's kind, where it has one; model-index shows the others under their own.
HUB_METRICS = {"macro_f1": "f1", "auroc": "roc_auc"}
TAGS = ("medssl", "medical-imaging", "vit-cx", "similar-cases", "research-only")
LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc0": "cc0-1.0",
    "cc0 1.0": "cc0-1.0",
    "cc by 4.0": "cc-by-4.0",
    "cc by-sa 4.0": "cc-by-sa-4.0",
    "cc by-nc 4.0": "cc-by-nc-4.0",
    "cc by-nc-sa 4.0": "cc-by-nc-sa-4.0",
}
LIMITS = """- The figures are of the test split above and say nothing about other scanners, stains, hospitals or people.
- The prediction set covers the true class in 90 % of images *like those of validation*, on average over classes.
- Familiarity is a cosine to training cases: it flags other modalities well, subtle shifts badly.
- A heatmap shows what moved this model's answer. It is no segmentation and no proof that the answer is right.
- What predicts the label without looking at the disease (see the audit) may be what the model learnt."""


@dataclass(frozen=True)
class Places:
    """The Hub repos that a published bundle consists of; `backbone` and its revision are where the encoder lies."""

    head: str
    cases: str
    backbone: str
    backbone_revision: str


def licence_fields(licence: str) -> dict[str, str]:
    """A data licence in words as the Hub's metadata: `license`, and `license_name` for one the Hub has no id for."""
    known = LICENCES.get(licence.strip().lower())
    if known:
        return {"license": known}
    if not licence.strip() or licence.startswith("not stated"):
        return {"license": "unknown"}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")}


def describe_head(head: Head) -> tuple[str, str]:
    """What the head is, and with what settings it was fitted, in words."""
    fitted = head.fitted_on
    if not isinstance(head, PatchHead):
        return "A linear head", f"C = {fitted.get('C', 'not stated')} ({fitted.get('C_chosen_by', 'not stated')})"
    tokens = "final tokens" if head.layer is None else f"tokens of block {head.layer}"
    looks = (
        f"A head that looks at patches (a class's evidence is its mean over the top {head.share:.0%} of the {tokens})"
    )
    penalty, chosen = fitted.get("penalty", "not stated"), fitted.get("chosen_by", "not stated")
    return looks, f"penalty = {penalty}, layer and share ({chosen})"


def audit_text(audit: dict) -> str:
    """The audit of a bundle's metrics as Markdown: its findings, and what predicts the label without the disease."""
    if not audit:
        return "The data was not audited."
    lines = [f"{audit['images']} images audited; findings: {len(audit['findings'])}."]
    if audit["findings"]:
        lines.append("")
    lines += [f"- {found['severity']}, {found['kind']}: {found['message']}" for found in audit["findings"]]
    if audit.get("shortcuts"):
        lines += ["", "| from this alone | balanced accuracy of the label | chance | class told apart best (AUROC) |"]
        lines.append("| --- | --- | --- | --- |")
    for item in audit.get("shortcuts", []):
        best = max(item["auroc"], key=item["auroc"].__getitem__)
        spread = f" [{item['low']:.2f}, {item['high']:.2f}]" if "low" in item else ""
        accuracy = f"{item['balanced_accuracy']:.2f}{spread}"
        figures = f"{accuracy} | {item['chance']:.2f} | {best} ({item['auroc'][best]:.2f})"
        lines.append(f"| {item['name']} | {figures} |")
    return "\n".join(lines)


def figures_text(metrics: dict) -> tuple[str, str]:
    """The figures and the calibration of a bundle's metrics, as two Markdown texts."""
    if not metrics.get("classification"):
        return "Not measured.", "Not measured."
    found = {**metrics["classification"], **metrics.get("retrieval", {})}
    head = (
        f"{metrics['images']} images of {metrics['groups']} groups; 95 % bootstrap intervals over groups, "
        f"{metrics['resamples']} resamples, seed {metrics['seed']}."
    )
    unfamiliar = metrics.get("unfamiliar", {})
    flagged = [f"own test split {unfamiliar['own']['value']:.1%}"] if unfamiliar else []
    flagged += [f"{name} {share['value']:.1%}" for name, share in unfamiliar.get("others", {}).items()]
    figures = format_metrics({name: value for name, value in found.items() if name not in CALIBRATION})
    if flagged:
        figures += f"\n\nFlagged as unfamiliar: {'; '.join(flagged)}."
    calibration = format_metrics({name: found[name] for name in CALIBRATION if name in found})
    return f"{head}\n\n{figures}", calibration


def eval_results(bundle: Bundle, dataset: str) -> list[EvalResult]:
    """The measured figures for the model-index."""
    found = {**bundle.metrics.get("classification", {}), **bundle.metrics.get("retrieval", {})}
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset,
            dataset_name=f"{bundle.task.title}, {bundle.metrics.get('split', 'test')} split",
            dataset_split=bundle.metrics.get("split", "test"),
            metric_type=HUB_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(value["value"], 4),
        )
        for name, value in found.items()
        if isinstance(value, dict) and isinstance(value.get("value"), float)
    ]


def model_metadata(bundle: Bundle, places: Places | None, licence: str = LICENCE) -> ModelCardData:
    """The model card's metadata, as the Hub reads it."""
    name = (places.head if places else bundle.name).split("/")[-1]
    backbone = places.backbone if places else bundle.head.backbone["id"]
    results = eval_results(bundle, places.cases if places else bundle.task.name)
    return ModelCardData(
        license=licence,
        library_name="medssl",
        pipeline_tag="image-classification",
        tags=[*TAGS, *(["synthetic"] if bundle.task.synthetic else [])],
        datasets=[places.cases] if places else None,
        base_model=backbone if backbone not in BACKBONES and re.fullmatch(r"[\w.-]+/[\w.-]+", backbone) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name,
        eval_results=results or None,
    )


def coverage_text(head: Head, metrics: dict) -> str:
    """What the prediction sets promise, and where they held the true class."""
    promise = " ".join(head.thresholds.promise())
    table = format_coverage(metrics.get("classification") or {})
    return f"{promise}\n\n{table}" if table else promise


def faithfulness_text(found: dict | None) -> str:
    """What was measured of the heatmaps, in Markdown."""
    if not found:
        return FAITHFULNESS
    where = "{images} images of {groups} groups of `{data}`, split {split}, seed {seed}, {steps} steps".format(**found)
    asked = f"does deleting what `{found['method']}` marks lower the probability, and inserting it raise it?"
    return f"{where}: {asked}\n\n{format_metrics(found)}"


def write_card(bundle: Bundle, audit_table: str = "", places: Places | None = None, licence: str = LICENCE) -> str:
    """The bundle's README.md: metadata, then given, derived and measured facts, in Markdown.

    `audit_table` takes the place of what the metrics hold of the audit; `places` are where it is published.
    """
    head, task, fitted = bundle.head, bundle.task, bundle.head.fitted_on
    looks, settings = describe_head(head)
    figures, calibration = figures_text(bundle.metrics)
    audit = f"```\n{audit_table}\n```" if audit_table else audit_text(bundle.metrics.get("audit", {}))
    encoder = places.backbone if places else head.backbone["id"]
    revision = places.backbone_revision if places else head.backbone["revision"]
    cases = f"the data set [`{places.cases}`](https://huggingface.co/datasets/{places.cases})" if places else "`cases/`"
    text = f"""---
{model_metadata(bundle, places, licence).to_yaml()}
---

# {task.title}: medssl bundle

> {NOT_FOR_DIAGNOSIS}
{f"> {SYNTHETIC}{chr(10)}" if task.synthetic else ""}
## What it is

{looks} on the frozen backbone `{encoder}` (revision `{revision}`, pooling `{head.pooling}`). With the embedded cases in
{cases} it answers three questions of one image: what is it, where is that seen, which known cases look like it.

- Labels, in order: {", ".join(head.labels)}
- Modality: {task.modality}
- Versions: {", ".join(f"{name} {value}" for name, value in head.versions.items()) or "not stated"}

## Not for diagnosis

{NOT_FOR_DIAGNOSIS} Nothing here was tested on people, approved by anybody, or made to be used in care.

## Training data

- Data: {task.data}. Licence of the data: {task.licence}. Citation: {task.citation}
- Fitted on `{fitted.get("data", "not stated")}`: {fitted.get("train_images", "?")} training images of \
{fitted.get("train_groups", "?")} groups, {fitted.get("val_images", "?")} validation images of \
{fitted.get("val_groups", "?")} groups (a group, one patient or slide, is wholly in one split)
- Settings: {settings}, class weight {fitted.get("class_weight", "not stated")}, seed {fitted.get("seed", "not stated")}

### Audit of the data

{audit}

## Figures

{figures}

## Calibration

Temperature {head.temperature:.3f}, fitted on the validation images. Thresholds: {head.thresholds.summary()}.

{calibration}

{coverage_text(head, bundle.metrics)}

## Explanation faithfulness

{faithfulness_text(bundle.metrics.get("faithfulness"))}

## Limits

{LIMITS}

## How to use

```python
from medssl import Bundle

analysis = Bundle.load("{places.head if places else bundle.name}").analyze("image.png")
print(analysis.prediction.label, analysis.prediction.prediction_set, [case.label for case in analysis.cases])
```
"""
    return sign(text)


FAITHFULNESS = (
    'Not measured for this bundle. `bundle.analyze(image, verify=True)` and "Verify this heatmap" on the page measure '
    "one heatmap beside random ones; `scripts/benchmark.py faithfulness` measures a whole test split."
)
