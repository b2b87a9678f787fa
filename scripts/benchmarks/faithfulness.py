"""Which explainer shows what decides the class? Deletion, insertion and pointing beside a random map's, on real images.

Every explainer meets the same images with the same seeds. Deletion and insertion are of the predicted class (or of the
likeness to the nearest case of another group); pointing and energy are of the true class, on images that have a box.
Means over images, with intervals over groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from PIL import Image

    from medssl.bundle.bundle import Bundle
    from medssl.explain.explainer import Explainer
    from medssl.explain.explanation import Explanation
    from medssl.explain.score import Score

CONTROL = "random"
PAIRED = "difference"
RECORDED = ("deletion", "insertion", "insertion_minus_deletion", PAIRED, "pointing")


@dataclass(frozen=True)
class Asked:
    """How an image's curves are made: the seed, in how many shares, and what insertion starts from."""

    seed: int
    steps: int
    insert_into: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments."""
    parser.add_argument("--bundle", nargs="+", required=True, help="bundle folders")
    parser.add_argument(
        "--data", nargs="+", required=True, help="image folders or Hub data sets, one a bundle, in order"
    )
    parser.add_argument(
        "--n", type=int, default=60, help="images a bundle, those with a box first (default %(default)s)"
    )
    parser.add_argument("--split", default="test", help="the split to take them from, or 'all' (default %(default)s)")
    parser.add_argument("--of", choices=("class", "case"), default="class", help="what is explained (default class)")
    parser.add_argument("--explainers", nargs="+", metavar="NAME", help="default: all that the backbone allows")
    parser.add_argument("--steps", type=int, help="shares that pixels are deleted and inserted in (default: 14)")
    parser.add_argument(
        "--insert-into", choices=("blur", "mean"), default="blur", help="what insertion starts from (default: blur)"
    )
    parser.add_argument(
        "--sanity",
        type=int,
        default=0,
        metavar="N",
        help="explain N of the images under random weights too (default 0)",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images, explainers, random weights and intervals")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--out-md", help="where to write the tables as Markdown")
    parser.add_argument(
        "--record", metavar="METHOD", help="write this explainer's figures of the class into each bundle and its card"
    )


def run(arguments: argparse.Namespace) -> dict:
    """Measure every explainer on every bundle, print a table each, and return the figures."""
    from medssl.errors import DataError

    if arguments.record and (arguments.of != "class" or arguments.record not in (arguments.explainers or ["vit_cx"])):
        raise DataError(f"--record {arguments.record} needs that explainer among --explainers, and --of class.")
    if arguments.record and arguments.insert_into != "blur":
        raise DataError(
            f"--record {arguments.record} with --insert-into {arguments.insert_into}: a card's insertion starts from "
            "blur, and would not say otherwise. Leave one of them out."
        )
    figures = compare(arguments, lambda bundle: explainers_of(bundle, arguments.explainers, arguments.of), CONTROL)
    for place in arguments.bundle if arguments.record else ():
        record(place, arguments.record, {**figures, **figures["bundles"][str(place)]})
    return figures


def record(place: str, method: str, found: dict) -> None:
    """Put an explainer's figures beside a bundle's others, and into its card unless that was edited by hand."""
    from medssl.bundle.bundle import Bundle
    from medssl.bundle.cards.model import write_card
    from medssl.explain.faithfulness import METRICS
    from medssl.hub.card_signature import is_edited
    from medssl.hub.licenses import license_of

    bundle = Bundle.load(place)
    rows = {name: found["explainers"][name] for name in (method, CONTROL)}
    titles = {name: METRICS[name].title for name in RECORDED if name in METRICS}
    titles |= {PAIRED: f"{METRICS['insertion_minus_deletion'].title}, less that of random maps"}
    bundle.metrics["faithfulness"] = {
        **{name: found[name] for name in ("data", "split", "images", "groups", "seed", "steps")},
        "method": method,
        **{
            f"{bundle.explainers[name]}: {titles[metric]}": row[metric]
            for name, row in rows.items()
            for metric in RECORDED
            if row.get(metric)
        },
    }
    if not is_edited(bundle.card):
        bundle.card = write_card(bundle, license=license_of(bundle.card))
    bundle.save(place)


def compare(arguments: argparse.Namespace, make: Callable[[Bundle], dict[str, Explainer]], against: str) -> dict:
    """Measure the explainers that `make` gives on every bundle, print a table each, and return the figures."""
    from medssl.bundle.bundle import Bundle
    from medssl.data.load import load_data
    from medssl.errors import DataError
    from medssl.explain.faithfulness import STEPS

    if len(arguments.bundle) != len(arguments.data):
        raise DataError(
            f"{len(arguments.bundle)} bundles and {len(arguments.data)} data sets do not pair up; give one a bundle."
        )
    if arguments.n < 1 or arguments.sanity < 0 or arguments.resamples < 1:
        raise DataError(
            f"--n {arguments.n}, --sanity {arguments.sanity}, --resamples {arguments.resamples}: allowed are at least "
            "1, 0 and 1."
        )
    steps = STEPS if arguments.steps is None else arguments.steps
    figures: dict = {"seed": arguments.seed, "split": arguments.split, "steps": steps, "bundles": {}}
    figures["insert_into"] = arguments.insert_into
    texts = []
    for place, source in zip(arguments.bundle, arguments.data, strict=True):
        bundle = Bundle.load(place)
        dataset = load_data(source, labels=bundle.labels)
        chosen = dataset.select(choose(dataset, arguments.split, arguments.n, arguments.seed))
        explainers = make(bundle)
        found = measure_bundle(bundle, chosen, explainers, steps, arguments, against)
        figures["bundles"][str(place)] = {"task": bundle.task.name, "data": Path(source).name, **found}
        settings = f"{arguments.of}, split {arguments.split}, seed {arguments.seed}, {steps} steps"
        settings += "" if arguments.insert_into == "blur" else f", insertion into the {arguments.insert_into} color"
        titles = {name: explainer.title for name, explainer in explainers.items()}
        texts.append(table(f"{bundle.task.title}, {settings}", found, titles, against))
        print(texts[-1], flush=True)
    if arguments.out_md:
        Path(arguments.out_md).write_text("\n".join(texts), "utf-8")
    return figures


def choose(dataset: Dataset, split: str, count: int, seed: int) -> list[int]:
    """The rows to explain: of the split, in seeded order, those with a box first. Raises DataError for no split."""
    from medssl.data.rows import BOX_COLUMNS
    from medssl.errors import DataError

    splits = np.asarray(dataset["split"][:], dtype=object)
    rows = np.arange(len(dataset)) if split == "all" else np.flatnonzero(splits == split)
    if not len(rows):
        named = ", ".join(sorted(set(splits) - {""})) or "none"
        raise DataError(f"The data has no split {split!r}; found: {named}. --split all takes all.")
    rows = np.random.default_rng(seed).permutation(rows)
    if BOX_COLUMNS[0] in dataset.column_names:
        boxed = np.array([value is not None for value in dataset[BOX_COLUMNS[0]][:]])
        rows = rows[np.argsort(~boxed[rows], kind="stable")]
    return rows[:count].tolist()


def explainers_of(bundle: Bundle, wanted: Sequence[str] | None, of: str) -> dict[str, Explainer]:
    """The explainers asked for, by default all that fit backbone and score, and always the random control."""
    from medssl.explain.evidence_map import EvidenceMap
    from medssl.explain.registry import EXPLAINERS, available_explainers, make_explainer

    available = [
        name
        for name in available_explainers(bundle.backbone, bundle.head)
        if of == "class" or name != EvidenceMap.method
    ]
    asked = list(wanted or available)
    names = [name for name in EXPLAINERS if name in asked or name == CONTROL]
    names += [name for name in asked if name not in EXPLAINERS]
    return {name: make_explainer(name, bundle.backbone, bundle.head) for name in names}


def measure_bundle(
    bundle: Bundle,
    dataset: Dataset,
    explainers: dict[str, Explainer],
    steps: int,
    arguments: argparse.Namespace,
    against: str,
) -> dict:
    """All figures of a bundle's explainers on the rows of a data set, and their differences to the one `against`."""
    from medssl.data.load import read_record
    from medssl.data.rows import BOX_COLUMNS
    from medssl.explain.faithfulness import box_mask

    images, kept = [], []
    values: dict[str, dict[str, list[float]]] = {name: {} for name in explainers}
    areas, empty = [], dict.fromkeys(explainers, 0)
    for number, row in enumerate(tqdm(dataset, desc=bundle.task.name, unit="img", disable=arguments.quiet)):
        image = read_record(row)
        box = [row.get(column) if arguments.of == "class" else None for column in BOX_COLUMNS]
        mask = None if None in box else box_mask(box, image.height, image.width)
        areas.append(np.nan if mask is None else float(mask.mean()))
        label = bundle.labels[row["label"]]
        score = None if arguments.of == "class" else nearest_case(bundle, image, row["group_id"])
        asked = Asked(arguments.seed + number, steps, arguments.insert_into)
        explanations = measure_image(explainers, image, label, mask, asked, values, score)
        for name, explanation in explanations.items():
            empty[name] += not explanation.evidence
        if number < arguments.sanity:
            images.append(image)
            kept.append(explanations)
    groups = [str(group) for group in dataset["group_id"][:]]
    if images:
        add_sanity(bundle, explainers, images, kept, values, len(groups), arguments)
    other = values[against]["insertion_minus_deletion"]
    for found in (values[name] for name in explainers if name != against):
        found[PAIRED] = list(np.subtract(found["insertion_minus_deletion"], other))
    summary = {
        name: {
            metric: summarize(metric, numbers, groups, arguments.resamples, arguments.seed)
            for metric, numbers in found.items()
        }
        | {"without_evidence": empty[name]}
        for name, found in values.items()
    }
    boxed = np.isfinite(areas)
    return {
        "images": len(groups),
        "groups": len(set(groups)),
        "boxes": int(boxed.sum()),
        "box_area": float(np.mean(np.array(areas)[boxed])) if boxed.any() else None,
        "explainers": summary,
    }


