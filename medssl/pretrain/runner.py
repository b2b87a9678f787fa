"""One runner for all objectives: batches in, steps, checkpoints, exact resume, and a folder transformers can load."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from medssl.backbones.backbone import native_bf16
from medssl.errors import PretrainError
from medssl.files import written_whole
from medssl.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from medssl.pretrain import distributed
from medssl.pretrain.corpus import Corpus, open_corpus
from medssl.pretrain.dino import random_masks
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.export import Export, save_encoder
from medssl.pretrain.journal import Journal, effective_rank
from medssl.pretrain.objective import Objective, ViewBatch
from medssl.pretrain.recipe import METHODS, Recipe
from medssl.pretrain.schedule import cosine, learning_rate, parameter_groups, set_schedule
from medssl.pretrain.views import Crops, crop_views
from medssl.pretrain.watch import Watch
from medssl.runtime import reuse_freed_memory

RUN_FOLDER = "run"
# Facts of a step that are written down, where an objective has them.
REPORTED = ("loss", "dino", "ibot", "koleo", "teacher_entropy", "usage_entropy")


@dataclass(frozen=True)
class Reports:
    """How often, in steps, a run writes: a row of the log, a checkpoint, and the watched kNN (0: never)."""

    log_every: int = 20
    checkpoint_every: int = 200
    watch_every: int = 0
    progress: bool = True


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels in 0 to 1 as a model takes them."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(1, 3, 1, 1)
    return (pixels - mean) / torch.tensor(IMAGENET_STD, device=pixels.device).view(1, 3, 1, 1)


def generator_of(*numbers: int) -> torch.Generator:
    """A generator that depends on nothing but these numbers, so that a resumed run draws what it would have drawn."""
    digest = hashlib.sha256(json.dumps(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Batches:
    """Which images a step takes: a new permutation an epoch, the last incomplete batch of each left out.

    `kinds [N]` int64 splits the images into kinds that no batch mixes; without it there is one.
    """

    def __init__(self, images: int, batch_size: int, seed: int, kinds: np.ndarray | None = None) -> None:
        self.batch_size, self.seed = batch_size, seed
        found = np.zeros(images, np.int64) if kinds is None else kinds
        self.members = [np.flatnonzero(found == kind) for kind in np.unique(found)]
        self.per_epoch = sum(len(members) // batch_size for members in self.members)

    @lru_cache(maxsize=2)  # noqa: B019 - one object a run
    def epoch(self, number: int) -> np.ndarray:
        """The batches of an epoch `[per_epoch, batch_size]`."""
        generator, found = generator_of(self.seed, 0, number), []
        for members in self.members:
            order = members[torch.randperm(len(members), generator=generator).numpy()]
            whole = len(order) // self.batch_size
            found.append(order[: whole * self.batch_size].reshape(whole, self.batch_size))
        batches = np.concatenate(found)
        return batches if len(found) == 1 else batches[torch.randperm(len(batches), generator=generator).numpy()]

    def indices(self, step: int, rank: int, world: int) -> np.ndarray:
        """This process's share of the batch of a step, sorted for reading."""
        epoch, place = divmod(step, self.per_epoch)
        return np.sort(self.epoch(epoch)[place][rank::world])


