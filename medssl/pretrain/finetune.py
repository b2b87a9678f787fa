"""Adapt an encoder to a task with labels, and say honestly whether that helped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from medssl.backbones.backbone import Backbone, shared_backbone
from medssl.backbones.checkpoint import quiet_loading
from medssl.backbones.embedder import Embedder
from medssl.backbones.embeddings import embed_images
from medssl.backbones.frames import DecodedFrames
from medssl.backbones.reading import CLS, MEAN, Reading, union
from medssl.data.labelled import Labelled
from medssl.data.load import load_data, open_data
from medssl.data.tasks import Task
from medssl.files import written_whole
from medssl.heads.fit_linear import check_classes, versions
from medssl.heads.reading_choice import AUTO, choose_reading, with_columns
from medssl.hub.licenses import UNKNOWN
from medssl.images.preprocess import Preprocess
from medssl.pretrain.corpus import policy_name
from medssl.pretrain.export import move_files, write_processor
from medssl.pretrain.facts import FACTS_FILE
from medssl.pretrain.finetune_card import CARD_FILE, base_facts, finetuned_card
from medssl.pretrain.finetune_facts import TUNING_FILE, read_tuning
from medssl.pretrain.finetune_guard import Embedded, compare_encoders
from medssl.pretrain.finetune_images import SIDES, TuningImages, open_images, split_as_built
from medssl.pretrain.finetune_model import FineTuned, StartingLayer
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from medssl.pretrain.finetune_run import TuningReports, TuningRun, open_run, train
from medssl.pretrain.journal import Journal
from medssl.pretrain.run_checkpoint import Checkpoint
from medssl.pretrain.runner import RUN_FOLDER, device_name
from medssl.runtime import reuse_freed_memory

MOST_OTHERS = 200  # images of another task, seeded, that are looked at for familiarity


@dataclass(frozen=True)
class FineTuneOptions:
    """What a tuning run reads and writes, apart from its recipe; every field has a default.

    `pooling` is the reading that is tuned: cls, mean or cls+mean, None the family's own, "auto" the one of them that
    validation chooses on the frozen encoder. `revision` is the backbone's, `data_revision` the Hub data set's. `others`
    are data of other tasks (name -> folder), to see whether they still look unfamiliar. `license` is that of the tuned
    weights, for their card.
    """

    labels: Sequence[str] | None = None
    pooling: str | None = None
    preprocess: Preprocess | None = None
    revision: str | None = None
    data_revision: str | None = None
    others: Mapping[str, str | Path] = field(default_factory=dict)
    license: str = UNKNOWN
    reports: TuningReports = TuningReports()


@dataclass(frozen=True)
class TunedEncoder:
    """What a run left in `folder`: a backbone for `Backbone.from_pretrained`, with the facts of its finetuning.json.

    `skipped` names the files that could not be read; of them, only the count is written down.
    """

    folder: Path
    facts: dict
    skipped: list[str]

    @property
    def verdict(self) -> dict:
        """Tuned against frozen on validation; see `compare_encoders`."""
        return self.facts["verdict"]

    @property
    def better(self) -> bool:
        """Whether tuning is better than the frozen encoder beyond chance."""
        return self.verdict["better"]

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to stop before its end; the same call goes on."""
        return self.facts["stopped"]


def finetune(
    data: str | Path,
    task: str,
    backbone: str | Path | Backbone,
    out: str | Path,
    recipe: FineTuneRecipe | None = None,
    options: FineTuneOptions | None = None,
    **settings: Any,  # noqa: ANN401
) -> TunedEncoder:
    """Tune an encoder on the train split of labelled images; validation chooses the epoch, test is not looked at.

    The splits are those of `build_bundle` with the same seed. The encoder of the best epoch is saved to `out`, a
    transformers folder for `Backbone.from_pretrained`. A run that was stopped or killed goes on from its last
    checkpoint in `out`/run and gives the weights of one that never stopped. `settings` are fields of FineTuneOptions.
    Raises DataError, BackboneError, PretrainError.
    """
    recipe, options = recipe or FineTuneRecipe(), replace(options or FineTuneOptions(), **settings)
    for place in options.others.values():
        load_data(place)  # what cannot be read is said now, not after the training
    if not isinstance(backbone, Backbone):
        backbone = shared_backbone(str(backbone), options.revision)
    dataset, found_task = open_data(data, task, options.labels, options.data_revision)
    dataset = split_as_built(dataset, recipe.seed, options.reports.progress)
    name = Path(data).resolve().name if Path(data).is_dir() else str(data)
    return finetune_split(dataset, found_task, name, backbone, Path(out), recipe, options)