def nearest_case(bundle: Bundle, image: Image.Image, group: str | None) -> Score:
    """The likeness to the nearest case of another group."""
    from medssl.explain.score import case_score

    case = bundle.analyze(image, top_k=1, explain=False, exclude_group=group).cases[0]
    return case_score(case.id, case.embedding, bundle.head.pooling, case.space)


def measure_image(
    explainers: dict[str, Explainer],
    image: Image.Image,
    label: str,
    mask: np.ndarray | None,
    asked: Asked,
    values: dict[str, dict[str, list[float]]],
    score: Score | None = None,
) -> dict[str, Explanation]:
    """Add one RGB image's figures to `values` (explainer -> metric -> one number an image); the explanations made.

    They are of the `score`, by default the predicted class's probability.
    """
    from medssl.explain.faithfulness import energy_inside, pointing_hit, shown_map
    from medssl.explain.score import class_index, class_score

    first = next(iter(explainers.values()))
    backbone, head = first.backbone, first.head
    if score is None:
        encoding = backbone.encode([image], head.preprocess, maps=False)
        score = class_score(head, class_index(head, None, head.classify(encoding)[0]))
    explanations = {name: explainer.explain(image, score, asked.seed) for name, explainer in explainers.items()}
    maps = [shown_map(explanation) for explanation in explanations.values()]
    curves = curve_figures(first, score, backbone.pixels([image], head.preprocess), maps, asked)
    for (name, explanation), found in zip(explanations.items(), curves, strict=True):
        found |= {"seconds": explanation.seconds, "forward_passes": explanation.forward_passes}
        found |= {"pointing": np.nan, "energy": np.nan}
        if mask is not None:
            true = explanation if label == explanation.target else explainers[name].explain(image, label, asked.seed)
            found["pointing"] = pointing_hit(true.heatmap, mask)
            found["energy"] = energy_inside(true.heatmap, mask)
        for metric, value in found.items():
            values[name].setdefault(metric, []).append(float(value))
    return explanations


