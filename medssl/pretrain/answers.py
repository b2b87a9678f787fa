"""What a teacher says of a fixed set of crops: computed once, half precision, kept on disk, resumable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from medssl.backbones.patch_tokens import TokenFile, check_space
from medssl.errors import PretrainError
from medssl.files import digest_of, written_whole
from medssl.pretrain import distributed
from medssl.pretrain.batches import generator_of, standardize
from medssl.pretrain.corpus import Corpus
from medssl.pretrain.distill import Distill
from medssl.pretrain.objective import ViewBatch
from medssl.pretrain.recipe import Recipe
from medssl.pretrain.teacher import Teacher, regrid
from medssl.pretrain.views import DRAWS, FIELDS, blurred, draws_of, recolor, sample, sampling_matrices

PART_CROPS = 64  # how many answers a kill costs at most
STATISTICS = 4096  # crops from which the answers' mean and deviation are taken
# What a policy may change without moving anything.
COLORS = ("brightness", "contrast", "saturation", "hue", "gray", "blur", "noise")
MIDDLE = {"area": 1.0, "ratio": 0.5, "rotation": 0.5}  # draws that leave a picture whole and upright


@dataclass(frozen=True)
class FixedCrops:
    """`count` crops of each picture of a corpus, always the same: the whole picture, then random ones with its flips.

    Row `crop * len(corpus) + index` is a crop of a picture.
    """

    corpus: Corpus
    count: int
    smallest: float
    seed: int

    def __len__(self) -> int:
        return self.count * len(self.corpus)

    def matrices(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """uint8 pictures `[B, 3, S, S]`, their policies `[B, fields]` and the affine maps `[B, 2, 3]` of some rows."""
        images, policies = self.corpus.batch(rows % len(self.corpus))
        drawn = torch.stack(
            [torch.rand(len(DRAWS), generator=generator_of(self.seed, 2, int(row))) for row in rows.tolist()]
        )
        for name, value in MIDDLE.items():
            drawn[torch.from_numpy(rows < len(self.corpus)), DRAWS.index(name)] = value
        policy = dict(zip(FIELDS, policies.unbind(1), strict=True))
        theta = sampling_matrices(draws_of(drawn), policy, (self.smallest, 1.0))
        return images, policies, theta

    def pixels(self, rows: np.ndarray, side: int) -> torch.Tensor:
        """The crops themselves, `[B, 3, side, side]` in 0 to 1."""
        images, _, theta = self.matrices(rows)
        return sample(images, theta, side)


@dataclass(frozen=True)
class Answers:
    """A teacher's answers float16 `[R, T, D]` over its own `grid` to the rows of fixed crops, memory mapped.

    They do not depend on the student, so that one file serves students of every architecture and size; `wanted` is the
    grid of the one at hand.
    """

    crops: FixedCrops
    tokens: np.ndarray
    cls_count: int
    patch_count: int
    grid: tuple[int, int]
    wanted: tuple[int, int]

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation `[cls_count + patch_count, D]` of the answers, over rows spread evenly."""
        rows = np.unique(np.linspace(0, len(self.tokens) - 1, STATISTICS).astype(int))
        counts, sums, squares = 0, 0.0, 0.0
        for part in np.array_split(rows, max(1, len(rows) // PART_CROPS)):
            tokens = torch.from_numpy(self.tokens[part].astype(np.float32))
            grids = tokens[:, self.cls_count :].unflatten(1, (self.patch_count, -1))
            each = [tokens[:, [index]] for index in range(self.cls_count)]
            kinds = each + [grids[:, index] for index in range(self.patch_count)]
            means = torch.stack([kind.double().mean((0, 1)) for kind in kinds])
            spread = torch.stack([kind.double().square().mean((0, 1)) for kind in kinds])
            counts, sums, squares = counts + len(part), sums + means * len(part), squares + spread * len(part)
        mean, square = sums / counts, squares / counts
        return mean.float(), (square - mean**2).clamp_min(1e-8).sqrt().float()

    def views(self, indices: np.ndarray, objective: Distill, recipe: Recipe, step: int) -> ViewBatch:
        """One of the crops of each picture as the student sees it, its colors varied, and the teacher's answers to it
        over the student's grid.
        """
        device = next(objective.parameters()).device
        generator = generator_of(recipe.seed, 1, step, distributed.rank())
        chosen = torch.randint(self.crops.count, (len(indices),), generator=generator).numpy()
        rows = chosen * len(self.crops.corpus) + indices
        images, policies, theta = self.crops.matrices(rows)
        policies = policies.clone()
        for name in COLORS:
            policies[:, FIELDS.index(name)] *= objective.options["jitter"]
        policy = dict(zip(FIELDS, policies.unbind(1), strict=True))
        draw = draws_of(torch.rand(len(rows), len(DRAWS), generator=generator))
        pixels = sample(images.to(device), theta, recipe.size)
        pixels = recolor(blurred(pixels, draw, policy), draw, policy, generator)
        answers = regrid(torch.from_numpy(self.tokens[rows]).to(device), self.cls_count, self.grid, self.wanted)
        empty = pixels[:0]
        return ViewBatch(standardize(pixels), empty, torch.zeros(0, 0, dtype=torch.bool, device=device), answers)


def teacher_side(recipe: Recipe, teacher: Teacher) -> int:
    """The side in pixels at which the teacher sees crops. Raises PretrainError for one that its patches do not fit."""
    stride = teacher.backbone.stride or 1
    asked = int({**Distill.defaults, **recipe.options}["teacher_size"])
    side = asked or max(stride, recipe.stored_size // stride * stride)
    if side % stride:
        raise PretrainError(f"teacher_size is {side} px; the teacher's patches need a multiple of {stride}.")
    return side


def open_answers(
    folder: Path, corpus: Corpus, recipe: Recipe, teacher: Teacher, wanted: tuple[int, int], progress: bool = True
) -> Answers:
    """The answers of a teacher to a run's fixed crops, over the student's grid `wanted`, from `folder` or made there.

    A killed run goes on where it was; whole answers are checked against their hash. Raises PretrainError, DataError.
    """
    options = {**Distill.defaults, **recipe.options}
    crops = FixedCrops(corpus, int(options["crops"]), float(options["smallest"]), recipe.seed)
    side = teacher_side(recipe, teacher)
    grid = teacher.grid(side)
    facts = [corpus.fingerprint, teacher.describe(), recipe.stored_size, side]
    facts += [crops.count, crops.smallest, crops.seed]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    length = teacher.cls_count + teacher.patch_count * grid[0] * grid[1]
    width = teacher.backbone.dimension
    file = TokenFile(folder / f"answers-{key}.npy", (len(crops), length, width))
    check_space(folder, [file])
    with tqdm(total=len(crops), initial=file.done(), desc="teacher", unit="img", disable=not progress) as bar:
        for start in range(file.done(), len(crops), PART_CROPS):
            rows = np.arange(start, min(start + PART_CROPS, len(crops)))
            file.write(start, answer_part(crops, rows, teacher, side))
            bar.update(len(rows))
    check_hash(file)
    return Answers(crops, file.open(), teacher.cls_count, teacher.patch_count, grid, wanted)


def answer_part(crops: FixedCrops, rows: np.ndarray, teacher: Teacher, side: int) -> np.ndarray:
    """The answers float16 `[B, T, D]` to some rows. Raises PretrainError for numbers that float16 cannot hold."""
    preprocess = replace(teacher.backbone.preprocess, size=(side, side))
    batch = teacher.backbone.batch_size(preprocess)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    found = []
    for part in np.array_split(rows, -(-len(rows) // batch)):
        answers = teacher.answer((crops.pixels(part, side) - mean) / deviation)
        found.append(answers.cpu().half())
    tokens = torch.cat(found).numpy()
    if not np.isfinite(tokens).all():
        raise PretrainError("The teacher's tokens go beyond what half precision holds. Choose other blocks of it.")
    return tokens


def check_hash(file: TokenFile) -> None:
    """Keep the hash of whole answers, or compare with it. Raises PretrainError for answers that changed since."""
    digest = digest_of(file.path)
    record = file.path.with_suffix(".sha256")
    if not record.is_file():
        with written_whole(record) as beside:
            beside.write_text(digest, "utf-8")
    elif record.read_text("utf-8").strip() != digest:
        raise PretrainError(f"{file.path.name} is damaged: its hash is another. Remove it, to have it made anew.")
