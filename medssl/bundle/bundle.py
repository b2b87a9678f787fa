"""Head + library + metrics + card of one task: the one thing that is built, evaluated, published and served."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import Backbone, Encoding, shared_backbone
from medssl.backbones.reading import PLAIN
from medssl.backbones.registry import BACKBONES
from medssl.bundle.analyzer import Analysis, Analyzer, PictureEncodings, Progress, silent
from medssl.bundle.cases import check_cases
from medssl.bundle.group import GroupAnalysis, answer_group
from medssl.bundle.group_rule import GroupRule
from medssl.bundle.many import PictureRow, batches, score
from medssl.bundle.storage import Contents, read_contents, write_contents
from medssl.data.tasks import Task, get_task
from medssl.errors import BundleError
from medssl.explain import Explanation, ViTCX
from medssl.explain.choice import AUTO, ExplainerChoice
from medssl.explain.explainer import Explainer
from medssl.explain.likeness import Likeness, explain_likeness
from medssl.explain.registry import available_explainers, make_explainer
from medssl.explain.verification import Verification, verify
from medssl.heads.head import ClassificationHead, Head, check_fitted_on
from medssl.heads.lesion_map import LesionMap
from medssl.heads.localizer import ANY, Localizer
from medssl.images.picture import Picture
from medssl.images.pictures import open_pictures
from medssl.images.preprocess import Preprocess
from medssl.library.library import Case, CaseLibrary
from medssl.library.regions import RegionIndex
from medssl.library.space import CaseSpace


@dataclass(frozen=True)
class Suggestion:
    """How well an image fits a bundle's own cases; `familiar` is None where the head has no threshold."""

    name: str
    familiarity: float
    familiar: bool | None


def library_name(task: Task, backbone: Mapping[str, Any]) -> str:
    """What a library is called in a shared Qdrant: by its task and its backbone (its `id` and `revision`)."""
    identity, name = f"{backbone['id']}@{backbone['revision']}", task.name
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name)[:100].strip("-")
    if plain != name:  # "läsion 1" and "läsion?1" stay two
        identity = f"{name}\n{identity}"
    return "-".join(filter(None, ("medssl", plain, hashlib.sha256(identity.encode()).hexdigest()[:8])))


def searched_cases(cases: Dataset) -> Dataset:
    """The cases that a library holds of a bundle's: those of the train split."""
    return cases.select([index for index, split in enumerate(cases["split"]) if split == "train"])


def task_of(head: Head, name: str) -> Task:
    """The task of a head; one without a record of it is named as its bundle."""
    return Task.from_dict(head.task) if head.task else get_task(name, head.labels)


def check_space(head: Head, space: CaseSpace | None) -> None:
    """Raises BundleError unless this is the map of the space that the head's config names."""
    needed, given = head.reading.space, PLAIN if space is None else space.name
    if needed != given:
        raise BundleError(f"The head's cases are compared in the {needed} space; the map given is of the {given} one.")
    if space is not None and space.width != head.embedding_dim:
        raise BundleError(
            f"The map of the cases' space takes {space.width} numbers; the head's embeddings have {head.embedding_dim}."
        )