def curve_figures(
    explainer: Explainer, score: Score, pixels: torch.Tensor, maps: list[np.ndarray], asked: Asked
) -> list[dict[str, float]]:
    """Deletion, insertion and their difference of each map `[h, w]`.

    Insertion into the mean color is the deletion of the least salient pixels first, read from its end.
    """
    from medssl.explain.faithfulness import CURVE_METRICS, deletion_insertion

    curves = deletion_insertion(explainer.scores, score, pixels, maps, asked.steps, asked.seed)
    found = [{metric: getattr(curve, metric) for metric in CURVE_METRICS} for curve in curves]
    if asked.insert_into == "mean":
        turned = [-values for values in maps]
        others = deletion_insertion(explainer.scores, score, pixels, turned, asked.steps, asked.seed)
        for figures, other in zip(found, others, strict=True):
            figures["insertion"] = other.deletion
            figures["insertion_minus_deletion"] = other.deletion - figures["deletion"]
    return found


def add_sanity(
    bundle: Bundle,
    explainers: dict[str, Explainer],
    images: list,
    kept: list[dict],
    values: dict,
    count: int,
    arguments: argparse.Namespace,
) -> None:
    """Add the likeness of the first images' maps to those under an all random model; NaN for the other images."""
    from medssl.explain.sanity import model_randomization

    for name, found in tqdm(values.items(), desc="random weights", unit="explainer", disable=arguments.quiet):
        result = model_randomization(
            type(explainers[name]),
            bundle.backbone,
            bundle.head,
            images,
            [explanations[name] for explanations in kept],
            cascade=False,
            seed=arguments.seed,
        )
        found["randomisation"] = [*result.likeness[:, 0], *[np.nan] * (count - len(images))]


