"""The steps of a fine-tuning run: epochs, validation, early stopping, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from medssl.backbones.precision import native_bf16
from medssl.errors import PretrainError
from medssl.heads.calibration import fit_temperature, smoothed_losses
from medssl.heads.fit_linear import uneven
from medssl.images.preprocess import Preprocess
from medssl.pretrain import distributed
from medssl.pretrain.batches import Batches, generator_of, standardize
from medssl.pretrain.finetune_images import TuningImages
from medssl.pretrain.finetune_model import FineTuned
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from medssl.pretrain.journal import Journal
from medssl.pretrain.run_checkpoint import Checkpoint
from medssl.pretrain.runner import stop_asked, stop_requests
from medssl.pretrain.schedule import learning_rate
from medssl.pretrain.views import Crops, crop_views, policy_table

VALIDATION_BATCH = 32
LAST_SHARE = 0.01  # of the peak learning rate, at the end
PLOTS = (("loss", ("loss", "val_loss")), ("balanced accuracy on validation", ("val_balanced_accuracy",)))


@dataclass
class TuningState:
    """What a run knows beside its optimizer: the model's tuned weights, their moving average, the best average so far,
    what validation said after each epoch (the first before any), and the losses of the steps since.
    """

    model: FineTuned
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss; 0 is before the first."""
        losses = [line["val_loss"] for line in self.history]
        return int(np.argmin(losses))

    @property
    def patience_used(self) -> int:
        """How many epochs have passed since the best."""
        return len(self.history) - 1 - self.best_epoch

    def summary(self) -> str:
        """The last loss and validation score, for a progress bar."""
        loss = f"loss {self.losses[-1]:.3f}, " if self.losses else ""
        score, best = self.history[-1]["val_balanced_accuracy"], self.best_epoch
        return f"{loss}validation {score:.3f} after epoch {len(self.history) - 1}, best loss after {best}"

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the average by this share of the way to what the tuned weights are now."""
        tuned = self.model.tuned()
        for name, parameter in tuned.items():
            if name in self.average:
                self.average[name].lerp_(parameter, share)
            else:
                self.average[name] = parameter.detach().clone()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model under the averaged weights, for as long as it lasts."""
        now = self.model.tuned_weights()
        self.model.put(self.average or now)
        try:
            yield
        finally:
            self.model.put(now)

    def note(self, line: dict[str, float]) -> None:
        """Add what validation said after an epoch, and keep the model's weights where it is the best so far."""
        self.history.append(line)
        self.losses = []
        if self.patience_used == 0:
            self.best = self.model.tuned_weights()

    def state_dict(self) -> dict:
        """All of it, for a checkpoint."""
        kept = {"best": self.best, "average": self.average, "history": self.history, "losses": self.losses}
        return {"weights": self.model.tuned_weights(), **kept}

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`. Raises PretrainError."""
        self.model.put(state["weights"])
        self.best, self.history, self.losses = state["best"], state["history"], state["losses"]
        own = self.model.tuned()
        self.average = {name: value.to(own[name].device) for name, value in state["average"].items()}


@dataclass(frozen=True)
class TuningReports:
    """How often, in steps, a run writes a checkpoint (besides every epoch's end), and whether it shows progress."""

    checkpoint_every: int = 50
    progress: bool = True


@dataclass(frozen=True)
class TuningRun:
    """All that the steps of a run share. `start` steps, which took `seconds`, were done before."""

    recipe: FineTuneRecipe
    accelerator: Accelerator
    images: TuningImages
    preprocess: Preprocess
    policy: str
    batches: Batches
    model: torch.nn.Module
    state: TuningState
    optimizer: torch.optim.Optimizer
    checkpoint: Checkpoint
    class_weights: torch.Tensor
    start: int
    seconds: float

    @property
    def steps(self) -> int:
        """The steps of all epochs."""
        return self.recipe.epochs * self.batches.per_epoch

    @property
    def autocast(self) -> bool:
        """Whether forwards run in bf16."""
        return self.recipe.bf16 and native_bf16(self.accelerator.device)

    def standardized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels in 0 to 1 as the encoder takes them."""
        return standardize(pixels, self.preprocess.mean, self.preprocess.std)


def balanced_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """The weight of each class `[C]`: all 1 where they are about even, else the less the more images it has."""
    counts = np.bincount(labels, minlength=classes)
    if not uneven(labels, classes):
        return torch.ones(classes)
    return torch.from_numpy(len(labels) / (classes * counts)).float()


def plan_steps(recipe: FineTuneRecipe, images: TuningImages, processes: int) -> Batches:
    """The batches of a run. Raises PretrainError where they would be empty, or cannot be shared evenly."""
    batches = Batches(len(images.train), recipe.batch_size, recipe.seed)
    if not batches.per_epoch:
        raise PretrainError(
            f"{len(images.train)} training images do not fill one batch of {recipe.batch_size}. Give a smaller "
            "batch_size."
        )
    if recipe.batch_size % (processes * recipe.accumulate):
        raise PretrainError(
            f"A batch of {recipe.batch_size} cannot be shared evenly by {processes} process(es) with "
            f"{recipe.accumulate} forward(s) each. Give a multiple of {processes * recipe.accumulate}."
        )
    return batches


def open_run(
    model: FineTuned,
    recipe: FineTuneRecipe,
    images: TuningImages,
    preprocess: Preprocess,
    policy: str,
    accelerator: Accelerator,
    checkpoint: Checkpoint,
) -> TuningRun:
    """A run at its beginning, or at its last checkpoint. Raises PretrainError."""
    batches = plan_steps(recipe, images, accelerator.num_processes)
    model.choose_weights(recipe)
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(model.parameter_groups(recipe), lr=recipe.peak)
    state = TuningState(model)
    start, seconds = checkpoint.load(state, optimizer)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    weights = balanced_weights(images.labels[images.train], model.layer.out_features).to(accelerator.device)
    return TuningRun(
        recipe,
        accelerator,
        images,
        preprocess,
        policy,
        batches,
        wrapped,
        state,
        optimizer,
        checkpoint,
        weights,
        start,
        seconds,
    )


def training_pixels(run: TuningRun, rows: np.ndarray, step: int, part: int) -> torch.Tensor:
    """Standardized views `[B, 3, h, w]` of some rows, or what they are views of; it depends on seed, step and part."""
    recipe = run.recipe
    generator = generator_of(recipe.seed, 2, step, part)
    crops = Crops(run.preprocess.size[0], (recipe.smallest_crop, 1.0), 1)
    table = policy_table([run.policy]).expand(len(rows), -1)
    pixels = run.images.batch(rows).to(run.accelerator.device)
    views = crop_views(pixels, table, crops, generator)
    untouched = torch.rand(len(rows), generator=generator_of(recipe.seed, 3, step, part)) < recipe.untouched
    views[untouched] = pixels[untouched].to(views.dtype) / 255
    return run.standardized(views)


def take_step(run: TuningRun, step: int) -> float:
    """One step of the optimizer; returns the mean loss. Raises PretrainError where it is no number any more."""
    recipe, world = run.recipe, distributed.world()
    rate = learning_rate(step, run.steps, recipe.warmup, recipe.peak, LAST_SHARE * recipe.peak)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    torch.manual_seed(recipe.seed + step)
    whole = run.images.train[run.batches.indices(step, 0, 1)]
    total = run.class_weights[torch.from_numpy(run.images.labels[whole]).to(run.class_weights.device)].sum()
    parts = whole.reshape(recipe.accumulate * world, -1)[distributed.rank() :: world]
    summed = 0.0
    for number, rows in enumerate(parts):
        labels = torch.from_numpy(run.images.labels[rows]).to(run.accelerator.device)
        pixels = training_pixels(run, rows, step, number * world + distributed.rank())
        last = number == len(parts) - 1
        with run.accelerator.no_sync(run.model) if not last else nullcontext():
            with torch.autocast(run.accelerator.device.type, torch.bfloat16, enabled=run.autocast):
                logits = run.model(pixels)
            loss = weighted_loss(run, logits.float(), labels).sum() / total
            # Processes average their gradients; the loss is a sum over them.
            run.accelerator.backward(loss * world)
        summed += float(loss.detach())
    if not math.isfinite(summed):
        raise PretrainError(
            f"The loss is {summed} at step {step}. Start again with a lower learning rate in a new folder; the best "
            "weights so far are in the last checkpoint."
        )
    run.accelerator.clip_grad_norm_(run.model.parameters(), recipe.clip)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.state.follow(average_share(step, recipe.average * run.batches.per_epoch))
    return summed


def average_share(step: int, reach: float) -> float:
    """How much of an average that reaches so many steps back is the step's own; more at first, which know little."""
    return min(1.0, max(1 / max(reach, 1.0), 9 / (step + 11)))


def weighted_loss(run: TuningRun, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each image's smoothed cross-entropy times the weight of its class `[B]`."""
    losses = cross_entropy(logits, labels, reduction="none", label_smoothing=run.recipe.label_smoothing)
    return losses * run.class_weights[labels]


@torch.no_grad()
def validate(run: TuningRun) -> dict[str, float]:
    """The class-weighted loss and the balanced accuracy of all validation images, as they will be seen in use.

    The loss is that after temperature scaling, as it will be after a head is fitted: an encoder that only grows too
    sure of itself is not yet worse.
    """
    rows, images = run.images.validation, run.images
    run.state.model.eval()
    logits = []
    for start in range(0, len(rows), VALIDATION_BATCH):
        pixels = images.batch(rows[start : start + VALIDATION_BATCH]).to(run.accelerator.device).float() / 255
        with torch.autocast(run.accelerator.device.type, torch.bfloat16, enabled=run.autocast):
            logits.append(run.state.model(run.standardized(pixels)).float())
    run.state.model.train()
    found, labels = torch.cat(logits).double().cpu().numpy(), images.labels[rows]
    losses = smoothed_losses(found / fit_temperature(found, labels), labels)
    weights = run.class_weights.cpu().numpy()[labels]
    right = found.argmax(axis=1) == labels
    recalls = [right[labels == label].mean() for label in np.unique(labels)]
    return {
        "val_loss": float(np.average(losses, weights=weights)),
        "val_balanced_accuracy": float(np.mean(recalls)),
    }


def is_over(run: TuningRun, done: int) -> bool:
    """Whether nothing is left to do after so many steps."""
    return done >= run.steps or run.state.patience_used >= run.recipe.patience


def end_epoch(run: TuningRun, done: int, seconds: float, journal: Journal | None) -> None:
    """Validate after so many steps, keep the weights where they are the best so far, and write a row of the log."""
    losses, images = run.state.losses, done * run.recipe.batch_size
    facts = {"step": done, "epoch": done // run.batches.per_epoch, "images": images, "seconds": seconds}
    if losses:
        facts["loss"] = float(np.mean(losses))
    with run.state.averaged():
        found = validate(run)
        run.state.note(found)
    if journal:
        journal.add({**facts, **found})


def train(run: TuningRun, reports: TuningReports, journal: Journal | None) -> tuple[float, bool]:
    """Take all steps that are left; returns the seconds of the whole run, and whether it was asked to stop before."""
    size, done = run.recipe.batch_size, run.start
    bar = tqdm(
        total=run.steps * size,
        initial=done * size,
        desc=run.recipe.mode,
        unit="img",
        smoothing=0.05,
        disable=not (reports.progress and run.accelerator.is_main_process),
    )
    began, stop = time.perf_counter() - run.seconds, False
    run.model.train()
    with stop_requests() as asked, bar:
        if not run.state.history:
            end_epoch(run, 0, time.perf_counter() - began, journal)
        while not stop and not is_over(run, done):
            run.state.losses.append(take_step(run, done))
            done += 1
            bar.update(size)
            ends = done % run.batches.per_epoch == 0
            if ends:
                end_epoch(run, done, time.perf_counter() - began, journal)
            bar.set_postfix_str(run.state.summary(), refresh=False)
            stop = stop_asked(run, asked)
            if run.accelerator.is_main_process and (stop or ends or done % reports.checkpoint_every == 0):
                run.checkpoint.save(run.state, run.optimizer, done, time.perf_counter() - began)
    if journal:
        journal.plot(PLOTS)
    return time.perf_counter() - began, stop and not is_over(run, done)
