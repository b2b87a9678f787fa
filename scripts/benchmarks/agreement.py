"""Does a mode of ViT-CX give the published map? Its agreement with references of our own, by the model's confidence.

A reference is the mean of six maps by the published method (`noise="full"`, float32, no bound on the number of masks)
with different seeds. Its self-correlation is the mean Pearson correlation of one of the six with the mean of the other
five: what a single run of the published method reaches. A mode holds on a picture where the Pearson correlation of its
maps, made with seeds of their own, with the reference is at least the self-correlation less 0.03.

Pictures are drawn by seed from one split of several tasks, at least a third of them with a top probability under 0.7,
and explained for the predicted class of a linear head that is fitted as `medssl build` fits it. References and results
lie in a folder, one picture after the other, so that a stopped run goes on where it was. Without --backbone the tables
are made anew from what lies there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from marks import put_between

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.measure import part_of
from medssl.data.load import open_data, read_record
from medssl.data.split import split_data
from medssl.errors import DataError, MedSSLError
from medssl.explain.explanation import Explanation
from medssl.explain.vit_cx import ViTCX
from medssl.files import written_whole
from medssl.heads.fit_linear import fit_head
from medssl.heads.head import Head

UNSURE = 0.7  # a top probability under which the model counts as unsure
BANDS = ((0.0, UNSURE), (UNSURE, 0.95), (0.95, 1.0))
TOLERANCE = 0.03
REFERENCE_SEEDS = range(100, 106)
BEGIN, END = "<!-- Written by scripts/benchmarks/agreement.py: begin -->", "<!-- end -->"


@dataclass(frozen=True)
class Mode:
    """One way to run ViT-CX: the options of its `saliency` that differ, and how the table calls it."""

    name: str
    title: str
    noise: str
    max_masks: int | None
    low_precision: bool = False


FORMER_BOUND = 40  # the default's until this was measured; none of these pictures meets today's
UNCAPPED = Mode("uncapped", "`full`, float32, no bound on masks", "full", None)
MODES = (
    Mode("full", f"`full`, float32, at most {FORMER_BOUND} masks", "full", FORMER_BOUND),
    Mode("full_low", f"`full`, bf16, at most {FORMER_BOUND} masks", "full", FORMER_BOUND, low_precision=True),
    UNCAPPED,
    Mode("full_20", "`full`, float32, at most 20 masks", "full", 20),
    Mode("first_order", f"`first_order`, float32, at most {FORMER_BOUND} masks", "first_order", FORMER_BOUND),
)


@dataclass(frozen=True)
class Subject:
    """The pictures of one split of a task, and the head whose prediction is explained.

    `confidence [N]` is the top probability of each row of `dataset`.
    """

    task: str
    dataset: Dataset
    head: Head
    confidence: np.ndarray


@dataclass(frozen=True)
class Result:
    """What was measured on one picture; `agreement` and `passes` by the name of the mode."""

    backbone: str
    task: str
    file_name: str
    confidence: float
    masks: int
    evidence: bool
    self_correlation: float
    agreement: dict[str, float]
    passes: dict[str, float]

    def holds(self, mode: str) -> bool:
        """Whether the mode's maps are as close to the reference as the published method's own, less TOLERANCE."""
        return self.agreement[mode] >= self.self_correlation - TOLERANCE


def open_subject(embedder: Embedder, data: str, arguments: argparse.Namespace) -> Subject:
    """Fit a task's linear head as a build does and predict one split. Raises DataError where the split is empty."""
    split = arguments.split
    dataset, task = open_data(data, Path(data).name, None)
    dataset = embedder.embed(split_data(dataset, seed=arguments.seed), arguments.cache, not arguments.quiet)
    head = fit_head(part_of(dataset, "train"), part_of(dataset, "val"), task, embedder)
    rows = np.flatnonzero(np.asarray(dataset["split"][:]) == split)
    if not len(rows):
        raise DataError(f"{data} has no split {split!r}. Allowed: train, val, test.")
    chosen = dataset.select(rows)
    probabilities = head.probabilities(torch.tensor(part_of(chosen).embeddings))
    return Subject(task.name, chosen, head, probabilities.amax(dim=1).numpy())


