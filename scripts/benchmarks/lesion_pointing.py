"""All maps of bundles on test pictures whose lesion is known: do they point at it, and is it what the class hangs on?

The explainers' maps are of the picture's own class, the lesion map of any lesion: two questions, measured by one
yardstick. Pictures are drawn by seed; a slow explainer explains the first of them, and insertion minus deletion, of the
probability of the picture's own class, is of the first of them too. The test split is looked at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.bundle.bundle import Bundle
from medssl.data.annotations import BOXES, lesion_area
from medssl.data.load import load_data, read_record
from medssl.data.split import split_data
from medssl.errors import DataError, MedSSLError
from medssl.explain.control import RandomMap
from medssl.explain.explainer import Explainer
from medssl.explain.faithfulness import deletion_insertion, energy_inside, pointing_hit, random_heatmap, shown_map
from medssl.explain.score import class_score
from medssl.files import written_whole
from medssl.heads.fit_localizer import average_precision, figure
from medssl.metrics.metric import figure_text

FRAME = 224  # every map is judged in one frame, whatever it was computed on
RANDOM, LESION_MAP = RandomMap.method, "lesion map"
QUICK = ("gradient_rollout", "attention_rollout", "grad_cam", "evidence_map")
MEASURES = {
    "pointing": "maximum in the lesion",
    "precision": "pixel average precision",
    "energy": "energy in the lesion",
    "curves": "insertion minus deletion",
    "less_random": "that less random's",
}
BEGIN, END = "<!-- Written by scripts/benchmarks/lesion_pointing.py: begin -->", "<!-- end -->"

Maker = Callable[[Image.Image, str, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Counts:
    """How many pictures: of the quick maps, of the slow explainers, and of the deletion and insertion of pixels."""

    quick: int
    slow: int
    curves: int


def with_lesion(bundle: Bundle, data: str, count: int, seed: int) -> list[dict]:
    """Test pictures of a bundle's data that have a lesion, in seeded order. Raises DataError where there is none."""
    dataset = split_data(load_data(data, labels=bundle.labels), seed=bundle.metrics["seed"])
    if BOXES not in dataset.column_names:
        raise DataError(f"{data} has no boxes or masks, so there is nothing to point at.")
    test = np.asarray(dataset["split"][:]) == "test"
    rows = np.flatnonzero(test & np.array([bool(boxes) for boxes in dataset[BOXES][:]]))
    if not len(rows):
        raise DataError(f"No test picture of {data} has a box or a mask of a lesion.")
    return [dataset[int(row)] for row in np.random.default_rng(seed).permutation(rows)[:count]]


def in_model_frame(heatmap: np.ndarray, bundle: Bundle) -> np.ndarray:
    """A map `[H, W]` of a whole picture as the model sees the picture, float32 `[h, w]`, 0 beside it."""
    preprocess = bundle.head.preprocess
    left, top, right, bottom = preprocess.content_box(heatmap.shape[1], heatmap.shape[0])
    found = np.zeros(preprocess.size, np.float32)
    found[top:bottom, left:right] = resized(heatmap, (right - left, bottom - top))
    return found