def make_views(corpus: Corpus, indices: np.ndarray, objective: Objective, recipe: Recipe, step: int) -> ViewBatch:
    """The views of a batch, on the objective's device."""
    plan, patch = objective.plan, objective.kept.patch
    device = next(objective.parameters()).device
    images, policies = corpus.batch(indices)
    images = images.to(device)
    generator = generator_of(recipe.seed, 1, step, distributed.rank())
    large = crop_views(images, policies, Crops(recipe.size, plan.large_scale, 2), generator)
    small = large[:0]
    if plan.small_count:
        small = crop_views(images, policies, Crops(recipe.small_size, plan.small_scale, plan.small_count), generator)
    masks = torch.zeros(len(large), 0, dtype=torch.bool)
    if plan.masked:
        masks = random_masks(len(large), recipe.size // patch, generator)
    return ViewBatch(normalise(large), normalise(small), masks.to(device))


def check_sizes(recipe: Recipe, export: Export, encoder: Encoder) -> None:
    """Raises PretrainError for views, or an input size, that do not fit the patches."""
    sides = {"size": recipe.size, "small_size": recipe.small_size, "input_size": export.input_size}
    for name, side in sides.items():
        if side and encoder.patch and side % encoder.patch:
            raise PretrainError(f"{name} is {side} px; the encoder's patches need a multiple of {encoder.patch}.")


@contextmanager
def stop_requests():  # noqa: ANN201
    """A list that is filled when the run is asked to stop (Ctrl+C, SIGTERM), so that a step is never cut in two."""
    asked: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {kind: signal.signal(kind, lambda number, _frame: asked.append(number)) for kind in kinds}
    except ValueError:  # not the main thread, where signals cannot be taken
        yield asked
        return
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def pretrain(
    recipe: Recipe,
    data: Mapping[str, str | Path],
    out: str | Path,
    watch: Mapping[str, str | Path] | None = None,
    reports: Reports | None = None,
    export: Export | None = None,
) -> Path:
    """Pretrain on unlabelled images by data set name; the encoder is saved to `out` (`Backbone.from_pretrained(out)`).

    A run that was stopped or killed goes on from its last checkpoint in `out`/run, and gives the same weights as one
    that never stopped. Raises PretrainError, DataError, BackboneError, and KeyboardInterrupt once stopped and saved.
    """
    reports, export, out = reports or Reports(), export or Export(), Path(out)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    alone, main = accelerator.num_processes == 1, accelerator.is_main_process
    if accelerator.device.type == "cpu":
        reuse_freed_memory()
    run_folder = out / RUN_FOLDER
    with accelerator.main_process_first():
        corpus = open_corpus(data, run_folder, recipe.stored_size, recipe.views, reports.progress and main)
    kinds = corpus.tasks() if recipe.batches == "one-task" else None
    batches = Batches(len(corpus), recipe.batch_size, recipe.seed, kinds)
    if not batches.per_epoch:
        raise PretrainError(
            f"{len(corpus)} images do not fill one batch of {recipe.batch_size} ({recipe.batches}). Give a smaller "
            "batch_size."
        )
    if recipe.batch_size % accelerator.num_processes:
        raise PretrainError(
            f"{accelerator.num_processes} processes cannot share batches of {recipe.batch_size} evenly."
        )
    steps = max(1, round(recipe.epochs * batches.per_epoch))
    encoder = Encoder.load(recipe.init) if recipe.init else Encoder.create(recipe.architecture, recipe.seed)
    check_sizes(recipe, export, encoder)
    encoder.use_fast_attention()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        objective = METHODS[recipe.method](encoder, recipe.options)
    objective.to(accelerator.device)
    shape = {"images": corpus.counts, "processes": accelerator.num_processes, "steps": steps}
    identity = {**recipe.to_dict(), **shape, "files": corpus.fingerprint}
    optimizer = torch.optim.AdamW(parameter_groups(objective), lr=recipe.learning_rate)
    saved = Checkpoint(run_folder / "checkpoint.pt", identity)
    start, seconds = saved.load(objective, optimizer)
    model, optimizer = accelerator.prepare(objective, optimizer)
    objective = accelerator.unwrap_model(model)
    chronicle = Chronicle(run_folder, start, reports, objective, watch, recipe) if main else None
    autocast = recipe.bf16 and native_bf16(accelerator.device)
    model.train()

    bar = tqdm(
        total=steps * recipe.batch_size,
        initial=start * recipe.batch_size,
        desc=recipe.method,
        unit="img",
        smoothing=0.05,
        disable=not (reports.progress and main),
    )
    began = time.perf_counter() - seconds
    with stop_requests() as asked, bar:
        for step in range(start, steps):
            progress, done = step / steps, step + 1
            rate = learning_rate(step, steps, recipe.warmup, recipe.learning_rate, recipe.last_learning_rate)
            set_schedule(optimizer, rate, cosine(*recipe.weight_decay, progress))
            # Whatever a model draws for itself (stochastic depth) is drawn again by a resumed run.
            torch.manual_seed(recipe.seed + step)
            chosen = batches.indices(step, distributed.rank(), distributed.world())
            views = make_views(corpus, chosen, objective, recipe, step)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=autocast):
                found = model(views, progress)
            if not torch.isfinite(found["loss"]):
                raise PretrainError(
                    f"The loss is {found['loss'].item()} at step {step}. Start again with a lower learning rate in a "
                    "new folder; the last checkpoint is whole."
                )
            accelerator.backward(found["loss"])
            norm = accelerator.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            objective.after_step(progress)
            bar.update(recipe.batch_size)
            last, elapsed = done == steps, time.perf_counter() - began
            if chronicle and (done % reports.log_every == 0 or last):
                facts = {"step": done, "images": done * recipe.batch_size, "seconds": elapsed, "learning_rate": rate}
                said = chronicle.add({**facts, "gradient_norm": float(norm)}, found, last)
                bar.set_postfix_str(said, refresh=False)
            stop = len(asked) if alone else int(distributed.reduce_sum(torch.tensor(len(asked)).to(accelerator.device)))
            if chronicle and (stop or last or done % reports.checkpoint_every == 0):
                saved.save(objective, optimizer, done, elapsed)
                chronicle.journal.plot()
            if stop and not last:
                raise KeyboardInterrupt
    if main:
        hardware = {"name": device_name(accelerator.device), "bf16": autocast, "threads": torch.get_num_threads()}
        facts = {**identity, "hardware": hardware, "seconds": time.perf_counter() - began, "skipped": corpus.skipped}
        save_encoder(objective.kept, out, recipe, {**facts, **origin(recipe.init)}, export)
    accelerator.wait_for_everyone()
    return out


