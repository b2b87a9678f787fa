"""Finds lesions: one logistic layer over each frozen patch token, fitted to a few boxes or masks."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from pydantic import FiniteFloat, TypeAdapter
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from typing_extensions import NotRequired, TypedDict

from medssl.backbones.backbone import Backbone, Encoding
from medssl.backbones.checkpoint import first_line
from medssl.backbones.patch_tokens import Layer
from medssl.errors import BundleError
from medssl.heads.head import check_fitted_on, read_weights
from medssl.heads.lesion_map import LesionMap, peak
from medssl.heads.stored import StoredBackbone, StoredPreprocess
from medssl.hub.pull import CONFIG_FILE, WEIGHTS_FILE
from medssl.images.preprocess import Preprocess
from medssl.shapes import check_shape, read_json

SCHEMA_VERSION = 1
ANY = ""  # the target that means a lesion of whatever class
POINTS = 0.5  # right more often than not, on held out pictures and beyond the interval: then the map is shown first


class StoredLocalizer(TypedDict):
    """What config.json of a localizer holds."""

    schema_version: int
    labels: list[str]
    backbone: StoredBackbone
    preprocess: StoredPreprocess
    layers: list[Annotated[int, Ge(1)] | None]
    smoothing: Annotated[FiniteFloat, Ge(0), Le(100)]
    hit_rate: NotRequired[dict[str, Any]]
    measured_on: NotRequired[str]
    fitted_on: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]


SHAPE = TypeAdapter(StoredLocalizer)


@dataclass(frozen=True)
class LocalizerConfig:
    """All settings of a localizer.

    `labels` are the classes whose lesions it tells apart. It reads the patches of `layers` (blocks from 1 on, None:
    the final tokens) at the input size of `preprocess`; its map is smoothed by a Gaussian of `smoothing` patches.
    `hit_rate` is a figure with its interval, see `LesionMap`; `fitted_on` and `versions` are plain JSON. Raises
    BundleError for settings that do not fit.
    """

    labels: list[str]
    backbone: dict
    preprocess: Preprocess
    layers: list[Layer]
    smoothing: float = 0.0
    hit_rate: dict = field(default_factory=dict)
    measured_on: str = ""
    fitted_on: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise BundleError(f"A localizer's layers are {self.layers}; allowed: one or more different ones.")
        if len(set(self.labels)) < len(self.labels) or ANY in self.labels:
            raise BundleError(f"A localizer's labels are {self.labels}; they must be different names.")

    def to_dict(self) -> dict:
        """The config.json, with its schema_version."""
        return {**asdict(self), "preprocess": self.preprocess.to_dict(), "schema_version": SCHEMA_VERSION}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LocalizerConfig:
        """The settings of a config.json. Raises BundleError for another schema, or what is missing or does not fit."""
        if values.get("schema_version") != SCHEMA_VERSION:
            raise BundleError(
                f"This localizer has schema_version {values.get('schema_version')!r}; this medssl reads "
                f"{SCHEMA_VERSION}. Update medssl, or fit it again."
            )
        check_shape(SHAPE, values, "The localizer's config", BundleError)
        settings = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        try:
            return cls(**{**settings, "preprocess": Preprocess.from_dict(settings["preprocess"])})
        except (TypeError, ValueError) as error:
            raise BundleError(f"The localizer's preprocess settings do not fit: {first_line(error)}") from error


class Localizer(torch.nn.Module):
    """The probability of each patch to lie in a lesion, of any class and of each: one linear layer, then a logistic.

    Calibrated by its weights: what validation says of the log-odds is folded into them (smoothing keeps constants).
    """

    def __init__(self, config: LocalizerConfig) -> None:
        super().__init__()
        self.config = config
        width = len(config.layers) * config.backbone["dimension"]
        self.lesion_linear = torch.nn.Linear(width, 1 + len(config.labels))
        self.requires_grad_(False)

    @property
    def targets(self) -> list[str]:
        """What its outputs are: any lesion, then those of each class."""
        return [ANY, *self.config.labels]

    def points_at(self, label: str) -> bool:
        """Whether a picture of this class has a lesion that the map was seen to point at: it is then shown first."""
        return label in self.config.labels and self.config.hit_rate.get("low", 0.0) >= POINTS

    def check_backbone(self, backbone: Backbone) -> None:
        """Raises BundleError, naming both values, unless this is the backbone the localizer was fitted on."""
        check_fitted_on(self.config.backbone, backbone, "localizer")
        backbone.reading(*self.config.layers)

    @torch.no_grad()
    def log_odds(self, encoding: Encoding) -> np.ndarray:
        """Calibrated log-odds float32 `[B, 1 + C, h, w]` of an encoding that holds the config's layers, smoothed."""
        parts = [encoding.patches if layer is None else encoding.layers[layer] for layer in self.config.layers]
        values = self.lesion_linear(torch.cat([part.cpu() for part in parts], dim=-1)).movedim(-1, 1)
        return smoothed(values.numpy(), self.config.smoothing)

    @torch.no_grad()
    def locate(self, backbone: Backbone, image: Image.Image, target: str = ANY) -> LesionMap:
        """Where a lesion (of the class `target`, "" for any) is in an RGB image; one forward.

        Raises BundleError for a class whose lesions it does not know.
        """
        if target not in self.targets:
            known = ", ".join(self.config.labels) or "none"
            raise BundleError(f"The localizer knows no lesions of {target!r}. Allowed: {known}, or empty for any.")
        started = time.perf_counter()
        preprocess = self.config.preprocess
        encoding = backbone.reading(*self.config.layers).encode([image], preprocess, maps=False)
        grid = torch.from_numpy(self.log_odds(encoding)[:1, [self.targets.index(target)]])
        frame = torch.nn.functional.interpolate(grid, size=preprocess.size, mode="bilinear", align_corners=False)
        heatmap = preprocess.to_image_frame(frame[0, 0].sigmoid().numpy(), *image.size)
        point, box = peak(heatmap)
        patches = grid[0, 0].sigmoid().numpy()
        return LesionMap(
            heatmap,
            patches,
            target,
            float(heatmap.max()),
            point,
            box,
            self.config.hit_rate,
            self.config.measured_on,
            time.perf_counter() - started,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / CONFIG_FILE).write_text(text, "utf-8")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Localizer:
        """Read a localizer's folder, strictly. Raises BundleError for anything missing, unknown or of another shape."""
        folder = Path(folder)
        values = read_json(folder / CONFIG_FILE, f"{CONFIG_FILE} of the localizer {str(folder)!r}", BundleError)
        localizer = cls(LocalizerConfig.from_dict(values))
        tensors = read_weights(folder, folder, "localizer")
        expected = {name: tuple(tensor.shape) for name, tensor in localizer.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != given:
            raise BundleError(f"The weights of the localizer do not match: expected {expected}, found {given}.")
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise BundleError("The weights of the localizer are not all finite numbers. Fit it again.")
        localizer.load_state_dict(tensors, strict=True)
        return localizer.eval()


def smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """Maps `[..., h, w]` under a Gaussian of `sigma` patches, edges repeated; a constant map stays as it is."""
    if not sigma:
        return values
    sigmas = (*(0,) * (values.ndim - 2), sigma, sigma)
    return gaussian_filter(values, sigmas, mode="nearest").astype(values.dtype)
