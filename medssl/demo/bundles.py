"""The small bundles that come with medssl: phantoms on the shipped backbone, the same bytes at every build."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from medssl.backbones.backbone import Backbone
from medssl.bundle.build import BuildOptions, build_bundle
from medssl.bundle.bundle import Bundle
from medssl.data.load import load_data, read_record
from medssl.data.tasks import TASKS
from medssl.demo import drawing
from medssl.demo.phantom import DRAWERS, check_task, write_phantoms
from medssl.images import thumbnails

SEED = 0
# Cases are shown small; the example is kept as it was drawn, since a smaller copy is another picture to the model.
THUMBNAIL_SIDE = 128


@dataclass(frozen=True)
class DemoPlan:
    """How a demo is built: the input's side, the pictures a label, the reading, and whether it keeps regions."""

    side: int
    reading: str = "two-depths"
    per_label: int = 100
    regions: bool = False


# Tried on pictures of another seed (docs/pretraining.md). A color histogram bounds the number of pictures, the room of
# 10 MB the reading: regions take as much of it as all else, so that one demo has them.
PLANS = {
    "lung-demo": DemoPlan(224, per_label=150),
    "brain-demo": DemoPlan(196, "cls+mean", regions=True),
    "leukaemia-demo": DemoPlan(266, per_label=130),
    "eye-demo": DemoPlan(266, "cls+mean", per_label=150),
}
# Bounded by number: how many images a time box holds differs from run to run.
EXPLAINER_SECONDS, EXPLAINER_IMAGES = 1e9, 12
SHIPPED_BACKBONE = "medssl-tiny"
FOLDER = Path(__file__).resolve().parent / "bundles"


def shipped_bundles() -> list[Path]:
    """The demo bundles that lie beside this file, in the order of the tasks."""
    return [FOLDER / task for task in DRAWERS if (FOLDER / task / "head" / "config.json").is_file()]


def build_demo_bundle(task: str, out: str | Path, progress: bool = True) -> Bundle:
    """Draw one task's phantoms as its plan says and build its bundle into `out`.

    All choices are made on validation, in float32 and without a cache, so that nothing depends on what this machine
    computed before. Raises DataError for an unknown task.
    """
    check_task(task)
    backbone = Backbone.from_pretrained(SHIPPED_BACKBONE, precision="fp32")
    with tempfile.TemporaryDirectory(prefix="medssl-demo-") as work:
        data = Path(work) / f"{task}-phantoms"
        write_phantoms(data, task, PLANS[task].per_label, SEED, progress)
        options = demo_options(task, backbone, Path(work) / "cache", progress)
        bundle = build_bundle(data, task, backbone, options=options)
        drawn = load_data(data)
        bundle.name, bundle.cases = Path(out).name, with_whole_example(bundle.cases, drawn, example_row(bundle, drawn))
        bundle.save(out)
    return bundle


def example_row(bundle: Bundle, drawn: Dataset) -> int:
    """The row of the page's example: the first test picture that the bundle calls familiar, else the first.

    One in twenty is called unfamiliar by the threshold's making; as an example it would warn of the task's own picture.
    """
    rows = [row for row, split in enumerate(bundle.cases["split"][:]) if split == "test"]
    for row in rows:
        picture, group = read_record(drawn[row]), drawn[row]["group_id"]
        if bundle.analyze(picture, explain=False, exclude_group=group).prediction.familiar:
            return row
    return rows[0]


def with_whole_example(cases: Dataset, drawn: Dataset, row: int) -> Dataset:
    """The cases of a drawn data set, that row as large as it was drawn and first of the test split."""
    first = cases["split"][:].index("test")
    picture = thumbnails.thumbnail(read_record(drawn[row]), drawing.SIDE)
    example = Dataset.from_list([{**cases[row], "image": {"bytes": picture, "path": None}}], cases.features)
    after = [number for number in range(first, len(cases)) if number != row]
    return concatenate_datasets([cases.select(range(first)), example, cases.select(after)])


def demo_options(task: str, backbone: Backbone, cache: Path, progress: bool = True) -> BuildOptions:
    """How a demo bundle is built."""
    plan = PLANS[task]
    return BuildOptions(
        pooling=plan.reading,
        preprocess=replace(backbone.preprocess, size=(plan.side, plan.side)),
        cache_dir=cache,
        seed=SEED,
        thumbnail_side=THUMBNAIL_SIDE,
        license=TASKS[task].license,
        regions=plan.regions,
        explainer_seconds=EXPLAINER_SECONDS,
        explainer_images=EXPLAINER_IMAGES,
        progress=progress,
    )
