"""What one decode of an image leaves behind for the audit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from medssl.audit.shortcuts import trivial_features
from medssl.data.load import read_record
from medssl.errors import ImageError
from medssl.images.read import image_id
from medssl.runtime import processors

HASH_SIDE = 16  # 16 rows of 16 differences: 256 bits
HASH_MARGIN = 1  # grey levels; below it a difference is JPEG noise on a flat ground
THUMBNAIL = 32


@dataclass(frozen=True)
class Fingerprint:
    """One image in short: id, hash [256] bool, thumbnail [32 * 32] float32, features by set [F]."""

    id: str
    bits: np.ndarray
    thumbnail: np.ndarray
    features: dict[str, np.ndarray]


def fingerprint(image: Image.Image) -> Fingerprint:
    """Hash, thumbnail and trivial features of an RGB image."""
    gray = image.convert("L")
    small = np.asarray(gray.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    thumbnail = np.asarray(gray.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32).ravel()
    bits = (small[:, 1:] - small[:, :-1] > HASH_MARGIN).ravel()
    return Fingerprint(image_id(image), bits, thumbnail, trivial_features(image))


def fingerprint_all(dataset: Dataset, progress: bool = True) -> Sequence[Fingerprint | str]:
    """The fingerprint of every image, or why it cannot be read."""

    def of(row: int) -> Fingerprint | str:
        try:
            return fingerprint(read_record(dataset[row]))
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(processors()) as pool:
        results = pool.map(of, range(len(dataset)))
        return list(tqdm(results, total=len(dataset), desc="audit", unit="img", disable=not progress))
