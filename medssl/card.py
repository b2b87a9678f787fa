"""The card of a bundle: what it is, what it was measured to do, and what it is not for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.evaluation import format_metrics
from medssl.patch_head import PatchHead
from medssl.tasks import NOT_FOR_DIAGNOSIS

if TYPE_CHECKING:
    from medssl.bundle import Bundle
    from medssl.heads import Head


def describe_head(head: Head) -> tuple[str, str]:
    """What the head is, and with what settings it was fitted, in words."""
    fitted = head.fitted_on
    if not isinstance(head, PatchHead):
        return "A linear head", f"C = {fitted['C']}\n  ({fitted['C_chosen_by']})"
    tokens = "final tokens" if head.layer is None else f"tokens of block {head.layer}"
    looks = (
        f"A head that looks at patches (a class's evidence is its mean over the top {head.share:.0%} of the {tokens})"
    )
    return looks, f"penalty = {fitted['penalty']}, layer and share\n  ({fitted['chosen_by']})"


def write_card(bundle: Bundle, audit_table: str) -> str:
    """The bundle's README.md: given, derived and measured facts, in Markdown."""
    head, metrics = bundle.head, bundle.metrics
    fitted, task = head.fitted_on, bundle.task
    looks, settings = describe_head(head)
    unfamiliar = metrics["unfamiliar"]
    flagged = [f"own test split {unfamiliar['own']['value']:.1%}"]
    flagged += [f"{name} {share['value']:.1%}" for name, share in unfamiliar["others"].items()]
    return f"""# {task.title}: medssl bundle

> {NOT_FOR_DIAGNOSIS}

{looks} on the frozen backbone `{head.backbone["id"]}` (revision `{head.backbone["revision"]}`, pooling
`{head.pooling}`), with the embedded cases it was fitted on.

- Labels, in order: {", ".join(head.labels)}
- Modality: {task.modality}. Data: {task.data}. Licence: {task.licence}. Citation: {task.citation}
- Fitted on `{fitted["data"]}`: {fitted["train_images"]} training images of {fitted["train_groups"]} groups,
  {fitted["val_images"]} validation images of {fitted["val_groups"]} groups; {settings},
  class weight {fitted["class_weight"]}, temperature {head.temperature:.3f}, seed {fitted["seed"]}
- Versions: {", ".join(f"{name} {value}" for name, value in head.versions.items())}

## Measured on the test split

{metrics["images"]} images of {metrics["groups"]} groups; 95 % bootstrap intervals over groups, {metrics["resamples"]}
resamples, seed {metrics["seed"]}.

{format_metrics({**metrics["classification"], **metrics["retrieval"]})}

Flagged as unfamiliar: {"; ".join(flagged)}.

## Audit of the data

```
{audit_table}
```

## Use

```python
from medssl import Bundle

analysis = Bundle.load("{bundle.name}").analyze("image.png")
```
"""
