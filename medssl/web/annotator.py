"""Drawing boxes over a folder's pictures: which comes next, what is saved, and a localizer fitted in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import shared_backbone
from medssl.backbones.embedder import Embedder
from medssl.bundle.bundle import Bundle
from medssl.bundle.localize import annotated_tokens, lesion_labels, trial_sides
from medssl.data.annotations import BOXES, BOXES_FEATURE, Box
from medssl.data.boxes_file import BoxesFile
from medssl.data.load import load_data, read_record
from medssl.errors import DataError, ImageError
from medssl.heads.fit_localizer import LocalizerPlan, fit_localizer, layer_sets
from medssl.heads.lesion_map import LesionMap
from medssl.heads.localizer import Localizer

FEWEST = 5  # pictures with a box before a fit
LOOKED_AT = 24  # pictures that are looked at to find the least certain one next
PENALTIES, SMOOTHINGS = (1e-3, 1e-2), (0.5, 0.75)


class Annotator:
    """The pictures of a folder one after another; boxes go into its boxes.csv at once.

    Pictures of a test split are left out, as they are to be measured on; so are those that are annotated elsewhere.
    Before the first fit the classes take turns, afterwards the picture comes whose map is the least certain. Raises
    DataError for a folder that cannot be read or holds nothing to annotate.
    """

    def __init__(
        self, folder: str | Path, embedder: Embedder, cache_dir: str | Path | None = None, seed: int = 0
    ) -> None:
        self.folder, self.embedder, self.cache_dir, self.seed = Path(folder), trial_sides(embedder)[-1], cache_dir, seed
        self.dataset = load_data(self.folder)
        names = self.dataset["file_name"][:]
        self.rows = {name: row for row, name in enumerate(names)}
        self.file = BoxesFile(self.folder, dict.fromkeys(names, {}))
        self.queue = self.waiting()
        if not self.queue and not self.file.boxes:
            raise DataError(f"Every picture of {folder} is annotated already, or is of its test split.")
        self.localizer: Localizer | None = None
        self._certainties: dict[str, float] = {}
        self.corner: tuple[float, float] | None = None
        self.shown: str = self.queue[0] if self.queue else next(iter(self.file.boxes))

    def waiting(self) -> list[str]:
        """The pictures that nobody annotated yet, the classes in turns, in a seeded order.

        Those of a validation split come last: a build asks for enough training pictures before any of validation.
        """
        table = self.dataset.remove_columns("image").with_format(None)[:]
        elsewhere = table.get(BOXES) or [None] * len(self.dataset)
        by_class: dict[int, list[str]] = {}
        drawn = np.random.default_rng(self.seed).permutation(len(self.dataset))
        for row in sorted(drawn, key=lambda row: table["split"][row] == "val"):
            name = table["file_name"][row]
            if table["split"][row] != "test" and elsewhere[row] is None and name not in self.file.boxes:
                by_class.setdefault(table["label"][row], []).append(name)
        turns = max(map(len, by_class.values()), default=0)
        columns = [by_class[label] for label in sorted(by_class)]
        return [names[turn] for turn in range(turns) for names in columns if turn < len(names)]

    @property
    def label(self) -> str:
        """The class of the shown picture."""
        return self.dataset.features["label"].names[self.dataset[self.rows[self.shown]]["label"]]

    @property
    def boxes(self) -> list[Box]:
        """The boxes of the shown picture."""
        return self.file.boxes.get(self.shown, [])

    def picture(self) -> Image.Image:
        """The shown picture. Raises ImageError."""
        return self.read(self.shown)

    def read(self, name: str) -> Image.Image:
        """A picture by its name. Raises ImageError."""
        return read_record(self.dataset[self.rows[name]])

    def add(self, box: Box) -> None:
        """One more box of the shown picture, saved at once. Raises DataError."""
        self.file.add(self.shown, box)

    def say_none(self) -> None:
        """The shown picture has no lesion; then the next one. Raises DataError."""
        self.file.say_none(self.shown)
        self.next()

    def undo(self) -> bool:
        """Take back a first corner, or the last box or word, and show that picture; False where there is nothing."""
        if self.corner is not None:
            self.corner = None
            return True
        name = self.file.undo()
        if name is None:
            return False
        self.shown = name
        return True

    def next(self) -> None:
        """Show the next picture: what is left undone comes again at the end."""
        self.corner = None
        self.queue = [name for name in self.queue if name != self.shown and name not in self.file.boxes] + (
            [self.shown] if self.shown not in self.file.boxes else []
        )
        if self.localizer is not None and len(self.queue) > 1:
            self.queue = self.least_certain_first()
        if self.queue:
            self.shown = self.queue[0]

    def least_certain_first(self) -> list[str]:
        """The queue with the first few pictures in order of their maps' maxima, lowest first; unreadable ones last."""
        first, rest = self.queue[:LOOKED_AT], self.queue[LOOKED_AT:]
        return sorted(first, key=self.certainty) + rest

    def certainty(self, name: str) -> float:
        """The highest probability on a picture's map, 2 for a picture that cannot be read."""
        if name not in self._certainties:
            try:
                self._certainties[name] = self.locate(name).probability
            except ImageError:
                self._certainties[name] = 2.0
        return self._certainties[name]

    def locate(self, name: str) -> LesionMap:
        """The fitted localizer's map of a picture."""
        return self.localizer.locate(self.embedder.backbone, self.read(name))

    def annotated(self) -> Dataset:
        """The annotated pictures with their boxes, all as training pictures but those of a validation split."""
        names = [name for name in self.file.boxes if name in self.rows]
        chosen = self.dataset.select([self.rows[name] for name in names])
        if BOXES in chosen.column_names:
            chosen = chosen.remove_columns(BOXES)
        boxes = [[list(box) for box in self.file.boxes[name]] for name in names]
        return chosen.add_column(BOXES, boxes, feature=BOXES_FEATURE)

    def fit(self) -> Localizer:
        """Fit a localizer to all boxes so far; the next picture is then the least certain. Raises DataError."""
        count = sum(bool(boxes) for boxes in self.file.boxes.values())
        if count < FEWEST:
            raise DataError(f"{count} pictures have a box; a fit needs {FEWEST} or more. Draw some more first.")
        pictures = self.annotated()
        labels = lesion_labels(pictures, np.arange(len(pictures)))
        layers = tuple(dict.fromkeys(layer for several in layer_sets(self.embedder.backbone) for layer in several))
        tokens = annotated_tokens(pictures, self.embedder, layers, labels, self.cache_dir, progress=False)
        splits = np.where(np.asarray(pictures["split"][:]) == "val", "val", "train")
        plan = LocalizerPlan(
            penalties=PENALTIES, smoothings=SMOOTHINGS, facts={"data": self.folder.name}, seed=self.seed, progress=False
        )
        self.localizer = fit_localizer({self.embedder: tokens}, splits, labels, plan)
        self._certainties = {}
        return self.localizer


def embedder_of(bundles: Sequence[Bundle], backbone: str) -> Embedder:
    """What pictures are encoded by: as the first bundle does, else the backbone of that name."""
    if bundles:
        return Embedder(bundles[0].backbone, bundles[0].head.preprocess, bundles[0].head.pooling)
    return Embedder.of(shared_backbone(backbone))
