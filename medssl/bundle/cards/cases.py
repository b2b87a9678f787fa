"""The card of a published bundle's cases: what each column holds, whose images they are, and what they are not for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from huggingface_hub import DatasetCardData

from medssl.bundle.cases import SPLITS
from medssl.bundle.repos import BundleRepos
from medssl.data.tasks import NOT_FOR_DIAGNOSIS, SYNTHETIC
from medssl.hub.card_signature import managed_metadata, sign
from medssl.hub.licenses import license_fields
from medssl.library.case_map import MAP_COLUMNS
from medssl.templates import environment
from medssl.text import printable

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle

TEMPLATE = environment("medssl.bundle", "cards").get_template("cases.md.jinja")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def size_category(count: int) -> str:
    """The Hub's name for that many rows."""
    return next((name for limit, name in SIZES if count < limit), "1M<n<10M")


def split_counts(bundle: Bundle) -> list[dict]:
    """Images and groups of each split that there is, and `counts` of its images by label, in the labels' order."""
    rows = bundle.cases.select_columns(["split", "label", "group_id"]).with_format(None)[:]
    counted = []
    for split in SPLITS:
        inside = [index for index, name in enumerate(rows["split"]) if name == split]
        labels = Counter(rows["label"][index] for index in inside)
        counts = [labels[number] for number in range(len(bundle.labels))]
        groups = len({rows["group_id"][index] for index in inside})
        counted.append({"split": split, "images": len(inside), "groups": groups, "counts": counts})
    return [part for part in counted if part["images"]]


def cases_metadata(bundle: Bundle, managed: str) -> DatasetCardData:
    """The data set card's metadata, as the Hub reads it; see `write_cases_card` for `managed`."""
    task = bundle.task
    return DatasetCardData(
        **license_fields(task.license),
        pretty_name=f"{printable(task.title)}: medssl cases",
        task_categories=["image-classification"],
        size_categories=[size_category(len(bundle.cases))],
        tags=["medssl", "medical-imaging", "embeddings", *(["synthetic"] if task.synthetic else [])],
        **managed_metadata(managed),
    )


def write_cases_card(bundle: Bundle, repos: BundleRepos, images: bool, managed: str = "") -> str:
    """The data set's README.md; `managed` is the card on the Hub, whose `dataset_info` and `configs` are taken over."""
    return sign(
        TEMPLATE.render(
            metadata=cases_metadata(bundle, managed).to_yaml(),
            not_for_diagnosis=NOT_FOR_DIAGNOSIS,
            synthetic=SYNTHETIC,
            task=bundle.task,
            head=bundle.head,
            repos=repos,
            images=images,
            splits=split_counts(bundle),
            mapped=set(MAP_COLUMNS) <= set(bundle.cases.column_names),
        )
    )
