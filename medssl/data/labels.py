"""The classes of a data set, in a declared order."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import ClassLabel, Dataset

from medssl.data.rows import TEXT
from medssl.errors import DataError


def with_labels(dataset: Dataset, labels: Sequence[str] | None, source: str, all_present: bool = True) -> Dataset:
    """The data set with its text labels as a ClassLabel in the declared order. Raises DataError on a mismatch.

    With `all_present=False` declared labels may be without images.
    """
    texts = dataset["label"][:]
    found = sorted(set(texts))
    if labels is not None:
        if isinstance(labels, str) or len(set(labels)) != len(labels):
            raise DataError(f"The declared labels {labels!r} are not a list of different names.")
        unknown, absent = sorted(set(found) - set(labels)), [label for label in labels if label not in found]
        if unknown or (absent and all_present):
            raise DataError(
                f"The labels of {source} do not match the declared ones ({', '.join(labels)}): "
                f"not declared: {', '.join(unknown) or 'none'}; "
                f"declared but without images: {', '.join(absent) or 'none'}. Declare what the data has."
            )
    names = list(labels) if labels is not None else found
    if len(names) < 2:
        raise DataError(f"{source} has one label only ({', '.join(names)}); a classifier needs two or more.")
    numbers = {name: index for index, name in enumerate(names)}
    values = [numbers[label] for label in texts]
    return dataset.remove_columns("label").add_column("label", values, feature=ClassLabel(names=names))


def in_label_order(dataset: Dataset, labels: Sequence[str], source: str) -> Dataset:
    """The data set with its classes in the declared order. Raises DataError on a mismatch."""
    names = dataset.features["label"].names
    if names == list(labels):
        return dataset
    texts = [names[value] for value in dataset["label"][:]]
    return with_labels(dataset.remove_columns("label").add_column("label", texts, feature=TEXT), labels, source)
