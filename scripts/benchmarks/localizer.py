"""Where lesion maps point on a test split with boxes, and how many boxes that takes.

Every setting of a localizer is chosen on validation; the test split is looked at once. With few boxes the first draw
chooses the settings for all draws of that many. Tables go into a page between markers, figures into a JSON file, the
curve into a picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.localize import annotated_rows, annotated_tokens, lesion_labels, trial_sides
from medssl.data.annotations import BOXES, lesion_area
from medssl.data.load import load_data
from medssl.data.split import split_data
from medssl.errors import DataError, MedSSLError
from medssl.explain.faithfulness import energy_inside, pointing_hit, random_heatmap
from medssl.files import written_whole
from medssl.heads.fit_localizer import (
    LocalizerPlan,
    average_precision,
    figure,
    fit_localizer,
    layer_sets,
    lesion_patches,
)
from medssl.heads.lesion_examples import AnnotatedTokens, raw_maps
from medssl.heads.localizer import Localizer, smoothed
from medssl.metrics.metric import figure_text

FRAME, GRID = 224, 22  # every map is judged in one frame and on one grid of patches, whatever it was computed on
COUNTS = (1, 2, 5, 10, 20)
MEASURES = {
    "pointing": "maximum in the box",
    "near": "or within half a patch",
    "precision": "patch average precision",
    "energy": "energy in the box",
}
BEGIN, END = "<!-- Written by scripts/benchmarks/localizer.py: begin -->", "<!-- end -->"


@dataclass(frozen=True)
class TestPictures:
    """The test pictures with a lesion: `masks [N, F, F]` bool, `areas [N, G, G]`, their `groups [N]`."""

    dataset: Dataset
    masks: np.ndarray
    areas: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> TestPictures:
        """Those of a data set with splits. Raises DataError where there is none."""
        rows = [row for row in annotated_rows(dataset, "test") if dataset[int(row)][BOXES]]
        if not rows:
            raise DataError("No picture has a box or a mask in the test split, so there is nothing to measure.")
        dataset = dataset.select(rows)
        masks = np.stack([lesion_area(row, FRAME, FRAME) >= 0.5 for row in dataset])
        areas = np.stack([lesion_area(row, GRID, GRID) for row in dataset])
        return cls(dataset, masks, areas, np.asarray(dataset["group_id"][:]))

    def scores(self, number: int, heatmap: np.ndarray) -> tuple[float, ...]:
        """What a map `[F, F]` of values from 0 up says of a picture's lesion, one number a measure."""
        cells = np.asarray(Image.fromarray(heatmap).resize((GRID, GRID), Image.Resampling.BOX))
        area, mask = self.areas[number], self.masks[number]
        near = float((area.ravel() > 0)[cells.argmax()])
        precision = average_precision(cells.ravel(), lesion_patches(area.reshape(1, -1))[0])
        return pointing_hit(heatmap, mask), near, precision, energy_inside(heatmap, mask)


def table_row(scores: np.ndarray, groups: np.ndarray, seed: int) -> dict:
    """Each measure of scores `[N, M]` with its interval over groups."""
    return {name: figure(scores[:, place], groups, seed) for place, name in enumerate(MEASURES)}


def in_frame(grids: np.ndarray) -> np.ndarray:
    """Log-odds `[N, h, w]` as probabilities in the frame, float32 `[N, F, F]`."""
    values = torch.from_numpy(grids[:, None])
    size = (FRAME, FRAME)
    return expit(torch.nn.functional.interpolate(values, size=size, mode="bilinear", align_corners=False)[:, 0].numpy())


