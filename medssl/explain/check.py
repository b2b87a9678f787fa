"""Which explainers beat random maps on validation: insertion minus deletion, paired, in a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone
from medssl.backbones.frames import Frames
from medssl.explain.control import RandomMap
from medssl.explain.evidence_map import EvidenceMap
from medssl.explain.explainer import Explainer
from medssl.explain.faithfulness import STEPS, deletion_insertion, shown_map
from medssl.explain.grad_cam import GradCAM
from medssl.explain.gradient_rollout import GradientRollout
from medssl.explain.registry import available_explainers, make_explainer
from medssl.explain.score import class_index, class_score
from medssl.explain.vit_cx import ViTCX
from medssl.explain.vit_cx_variants import BlurredViTCX
from medssl.heads.head import Head
from medssl.metrics.paired import paired_differences

CHECK_SECONDS = 60.0
MOST_IMAGES = 40
RESAMPLES = 1000
# With five groups all on one side of 0 is a matter of luck in one of 32 cases, more than the interval's 2.5 %.
FEWEST_GROUPS = 6
# Measured first. The others take about as long as ViT-CX again, each, or several times that: they are measured only
# where none of these beats random maps.
QUICK = (ViTCX.method, EvidenceMap.method, GradientRollout.method, GradCAM.method)
# Insertion starts from a blurred image, which favors a map that was made with blur (docs, explainers).
FAVORED = (BlurredViTCX.method,)


@dataclass(frozen=True)
class CheckPlan:
    """How much is measured: at most `images`, and no further image once `seconds` of a round have gone by."""

    seconds: float = CHECK_SECONDS
    images: int = MOST_IMAGES
    seed: int = 0
    progress: bool = True
    clock: Callable[[], float] = time.monotonic


def rounds_of(backbone: Backbone, head: Head) -> list[list[Explainer]]:
    """The explainers of both rounds: all that can be done, look at the class, and are not favored by the measure."""
    explainers = [make_explainer(method, backbone, head) for method in available_explainers(backbone, head)]
    fitting = [explainer for explainer in explainers if not explainer.caution and explainer.method not in FAVORED]
    return [[each for each in fitting if (each.method in QUICK) == quick] for quick in (True, False)]


def sample_rows(groups: Sequence[str], count: int, seed: int) -> np.ndarray:
    """At most `count` rows in seeded order, every group's first picture before any group's second."""
    rows = np.random.default_rng(seed).permutation(len(groups))
    seen: dict[str, int] = {}
    places = []
    for row in rows:
        seen[groups[row]] = seen.get(groups[row], 0) + 1
        places.append(seen[groups[row]])
    return rows[np.argsort(places, kind="stable")][:count]


def picture_figures(explainers: Sequence[Explainer], image: Image.Image, seed: int) -> list[float]:
    """Insertion minus deletion of each explainer's map of the predicted class of an RGB image."""
    first = explainers[0]
    backbone, head = first.backbone, first.head
    encoding = backbone.encode([image], head.preprocess)
    score = class_score(head, class_index(head, None, head.classify(encoding)[0]))
    maps = [shown_map(each.explain(image, score, seed, encoding)) for each in explainers]
    curves = deletion_insertion(first.scores, score, backbone.pixels([image], head.preprocess), maps, STEPS, seed)
    return [curve.insertion_minus_deletion for curve in curves]


def measure_round(
    explainers: Sequence[Explainer], frames: Frames, groups: Sequence[str], rows: np.ndarray, plan: CheckPlan
) -> dict[str, dict]:
    """Each explainer's figures on the rows that the time allows, at least one: its own mean, and less random's."""
    tried = [*explainers, RandomMap(explainers[0].backbone, explainers[0].head)]
    start, values = plan.clock(), []
    for number, row in enumerate(tqdm(rows, desc="explainers", unit="img", disable=not plan.progress)):
        if number and plan.clock() - start >= plan.seconds:
            break
        values.append(picture_figures(tried, Image.fromarray(frames.frame(int(row))), plan.seed + number))
    of = [groups[row] for row in rows[: len(values)]]
    control = len(explainers)
    pairs = [(column, control) for column in range(control)]
    gaps = paired_differences(np.array(values), pairs, of, n_bootstrap=RESAMPLES, seed=plan.seed)
    means = np.mean(values, axis=0)
    return {
        each.method: {"insertion_minus_deletion": float(mean), "less_random": gap}
        for each, mean, gap in zip(explainers, means, gaps, strict=False)
    }


def beats_random(figures: Mapping) -> bool:
    """Whether an explainer's figures are above those of random maps beyond the interval, on enough groups."""
    gap = figures["less_random"]
    return gap["groups"] >= FEWEST_GROUPS and gap["low"] is not None and gap["low"] > 0


def choose_explainer(figures: Mapping[str, Mapping]) -> str | None:
    """ViT-CX where it beats random maps, otherwise the best that does; None where none does."""
    beating = [method for method, found in figures.items() if beats_random(found)]
    if ViTCX.method in beating:
        return ViTCX.method
    return max(beating, key=lambda method: figures[method]["less_random"]["value"], default=None)


def check_explainers(
    backbone: Backbone, head: Head, frames: Frames, groups: Sequence[str], plan: CheckPlan | None = None
) -> dict:
    """Measure the explainers of a backbone and head on validation images, and choose: a record in plain JSON.

    `frames` are the images in the head's frame, `groups [N]` theirs. Two rounds at most, the second only where none of
    the first beats random maps; each stops between images when its time is over. An image counts by its insertion minus
    deletion (Petsiuk et al. 2018, arXiv 1806.07421) less that of a random map; 95 % intervals by bootstrap over groups.
    Explainers that do not look at the class are left out, and those that the measure favors. The same seed gives the
    same images in the same order.
    """
    plan = plan or CheckPlan()
    rows = sample_rows(groups, plan.images, plan.seed)
    figures: dict[str, dict] = {}
    for explainers in rounds_of(backbone, head):
        if explainers and choose_explainer(figures) is None:
            figures |= measure_round(explainers, frames, groups, rows, plan)
    return {
        "split": "val",
        "sampled": len(rows),
        "seed": plan.seed,
        "steps": STEPS,
        "resamples": RESAMPLES,
        "chosen": choose_explainer(figures),
        "explainers": figures,
    }
