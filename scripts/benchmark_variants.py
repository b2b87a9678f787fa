"""Is a ViT-CX other than the published one better? Variants beside it on a validation split, never on the test split.

Deletion and insertion are of the predicted class's probability for all of them, whatever they explain themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import benchmark_faithfulness as faithfulness


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments: those of `faithfulness`, on the validation split."""
    faithfulness.add_arguments(parser)
    parser.set_defaults(split="val", n=30)


def run(arguments: argparse.Namespace) -> dict:
    """Measure every variant on every bundle, print a table each, and return the figures."""
    from vit_cx_variants import VARIANTS

    from medssl.bundle import Bundle
    from medssl.data import load_data
    from medssl.errors import DataError
    from medssl.explain import make_explainer
    from medssl.explain.faithfulness import STEPS

    if len(arguments.bundle) != len(arguments.data):
        raise DataError("Give one data set a bundle.")
    steps = STEPS if arguments.steps is None else arguments.steps
    figures: dict = {"seed": arguments.seed, "split": arguments.split, "steps": steps, "bundles": {}}
    texts = []
    for place, source in zip(arguments.bundle, arguments.data, strict=True):
        bundle = Bundle.load(place)
        dataset = load_data(source, labels=bundle.labels)
        chosen = dataset.select(faithfulness.choose(dataset, arguments.split, arguments.n, arguments.seed))
        kinds = {"vit_cx": bundle.explainer, **{kind.method: kind(bundle.backbone, bundle.head) for kind in VARIANTS}}
        kinds["random"] = make_explainer("random", bundle.backbone, bundle.head)
        found = faithfulness.measure_bundle(bundle, chosen, kinds, steps, arguments, against="vit_cx")
        figures["bundles"][str(place)] = {"task": bundle.task.name, "data": Path(source).name, **found}
        titles = {name: kind.title for name, kind in kinds.items()}
        settings = f"{bundle.task.title}, split {arguments.split}, seed {arguments.seed}, {steps} steps"
        texts.append(faithfulness.table(settings, found, titles, against="vit_cx"))
        print(texts[-1], flush=True)
    if arguments.out_md:
        Path(arguments.out_md).write_text("\n".join(texts), "utf-8")
    return figures
