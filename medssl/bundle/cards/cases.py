"""The card of a published bundle's cases: what each column holds, whose images they are, and what they are not for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from huggingface_hub import DatasetCardData, RepoCard

from medssl.bundle.cards.model import Places, licence_fields
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC
from medssl.hub.card_signature import MANAGED, sign

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def size_category(count: int) -> str:
    """The Hub's name for that many rows."""
    return next((name for limit, name in SIZES if count < limit), "1M<n<10M")


def split_table(bundle: Bundle) -> str:
    """Images and groups of each split, and images of each label, as a Markdown table."""
    rows = bundle.cases.select_columns(["split", "label", "group_id"]).with_format(None)[:]
    lines = [f"| split | images | groups | {' | '.join(bundle.labels)} |", "| --- " * (3 + len(bundle.labels)) + "|"]
    for split in dict.fromkeys(sorted(rows["split"], key=("train", "val", "test").index)):
        inside = [index for index, name in enumerate(rows["split"]) if name == split]
        labels = Counter(rows["label"][index] for index in inside)
        counts = " | ".join(str(labels[number]) for number in range(len(bundle.labels)))
        lines.append(f"| {split} | {len(inside)} | {len({rows['group_id'][i] for i in inside})} | {counts} |")
    return "\n".join(lines)


def write_cases_card(bundle: Bundle, places: Places, images: bool, managed: str = "") -> str:
    """The data set's README.md; `managed` is the card on the Hub, whose `dataset_info` and `configs` are kept."""
    task, head = bundle.task, bundle.head
    kept = RepoCard(managed, ignore_metadata_errors=True).data.to_dict() if managed else {}
    metadata = DatasetCardData(
        **licence_fields(task.licence),
        pretty_name=f"{task.title}: medssl cases",
        task_categories=["image-classification"],
        size_categories=[size_category(len(bundle.cases))],
        tags=["medssl", "medical-imaging", "embeddings", *(["synthetic"] if task.synthetic else [])],
        **{key: kept[key] for key in MANAGED if key in kept},
    )
    thumbnail = "a thumbnail, JPEG" if images else "empty: the thumbnails were left out"
    text = f"""---
{metadata.to_yaml()}
---

# {task.title}: medssl cases

> {NOT_FOR_DIAGNOSIS}
{f"> {SYNTHETIC}{chr(10)}" if task.synthetic else ""}
## What it is

The cases that [`{places.head}`](https://huggingface.co/{places.head}) was fitted and measured on, embedded by
`{places.backbone}` (revision `{places.backbone_revision}`, pooling `{head.pooling}`). Similar cases are searched in the
train split only.

{split_table(bundle)}

| column | holds |
| --- | --- |
| id | a hash of the original image's pixels |
| image | {thumbnail} |
| label | one of {", ".join(bundle.labels)} |
| split | train, val or test |
| group_id | patient or slide; a group is wholly in one split |
| source | where the image comes from |
| embedding | {head.embedding_dim} float32 numbers, not normalised |

## Not for diagnosis

{NOT_FOR_DIAGNOSIS}

## Where the images come from

- Modality: {task.modality}
- Data: {task.data}
- Licence: {task.licence}
- Citation: {task.citation}

The rights in the images stay with their source; an embedding can tell something of the image it was made from.

## How to use

```python
from datasets import load_dataset
from medssl import CaseLibrary

library = CaseLibrary(load_dataset("{places.cases}")["train"])
```
"""
    return sign(text)
