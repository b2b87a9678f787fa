"""Tune a backbone and build a bundle on it, or on the frozen one where tuning is not better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.backbones.backbone import Backbone, shared_backbone
from medssl.bundle.build import BuildOptions, build_bundle
from medssl.bundle.bundle import Bundle
from medssl.pretrain.finetune import FineTuneOptions, finetune
from medssl.pretrain.finetune_guard import FROZEN, TUNED
from medssl.pretrain.finetune_recipe import FineTuneRecipe
from medssl.pretrain.finetune_run import TuningReports


@dataclass(frozen=True)
class TuningPlan:
    """How a backbone is tuned before a build: by `recipe`, into the folder `out`.

    With `anyway` the tuned one is taken also where it is not better than the frozen one.
    """

    out: str | Path
    recipe: FineTuneRecipe = FineTuneRecipe()
    anyway: bool = False


def build_finetuned(
    data: str | Path,
    task: str,
    backbone: str | Path | Backbone,
    out: str | Path | None,
    plan: TuningPlan,
    options: BuildOptions | None = None,
    **settings: Any,  # noqa: ANN401
) -> Bundle:
    """`build_bundle` on the tuned backbone, or on the frozen one where validation does not call the tuned one better.

    Both use the options' seed, so that the same images are test. Head, temperature, prediction sets, library and
    familiarity are fitted on the chosen one's embeddings. Raises what `finetune` and `build_bundle` raise, and
    KeyboardInterrupt where tuning was stopped: the same call goes on.
    """
    options = replace(options or BuildOptions(), **settings)
    if not isinstance(backbone, Backbone):
        backbone = shared_backbone(str(backbone), options.revision)
    tuned = finetune(
        data,
        task,
        backbone,
        plan.out,
        replace(plan.recipe, seed=options.seed),
        FineTuneOptions(
            labels=options.labels,
            pooling=options.pooling,
            preprocess=options.preprocess,
            data_revision=options.data_revision,
            others=options.others,
            reports=TuningReports(progress=options.progress),
        ),
    )
    if tuned.stopped:
        raise KeyboardInterrupt
    used = TUNED if tuned.better or plan.anyway else FROZEN
    record = {"mode": plan.recipe.mode, "used": used, "anyway": plan.anyway, "verdict": tuned.verdict}
    chosen = Backbone.from_pretrained(tuned.folder) if used == TUNED else backbone
    return build_bundle(data, task, chosen, out, replace(options, finetune=record))