class Bundle:
    """One task's head, case library and figures. Make one with `Bundle.load`, or build one with `build_bundle`.

    `cases` holds every embedded image of the build; the library that is searched holds its train split only, so that
    the figures in `metrics` describe what is served. `space` maps embeddings before they are compared (None: plain).
    """

    def __init__(
        self,
        head: Head,
        cases: Dataset,
        backbone: Backbone,
        metrics: dict | None = None,
        card: str = "",
        name: str = "bundle",
        localizer: Localizer | None = None,
        regions: RegionIndex | None = None,
        space: CaseSpace | None = None,
    ) -> None:
        head.check_backbone(backbone)
        check_space(head, space)
        if localizer is not None:
            localizer.check_backbone(backbone)
        if regions is not None:
            check_fitted_on(regions.config.backbone, backbone, "index of regions")
        self.localizer, self.regions = localizer, regions
        self.head, self.cases, self.backbone, self.space = head, cases, head.reader(backbone), space
        self.metrics, self.card, self.name = metrics or {}, card, name
        self.task = task_of(head, name)
        if list(self.task.labels) != self.labels:
            raise BundleError(f"The head's labels are {self.labels}; those of its task are {list(self.task.labels)}.")
        check_cases(cases, self.labels, head.embedding_dim, name)
        self.known = searched_cases(cases)
        library = library_name(self.task, backbone.describe())
        self.library = CaseLibrary(self.known, name=library, space=space)
        if regions is not None:
            regions.check_cases(self.known["id"][:])
        self.explainer = ViTCX(self.backbone, head)

    @cached_property
    def explainers(self) -> dict[str, str]:
        """The explainers that this backbone and head can do: method -> title, ViT-CX first."""
        return available_explainers(self.backbone, self.head)

    @property
    def explainer_choice(self) -> ExplainerChoice:
        """The explainer that `method="auto"` means, and why: what the build measured on validation."""
        return ExplainerChoice.of(self.metrics, self.explainers)

    def make_explainer(self, method: str) -> Explainer:
        """The explainer of that name. Raises BundleError for one that does not exist or fit."""
        return self.explainer if method == self.explainer.method else make_explainer(method, self.backbone, self.head)

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        return self.head.labels

    @classmethod
    def load(cls, path: str | Path, backbone: Backbone | None = None, revision: str | None = None) -> Bundle:
        """Load a bundle folder or Hub id (at `revision`); the backbone is the one the head's config names, or given.

        Raises BundleError when a part is missing or does not match, BackboneError when the backbone cannot be loaded.
        """
        contents = read_contents(path, revision)
        head = contents.head
        if backbone is None:
            revision = str(head.backbone.get("revision") or "main")
            local = revision.startswith("sha256:")
            if local and head.backbone["id"] not in BACKBONES and not Path(head.backbone["id"]).is_dir():
                raise BundleError(
                    f"Bundle {path} was fitted on the backbone folder {head.backbone['id']!r}, which is not here. "
                    "Put it back, or hand it in: Bundle.load(path, backbone=Backbone.from_pretrained(folder))."
                )
            backbone = shared_backbone(head.backbone["id"], None if local else revision)
        return cls.of(contents, backbone)

    @classmethod
    def of(cls, contents: Contents, backbone: Backbone) -> Bundle:
        """What a bundle's folder holds, over a backbone."""
        return cls(
            contents.head,
            contents.cases,
            backbone,
            contents.metrics,
            contents.card,
            contents.name,
            contents.localizer,
            contents.regions,
            contents.space,
        )

    def save(self, path: str | Path) -> Path:
        """Write the bundle as a folder, whole or not at all. Returns the folder. Raises BundleError."""
        parts = self.name, self.head, self.cases, self.metrics, self.card, self.localizer, self.regions, self.space
        return write_contents(Contents(*parts), path)

    # What a GPU is for, and nothing else: `web.zero_gpu` sends these elsewhere.

    def encode(self, picture: Image.Image, maps: bool = True) -> Encoding:
        """An RGB image's encoding in the head's frame."""
        return self.backbone.encode([picture], self.head.preprocess, maps=maps)

    @torch.no_grad()
    def encode_frames(self, frames: np.ndarray) -> Encoding:
        """The encoding of uint8 images `[B, h, w, 3]` in the head's frame, in one forward; see `encode`."""
        pixels = torch.from_numpy(self.head.preprocess.normalize(frames))
        return self.backbone.forward(pixels, maps=True)

    @torch.inference_mode()
    def classify_frames(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings `[B, D]` and calibrated probabilities `[B, C]` of uint8 images `[B, h, w, 3]` in the head's frame.

        In low precision, as the cases were embedded: where a backbone's "auto" is float32 they are those of `encode`.
        """
        pixels = torch.from_numpy(self.head.preprocess.normalize(frames))
        if isinstance(self.head, ClassificationHead):
            embeddings = self.backbone.embed(pixels, self.head.pooling)
            return embeddings, self.head.probabilities(torch.from_numpy(embeddings)).numpy()
        encoding = self.backbone.forward(pixels, low_precision=True)
        return encoding.pool(self.head.pooling).cpu().numpy(), self.head.classify(encoding).numpy()

    def explain_class(self, picture: Image.Image, target: str, method: str, **settings: Any) -> Explanation:  # noqa: ANN401
        """The heatmap of one class; `settings` are those of `Explainer.explain`."""
        return self.make_explainer(method).explain(picture, target=target, **settings)

    def explain_likeness(self, picture: Image.Image, case: Case, method: str, **settings: Any) -> Likeness:  # noqa: ANN401
        """The heatmaps of a likeness; `settings` are those of `explain_likeness`."""
        return explain_likeness(self.make_explainer(method), picture, case, **settings)

    def locate(self, picture: Image.Image, target: str = ANY) -> LesionMap:
        """Where the localizer sees a lesion, of a class or of any. Raises BundleError where there is no localizer."""
        if self.localizer is None:
            raise BundleError(
                f"The bundle {self.name!r} has no localizer. Build it from data with boxes or masks of at least five "
                "pictures a class, or draw some: medssl serve --annotate DIR."
            )
        return self.localizer.locate(self.backbone, picture, target)

    def encode_patches(self, picture: Image.Image, preprocess: Preprocess, layer: int | None) -> np.ndarray:
        """The patch tokens `[h, w, D]` float32 of an RGB image at an input size, of a block (None: the final ones)."""
        encoding = self.backbone.reading(layer).encode([picture], preprocess, maps=False)
        return (encoding.patches if layer is None else encoding.layers[layer])[0].cpu().numpy()

    def verify(
        self,
        image: Any,  # noqa: ANN401
        explanation: Explanation,
        progress: Progress | None = None,
    ) -> Verification:
        """Delete and insert an image's pixels in the order of its explanation of a class, beside random maps.

        Raises ImageError, and BundleError for an explanation of anything but a class.
        """
        tell = progress or silent
        return verify(
            self.explainer,
            Picture.read(image).image,
            explanation,
            progress=lambda fraction: tell(fraction, "Verifying the heatmap"),
        )

    # The one-call forms of an Analyzer.

    def open(self, image: Any, exclude_group: str | None = None) -> Analyzer:  # noqa: ANN401
        """Open an image (anything `read_image` takes) to ask several things of it. Raises ImageError."""
        return Analyzer.open(self, image, exclude_group)

    def steps(
        self,
        image: Any,  # noqa: ANN401
        target: str | None = None,
        top_k: int = 6,
        explain: bool = True,
        exclude_group: str | None = None,
        progress: Progress | None = None,
        method: str = AUTO,
        verify: bool = False,
    ) -> Iterator[Analysis]:
        """Analyze an image and yield the growing result: class, cases, explanation, verification.

        `method` is one of `explainers`, or "auto": see `explainer_choice`. `verify` also deletes and inserts the pixels
        that the heatmap names. The image itself is never among its own cases. Raises ImageError, BundleError.
        """
        return self.open(image, exclude_group).steps(target, top_k, explain, method, verify, progress)

    def analyze(
        self,
        image: Any,  # noqa: ANN401
        target: str | None = None,
        top_k: int = 6,
        explain: bool = True,
        exclude_group: str | None = None,
        progress: Progress | None = None,
        method: str = AUTO,
        verify: bool = False,
    ) -> Analysis:
        """Class, similar cases and (unless `explain=False`) the heatmap of one image; see `steps`."""
        *_, result = self.steps(image, target, top_k, explain, exclude_group, progress, method, verify)
        return result

    def explain_case(
        self,
        image: Any,  # noqa: ANN401
        case: Case | str,
        method: str = ViTCX.method,
        progress: Progress | None = None,
    ) -> Likeness:
        """Why a case (or the id of one) is like an image: a heatmap on each.

        Raises ImageError, LibraryError for an unknown id, BundleError for a method that cannot explain a likeness.
        """
        return self.open(image).likeness(case, method, progress)

    # Many pictures at once.

    def analyze_many(
        self,
        images: Any,  # noqa: ANN401
        exclude_group: str | None = None,
        progress: Progress | None = None,
    ) -> list[PictureRow]:
        """One row a picture: class, probability, prediction set, familiarity, most similar case; no heatmaps.

        `images` is anything that `read_images` takes, or a sequence of what `analyze` takes. Pictures are decoded one
        at a time and go through the backbone in batches; answers are those of `analyze` (probabilities to 0.02 where
        the backbone's low precision is 16 bit, to 1e-5 where it is float32). A file that cannot be read gives a row
        with its error. `progress`, told (fraction, text) before each picture, may raise to stop. Raises ImageError
        where there is nothing to read.
        """
        pictures = open_pictures(images)
        return [row for batch in batches(self, pictures, progress) for row in score(self, batch, exclude_group)]

    @property
    def group_rule(self) -> GroupRule:
        """How a group's pictures become one answer: as the build chose on validation, else a stated default."""
        return GroupRule.of(self.metrics, self.head.thresholds)

    def analyze_group(
        self,
        images: Any,  # noqa: ANN401
        group_id: str = "",
        progress: Progress | None = None,
    ) -> GroupAnalysis:
        """One answer for a patient, slide or series, a row a picture, those that decide, groups like it.

        `images` as for `analyze_many`. Where they are of several series, each has an answer of its own (see
        `GroupAnalysis`), unless a `group_id` says that all are of one patient or slide; cases of that group are left
        out of what the pictures are compared with. Raises ImageError where there is nothing to read, BundleError where
        no picture can be read.
        """
        pictures = open_pictures(images)
        return self.answer_group(group_id, self.analyze_many(pictures, group_id or None, progress), pictures.notes)

    def answer_group(self, group_id: str, rows: Sequence[PictureRow], notes: Sequence[str] = ()) -> GroupAnalysis:
        """What `analyze_group` says of pictures analyzed already. Raises BundleError where none could be read."""
        return answer_group(group_id, self, self.group_rule, rows, notes)


def suggest_task(bundles: Mapping[str, Bundle], image: Any) -> list[Suggestion]:  # noqa: ANN401
    """The bundles ordered by how familiar the image is to each, above its own threshold, most familiar first;
    those without a threshold come last.

    `image` is anything that `read_image` takes, or PictureEncodings, which then hold what was encoded. Raises
    ImageError.
    """
    encodings = PictureEncodings.open(image)
    ranked = []
    for name, bundle in bundles.items():
        prediction = Analyzer.open(bundle, encodings).prediction
        threshold = bundle.head.thresholds.familiarity
        margin = -math.inf if threshold is None else prediction.familiarity - threshold
        ranked.append((margin, Suggestion(name, prediction.familiarity, prediction.familiar)))
    return [suggestion for _, suggestion in sorted(ranked, key=lambda pair: -pair[0])]
