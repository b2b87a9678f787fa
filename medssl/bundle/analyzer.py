"""One opened picture: read, encoded and searched once, then asked many things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from PIL import Image

from medssl.backbones.backbone import Backbone, Encoding
from medssl.bundle.regions import search_regions
from medssl.data.tasks import Task
from medssl.errors import BundleError
from medssl.explain import Explanation, ViTCX
from medssl.explain.choice import AUTO, ExplainerChoice
from medssl.explain.explainer import Explainer
from medssl.explain.likeness import Likeness
from medssl.explain.verification import Verification
from medssl.heads.head import Head, Prediction
from medssl.heads.lesion_map import LesionMap
from medssl.heads.localizer import ANY, Localizer
from medssl.images.picture import Picture
from medssl.images.preprocess import Preprocess
from medssl.library.library import Case, CaseLibrary
from medssl.library.regions import Box, RegionIndex, RegionMatch

Progress = Callable[[float, str], None]
# A heatmap of a large picture takes 4 bytes a pixel, so an opened picture keeps the last few only.
KEPT_EXPLANATIONS = 4


class Answering(Protocol):
    """What an analyzer asks of a bundle. The methods are all that needs a GPU; `web.zero_gpu` sends them there."""

    head: Head
    backbone: Backbone
    library: CaseLibrary
    known: Dataset  # the cases that the library holds
    task: Task
    localizer: Localizer | None
    regions: RegionIndex | None
    name: str

    @property
    def explainer_choice(self) -> ExplainerChoice: ...  # noqa: D102
    def make_explainer(self, method: str) -> Explainer: ...  # noqa: D102
    def encode(self, picture: Image.Image) -> Encoding: ...  # noqa: D102
    def encode_frames(self, frames: np.ndarray) -> Encoding: ...  # noqa: D102
    def classify_frames(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...  # noqa: D102
    def explain_class(self, picture: Image.Image, target: str, method: str, **settings: Any) -> Explanation: ...  # noqa: ANN401, D102
    def explain_likeness(self, picture: Image.Image, case: Case, method: str, **settings: Any) -> Likeness: ...  # noqa: ANN401, D102
    def locate(self, picture: Image.Image, target: str) -> LesionMap: ...  # noqa: D102
    def encode_patches(self, picture: Image.Image, preprocess: Preprocess, layer: int | None) -> np.ndarray: ...  # noqa: D102
    def verify(  # noqa: D102
        self, picture: Image.Image, explanation: Explanation, progress: Progress | None = None
    ) -> Verification: ...


@dataclass(frozen=True)
class Analysis:
    """What is known of one image so far: class, cases, lesion map, explanation, verification (None until ready).

    There is a lesion map only where the bundle has a localizer.

    `explained_by` is one line: which explainer, why, and by how much it beats random maps. Where it was left to the
    build's check (method="auto") and no explainer beats them, there is no explanation, and the line says so. `notes`
    say what is to be known of how the file was read. `embedding [D]` is what the library was searched with.
    """

    task: str
    image: Image.Image
    prediction: Prediction
    cases: list[Case] | None = None
    lesion_map: LesionMap | None = None
    explanation: Explanation | None = None
    explained_by: str = ""
    verification: Verification | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict:
        """The analysis in plain JSON types, without pixels."""
        return {
            "task": self.task,
            "prediction": asdict(self.prediction),
            "cases": None if self.cases is None else [case_dict(case) for case in self.cases],
            "explanation": self.explanation and self.explanation.to_dict(),
            "explained_by": self.explained_by,
            "verification": self.verification and self.verification.to_dict(),
            "seconds": self.seconds,
            "notes": list(self.notes),
            **({"lesion_map": self.lesion_map.to_dict()} if self.lesion_map else {}),
        }


def case_dict(case: Case) -> dict:
    """A case in plain JSON types, without its picture and embedding."""
    return {key: value for key, value in vars(case).items() if key not in ("image", "embedding", "space")}


def silent(_fraction: float, _text: str) -> None:
    """Progress that nobody is told of."""


class PictureEncodings:
    """A picture and its encodings: bundles that share backbone, blocks and preprocessing share one forward."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self._encodings: dict[tuple, Encoding] = {}

    @classmethod
    def open(cls, source: Any) -> PictureEncodings:  # noqa: ANN401
        """Read anything that `read_image` takes; encodings already at hand pass through. Raises ImageError."""
        return source if isinstance(source, cls) else cls(Picture.read(source))

    @staticmethod
    def key_of(bundle: Answering) -> tuple:
        """What decides an encoding for a bundle: equal keys, equal encodings."""
        backbone, head = bundle.backbone, bundle.head
        return (backbone.id, backbone.revision, head.preprocess, head.layer, head.reading.blocks)

    def holds(self, bundle: Answering) -> bool:
        """Whether the picture was encoded for that bundle."""
        return self.key_of(bundle) in self._encodings

    def put(self, bundle: Answering, encoding: Encoding) -> None:
        """Keep an encoding of the picture, made elsewhere."""
        self._encodings[self.key_of(bundle)] = encoding

    def of(self, bundle: Answering) -> Encoding:
        """The picture's encoding in the frame of that bundle's head."""
        if not self.holds(bundle):
            self.put(bundle, bundle.encode(self.picture.image))
        return self._encodings[self.key_of(bundle)]