@dataclass(frozen=True)
class Sides:
    """All annotated pictures at each input size, and which of them are of which split and class."""

    tokens: dict[Embedder, AnnotatedTokens]
    splits: np.ndarray
    labels: list[str]

    @classmethod
    def of(cls, dataset: Dataset, backbone: Backbone, cache: str | None, progress: bool) -> Sides:
        """Those of a data set with splits. Raises DataError where none is annotated."""
        rows = annotated_rows(dataset, "train", "val", "test")
        if not len(rows):
            raise DataError("No picture has a box or a mask, so there is nothing to measure.")
        chosen = dataset.select(rows)
        labels = lesion_labels(dataset, rows)
        layers = tuple(dict.fromkeys(layer for several in layer_sets(backbone) for layer in several))
        tokens = {
            side: annotated_tokens(chosen, side, layers, labels, cache, progress)
            for side in trial_sides(Embedder.of(backbone))
        }
        return cls(tokens, np.asarray(chosen["split"][:]), labels)

    @property
    def first(self) -> AnnotatedTokens:
        """The pictures at the first size."""
        return next(iter(self.tokens.values()))

    def draw(self, count: int | None, seed: int) -> np.ndarray:
        """Numbers of training pictures: `count` of each class of lesion, or all."""
        train = np.flatnonzero(self.splits == "train")
        if count is None:
            return train
        random = np.random.default_rng(seed)
        lesions = self.first.lesions[train]
        parts = [random.permutation(train[lesions == number])[:count] for number in range(len(self.labels))]
        return np.sort(np.concatenate(parts))

    def fit(self, pictures: np.ndarray, plan: LocalizerPlan) -> Localizer:
        """A localizer of these training pictures, with settings chosen on validation."""
        both = np.concatenate([pictures, np.flatnonzero(self.splits == "val")])
        chosen = {side: tokens.chosen(both) for side, tokens in self.tokens.items()}
        return fit_localizer(chosen, self.splits[both], self.labels, plan)

    def only(self, localizer: Localizer) -> tuple[Sides, LocalizerPlan]:
        """The one size and the one plan that a localizer's settings are."""
        config, chosen = localizer.config, localizer.config.fitted_on["chosen"]
        tokens = {side: values for side, values in self.tokens.items() if side.preprocess == config.preprocess}
        plan = LocalizerPlan([tuple(config.layers)], [chosen["penalty"]], [chosen["smoothing"]], progress=False)
        return replace(self, tokens=tokens), plan

    def test_maps(self, localizer: Localizer) -> np.ndarray:
        """The localizer's probabilities of any lesion on the test pictures with one, in the frame: `[N, F, F]`."""
        config, linear = localizer.config, localizer.lesion_linear
        tokens = next(values for side, values in self.tokens.items() if side.preprocess == config.preprocess)
        seen = np.flatnonzero((self.splits == "test") & tokens.has_lesion)
        maps = raw_maps(tokens.chosen(seen), tuple(config.layers), linear.weight[:1], linear.bias[:1])[:, 0]
        return in_frame(smoothed(maps, config.smoothing))


def localizer_figures(sides: Sides, test: TestPictures, counts: Sequence[int], draws: int, seed: int) -> dict:
    """Test figures for each number of boxes a class, by draw, with the settings that were chosen."""
    found: dict[str, dict] = {}
    for count in (*counts, None):
        localizer = sides.fit(sides.draw(count, seed), LocalizerPlan(seed=seed))
        same, plan = sides.only(localizer)
        scores, peaks = [], []
        for draw in range(draws if count else 1):
            fitted = localizer if draw == 0 else same.fit(sides.draw(count, seed + draw), replace(plan, seed=seed))
            maps = sides.test_maps(fitted)
            scores.append([test.scores(number, heatmap) for number, heatmap in enumerate(maps)])
            peaks.append(maps.max(axis=(1, 2)).mean())
        every = np.array(scores)
        found[str(count or "all")] = {
            "boxes": len(sides.draw(count, seed)),
            "settings": localizer.config.fitted_on["chosen"],
            "draws": {name: every[..., place].mean(axis=1).tolist() for place, name in enumerate(MEASURES)},
            "mean_probability_at_maximum": float(np.mean(peaks)),
            **table_row(every.mean(axis=0), test.groups, seed),
        }
        print(f"{count or 'all'}: {figure_text(found[str(count or 'all')]['near'])}", file=sys.stderr, flush=True)
    return found


def random_maps(test: TestPictures, seed: int) -> dict:
    """The same measures for random maps."""
    numbers = range(len(test.groups))
    scores = np.array([test.scores(number, random_heatmap(FRAME, FRAME, seed + number)) for number in numbers])
    return table_row(scores, test.groups, seed)


def names_of_maps(figures: dict) -> Iterator[tuple[str, dict]]:
    """The rows of an encoder's table: title, figures."""
    yield "random map", figures["random"]
    for count, row in figures["localizer"].items():
        if count in ("5", "all"):
            many = (
                f"all {row['boxes']} boxes"
                if count == "all"
                else f"{count} boxes a class, mean of {len(row['draws']['near'])} draws"
            )
            yield f"**lesion map, {many}**", row


