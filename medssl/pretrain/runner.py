"""One runner for all objectives: batches in, steps, checkpoints, exact resume, and a folder transformers can load."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from medssl.backbones.precision import native_bf16
from medssl.backbones.registry import BACKBONES
from medssl.errors import PretrainError
from medssl.pretrain import distributed
from medssl.pretrain.answers import Answers, open_answers
from medssl.pretrain.batches import Batches, make_views
from medssl.pretrain.chronicle import Chronicle, Reports
from medssl.pretrain.corpus import Corpus, open_corpus
from medssl.pretrain.distill import Distill
from medssl.pretrain.encoder import Encoder
from medssl.pretrain.export import Export, save_encoder
from medssl.pretrain.objective import Objective
from medssl.pretrain.recipe import METHODS, Recipe
from medssl.pretrain.run_checkpoint import Checkpoint
from medssl.pretrain.schedule import cosine, learning_rate, parameter_groups, set_schedule
from medssl.pretrain.teacher import Teacher
from medssl.runtime import reuse_freed_memory

RUN_FOLDER = "run"


def check_sizes(recipe: Recipe, export: Export, encoder: Encoder) -> None:
    """Raises PretrainError for views, or an input size, that do not fit the patches."""
    small = recipe.small_size if METHODS[recipe.method].plan.small_count else None
    sides, patch = {"size": recipe.size, "small_size": small, "input_size": export.input_size}, encoder.patch
    wrong = {name: side for name, side in sides.items() if side and patch and side % patch}
    if wrong:
        given = " and ".join(f"{name} is {side} px" for name, side in wrong.items())
        fitting = " ".join(
            f"--{name.replace('_', '-')} {patch * max(1, round(side / patch))}" for name, side in wrong.items()
        )
        raise PretrainError(f"{given}; the encoder's patches need a multiple of {patch}. Give, say, {fitting}.")


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


@dataclass(frozen=True)
class Run:
    """All that the steps of a run share. `start` steps, which took `seconds`, were done before."""

    recipe: Recipe
    accelerator: Accelerator
    corpus: Corpus
    batches: Batches
    steps: int
    model: torch.nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    checkpoint: Checkpoint
    start: int
    seconds: float
    answers: Answers | None = None

    @property
    def autocast(self) -> bool:
        """Whether forwards run in bf16."""
        return self.recipe.bf16 and native_bf16(self.accelerator.device)


@dataclass(frozen=True)
class Step:
    """What one step gave: what its forward found by name, the norm of its gradient, and its learning rate."""

    found: dict[str, torch.Tensor]
    gradient_norm: float
    rate: float


def plan_batches(recipe: Recipe, corpus: Corpus, processes: int) -> Batches:
    """The batches of a run. Raises PretrainError where they would be empty, or cannot be shared evenly."""
    kinds = corpus.tasks() if recipe.batches == "one-task" else None
    batches = Batches(len(corpus), recipe.batch_size, recipe.seed, kinds)
    if not batches.per_epoch:
        raise PretrainError(
            f"{len(corpus)} images do not fill one batch of {recipe.batch_size} ({recipe.batches}). Give a smaller "
            "batch_size."
        )
    if recipe.batch_size % processes:
        raise PretrainError(f"{processes} processes cannot share batches of {recipe.batch_size} evenly.")
    return batches


def make_objective(recipe: Recipe, export: Export) -> Objective:
    """The objective of a recipe over its encoder. Raises PretrainError for sides that do not fit."""
    encoder = Encoder.load(recipe.init) if recipe.init else Encoder.create(recipe.architecture, recipe.seed)
    check_sizes(recipe, export, encoder)
    encoder.use_fast_attention()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return METHODS[recipe.method](encoder, recipe.options)


def ask_teacher(
    recipe: Recipe, accelerator: Accelerator, corpus: Corpus, folder: Path, objective: Distill, progress: bool
) -> tuple[Answers, dict]:
    """The teacher's answers, which the objective is told to expect, and the teacher in words. Raises PretrainError."""
    teacher = Teacher.load(recipe.teacher, objective.options["cls_blocks"], objective.options["patch_blocks"])
    grid = objective.encoder.grid(recipe.size)
    with accelerator.main_process_first():
        answers = open_answers(folder, corpus, recipe, teacher, grid, progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        objective.expect(answers.cls_count, answers.patch_count, *answers.statistics())
    facts = teacher.describe()
    return answers, {**facts, "id": Path(facts["id"]).name if Path(facts["id"]).is_dir() else facts["id"]}


def open_run(
    recipe: Recipe, accelerator: Accelerator, corpus: Corpus, folder: Path, export: Export, progress: bool = True
) -> Run:
    """A run at its beginning, or at its last checkpoint in `folder`. Raises PretrainError."""
    batches = plan_batches(recipe, corpus, accelerator.num_processes)
    steps = max(1, round(recipe.epochs * batches.per_epoch))
    objective, answers = make_objective(recipe, export), None
    shape = {"images": corpus.counts, "processes": accelerator.num_processes, "steps": steps}
    if isinstance(objective, Distill):
        answers, shape["teacher"] = ask_teacher(recipe, accelerator, corpus, folder, objective, progress)
    objective = objective.to(accelerator.device)
    identity = {**recipe.to_dict(), **shape, "files": corpus.fingerprint}
    optimizer = torch.optim.AdamW(parameter_groups(objective), lr=recipe.learning_rate)
    checkpoint = Checkpoint(folder / "checkpoint.pt", identity)
    start, seconds = checkpoint.load(objective, optimizer)
    model, optimizer = accelerator.prepare(objective, optimizer)
    objective = accelerator.unwrap_model(model)
    model.train()
    return Run(
        recipe, accelerator, corpus, batches, steps, model, objective, optimizer, checkpoint, start, seconds, answers
    )


def take_step(run: Run, step: int) -> Step:
    """One step of the optimizer. Raises PretrainError where the loss is no number any more."""
    recipe, progress = run.recipe, step / run.steps
    rate = learning_rate(step, run.steps, recipe.warmup, recipe.learning_rate, recipe.last_learning_rate)
    set_schedule(run.optimizer, rate, cosine(*recipe.weight_decay, progress))
    # Whatever a model draws for itself (stochastic depth) is drawn again by a resumed run.
    torch.manual_seed(recipe.seed + step)
    indices = run.batches.indices(step, distributed.rank(), distributed.world())
    if run.answers is None:
        views = make_views(run.corpus, indices, run.objective, recipe, step)
    else:
        views = run.answers.views(indices, run.objective, recipe, step)
    with torch.autocast(run.accelerator.device.type, torch.bfloat16, enabled=run.autocast):
        found = run.model(views, progress)
    if not torch.isfinite(found["loss"]):
        raise PretrainError(
            f"The loss is {found['loss'].item()} at step {step}. Start again with a lower learning rate in a new "
            "folder; the last checkpoint is whole."
        )
    run.accelerator.backward(found["loss"])
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.objective.after_step(progress)
    return Step(found, float(norm), rate)


def stop_asked(run: Run, asked: list[int]) -> bool:
    """Whether any process of the run was asked to stop."""
    if run.accelerator.num_processes == 1:
        return bool(asked)
    return bool(distributed.reduce_sum(torch.tensor(len(asked)).to(run.accelerator.device)))


def train(run: Run, reports: Reports, chronicle: Chronicle | None) -> float:
    """Take all steps that are left; returns the seconds of the whole run. Raises KeyboardInterrupt once stopped."""
    size = run.recipe.batch_size
    bar = tqdm(
        total=run.steps * size,
        initial=run.start * size,
        desc=run.recipe.method,
        unit="img",
        smoothing=0.05,
        disable=not (reports.progress and run.accelerator.is_main_process),
    )
    began = time.perf_counter() - run.seconds
    with stop_requests() as asked, bar:
        for done in range(run.start + 1, run.steps + 1):
            step = take_step(run, done - 1)
            bar.update(size)
            last, elapsed = done == run.steps, time.perf_counter() - began
            if chronicle and (done % reports.log_every == 0 or last):
                facts = {"step": done, "images": done * size, "seconds": elapsed, "learning_rate": step.rate}
                said = chronicle.add({**facts, "gradient_norm": step.gradient_norm}, step.found, last)
                bar.set_postfix_str(said, refresh=False)
            stop = stop_asked(run, asked)
            if chronicle and (stop or last or done % reports.checkpoint_every == 0):
                run.checkpoint.save(run.objective, run.optimizer, done, elapsed)
                chronicle.journal.plot()
            if stop and not last:
                raise KeyboardInterrupt
    return time.perf_counter() - began


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
    if accelerator.device.type == "cpu":
        reuse_freed_memory()
    folder, main = out / RUN_FOLDER, accelerator.is_main_process
    with accelerator.main_process_first():
        corpus = open_corpus(data, folder, recipe.stored_size, recipe.views, reports.progress and main)
    run = open_run(recipe, accelerator, corpus, folder, export, reports.progress and main)
    chronicle = Chronicle(folder, run.start, reports, run.objective, watch, recipe) if main else None
    seconds = train(run, reports, chronicle)
    if main:
        hardware = {"name": device_name(accelerator.device), "bf16": run.autocast, "threads": torch.get_num_threads()}
        facts = {**run.checkpoint.identity, "hardware": hardware, "seconds": seconds, "skipped": corpus.skipped}
        save_encoder(run.objective.kept, out, recipe, {**facts, **origin(recipe.init)}, export)
    accelerator.wait_for_everyone()
    return out


def origin(init: str | None) -> dict:
    """What is written of the checkpoint a run started from: its name without the folders above it, and its own run."""
    if init is None:
        return {}
    spec = BACKBONES.get(init)
    facts = (spec.folder if spec and spec.folder else Path(init)) / "pretraining.json"
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