def in_turn(lists: Sequence[Sequence]) -> list:
    """The first of each list, then the second of each, and so on."""
    missing = object()
    return [value for value in chain.from_iterable(zip_longest(*lists, fillvalue=missing)) if value is not missing]


def draw_pictures(confidences: Sequence[np.ndarray], count: int, seed: int) -> list[tuple[int, int]]:
    """`count` pictures as (task number, row), each once: of every three one under UNSURE while there are any.

    Tasks take turns; the order is such that every beginning of it is as mixed as the whole.
    """
    rng = np.random.default_rng(seed)
    unsure, others = [], []
    for number, confidence in enumerate(confidences):
        order = rng.permutation(len(confidence))
        unsure.append([(number, int(row)) for row in order if confidence[row] < UNSURE])
        others.append([(number, int(row)) for row in order if confidence[row] >= UNSURE])
    doubtful, sure = iter(in_turn(unsure)), iter(in_turn(others))
    drawn: list[tuple[int, int]] = []
    while len(drawn) < count:
        first, second = (doubtful, sure) if len(drawn) % 3 == 0 else (sure, doubtful)
        picture = next(first, None) or next(second, None)
        if picture is None:
            break
        drawn.append(picture)
    return drawn


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    """The Pearson correlation of two maps `[h, w]`; 0 where one is constant."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def make_reference(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """The mean `[h, w]` of maps, and their self-correlation."""
    stacked = np.stack(runs).astype(np.float64)
    total = stacked.sum(axis=0)
    against = [pearson(run, (total - run) / (len(stacked) - 1)) for run in stacked]
    return (total / len(stacked)).astype(np.float32), float(np.mean(against))


def measure_picture(subject: Subject, row: int, backbone: Backbone, runs: int) -> tuple[np.ndarray, Result]:
    """The reference `[h, w]` of one picture, and how far each mode agrees with it."""
    record = subject.dataset[row]
    image, explainer = read_record(record), ViTCX(backbone, subject.head)
    encoding = backbone.encode([image], subject.head.preprocess)

    def explain(mode: Mode, seed: int) -> Explanation:
        options = {"noise": mode.noise, "max_masks": mode.max_masks, "low_precision": mode.low_precision}
        return explainer.explain(image, seed=seed, encoding=encoding, **options)

    references = [explain(UNCAPPED, seed) for seed in REFERENCE_SEEDS]
    masks = references[0].masks
    reference, own = make_reference([found.saliency for found in references])
    free = [explain(UNCAPPED, seed) for seed in range(runs)]
    agreement, passes = {}, {}
    for mode in MODES:
        # A bound that is not met changes nothing: the same seed gives the same map.
        unbounded = mode.max_masks is None or masks <= mode.max_masks
        same = mode.noise == "full" and unbounded and not mode.low_precision
        found = free if same else [explain(mode, seed) for seed in range(runs)]
        agreement[mode.name] = float(np.mean([pearson(one.saliency, reference) for one in found]))
        passes[mode.name] = float(np.mean([1 + one.forward_passes for one in found]))
    return reference, Result(
        backbone=Path(backbone.id).name,
        task=subject.task,
        file_name=record["file_name"],
        confidence=float(subject.confidence[row]),
        masks=masks,
        evidence=references[0].evidence,
        self_correlation=own,
        agreement=agreement,
        passes=passes,
    )


def measure_backbone(arguments: argparse.Namespace) -> None:
    """Make references and results of one backbone, each written as soon as it is made; those that lie there stay."""
    embedder = Embedder.of(Backbone.from_pretrained(arguments.backbone, precision="fp32"))
    backbone = Backbone.from_pretrained(arguments.backbone, precision="bf16")
    subjects = [open_subject(embedder, data, arguments) for data in arguments.data]
    folder = Path(arguments.references) / Path(backbone.id).name
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_pictures([subject.confidence for subject in subjects], arguments.count, arguments.seed)
    for order, (number, row) in enumerate(tqdm(drawn, desc="references", unit="img", disable=arguments.quiet)):
        place = folder / f"{order:03d}.json"
        if place.exists():
            continue
        reference, result = measure_picture(subjects[number], row, backbone, arguments.runs)
        with written_whole(place.with_suffix(".npy")) as beside, beside.open("wb") as file:
            np.save(file, reference)
        with written_whole(place) as beside:
            beside.write_text(json.dumps(asdict(result), indent=1), "utf-8")


def read_results(references: str) -> list[Result]:
    """Every result that lies in a folder of references."""
    places = sorted(Path(references).glob("*/*.json"))
    return [Result(**json.loads(place.read_text("utf-8"))) for place in places]


def summarize(results: Sequence[Result]) -> list[dict]:
    """One row a backbone, band of confidence and mode, in plain JSON types."""
    rows = []
    for backbone in sorted({result.backbone for result in results}, reverse=True):
        own = [result for result in results if result.backbone == backbone]
        for low, high in ((0.0, 1.0), *BANDS):
            band = [result for result in own if low <= result.confidence < high or result.confidence == high == 1]
            rows += [summarize_mode(backbone, (low, high), band, mode) for mode in MODES if band]
    return rows


def summarize_mode(backbone: str, band: tuple[float, float], results: Sequence[Result], mode: Mode) -> dict:
    """The figures of one mode on some pictures."""
    agreement = [result.agreement[mode.name] for result in results]
    capped = [mode.max_masks is not None and result.masks > mode.max_masks for result in results]
    return {
        "backbone": backbone,
        "confidence": list(band),
        "mode": mode.title,
        "pictures": len(results),
        "self_correlation": float(np.mean([result.self_correlation for result in results])),
        "agreement": float(np.mean(agreement)),
        "lowest": float(np.min(agreement)),
        "holds": sum(result.holds(mode.name) for result in results),
        "capped": sum(capped),
        "capped_holds": sum(result.holds(mode.name) for result, met in zip(results, capped, strict=True) if met),
        "masks": [min(result.masks for result in results), max(result.masks for result in results)],
        "passes": float(np.mean([result.passes[mode.name] for result in results])),
    }


def table(rows: Sequence[dict]) -> str:
    """The figures as Markdown."""
    lines = [
        "| encoder | confidence | mode | pictures | agreement: mean, lowest | self-correlation | holds | "
        "bound met, holds there | forwards |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row["confidence"]
        band = "all" if (low, high) == (0, 1) else f"{low:g} to {high:g}"
        capped = f"{row['capped']}, {row['capped_holds']}" if row["capped"] else "0"
        lines.append(
            f"| {row['backbone']} | {band} | {row['mode']} | {row['pictures']} | {row['agreement']:.3f}, "
            f"{row['lowest']:.3f} | {row['self_correlation']:.3f} | {row['holds']} of {row['pictures']} | {capped} | "
            f"{row['passes']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure where a backbone is given, then print the tables and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", required=True, help="the folder of references and results")
    parser.add_argument("--backbone", help="backbone: name, Hub id or folder")
    parser.add_argument("--data", action="append", default=[], help="a labeled folder; repeat")
    parser.add_argument("--split", default="test", help="the split to draw pictures from (default: test)")
    parser.add_argument("--count", type=int, default=60, help="pictures (default: 60)")
    parser.add_argument("--runs", type=int, default=2, help="seeds of each mode (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of split and draw (default: 0)")
    parser.add_argument("--cache", help="where embeddings are cached (default: MEDSSL_CACHE)")
    parser.add_argument("--out", help="where to write the figures as JSON")
    parser.add_argument("--page", help="a Markdown page to write the table into, between its marks")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    if arguments.backbone:
        if not arguments.data or arguments.count < 1 or arguments.runs < 1:
            raise DataError("--backbone needs --data, and --count and --runs from 1 on.")
        measure_backbone(arguments)
    results = read_results(arguments.references)
    if not results:
        raise DataError(f"{arguments.references} holds no results. Give --backbone and --data to make some.")
    rows = summarize(results)
    print(table(rows))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    if arguments.page:
        put_between(Path(arguments.page), BEGIN, END, table(rows))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MedSSLError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
