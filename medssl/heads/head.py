"""The small classifier over a frozen encoding, with its labels, temperature and thresholds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file

from medssl.backbones.backbone import Backbone, Encoding, check_pooling, first_line
from medssl.errors import BundleError
from medssl.hub.pull import CONFIG_FILE, SETTINGS, is_hub_id, pull
from medssl.images.preprocess import Preprocess

SCHEMA_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
LINEAR = "linear"  # the kind of a head whose config names none
HeadT = TypeVar("HeadT", bound="Head")


def check_schema(version: object) -> None:
    """Raises BundleError unless a head with this schema_version can be read."""
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"This head has schema_version {version}; this medssl reads {SCHEMA_VERSION}. "
            "Update medssl, or fit the head again."
        )


def head_folder(place: str | Path, settings: dict) -> Path:
    """The folder of a head: `place` itself, or what was pulled for a Hub id.

    What is meant for the Hub is taken out of `settings`. Raises BundleError when there is no head with a config.
    """
    hub = {name: settings.pop(name) for name in SETTINGS if name in settings}
    folder = pull(str(place), (CONFIG_FILE, WEIGHTS_FILE), **hub) if is_hub_id(place) else Path(place)
    if not (folder / CONFIG_FILE).is_file():
        raise BundleError(
            f"The head {str(place)!r} could not be loaded: there is no {CONFIG_FILE} in it, or no such place. "
            "Check the name and that it was written by medssl."
        )
    return folder


@dataclass(frozen=True)
class Prediction:
    """What a head says of one image: the label, calibrated probabilities, and the conformal prediction set.

    `familiarity` is the mean cosine to the nearest training cases (a bundle fills it in), `familiar` whether that
    reaches the threshold.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    prediction_set: list[str]
    familiarity: float | None = None
    familiar: bool | None = None


class Head(torch.nn.Module, PyTorchModelHubMixin):
    """What every kind of head shares: its settings in plain JSON, strict loading, and predictions of an encoding.

    `embedding_dim` and `pooling` are of the embedding that the library searches. A subclass gives `kind` and `classify`
    and names all settings in its own `__init__`, where the mixin reads them. `layer` is the block whose patches it
    needs beside the backbone's final tokens, None for none.
    """

    kind = ""
    layer: int | None = None

    def __init__(
        self,
        labels: list[str],
        embedding_dim: int,
        backbone: dict,
        pooling: str,
        preprocess: dict,
        temperature: float = 1.0,
        thresholds: dict | None = None,
        fitted_on: dict | None = None,
        task: dict | None = None,
        versions: dict | None = None,
        schema_version: int = SCHEMA_VERSION,
    ) -> None:
        super().__init__()
        given = [labels, backbone, preprocess, thresholds, fitted_on, task, versions]
        try:
            plain = json.loads(json.dumps(given)) == given
        except (TypeError, ValueError):
            plain = False
        if not plain:
            raise BundleError("A head's config must be plain JSON (lists, dicts with text keys, numbers, text).")
        check_schema(schema_version)
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise BundleError(f"A head needs two or more different labels; given: {labels}.")
        if not temperature > 0:
            raise BundleError(f"temperature is {temperature}; it must be above 0.")
        try:
            self.preprocess = Preprocess.from_dict(preprocess)
        except (TypeError, ValueError) as error:
            raise BundleError(f"The head's preprocess settings do not fit: {first_line(error)}") from error
        self.labels, self.embedding_dim = list(labels), int(embedding_dim)
        self.backbone, self.pooling = dict(backbone), pooling
        self.temperature, self.thresholds = float(temperature), dict(thresholds or {})
        self.fitted_on, self.task, self.versions = dict(fitted_on or {}), dict(task or {}), dict(versions or {})

    @classmethod
    def from_pretrained(cls: type[HeadT], pretrained_model_name_or_path: str | Path, **kwargs: Any) -> HeadT:  # noqa: ANN401
        """Load a head from a folder or a Hub repo (`revision=`, `token=`, ...), strictly and from safetensors only.

        Raises BundleError when the config or a tensor is missing, unknown, of the wrong shape, or of a newer schema.
        """
        folder = head_folder(pretrained_model_name_or_path, kwargs)
        try:
            return super().from_pretrained(folder, **kwargs)
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(
                f"The head {str(pretrained_model_name_or_path)!r} could not be loaded: {first_line(error)} "
                "Check the name, the network and that it was written by medssl."
            ) from error

    @classmethod
    def _from_pretrained(
        cls: type[HeadT],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        config: dict | None = None,
        map_location: str = "cpu",
        strict: bool = True,
        **settings: Any,  # noqa: ANN401
    ) -> HeadT:
        """The mixin's loader, made strict: `strict=False` and pickled weights do not exist here."""
        check_schema((config or {}).get("schema_version", SCHEMA_VERSION))
        found_kind = (config or {}).get("kind", LINEAR)
        if found_kind != cls.kind:
            raise BundleError(
                f"{model_id} holds a head of kind {found_kind!r}; {cls.__name__} reads {cls.kind!r}. "
                "medssl.heads.patch.load_head opens every kind."
            )
        path = Path(model_id) / WEIGHTS_FILE
        if not path.is_file():
            raise BundleError(
                f"{model_id} holds no {WEIGHTS_FILE}. Only safetensors are read: pickled weights can run code."
            )
        try:
            head = cls(**settings)
        except (TypeError, KeyError) as error:
            raise BundleError(f"The config of head {model_id} does not fit: {first_line(error)}") from error
        try:
            tensors = load_file(path, device="cpu")
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path.name} of head {model_id} is no safetensors file: {first_line(error)}") from error
        expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != found:
            raise BundleError(f"The weights of head {model_id} do not match: expected {expected}, found {found}.")
        head.load_state_dict(tensors, strict=True)
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise BundleError(f"The weights of head {model_id} are not all finite numbers.")
        return head.eval()

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises BundleError, naming both values, unless this is the backbone the head was fitted on."""
        facts = backbone.describe()
        # A folder may have moved; its revision is a hash of the weights and settles what it is.
        fields = ["revision", "dimension"] if str(self.backbone.get("revision")).startswith("sha256:") else list(facts)
        for field in fields:
            if self.backbone.get(field) != facts[field]:
                raise BundleError(
                    f"This head was fitted on a backbone with {field} {self.backbone.get(field)!r}; "
                    f"the backbone given has {facts[field]!r}. Use {self.backbone.get('id')}."
                )
        check_pooling(self.pooling, backbone.has_cls)
        if backbone.embedding_dim(self.pooling) != self.embedding_dim:
            raise BundleError(
                f"This head reads embeddings of {self.embedding_dim} numbers; pooling {self.pooling!r} on this "
                f"backbone gives {backbone.embedding_dim(self.pooling)}."
            )

    def classify(self, encoding: Encoding) -> torch.Tensor:
        """Calibrated class probabilities `[B, C]` of an encoding, on the CPU; gradients flow."""
        raise NotImplementedError

    def prediction_sets(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Conformal prediction sets as bool `[B, C]`; the most probable class is always a member."""
        threshold = self.thresholds.get("conformal_probability", 1.0)
        best = torch.nn.functional.one_hot(probabilities.argmax(dim=-1), len(self.labels)).bool()
        return (probabilities >= threshold) | best

    @torch.no_grad()
    def predict_encoding(self, encoding: Encoding) -> list[Prediction]:
        """One Prediction for each image of an encoding."""
        return self.predictions(self.classify(encoding))

    def predictions(self, probabilities: torch.Tensor) -> list[Prediction]:
        """One Prediction for each row of calibrated probabilities `[B, C]`."""
        sets = self.prediction_sets(probabilities)
        return [
            Prediction(
                label=self.labels[int(row.argmax())],
                probability=float(row.max()),
                probabilities={label: float(value) for label, value in zip(self.labels, row, strict=True)},
                prediction_set=[label for label, inside in zip(self.labels, members, strict=True) if inside],
            )
            for row, members in zip(probabilities, sets, strict=True)
        ]