class Analyzer:
    """A picture opened for a bundle: its class, cases, heatmaps and likenesses, each computed when first asked for.

    Made by `Analyzer.open`. The model that it follows is segment-anything's predictor: encode once, ask many times.
    """

    def __init__(self, bundle: Answering, encodings: PictureEncodings, exclude_group: str | None = None) -> None:
        self.bundle, self.encodings, self.exclude_group = bundle, encodings, exclude_group
        self.seconds: dict[str, float] = {}
        self._cases: list[Case] = []
        self._cases_asked = 0
        self._explanations: dict[tuple[str, str], Explanation] = {}
        self._lesion_maps: dict[str, LesionMap] = {}

    @classmethod
    def open(cls, bundle: Answering, source: Any, exclude_group: str | None = None) -> Analyzer:  # noqa: ANN401
        """Open a picture: anything that `read_image` takes, a Picture, or PictureEncodings. Raises ImageError.

        `exclude_group` keeps that group's cases out of familiarity and cases. The picture itself is never its own case.
        """
        return cls(bundle, PictureEncodings.open(source), exclude_group)

    @property
    def picture(self) -> Picture:
        """The opened picture."""
        return self.encodings.picture

    @cached_property
    def encoding(self) -> Encoding:
        """All that the backbone says of the picture."""
        return self.encodings.of(self.bundle)

    @cached_property
    def embedding(self) -> np.ndarray:
        """The pooled embedding `[D]` float32 that the library is searched with."""
        return self.encoding.pool(self.bundle.head.pooling)[0].cpu().numpy()

    @cached_property
    def prediction(self) -> Prediction:
        """The calibrated class, with the picture's familiarity to the library."""
        started = time.perf_counter()
        head = self.bundle.head
        familiarity = self.bundle.library.familiarity(
            self.embedding,
            exclude_id=self.picture.id,
            exclude_group=self.exclude_group,
            k=head.thresholds.familiarity_neighbors,
        )
        familiar = head.thresholds.familiar(familiarity)
        prediction = replace(head.predict_encoding(self.encoding)[0], familiarity=familiarity, familiar=familiar)
        self.seconds["classify"] = time.perf_counter() - started
        return prediction

    def cases(self, top_k: int = 6) -> list[Case]:
        """The `top_k` most similar cases, best first; fewer than were found before need no new search."""
        if top_k > self._cases_asked:
            started = time.perf_counter()
            self._cases = self.bundle.library.search(
                self.embedding, top_k, exclude_group=self.exclude_group, exclude_id=self.picture.id
            )
            self._cases_asked = top_k
            self.seconds["similar"] = time.perf_counter() - started
        return self._cases[:top_k]

    def check_question(self, target: str | None, method: str) -> None:
        """Raises BundleError for a class or an explainer that there is not, before anything is computed."""
        if method != AUTO:
            self.bundle.make_explainer(method)
        if target is not None and target not in self.bundle.head.labels:
            allowed = ", ".join(self.bundle.head.labels)
            raise BundleError(f"There is no class {target!r} to explain. Allowed: {allowed}.")

    def explanation(
        self, target: str | None = None, method: str = AUTO, progress: Progress | None = None
    ) -> Explanation:
        """The heatmap of one class (default: the predicted one) by one explainer; "auto" takes the one chosen at build.

        Raises BundleError for a class or explainer that there is not, and for "auto" where none beats random maps.
        """
        self.check_question(target, method)
        choice = self.bundle.explainer_choice
        resolved = choice.resolve(method)
        if resolved is None:
            raise BundleError(f"{choice.line(method)} Name one as method, such as {ViTCX.method}.")
        question = (target or self.prediction.label, resolved)
        if question not in self._explanations:
            tell = progress or silent
            explanation = self.bundle.explain_class(
                self.picture.image,
                *question,
                encoding=self.encoding,
                progress=lambda fraction: tell(fraction, "Explaining the class"),
            )
            while len(self._explanations) >= KEPT_EXPLANATIONS:
                self._explanations.pop(next(iter(self._explanations)))
            self._explanations[question] = explanation
        self.seconds["explain"] = self._explanations[question].seconds
        return self._explanations[question]

    def lesion_map(self, target: str | None = None) -> LesionMap:
        """Where the bundle's localizer sees a lesion, of one class or (default) of any; see `LesionMap`.

        Another question than `explanation`: not what moved the answer. Raises BundleError where there is no localizer,
        or for a class whose lesions it does not know.
        """
        target = target or ANY
        if target not in self._lesion_maps:
            while len(self._lesion_maps) >= KEPT_EXPLANATIONS:
                self._lesion_maps.pop(next(iter(self._lesion_maps)))
            self._lesion_maps[target] = self.bundle.locate(self.picture.image, target)
        self.seconds["locate"] = self._lesion_maps[target].seconds
        return self._lesion_maps[target]

    def regions(self, box: Box | None = None, top_k: int = 6) -> list[RegionMatch]:
        """The cases that have a region most like one of the picture, best first, each with that region.

        `box` is (left, top, right, bottom) in fractions of width and height; None takes that of the lesion map. Raises
        BundleError where the bundle holds no regions (or no localizer), LibraryError for a box that cannot be.
        """
        started = time.perf_counter()
        excluded = self.bundle.library.excluded_rows(self.exclude_group, self.picture.id)
        box = box or self.lesion_map().box
        found = search_regions(self.bundle, self.picture.image, box, top_k, excluded)
        self.seconds["regions"] = time.perf_counter() - started
        return found

    def verification(self, explanation: Explanation, progress: Progress | None = None) -> Verification:
        """Delete and insert the picture's pixels in the order of an explanation of a class, beside random maps.

        Raises BundleError for an explanation of anything but a class.
        """
        verification = self.bundle.verify(self.picture.image, explanation, progress)
        self.seconds["verify"] = verification.seconds
        return verification

    def likeness(self, case: Case | str, method: str = ViTCX.method, progress: Progress | None = None) -> Likeness:
        """Why a case (or the id of one) is like the picture: a heatmap on each.

        Raises LibraryError for an unknown id, BundleError for an explainer that cannot explain a likeness.
        """
        self.bundle.make_explainer(method)
        if isinstance(case, str):
            case = self.bundle.library.find(case, self.embedding)
        tell = progress or silent
        return self.bundle.explain_likeness(
            self.picture.image,
            case,
            method,
            encoding=self.encoding,
            progress=lambda fraction: tell(fraction, "Explaining the likeness"),
        )

    def steps(
        self,
        target: str | None = None,
        top_k: int = 6,
        explain: bool = True,
        method: str = AUTO,
        verify: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Analysis]:
        """Yield the growing answer: class, then cases, then explanation, then (with `verify`) its verification.

        Before an explanation comes the lesion map, where the bundle has a localizer.

        `method` is an explainer's name, or "auto"; see Analysis for where no explainer beats random maps.
        """
        self.check_question(target, method)
        tell = progress or silent
        tell(0.0, "Encoding the image")
        analysis = Analysis(
            self.bundle.task.name,
            self.picture.image,
            self.prediction,
            seconds=dict(self.seconds),
            notes=self.picture.notes,
            embedding=self.embedding,
        )
        yield analysis
        tell(0.2, "Searching similar cases")
        analysis = replace(analysis, cases=self.cases(top_k), seconds=dict(self.seconds))
        yield analysis
        if not explain:
            return
        if self.bundle.localizer is not None:
            tell(0.25, "Looking for lesions")
            analysis = replace(analysis, lesion_map=self.lesion_map(), seconds=dict(self.seconds))
            yield analysis
        choice = self.bundle.explainer_choice
        analysis = replace(analysis, explained_by=choice.line(method))
        if choice.resolve(method) is None:
            yield analysis
            return
        tell(0.3, "Explaining the class")
        explained = 0.6 if verify else 1.0
        explanation = self.explanation(
            target, method, lambda fraction, text: tell(0.3 + (explained - 0.3) * fraction, text)
        )
        analysis = replace(analysis, explanation=explanation, seconds=dict(self.seconds))
        yield analysis
        if verify:
            verification = self.verification(
                explanation, lambda fraction, text: tell(explained + (1 - explained) * fraction, text)
            )
            yield replace(analysis, verification=verification, seconds=dict(self.seconds))
