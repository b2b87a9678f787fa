"""Head + library + metrics + card of one task: the one thing that is built, evaluated, published and served."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import Backbone, Encoding, shared_backbone
from medssl.backbones.registry import BACKBONES
from medssl.bundle.analyzer import Analysis, Analyzer, PictureEncodings, Progress, silent
from medssl.bundle.cases import check_cases
from medssl.bundle.storage import Contents, read_contents, write_contents
from medssl.data.tasks import Task, get_task
from medssl.errors import BundleError
from medssl.explain import Explanation, ViTCX
from medssl.explain.choice import AUTO, ExplainerChoice
from medssl.explain.explainer import Explainer
from medssl.explain.likeness import Likeness, explain_likeness
from medssl.explain.registry import available_explainers, make_explainer
from medssl.explain.verification import Verification, verify
from medssl.heads.head import Head
from medssl.images.picture import Picture
from medssl.library.library import Case, CaseLibrary


@dataclass(frozen=True)
class Suggestion:
    """How well an image fits a bundle's own cases; `familiar` is None where the head has no threshold."""

    name: str
    familiarity: float
    familiar: bool | None


def collection_suffix(backbone: Backbone) -> str:
    """Tells the collections of one task under several backbones apart in a shared Qdrant."""
    return hashlib.sha256(f"{backbone.id}@{backbone.revision}".encode()).hexdigest()[:8]


class Bundle:
    """One task's head, case library and figures. Make one with `Bundle.load`, or build one with `build_bundle`.

    `cases` holds every embedded image of the build; the library that is searched holds its train split only, so that
    the figures in `metrics` describe what is served.
    """

    def __init__(
        self,
        head: Head,
        cases: Dataset,
        backbone: Backbone,
        metrics: dict | None = None,
        card: str = "",
        name: str = "bundle",
    ) -> None:
        head.check_backbone(backbone)
        self.head, self.cases, self.backbone = head, cases, backbone.reading(head.layer)
        self.metrics, self.card, self.name = metrics or {}, card, name
        self.task = Task.from_dict(head.task) if head.task else get_task(name, head.labels)
        if list(self.task.labels) != self.labels:
            raise BundleError(f"The head's labels are {self.labels}; those of its task are {list(self.task.labels)}.")
        check_cases(cases, self.labels, head.embedding_dim, name)
        train = [index for index, split in enumerate(cases["split"]) if split == "train"]
        self.library = CaseLibrary(cases.select(train), name=f"medssl-{self.task.name}-{collection_suffix(backbone)}")
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
        return cls(head, contents.cases, backbone, contents.metrics, contents.card, name=contents.name)

    def save(self, path: str | Path) -> Path:
        """Write the bundle as a folder, whole or not at all. Returns the folder. Raises BundleError."""
        return write_contents(Contents(self.name, self.head, self.cases, self.metrics, self.card), path)

    # What a GPU is for, and nothing else: `web.zero_gpu` sends these four elsewhere.

    def encode(self, picture: Image.Image, maps: bool = True) -> Encoding:
        """An RGB image's encoding in the head's frame."""
        return self.backbone.encode([picture], self.head.preprocess, maps=maps)

    def explain_class(self, picture: Image.Image, target: str, method: str, **settings: Any) -> Explanation:  # noqa: ANN401
        """The heatmap of one class; `settings` are those of `Explainer.explain`."""
        return self.make_explainer(method).explain(picture, target=target, **settings)

    def explain_likeness(self, picture: Image.Image, case: Case, method: str, **settings: Any) -> Likeness:  # noqa: ANN401
        """The heatmaps of a likeness; `settings` are those of `explain_likeness`."""
        return explain_likeness(self.make_explainer(method), picture, case, **settings)

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
