"""Between an image's own frame and the model's: resize or pad, normalise, and the way back for heatmaps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("squash", "pad")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """How an image enters a model, saved with the head.

    `size` is (height, width) in pixels. `fit` is "squash" (the whole image stretched to `size`) or "pad" (aspect kept,
    centred, the border filled with `mean`). Nothing is ever cropped: lesions lie at borders too.
    Raises ValueError for values outside these.
    """

    size: tuple[int, int] = (224, 224)
    fit: str = "squash"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size is {self.size}; allowed: (height, width) of at least 1 pixel.")
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}; allowed: {', '.join(FITS)}.")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation is {self.interpolation!r}; allowed: {', '.join(INTERPOLATIONS)}.")
        finite = np.isfinite([*self.mean, *self.std]).all()
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} need three finite values each, std above 0.")

    def scaled(self, factor: int) -> Preprocess:
        """The same at `factor` times the size."""
        return replace(self, size=(factor * self.size[0], factor * self.size[1]))

    def to_dict(self) -> dict:
        """The fields in plain JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(**fields)

    def content_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Where an image of that size lies in the model frame: (left, top, right, bottom) in pixels."""
        model_height, model_width = self.size
        if self.fit == "squash":
            return 0, 0, model_width, model_height
        scale = min(model_width / width, model_height / height)
        inner_width = min(model_width, max(1, round(width * scale)))
        inner_height = min(model_height, max(1, round(height * scale)))
        left, top = (model_width - inner_width) // 2, (model_height - inner_height) // 2
        return left, top, left + inner_width, top + inner_height

    def resize(self, image: Image.Image) -> np.ndarray:
        """The RGB image in the model frame, uint8 `[h, w, 3]`, before normalisation."""
        left, top, right, bottom = self.content_box(*image.size)
        resized = image.resize((right - left, bottom - top), INTERPOLATIONS[self.interpolation])
        if (right - left, bottom - top) == (self.size[1], self.size[0]):
            return np.asarray(resized)
        frame = np.empty((*self.size, 3), np.uint8)
        frame[:] = np.round(np.clip(self.mean, 0, 1) * 255).astype(np.uint8)
        frame[top:bottom, left:right] = np.asarray(resized)
        return frame

    def normalize(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[..., h, w, 3]` to float32 `[..., 3, h, w]`, (value / 255 - mean) / std."""
        scale = (1 / (255 * np.array(self.std))).astype(np.float32)
        offset = (np.array(self.mean) / np.array(self.std)).astype(np.float32)
        return np.ascontiguousarray(np.moveaxis(frames.astype(np.float32) * scale - offset, -1, -3))

    def to_image_frame(self, heatmap: np.ndarray, width: int, height: int) -> np.ndarray:
        """A float32 `[h, w]` map of the model frame as `[height, width]` in the image's own frame (bilinear).

        Padding is cut away first, so that every pixel of the result belongs to the image.
        """
        left, top, right, bottom = self.content_box(width, height)
        inner = Image.fromarray(np.ascontiguousarray(heatmap[top:bottom, left:right], dtype=np.float32), mode="F")
        return np.asarray(inner.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
