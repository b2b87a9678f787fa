"""The small bundles that come with medssl: phantoms on the shipped backbone, the same bytes at every build."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from medssl.backbones.backbone import Backbone
from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Bundle
from medssl.data.tasks import TASKS
from medssl.demo.phantom import DRAWERS, write_phantoms
from medssl.heads.config import LINEAR
from medssl.heads.patch import PATCH

PER_LABEL = 72
SEED = 0
THUMBNAIL_SIDE = 144
# Small lesions need the finer grid: at 126 px, the backbone's own size, most heads are at chance.
SIDE = 224
POOLING = "cls+mean"
# Its cells are small and many: every linear head tried on this backbone was at chance.
HEADS = {"leukaemia-demo": PATCH}
SHIPPED_BACKBONE = "medssl-tiny"
FOLDER = Path(__file__).resolve().parent / "bundles"


def shipped_bundles() -> list[Path]:
    """The demo bundles that lie beside this file, in the order of the tasks."""
    return [FOLDER / task for task in DRAWERS if (FOLDER / task / "head" / "config.json").is_file()]


def build_demo_bundle(task: str, out: str | Path, per_label: int = PER_LABEL, progress: bool = True) -> Bundle:
    """Draw one task's phantoms and build its bundle into `out`. Raises DataError for an unknown task.

    In float32 and without a cache, so that nothing depends on what this machine computed before.
    """
    backbone = Backbone.from_pretrained(SHIPPED_BACKBONE, precision="fp32")
    with tempfile.TemporaryDirectory(prefix="medssl-demo-") as work:
        data = write_phantoms(Path(work) / f"{task}-phantoms", task, per_label, SEED, progress)
        return build_bundle(
            data,
            task,
            backbone,
            out,
            pooling=POOLING,
            preprocess=replace(backbone.preprocess, size=(SIDE, SIDE)),
            cache_dir=Path(work) / "cache",
            seed=SEED,
            thumbnail_side=THUMBNAIL_SIDE,
            progress=progress,
            head=HEADS.get(task, LINEAR),
            license=TASKS[task].license,
            explainer_seconds=0,  # how many images a time box holds differs from run to run
        )
