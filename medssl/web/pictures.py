"""The page's examples: one case of each bundle as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets import Image as ImageFeature

from medssl.bundle.bundle import Bundle
from medssl.images.read import read_image


def make_examples(bundles: Mapping[str, Bundle], folder: Path) -> list[dict]:
    """One case of each bundle (of its test split, if it has one) as a PNG file: task, path, true label, group."""
    examples = []
    for number, (name, bundle) in enumerate(bundles.items()):
        splits = bundle.cases["split"][:]
        files = bundle.cases.select_columns(["image"]).cast_column("image", ImageFeature(decode=False))
        test_first = sorted(range(len(splits)), key=lambda row: splits[row] != "test")
        row = next((row for row in test_first if (files[row]["image"] or {}).get("bytes")), None)
        if row is None:  # of a bundle that was published without pictures
            continue
        case = bundle.cases[row]
        path = folder / f"example-{number}.png"
        read_image(case["image"]).save(path)
        label = bundle.labels[case["label"]]
        examples.append({"task": name, "path": str(path), "label": label, "group": case["group_id"] or None})
    return examples