def map_table(figures: dict) -> list[str]:
    """Lesion maps of an encoder beside random ones, as a Markdown table."""
    lines = [f"| map | pictures (groups) | {' | '.join(MEASURES.values())} |", f"|{' --- |' * (2 + len(MEASURES))}"]
    for title, row in names_of_maps(figures):
        size = f"{row['near']['n']} ({row['near']['groups']})"
        lines.append(f"| {title} | {size} | {' | '.join(figure_text(row[name]) for name in MEASURES)} |")
    return lines


def boxes_table(figures: dict) -> list[str]:
    """What so many boxes bring, as a Markdown table."""
    lines = [
        "| boxes a class | boxes | maximum in the box or within half a patch (lowest to highest draw) | patch average "
        "precision (lowest to highest draw) | mean probability at the maximum | chosen on validation |",
        f"|{' --- |' * 6}",
    ]
    for count, row in figures["localizer"].items():
        cells = [
            f"{row[name]['value']:.3f} ({min(row['draws'][name]):.3f} to {max(row['draws'][name]):.3f})"
            for name in ("near", "precision")
        ]
        chosen = row["settings"]
        said = f"{chosen['side'][0]} px, {' '.join(chosen['layers'])}, smoothing {chosen['smoothing']:g}"
        peak = f"{row['mean_probability_at_maximum']:.3f}"
        lines.append(f"| {count} | {row['boxes']} | {' | '.join(cells)} | {peak} | {said} |")
    return lines


def plot(found: dict[str, dict], path: Path) -> None:
    """Hit rate and average precision over the number of boxes a class, a line an encoder, dots for the draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for place, (name, axes) in enumerate(zip(("near", "precision"), figure.subplots(1, 2), strict=True)):
        for number, (encoder, figures) in enumerate(found.items()):
            rows = list(figures["localizer"].items())
            labels = [count for count, _ in rows]
            at = range(len(rows))
            axes.plot(at, [row[name]["value"] for _, row in rows], marker="o", color=f"C{number}", label=encoder)
            for x, (_, row) in zip(at, rows, strict=True):
                axes.scatter([x] * len(row["draws"][name]), row["draws"][name], s=8, color=f"C{number}", alpha=0.4)
            axes.set_xticks(list(at), labels)
        axes.set_xlabel("boxes a class")
        axes.set_ylabel("maximum in the box or half a patch from it" if name == "near" else "patch average precision")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        if place == 0:
            axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def text_of(found: dict[str, dict], data: str, options: argparse.Namespace) -> str:
    """The section of the page."""
    lines = [
        f"Test pictures of {data} with a box (fractions of the picture), in a frame of {FRAME} x {FRAME} and on {GRID} "
        f"x {GRID} patches; 95 % intervals over groups, seed {options.seed}. Boxes are drawn from train; blocks, input "
        "size, penalty and smoothing were chosen on validation, test was looked at once.",
    ]
    for encoder, figures in found.items():
        lines += ["", f"**{encoder}**", "", *map_table(figures), "", *boxes_table(figures)]
    if options.plot:
        lines += ["", f"![How many boxes it takes]({Path(options.plot).name})"]
    return "\n".join(lines)


def write_section(page: Path, text: str) -> None:
    """Put the section between its markers in the page, or at its end. Raises DataError for a page with one marker."""
    old = page.read_text("utf-8")
    if BEGIN not in old:
        with written_whole(page) as beside:
            beside.write_text(f"{old.rstrip()}\n\n## Where a lesion is seen\n\n{BEGIN}\n{END}\n", "utf-8")
    put_between(page, BEGIN, END, text)


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="an image folder whose splits have boxes or masks")
    parser.add_argument("--backbone", nargs="+", required=True, help="encoders: names, Hub ids or folders")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="boxes a class (default %(default)s)")
    parser.add_argument("--draws", type=int, default=5, help="draws of so many boxes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", help="where patch tokens are kept")
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--plot", help="where the curve goes, as PNG")
    parser.add_argument("--page", help="the Markdown page that the tables are written into")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    try:
        dataset = split_data(load_data(options.data), seed=options.seed)
        test, found = TestPictures.of(dataset), {}
        for name in options.backbone:
            sides = Sides.of(dataset, Backbone.from_pretrained(name), options.cache, not options.quiet)
            found[Path(str(name)).name] = {
                "random": random_maps(test, options.seed),
                "localizer": localizer_figures(sides, test, options.counts, options.draws, options.seed),
            }
            if options.json:  # what took long is kept before the next encoder
                Path(options.json).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        if options.plot:
            plot(found, Path(options.plot))
        text = text_of(found, Path(options.data).name, options)
        print(text)
        if options.page:
            write_section(Path(options.page), text)
    except MedSSLError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