def finetune_split(
    dataset: Dataset,
    task: Task,
    name: str,
    backbone: Backbone,
    out: Path,
    recipe: FineTuneRecipe,
    options: FineTuneOptions,
) -> TunedEncoder:
    """`finetune` of a loaded data set with its splits, called `name`; rows of neither train nor val are left alone."""
    folder = out / RUN_FOLDER
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.device.type == "cpu":
        reuse_freed_memory()
    progress = options.reports.progress and accelerator.is_main_process
    with accelerator.main_process_first():
        images = open_images(dataset, options.preprocess or backbone.preprocess, folder, progress)
        embedder, frozen = frozen_start(images, backbone, task, options, recipe.seed)
    start = StartingLayer.fitted(frozen.train, frozen.validation, len(task.labels))
    model = FineTuned(backbone, embedder.pooling, start)
    identity = {
        **recipe.to_dict(),
        "backbone": backbone.revision,
        "pooling": embedder.pooling,
        "data": images.fingerprint,
        "processes": accelerator.num_processes,
    }
    policy = recipe.views or policy_name(task.name)
    checkpoint = Checkpoint(folder / "checkpoint.pt", identity)
    run = open_run(model, recipe, images, embedder.preprocess, policy, accelerator, checkpoint)
    journal = Journal(folder, run.start) if accelerator.is_main_process else None
    seconds, stopped = train(run, replace(options.reports, progress=progress), journal)
    if accelerator.is_main_process:
        facts = {
            **run_facts(run, seconds, stopped),
            **{"task": task.name, "labels": list(task.labels), "data": name, "pooling": embedder.pooling},
            **origin_facts(backbone),
        }
        save_tuned(run, embedder, frozen, out, facts, options)
    accelerator.wait_for_everyone()
    return TunedEncoder(out, read_tuning(out), images.skipped)


def frozen_start(
    images: TuningImages, backbone: Backbone, task: Task, options: FineTuneOptions, seed: int
) -> tuple[Embedder, Embedded]:
    """How the frozen encoder is read, and what it says of train and validation; "auto" lets validation choose.

    Raises DataError where a class is missing in one of them.
    """
    readings = tuned_readings(backbone) if options.pooling == AUTO else {}
    wider = union(readings.values()).pooling if readings else options.pooling
    embedder = Embedder.of(backbone, options.preprocess, wider)
    frozen = embed_sides(images, embedder, images.frames.path.with_name("frozen.npz"))
    check_classes(task, frozen.train, frozen.validation)
    if not readings:
        return embedder, frozen
    sides, width = (frozen.train, frozen.validation), backbone.dimension
    reading, _ = choose_reading(*sides, readings, width, len(task.labels), seed)
    columns = reading.columns(union(readings.values()), width)
    return replace(embedder, pooling=reading.pooling), Embedded(*(with_columns(side, columns) for side in sides), {})


def tuned_readings(backbone: Backbone) -> dict[str, Reading]:
    """The readings that can be tuned: of the final tokens, the plainest first."""
    names = (CLS, MEAN, f"{CLS}+{MEAN}") if backbone.has_cls else (MEAN,)
    return {name: backbone.resolve_reading(name) for name in names}


