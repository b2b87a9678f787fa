"""A data set -> the patch tokens of its images: half precision, memory mapped, cached, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from medssl.backbones.backbone import Backbone
from medssl.backbones.embeddings import fingerprint
from medssl.backbones.frames import SPARE_BYTES, DecodedFrames, Frames, SelectedFrames, pixel_batches
from medssl.errors import DataError
from medssl.files import written_whole
from medssl.images.preprocess import Preprocess
from medssl.runtime import default_cache

PART_IMAGES = 64  # how many images a kill costs at most
PATCH_VERSION = 1

Layer = int | None


def layer_name(layer: Layer) -> str:
    """A layer in words, fit for a file name."""
    return "final" if layer is None else f"block{layer:02d}"


def read_layer(encoding_patches: torch.Tensor) -> np.ndarray:
    """Patches `[B, h, w, D]` as float16 `[B, h*w, D]`. Raises DataError for numbers that float16 cannot hold."""
    half = encoding_patches.flatten(1, 2).half().cpu().numpy()
    if not np.isfinite(half).all():
        raise DataError(
            "Patch tokens beyond 65504 cannot be kept in half precision. Take another layer (None is the final one)."
        )
    return half


class TokenFile:
    """One layer's tokens `[N, P, D]` float16 on disk, with how many of its images are done.

    The file is given its full size and never replaced; two processes that fill it write the same bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path, self.shape = path, shape
        self.record = path.with_suffix(".done")

    @property
    def size(self) -> int:
        """The bytes of the tokens alone."""
        return int(np.prod(self.shape, dtype=np.int64)) * 2

    def done(self) -> int:
        """How many images are complete; 0 for a file of another size."""
        if not self.record.is_file() or not self.path.is_file() or self.path.stat().st_size < self.size:
            return 0
        text = self.record.read_text("utf-8").strip()
        return min(int(text), self.shape[0]) if text.isdigit() else 0

    def open(self, mode: str = "r") -> np.memmap:
        """The tokens, memory mapped; "r+" makes the file where there is none of that size."""
        if mode == "r+" and (not self.path.is_file() or self.path.stat().st_size < self.size):
            self.record.unlink(missing_ok=True)
            with written_whole(self.path) as beside:
                np.lib.format.open_memmap(beside, "w+", np.float16, self.shape).flush()
        return np.load(self.path, mmap_mode=mode, allow_pickle=False)

    def write(self, start: int, tokens: np.ndarray) -> None:
        """Put tokens `[n, P, D]` at `start`, and record them as done once they are on disk."""
        memory = self.open("r+")
        memory[start : start + len(tokens)] = tokens
        memory.flush()
        with written_whole(self.record) as beside:
            beside.write_text(str(start + len(tokens)), "utf-8")


def check_space(folder: Path, files: Sequence[TokenFile]) -> None:
    """Raises DataError when the disk has no room for what is not there yet."""
    missing = sum(file.size * (file.shape[0] - file.done()) // max(1, file.shape[0]) for file in files)
    free = shutil.disk_usage(folder).free
    if missing and missing + SPARE_BYTES > free:
        images, patches, width = files[0].shape
        raise DataError(
            f"The patch tokens of {images} images ({patches} patches of {width} numbers, {len(files)} layers) need "
            f"{missing / 1e9:.2f} GB more in {folder}, where {free / 1e9:.2f} GB are free. Free some, choose another "
            "place (MEDSSL_CACHE or cache_dir), fewer layers, or a smaller input size."
        )


def patch_tokens(
    dataset: Dataset,
    backbone: Backbone,
    preprocess: Preprocess | None = None,
    layers: Sequence[Layer] = (None,),
    cache_dir: str | Path | None = None,
    progress: bool = True,
    frames: Frames | None = None,
) -> dict[Layer, np.ndarray]:
    """The patch tokens of each layer (None: final; k: the output of block k), memory-mapped float16 `[N, h*w, D]`.

    They take N * h*w * D * 2 bytes a layer on disk: at 448 px a ViT-Tiny has 784 patches of 192 numbers, 0.3 MB an
    image, 360 MB for 1,200 images. `frames` are the images in the model's frame where they are at hand. Kept under a
    fingerprint of everything that decides them; a killed run goes on where it was. Raises DataError when the disk is
    too full, ImageError for a file that cannot be read, BackboneError for a layer that there is not.
    """
    preprocess = preprocess or backbone.preprocess
    layers = tuple(dict.fromkeys(layers))
    reader = backbone.reading(*layers)
    folder = Path(cache_dir or default_cache()) / "patches"
    folder /= fingerprint(dataset, backbone, preprocess, f"patches {PATCH_VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        blank = reader.forward(torch.zeros(1, 3, *preprocess.size), low_precision=True).patches
    shape = (len(dataset), blank[0, ..., 0].numel(), blank.shape[-1])
    files = {layer: TokenFile(folder / f"{layer_name(layer)}.npy", shape) for layer in layers}
    check_space(folder, list(files.values()))
    done = {layer: file.done() for layer, file in files.items()}
    begin = min(done.values())
    frames = frames or DecodedFrames(dataset, preprocess)
    with tqdm(total=len(dataset), initial=begin, desc="patches", unit="img", disable=not progress) as bar:
        for start in range(begin, len(dataset), PART_IMAGES):
            part = SelectedFrames(frames, np.arange(start, min(start + PART_IMAGES, len(dataset))))
            missing = tuple(layer for layer in layers if done[layer] < start + len(part))
            for layer, tokens in encode_part(part, backbone.reading(*missing), preprocess, missing, bar).items():
                files[layer].write(start, tokens)
    return {layer: file.open() for layer, file in files.items()}


@torch.inference_mode()
def encode_part(
    part: Frames, backbone: Backbone, preprocess: Preprocess, layers: Sequence[Layer], bar: tqdm
) -> dict[Layer, np.ndarray]:
    """The tokens `[n, P, D]` float16 of each layer, of a few images."""
    found: dict[Layer, list[np.ndarray]] = {layer: [] for layer in layers}
    overlap = backbone.device.type != "cpu"
    for pixels in pixel_batches(part, preprocess, backbone.batch_size(preprocess), overlap):
        encoding = backbone.forward(torch.from_numpy(pixels), low_precision=True)
        for layer, kept in found.items():
            kept.append(read_layer(encoding.patches if layer is None else encoding.layers[layer]))
        bar.update(len(pixels))
    return {layer: np.concatenate(kept) for layer, kept in found.items()}
