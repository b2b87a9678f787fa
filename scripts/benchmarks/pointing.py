"""How often a map's maximum lies in the lesion of a phantom, and how often its class is right.

The maps: ViT-CX, the explainer that the build chose, the lesion map, the one of these that the page opens on, and
random ones on the same pictures.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from medssl.bundle.bundle import Bundle
    from medssl.demo.phantom import Phantom

MAPS = ("ViT-CX", "explainer", "lesion map", "shown first", "random")
SMALL = 0.1  # a lesion's share of the picture below which a hit says something


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments."""
    parser.add_argument("--bundle", nargs="+", help="bundles of phantom tasks (default: those that come with medssl)")
    parser.add_argument("--n", type=int, default=40, help="pictures with a lesion, per label (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the pictures; the shipped bundles were built with 0")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def maps_of(bundle: Bundle, phantom: Phantom, predicted: str, seed: int) -> dict[str, np.ndarray]:
    """The maps of a phantom's true class by name; those that a bundle has not are left out."""
    from medssl.explain.faithfulness import random_heatmap

    picture = Image.fromarray(phantom.image)
    found = {"ViT-CX": bundle.explainer.explain(picture, target=phantom.label).heatmap}
    first = bundle.explainer_choice.method
    if first == bundle.explainer.method:
        found["explainer"] = found["ViT-CX"]
    elif first:
        found["explainer"] = bundle.make_explainer(first).explain(picture, target=phantom.label).heatmap
    if bundle.localizer:
        found["lesion map"] = bundle.open(picture).lesion_map().heatmap
    opened = "lesion map" if bundle.localizer and bundle.localizer.points_at(predicted) else "explainer"
    if opened in found:
        found["shown first"] = found[opened]
    found["random"] = random_heatmap(*phantom.mask.shape, seed)
    return found


def share(values: list[bool], groups: list[str]) -> dict:
    """A share with its interval over groups; empty for none."""
    from medssl.metrics.metric import flagged_share

    return flagged_share(np.array(values), np.array(groups)) if values else {}


def run(arguments: argparse.Namespace) -> dict:
    """Explain the true class of fresh phantoms and print one line a task and size of lesion."""
    from medssl.bundle.bundle import Bundle
    from medssl.demo.bundles import shipped_bundles
    from medssl.demo.phantom import check_task, draw_phantom
    from medssl.explain.faithfulness import pointing_hit
    from medssl.metrics.metric import figure_text

    figures: dict[str, dict] = {}
    print(f"| task | lesions | pictures | area | class right | {' | '.join(MAPS)} | explainer is |")
    print(f"| --- | --- | --- | --- | --- | {' | '.join('---' for _ in MAPS)} | --- |")
    for place in arguments.bundle or shipped_bundles():
        bundle = Bundle.load(place)
        task = bundle.task.name
        drawn = (draw_phantom(task, label, i, arguments.seed) for label in check_task(task) for i in range(arguments.n))
        phantoms = [phantom for phantom in drawn if phantom.mask.any()]
        rows = []
        for number, phantom in enumerate(tqdm(phantoms, desc=task, unit="img", disable=arguments.quiet)):
            predicted = bundle.analyze(Image.fromarray(phantom.image), explain=False).prediction.label
            found = maps_of(bundle, phantom, predicted, arguments.seed + number)
            hits = {name: bool(pointing_hit(heatmap, phantom.mask)) for name, heatmap in found.items()}
            rows.append(
                {
                    "group": phantom.group_id,
                    "area": float(phantom.mask.mean()),
                    "right": predicted == phantom.label,
                    **hits,
                }
            )
        figures[task] = {"first": bundle.explainer_choice.method}
        for size, chosen in (("all", rows), (f"under {SMALL:.0%}", [row for row in rows if row["area"] < SMALL])):
            if not chosen:
                continue
            groups = [row["group"] for row in chosen]
            shares = {name: share([row[name] for row in chosen if name in row], groups) for name in ("right", *MAPS)}
            area = float(np.mean([row["area"] for row in chosen]))
            figures[task][size] = {"images": len(chosen), "lesion_area": area, **shares}
            cells = " | ".join(figure_text(metric) if metric else "-" for metric in shares.values())
            print(f"| {task} | {size} | {len(chosen)} | {area:.3f} | {cells} | {bundle.explainer_choice.method} |")
    return {"seed": arguments.seed, "per_label": arguments.n, "tasks": figures}