def embed_sides(images: TuningImages, embedder: Embedder, file: Path | None = None) -> Embedded:
    """Train and validation under an encoder, from `file` where they were computed before, else kept there."""
    identity = f"{images.fingerprint} {embedder.backbone.revision} {embedder.backbone.precision} {embedder.pooling}"
    kept = {}
    if file and file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            kept = {name: stored[name] for name in stored.files} if str(stored["identity"]) == identity else {}
    if not kept:
        kept = {side: embed_frames(images.side(side), embedder) for side in SIDES}
        if file:
            with written_whole(file) as beside, beside.open("wb") as stream:
                np.savez(stream, identity=np.array(identity), **kept)
    return Embedded(*(images.labelled(side, kept[side]) for side in SIDES), {})


def embed_frames(frames: Any, embedder: Embedder) -> np.ndarray:  # noqa: ANN401
    """Embeddings `[N, D]` of frames."""
    return embed_images(frames, embedder.backbone, embedder.preprocess, embedder.pooling)


def embed_others(others: Mapping[str, str | Path], embedder: Embedder, seed: int) -> dict[str, Labelled]:
    """A seeded sample of the images of other tasks, under an encoder. Raises DataError, ImageError."""
    found = {}
    for name, place in others.items():
        dataset = load_data(place)
        rows = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:MOST_OTHERS])
        dataset = dataset.select(rows)
        vectors = embed_frames(DecodedFrames(dataset, embedder.preprocess), embedder)
        groups = np.asarray(dataset["group_id"][:], dtype=str)
        found[name] = Labelled(vectors, np.asarray(dataset["label"][:]), groups)
    return found


def run_facts(run: TuningRun, seconds: float, stopped: bool) -> dict:
    """What a run did, for finetuning.json."""
    images, state = run.images, run.state
    device = run.accelerator.device
    return {
        "method": f"fine-tuning, {run.recipe.mode}",
        "recipe": {**run.recipe.to_dict(), "views": run.policy},
        "seed": run.recipe.seed,
        "images": {side: len(images.rows(side)) for side in SIDES},
        "groups": {side: len(set(images.groups[images.rows(side)])) for side in SIDES},
        "class_weights": [round(float(weight), 4) for weight in run.class_weights],
        "epochs_run": len(state.history) - 1,
        "best_epoch": state.best_epoch,
        "history": state.history,
        "stopped": stopped,
        "seconds": seconds,
        "processes": run.accelerator.num_processes,
        "hardware": {"name": device_name(device), "bf16": run.autocast, "threads": torch.get_num_threads()},
        "versions": versions(),
        "skipped": len(images.skipped),
        "seen": sorted({images.keys[row] for side in SIDES for row in images.rows(side)}),
    }


def origin_facts(backbone: Backbone) -> dict:
    """What a run started from: the base's name, revision and licence, and the facts of its own training."""
    earlier = read_tuning(backbone.folder)
    pretraining = backbone.folder and backbone.folder / FACTS_FILE
    if earlier is None and pretraining and pretraining.is_file():
        earlier = json.loads(pretraining.read_text("utf-8"))
    return {"base": base_facts(backbone), "started_from": earlier}


def save_tuned(
    run: TuningRun, embedder: Embedder, frozen: Embedded, out: Path, facts: dict, options: FineTuneOptions
) -> None:
    """Write the encoder of the best epoch with its verdict and card; files appear whole, the weights last but one."""
    run.state.model.put(run.state.best)
    run.state.model.merge()
    encoder = run.state.model.encoder
    encoder.model.to("cpu").eval()
    if encoder.prefix:
        encoder.model.set_attn_implementation("sdpa")
    beside = out / f".{os.getpid()}.tmp"
    with quiet_loading():
        encoder.model.save_pretrained(beside)
    write_processor(beside, embedder.preprocess)
    seed, classes = run.recipe.seed, len(run.class_weights)
    tuned = replace(embedder, backbone=Backbone.from_pretrained(beside, precision=embedder.backbone.precision))
    parts = [
        replace(part, others=embed_others(options.others, reader, seed))
        for part, reader in ((frozen, embedder), (embed_sides(run.images, tuned), tuned))
    ]
    facts = {**facts, "verdict": compare_encoders(*parts, classes, seed)}
    (beside / TUNING_FILE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    (beside / CARD_FILE).write_text(finetuned_card(facts, out.name, options.license), "utf-8")
    move_files(beside, out)