class ClassificationHead(Head):
    """One linear layer over an embedding `[B, D]`, and everything needed to use it rightly, in plain JSON.

    `backbone` is {"id", "revision", "dimension"}; `thresholds` may hold "conformal_probability" (a class enters the
    prediction set from this probability on) and "familiarity". Raises BundleError for a config that does not fit.
    """

    kind = LINEAR

    def __init__(
        self,
        labels: list[str],
        embedding_dim: int,
        backbone: dict,
        pooling: str,
        preprocess: dict,
        temperature: float = 1.0,
        thresholds: dict | None = None,
        fitted_on: dict | None = None,
        task: dict | None = None,
        versions: dict | None = None,
        schema_version: int = SCHEMA_VERSION,
    ) -> None:
        super().__init__(
            labels,
            embedding_dim,
            backbone,
            pooling,
            preprocess,
            temperature,
            thresholds,
            fitted_on,
            task,
            versions,
            schema_version,
        )
        self.linear = torch.nn.Linear(self.embedding_dim, len(self.labels))
        self.requires_grad_(False)

    @classmethod
    def from_linear(
        cls,
        weight: torch.Tensor | np.ndarray,
        bias: torch.Tensor | np.ndarray,
        labels: Sequence[str],
        backbone: Backbone,
        pooling: str = "cls",
        **settings: Any,  # noqa: ANN401
    ) -> ClassificationHead:
        """A head from your own probe: `weight [C, D]`, `bias [C]`. Raises BundleError when the shapes do not fit."""
        weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
        check_pooling(pooling, backbone.has_cls)
        expected = (len(labels), backbone.embedding_dim(pooling))
        if tuple(weight.shape) != expected or tuple(bias.shape) != expected[:1]:
            raise BundleError(
                f"weight is {list(weight.shape)} and bias {list(bias.shape)}; {len(labels)} labels on this backbone "
                f"with pooling {pooling!r} need {list(expected)} and {list(expected[:1])}."
            )
        settings.setdefault("preprocess", backbone.preprocess.to_dict())
        head = cls(
            labels=list(labels), embedding_dim=expected[1], backbone=backbone.describe(), pooling=pooling, **settings
        )
        head.linear.weight.copy_(weight)
        head.linear.bias.copy_(bias)
        return head

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Calibrated log-odds `[B, C]`: linear(embedding) / temperature."""
        return self.linear(embeddings.to(self.linear.weight)) / self.temperature

    def probabilities(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Calibrated class probabilities `[B, C]`."""
        return self.forward(embeddings).softmax(dim=-1)

    def classify(self, encoding: Encoding) -> torch.Tensor:
        """Calibrated class probabilities `[B, C]` of an encoding, on the CPU; gradients flow."""
        return self.probabilities(encoding.pool(self.pooling).cpu())

    @torch.no_grad()
    def predict(self, embeddings: torch.Tensor | np.ndarray) -> list[Prediction]:
        """One Prediction for each of the embeddings `[B, D]`."""
        embeddings = torch.as_tensor(embeddings).float()
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise BundleError(f"Embeddings are {list(embeddings.shape)}; this head reads [B, {self.embedding_dim}].")
        return self.predictions(self.probabilities(embeddings))
