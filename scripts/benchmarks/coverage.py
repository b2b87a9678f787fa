"""Where prediction sets hold the true class, before and after: by confidence and by class, on the test splits.

`--choose` uses train (out of fold) and validation alone and shows what the settings were chosen by; without it each
head is fitted on train, calibrated on validation and measured on test once.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.measure import part_of
from medssl.data.labelled import Labelled
from medssl.data.load import load_data
from medssl.data.split import split_data
from medssl.errors import MedSSLError
from medssl.heads.calibration import fit_temperature
from medssl.heads.config import Thresholds
from medssl.heads.fit_linear import choose_linear, fit_linear
from medssl.heads.prediction_sets import calibrate_sets, conformal_probability, threshold_members
from medssl.metrics.coverage import coverage_metrics, coverage_row

MASSES = (0.7, 0.75, 0.8, 0.85, 0.9)
BANDS = (1, 3)
FOLDS = 5
CONFIDENCE_BANDS = ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0))
LEVEL = Thresholds.conformal_level
MARK = "<!-- The rest of this page is written by scripts/benchmarks/coverage.py. -->"


@dataclass(frozen=True)
class Fitted:
    """A linear head of one task on one backbone: logits `[N, C]` of validation, test and train (out of fold)."""

    encoder: str
    task: str
    names: list[str]
    sides: dict[str, Labelled]
    logits: dict[str, np.ndarray]


def fit(embedder: Embedder, data: str, cache: str | None, seed: int, out_of_fold: bool) -> Fitted:
    """Fit a task's head as `fit_head` does; test logits only unless `out_of_fold`, which leaves test alone."""
    dataset = embedder.embed(split_data(load_data(data), seed=seed), cache)
    names = dataset.features["label"].names
    sides = {name: part_of(dataset, name) for name in ("train", "val", "test")}
    train = sides["train"]
    weight, bias, C, balanced = choose_linear(train, sides["val"], len(names))
    used = ("val",) if out_of_fold else ("val", "test")
    logits = {name: sides[name].embeddings @ weight.T + bias for name in used}
    if out_of_fold:
        logits["train"] = np.zeros((len(train), len(names)))
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for known, held in folds.split(train.labels, train.labels, train.groups):
            weight, bias = fit_linear(train.rows(known), C, len(names), balanced)
            logits["train"][held] = train.embeddings[held] @ weight.T + bias
    return Fitted(Path(embedder.backbone.id).name, Path(data).name, names, sides, logits)


def draw_groups(fitted: Fitted, images: Labelled, rng: np.random.Generator) -> np.ndarray:
    """Bool `[N]`: images of as many groups of each class, drawn at random, as the validation split has."""
    label_of = dict(zip(images.groups.tolist(), images.labels.tolist(), strict=True))
    validation = fitted.sides["val"]
    wanted = list(dict(zip(validation.groups.tolist(), validation.labels.tolist(), strict=True)).values())
    drawn: list[str] = []
    for label in range(len(fitted.names)):
        own = sorted(group for group, other in label_of.items() if other == label)
        drawn += rng.choice(own, wanted.count(label), replace=False).tolist()
    return np.isin(images.groups, drawn)