class Chronicle:
    """What the main process writes of a run: the log's rows, the watched kNN scores, and a warning on collapse."""

    def __init__(
        self,
        folder: Path,
        start: int,
        reports: Reports,
        objective: Objective,
        watch: Mapping[str, str | Path] | None,
        recipe: Recipe,
    ) -> None:
        self.journal = Journal(folder, start)
        self.reports, self.objective = reports, objective
        self.watched = Watch(watch, recipe.size, recipe.seed) if watch and reports.watch_every else None
        prototypes = objective.options.get("prototypes")
        self.largest_entropy = math.log(prototypes) if prototypes else None

    def add(self, facts: dict[str, float], found: dict[str, torch.Tensor], last: bool) -> str:
        """Write a row of a step's facts and what its forward found; returns a few words for the progress bar."""
        facts = {**facts, **{name: found[name].item() for name in REPORTED if name in found}}
        facts["effective_rank"] = effective_rank(found["features"])
        if self.watched and (facts["step"] % self.reports.watch_every == 0 or last):
            facts |= self.watched.scores(self.objective.kept, normalise)
        self.journal.add(facts)
        if warning := self.journal.collapse(facts, self.largest_entropy):
            tqdm.write(f"warning: {warning}", file=sys.stderr)
        return f"loss {facts['loss']:.3f}, rank {facts['effective_rank']:.0f}"


def origin(init: str | None) -> dict:
    """What is written of the checkpoint a run started from: its name without the folders above it, and its own run."""
    if init is None:
        return {}
    facts = Path(init) / "pretraining.json"
    name = Path(init).name if Path(init).is_dir() else init
    return {"init": name, "started_from": json.loads(facts.read_text("utf-8")) if facts.is_file() else None}


def device_name(device: torch.device) -> str:
    """The processor's or GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_facts = Path("/proc/cpuinfo")
    lines = cpu_facts.read_text("utf-8").splitlines() if cpu_facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Checkpoint:
    """The state of a run in one file, written beside and renamed; refused by a run of another recipe."""

    def __init__(self, file: Path, identity: dict) -> None:
        self.file, self.identity = file, identity

    def load(self, objective: Objective, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
        """Put the saved state in place; returns the steps done and the seconds they took (0 without a file)."""
        if not self.file.exists():
            return 0, 0.0
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError) as error:
            raise PretrainError(f"{self.file} cannot be read: {error}. Remove it to start anew.") from error
        given, kept = json.loads(json.dumps(self.identity)), state["identity"]
        differing = [name for name in given if given[name] != kept.get(name)]
        if differing:
            name = differing[0]
            raise PretrainError(
                f"{self.file.parent.parent} holds a run of another recipe: its {name} is {kept.get(name)!r}, asked for "
                f"is {given[name]!r}. Give the same recipe to go on, or another folder."
            )
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["seconds"]

    def save(self, objective: Objective, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
        """Write the state whole."""
        state = {
            "identity": json.loads(json.dumps(self.identity)),
            "objective": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "seconds": seconds,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.file) as beside:
            torch.save(state, beside)