def resized(heatmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map at (width, height), bilinear."""
    return np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR))


def explained_by(explainer: Explainer) -> Maker:
    """What makes an explainer's map of a class: in the frame `[F, F]`, and in the model's `[h, w]`."""

    def make(picture: Image.Image, label: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = explainer.explain(picture, label, seed)
        return resized(found.heatmap, (FRAME, FRAME)), shown_map(found)

    return make


def makers_of(bundle: Bundle, explainers: Sequence[str] | None) -> dict[str, Maker]:
    """What makes each map of a bundle, by its key: the control, the explainers (default: all), the lesion map."""

    def noise(picture: Image.Image, label: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return random_heatmap(FRAME, FRAME, seed), random_heatmap(*bundle.head.preprocess.size, seed)

    def lesion(picture: Image.Image, label: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = bundle.locate(picture).heatmap
        return resized(found, (FRAME, FRAME)), in_model_frame(found, bundle)

    makers: dict[str, Maker] = {RANDOM: noise}
    for method in bundle.explainers:
        if method != RANDOM and method in (explainers or bundle.explainers):
            makers[method] = explained_by(bundle.make_explainer(method))
    return {**makers, LESION_MAP: lesion} if bundle.localizer else makers


def measure_bundle(
    bundle: Bundle, rows: list[dict], makers: dict[str, Maker], counts: Counts, seed: int, progress: bool
) -> dict[str, dict]:
    """Each map's measures with intervals over groups, by its key. The control comes first."""
    found: dict[str, dict] = {}
    chances: list[float] = []
    for name, make in makers.items():
        number = counts.quick if name in (RANDOM, LESION_MAP, *QUICK) else counts.slow
        hits, curves = [], []
        for place, row in enumerate(tqdm(rows[:number], desc=name, unit="img", disable=not progress)):
            picture, label = read_record(row), bundle.labels[row["label"]]
            mask = lesion_area(row, FRAME, FRAME) >= 0.5
            heatmap, saliency = make(picture, label, seed + place)
            precision = average_precision(heatmap.ravel(), mask.ravel())
            hits.append((pointing_hit(heatmap, mask), precision, energy_inside(heatmap, mask)))
            if place < counts.curves:
                curves.append(insertion_minus_deletion(bundle, picture, label, saliency))
        chances = chances or curves
        groups = np.array([row["group_id"] for row in rows])
        scores = np.array(hits)
        figures = {key: figure(scores[:, at], groups[: len(hits)], seed) for at, key in enumerate(list(MEASURES)[:3])}
        if curves:
            of, drop = groups[: len(curves)], np.subtract(curves, chances[: len(curves)])
            figures["curves"] = figure(np.array(curves), of, seed)
            figures |= {} if name == RANDOM else {"less_random": figure(drop, of, seed)}
        found[name] = figures
    return found


def insertion_minus_deletion(bundle: Bundle, picture: Image.Image, label: str, saliency: np.ndarray) -> float:
    """What the order of a map `[h, w]` does to a class's probability; see `deletion_insertion`."""
    explainer = bundle.explainer
    pixels = bundle.backbone.pixels([picture], bundle.head.preprocess)
    score = class_score(bundle.head, bundle.labels.index(label))
    return deletion_insertion(explainer.scores, score, pixels, [saliency])[0].insertion_minus_deletion


def name_of(bundle: Bundle) -> str:
    """Task and encoder."""
    return f"{bundle.task.name}, {Path(str(bundle.head.backbone['id'])).name}"


def table_of(figures: dict[str, dict], titles: dict[str, str]) -> Iterator[str]:
    """The maps of a bundle as a Markdown table."""
    yield f"| map | pictures (groups) | {' | '.join(MEASURES.values())} | of pictures (groups) |"
    yield f"|{' --- |' * (len(MEASURES) + 3)}"
    for name, row in figures.items():
        cells = [figure_text(row[key], signed=key == "less_random") if key in row else "-" for key in MEASURES]
        first, last = row["pointing"], row.get("curves")
        curves = f"{last['n']} ({last['groups']})" if last else "-"
        yield f"| {titles[name]} | {first['n']} ({first['groups']}) | {' | '.join(cells)} | {curves} |"


def text_of(found: dict[str, dict]) -> str:
    """The section of the page."""
    lines = []
    for name, figures in found.items():
        lines += [f"**{name}**", "", *table_of(figures["maps"], figures["titles"]), ""]
    return "\n".join(lines).strip()


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", nargs="*", default=[], help="bundle folders")
    parser.add_argument("--data", nargs="*", default=[], help="their data, with boxes or masks, in the same order")
    parser.add_argument("--n", type=int, default=1000, help="test pictures at most (default %(default)s)")
    parser.add_argument("--explainers", nargs="+", metavar="NAME", help="default: all that a bundle can do")
    parser.add_argument("--slow-images", type=int, default=40, help="of slow explainers (default %(default)s)")
    parser.add_argument("--curves", type=int, default=60, help="of insertion and deletion (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures, the maps and the intervals")
    parser.add_argument("--json", type=Path, help="where figures are kept; bundles that are in it are not run again")
    parser.add_argument("--page", type=Path, help="the page that takes the tables of all that the JSON file holds")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args()
    if len(arguments.bundle) != len(arguments.data):
        parser.error(f"{len(arguments.bundle)} bundles and {len(arguments.data)} data sets do not pair up.")
    return arguments


def main() -> int:
    """Measure the bundles that are missing, and write where asked."""
    arguments = parse()
    counts = Counts(arguments.n, arguments.slow_images, arguments.curves)
    kept = arguments.json and arguments.json.is_file()
    found = json.loads(arguments.json.read_text("utf-8")) if kept else {}
    try:
        for place, data in zip(arguments.bundle, arguments.data, strict=True):
            bundle = Bundle.load(place)
            if name_of(bundle) in found:
                continue
            rows = with_lesion(bundle, data, max(counts.quick, counts.slow), arguments.seed)
            makers = makers_of(bundle, arguments.explainers)
            maps = measure_bundle(bundle, rows, makers, counts, arguments.seed, not arguments.quiet)
            titles = {RANDOM: RandomMap.title, **bundle.explainers, LESION_MAP: "**lesion map**"}
            found[name_of(bundle)] = {"maps": maps, "titles": {name: titles[name] for name in maps}}
            if arguments.json:
                with written_whole(arguments.json) as beside:
                    beside.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        text = text_of(found)
        print(text)
        if arguments.page:
            put_between(arguments.page, BEGIN, END, text)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