def try_settings(fitted: Fitted, draws: int, seed: int) -> dict[tuple[int, float], np.ndarray]:
    """(bands, mass) -> `[draws, 3]`: coverage of the least confident third, of the worst class, mean set size, on
    train (out of fold) and validation images of groups that calibration did not see.
    """
    train, validation = fitted.sides["train"], fitted.sides["val"]
    logits = np.concatenate([fitted.logits["train"], fitted.logits["val"]])
    labels = np.concatenate([train.labels, validation.labels])
    groups = np.concatenate([train.groups, validation.groups]).astype(str)
    images, rng = Labelled(logits, labels, groups), np.random.default_rng(seed)
    found: dict[tuple[int, float], list[list[float]]] = {(bands, mass): [] for bands in BANDS for mass in MASSES}
    for _ in range(draws):
        drawn = draw_groups(fitted, images, rng)
        known, other = images.rows(drawn), images.rows(~drawn)
        temperature = fit_temperature(known.embeddings, known.labels)
        calibrated, new = (softmax(part.embeddings / temperature, axis=1) for part in (known, other))
        unsure = np.argsort(new.max(axis=1), kind="stable")[: len(new) // 3]
        for bands, mass in found:
            sets = calibrate_sets(calibrated, known.labels, known.groups, fitted.names, LEVEL, mass, bands).members(new)
            hits = sets[np.arange(len(new)), other.labels]
            worst = min(hits[other.labels == label].mean() for label in np.unique(other.labels))
            found[bands, mass].append([hits[unsure].mean(), worst, sets.sum(axis=1).mean()])
    return {setting: np.array(rows) for setting, rows in found.items()}


def choice_table(heads: list[Fitted], draws: int, seed: int) -> str:
    """What the settings were chosen by, as Markdown."""
    tried = [try_settings(fitted, draws, seed) for fitted in tqdm(heads, desc="choose", unit="head")]
    lines = [
        "| bands | mass | least confident third | worst class | mean set size |",
        "| --- | --- | --- | --- | --- |",
    ]
    for bands in BANDS:
        for mass in MASSES:
            rows = [found[bands, mass] for found in tried]
            third, worst = (min(np.quantile(row[:, column], 0.1) for row in rows) for column in (0, 1))
            size = np.mean([row[:, 2].mean() for row in rows])
            lines.append(f"| {bands} | {mass:g} | {third:.2f} | {worst:.2f} | {size:.2f} |")
    return "\n".join(lines)


def before_and_after(fitted: Fitted, n_bootstrap: int, seed: int) -> str:
    """The coverage of one head's sets on test, as Markdown: one threshold for all, and adaptive sets."""
    validation, test = fitted.sides["val"], fitted.sides["test"]
    temperature = fit_temperature(fitted.logits["val"], validation.labels)
    known, new = (softmax(fitted.logits[name] / temperature, axis=1) for name in ("val", "test"))
    threshold = conformal_probability(known, validation.labels, LEVEL)
    adaptive = calibrate_sets(known, validation.labels, validation.groups, fitted.names, LEVEL)
    sets = [threshold_members(new, threshold), adaptive.members(new)]
    groups, confidence = test.groups.astype(str), new.max(axis=1)
    tables = []
    for members in sets:
        parts = coverage_metrics(new, test.labels, groups, fitted.names, members, n_bootstrap, seed)
        hits, sizes = members[np.arange(len(new)), test.labels] * 1.0, members.sum(axis=1)
        bands = []
        for low, high in CONFIDENCE_BANDS:
            chosen = (confidence >= low) & ((confidence < high) | (high == 1))
            name = f"confidence {low:g} to {high:g}"
            bands.append(coverage_row(name, hits[chosen], sizes[chosen], groups[chosen], n_bootstrap, seed))
        whole = coverage_row("all", hits, sizes, groups, n_bootstrap, seed)
        tables.append([whole, *parts["by_confidence"], *bands, *parts["by_class"]])
    accuracy = (new.argmax(axis=1) == test.labels).mean()
    return "\n".join(
        [
            f"### {fitted.task}, {fitted.encoder}",
            "",
            f"Test: {len(test)} images of {len(set(groups))} groups, accuracy {accuracy:.3f}. "
            + " ".join(Thresholds(adaptive=adaptive).promise()),
            "",
            "| images | n | groups | before: covered | size | after: covered | mean over groups | size |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(line(*rows) for rows in zip(*tables, strict=True)),
        ]
    )


def line(before: dict, after: dict) -> str:
    """One row of the table."""
    if not after["n"]:
        return f"| {after['name']} | 0 | 0 | - | - | - | - | - |"
    held = f"{after['coverage']:.2f} [{after['low']:.2f}, {after['high']:.2f}]"
    return (
        f"| {after['name']} | {after['n']} | {after['groups']} | {before['coverage']:.2f} | "
        f"{before['mean_set_size']:.2f} | {held} | {after['group_coverage']:.2f} | {after['mean_set_size']:.2f} |"
    )


def main() -> int:
    """Print the tables, and write them below the mark of a page where one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", required=True, help="backbone: name, Hub id or folder; repeat")
    parser.add_argument("--data", action="append", required=True, help="a labelled folder; repeat")
    parser.add_argument("--choose", action="store_true", help="what the settings were chosen by; leaves test alone")
    parser.add_argument("--draws", type=int, default=60, help="draws of calibration groups for --choose (default: 60)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits, draws and resamples (default: 0)")
    parser.add_argument("--cache", help="where embeddings are cached (default: MEDSSL_CACHE)")
    parser.add_argument("--page", help="a Markdown page to write the tables into, below its mark")
    arguments = parser.parse_args()
    heads = []
    for name in arguments.backbone:
        embedder = Embedder.of(Backbone.from_pretrained(name, precision="fp32"))
        for data in arguments.data:
            heads.append(fit(embedder, data, arguments.cache, arguments.seed, arguments.choose))
    if arguments.choose:
        print(choice_table(heads, arguments.draws, arguments.seed))
        return 0
    text = "\n\n".join(before_and_after(fitted, arguments.resamples, arguments.seed) for fitted in heads) + "\n"
    print(text)
    if arguments.page:
        page = Path(arguments.page)
        page.write_text(page.read_text("utf-8").split(MARK)[0] + f"{MARK}\n\n{text}", "utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MedSSLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