def summarize(metric: str, numbers: Sequence[float], groups: Sequence[str], resamples: int, seed: int) -> dict | None:
    """A mean over images with its 95 % interval over groups; images without the figure left out, None without any."""
    from medssl.explain.faithfulness import METRICS
    from medssl.metrics.bootstrap import interval, resample, weighted_means
    from medssl.metrics.metric import flagged_share, plain

    known = np.isfinite(numbers)
    if not known.any():
        return None
    column = np.asarray(numbers, np.float64)[known]
    of = np.asarray(groups)[known]
    if metric == "pointing":
        found = flagged_share(column, of, resamples, seed)
    else:
        value, resampled = resample(of, lambda weights: weighted_means(weights, column[:, None]), resamples, seed)
        low, high = interval(float(value[0]), resampled[:, 0], len(set(of)), None)
        found = {"value": float(value[0]), "low": plain(low), "high": plain(high), "n": len(of), "groups": len(set(of))}
    return found | {"higher_is_better": METRICS[metric].higher_is_better if metric in METRICS else None}


def table(title: str, found: dict, names: dict[str, str], against: str) -> str:
    """A bundle's figures as a Markdown table under a line that says what they were measured on."""
    from medssl.explain.faithfulness import METRICS

    rows = found["explainers"]
    titles = {name: f"{metric.title} {'↑' if metric.higher_is_better else '↓'}" for name, metric in METRICS.items()}
    titles |= {PAIRED: f"that less {against}'s", "seconds": "seconds", "forward_passes": "forwards"}
    order = ["deletion", "insertion", "insertion_minus_deletion", PAIRED, "pointing", "energy", "randomisation"]
    columns = [name for name in [*order, "seconds", "forward_passes"] if any(row.get(name) for row in rows.values())]
    boxes = f", {found['boxes']} with a box of {found['box_area']:.3f} of the area" if found["boxes"] else ""
    lines = [
        f"{title}: {found['images']} images of {found['groups']} groups{boxes}",
        "",
        f"| explainer | {' | '.join(titles[name] for name in columns)} | no evidence |",
        "| --- |" + " --- |" * (len(columns) + 1),
    ]
    for name, row in rows.items():
        cells = [cell(column, row.get(column)) for column in columns]
        lines.append(f"| {names[name]} | {' | '.join(cells)} | {row['without_evidence']} |")
    return "\n".join([*lines, ""])


def cell(metric: str, figure: dict | None) -> str:
    """One figure with its interval; what an explanation cost without."""
    if figure is None:
        return "-"
    if metric == "forward_passes":
        return f"{figure['value']:.0f}"
    if metric == "seconds":
        return f"{figure['value']:.2f}"
    ends = ["?" if figure[end] is None else f"{figure[end]:.3f}" for end in ("low", "high")]
    return f"{figure['value']:.3f} [{ends[0]}, {ends[1]}]"
