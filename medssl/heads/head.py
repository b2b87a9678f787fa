"""The small classifier over a frozen encoding: strict loading, probabilities, prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file

from medssl.backbones.backbone import Backbone, Encoding, first_line
from medssl.backbones.reading import Reading
from medssl.errors import BundleError
from medssl.heads.config import LINEAR, READABLE, HeadConfig, check_schema
from medssl.hub.pull import CONFIG_FILE, SETTINGS, WEIGHTS_FILE, is_hub_id, pull
from medssl.shapes import read_json

HeadT = TypeVar("HeadT", bound="Head")


def head_folder(source: str | Path, settings: dict) -> Path:
    """The folder of a head: `source` itself, or what was pulled for a Hub id.

    What is meant for the Hub is taken out of `settings`. Raises BundleError when there is no head with a config.
    """
    hub = {name: settings.pop(name) for name in SETTINGS if name in settings}
    folder = pull(str(source), (CONFIG_FILE, WEIGHTS_FILE), **hub) if is_hub_id(source) else Path(source)
    if not (folder / CONFIG_FILE).is_file():
        raise BundleError(
            f"The head {str(source)!r} could not be loaded: there is no {CONFIG_FILE} in it, or no such place. "
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


def read_config(folder: Path, source: str | Path) -> dict:
    """The config.json of a head's folder. Raises BundleError when it is no such thing, or of a newer schema."""
    config = read_json(
        folder / CONFIG_FILE, f"The head {str(source)!r} could not be loaded: its {CONFIG_FILE}", BundleError
    )
    check_schema(config.get("schema_version", READABLE[0]))
    if not isinstance(config.get("kind", LINEAR), str):
        raise BundleError(f"The head {str(source)!r} is of kind {config['kind']!r}, which is no name.")
    return config


def read_weights(folder: Path, source: str | Path, what: str = "head") -> dict[str, torch.Tensor]:
    """The tensors in a head's folder, or in that of `what` it is. Raises BundleError without a safetensors file."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise BundleError(
            f"The {what} {str(source)!r} holds no {WEIGHTS_FILE}. Only safetensors are read: a pickle can run code."
        )
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{WEIGHTS_FILE} of the {what} {str(source)!r} is no safetensors file: {first_line(error)}"
        ) from error


def check_fitted_on(fitted: Mapping, backbone: Backbone, what: str = "head") -> None:
    """Raises BundleError, naming both values, unless a backbone is the one that these facts are of."""
    facts = backbone.describe()
    # A folder may have moved; its revision is a hash of the weights and settles what it is.
    names = ["revision", "dimension"] if str(fitted.get("revision")).startswith("sha256:") else list(facts)
    for name in names:
        if fitted.get(name) != facts[name]:
            raise BundleError(
                f"This {what} was fitted on a backbone with {name} {fitted.get(name)!r}; "
                f"the backbone given has {facts[name]!r}. Use {fitted.get('id')}."
            )


class Head(torch.nn.Module, PyTorchModelHubMixin):
    """What every kind of head shares: its settings, strict loading, and predictions of an encoding.

    A subclass gives `config_class` and `classify`. `layer` is the block whose patches it needs beside the backbone's
    final tokens, None for none.
    """

    config_class: ClassVar[type[HeadConfig]] = HeadConfig
    layer: int | None = None

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self._hub_mixin_config = config.to_dict()  # what the mixin writes as config.json
        self.labels, self.embedding_dim, self.pooling = list(config.labels), config.embedding_dim, config.pooling
        self.backbone, self.preprocess = config.backbone, config.preprocess
        self.temperature, self.thresholds = float(config.temperature), config.thresholds
        self.fitted_on, self.task, self.versions = config.fitted_on, config.task, config.versions

    @property
    def reading(self) -> Reading:
        """What an embedding is made of, and the space that cases are compared in."""
        return self.config.reading

    def reader(self, backbone: Backbone) -> Backbone:
        """The backbone with all that this head and its library read in every Encoding. Raises BackboneError."""
        return backbone.reading(self.layer).pooled(self.pooling)

    def compared_in(self: HeadT, space: str) -> HeadT:
        """The same head for a library that compares cases in a space. Familiarity stays that of plain embeddings."""
        other = type(self)(replace(self.config, case_space=space))
        other.load_state_dict(self.state_dict())
        return other.eval()

    @property
    def kind(self) -> str:
        """The kind of head, as its config.json names it."""
        return self.config.kind

    @classmethod
    def from_pretrained(
        cls: type[HeadT],
        pretrained_model_name_or_path: str | Path,
        *,
        strict: bool = True,  # noqa: ARG003
        **hub: Any,  # noqa: ANN401
    ) -> HeadT:
        """Load a head from a folder or a Hub repo (`revision=`, `token=`, ...), from safetensors only.

        Always strict, whatever the mixin's `strict` says. Raises BundleError when the config or a tensor is missing,
        unknown, of the wrong shape, or of a newer schema.
        """
        source = pretrained_model_name_or_path
        folder = head_folder(source, hub)
        settings = read_config(folder, source)
        kind = settings.get("kind", LINEAR)
        if kind != cls.config_class.kind:
            raise BundleError(
                f"{str(source)!r} holds a head of kind {kind!r}; {cls.__name__} reads {cls.config_class.kind!r}. "
                "medssl.heads.load_head opens every kind."
            )
        tensors = read_weights(folder, source)
        try:
            head = cls(cls.config_class.from_dict(settings))
        except BundleError as error:
            raise BundleError(f"The {CONFIG_FILE} of the head {str(source)!r} cannot be used. {error}") from error
        expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != given:
            raise BundleError(
                f"The weights of the head {str(source)!r} do not match: expected {expected}, found {given}."
            )
        head.load_state_dict(tensors, strict=True)
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise BundleError(f"The weights of the head {str(source)!r} are not all finite numbers.")
        return head.eval()

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises BundleError, naming both values, unless this is the backbone the head was fitted on."""
        check_fitted_on(self.backbone, backbone)
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
        return torch.from_numpy(self.thresholds.members(probabilities.detach().double().numpy()))

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
    """One linear layer over an embedding `[B, D]`, with everything needed to use it rightly."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
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
        """A head from your own probe: `weight [C, D]`, `bias [C]`; `settings` are further ones of HeadConfig.

        Raises BundleError when the shapes do not fit, BackboneError for a pooling that the backbone does not have.
        """
        weight, bias = torch.as_tensor(weight).float(), torch.as_tensor(bias).float()
        expected = (len(labels), backbone.embedding_dim(pooling))
        if tuple(weight.shape) != expected or tuple(bias.shape) != expected[:1]:
            raise BundleError(
                f"weight is {list(weight.shape)} and bias {list(bias.shape)}; {len(labels)} labels on this backbone "
                f"with pooling {pooling!r} need {list(expected)} and {list(expected[:1])}."
            )
        head = cls(cls.config_class.for_backbone(backbone, pooling, labels, settings))
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
