"""How often a heatmap's maximum lies in the lesion of a phantom, against random heatmaps on the same pictures."""

from __future__ import annotations

import argparse

import numpy as np
from tqdm.auto import tqdm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's arguments."""
    parser.add_argument("--bundle", nargs="+", help="bundles of phantom tasks (default: those that come with medssl)")
    parser.add_argument("--n", type=int, default=40, help="pictures with a lesion, per label (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the pictures; the shipped bundles were built with 0")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> dict:
    """Explain the true class of fresh phantoms and print one line a task."""
    from PIL import Image

    from medssl.bundle.bundle import Bundle
    from medssl.demo.bundles import shipped_bundles
    from medssl.demo.phantom import check_task, draw_phantom
    from medssl.explain.faithfulness import pointing_hit, random_heatmap
    from medssl.metrics.metric import flagged_share

    figures: dict[str, dict] = {}
    print("| task | pictures | lesion area | ViT-CX in the lesion | random map in the lesion |")
    print("| --- | --- | --- | --- | --- |")
    for place in arguments.bundle or shipped_bundles():
        bundle = Bundle.load(place)
        task = bundle.task.name
        drawn = (draw_phantom(task, label, i, arguments.seed) for label in check_task(task) for i in range(arguments.n))
        phantoms = [phantom for phantom in drawn if phantom.mask.any()]
        hits, control, area = [], [], []
        for number, phantom in enumerate(tqdm(phantoms, desc=task, unit="img", disable=arguments.quiet)):
            picture = Image.fromarray(phantom.image)
            heatmap = bundle.explainer.explain(picture, target=phantom.label).heatmap
            hits.append(pointing_hit(heatmap, phantom.mask))
            height, width = phantom.mask.shape
            control.append(pointing_hit(random_heatmap(height, width, arguments.seed + number), phantom.mask))
            area.append(phantom.mask.mean())
        groups = np.array([f"{task}-{phantom.group_id}" for phantom in phantoms])
        found = {
            name: flagged_share(np.array(values), groups) for name, values in (("vit_cx", hits), ("random", control))
        }
        figures[task] = {"images": len(phantoms), "lesion_area": float(np.mean(area)), **found}
        cells = [
            f"{found[n]['value']:.3f} [{found[n]['low']:.3f}, {found[n]['high']:.3f}]" for n in ("vit_cx", "random")
        ]
        print(f"| {task} | {len(phantoms)} | {np.mean(area):.3f} | {' | '.join(cells)} |")
    return {"seed": arguments.seed, "per_label": arguments.n, "tasks": figures}
