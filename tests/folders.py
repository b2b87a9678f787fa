"""Image folders written file by file, and pictures without any content, for the tests of the audit."""

import csv

import numpy as np
from PIL import Image

from medssl.data.load import load_data

COLUMNS = ("file_name", "label", "split", "group_id", "source")


class Folder:
    """An image folder that is written file by file; `write` gives the data set."""

    def __init__(self, root):
        self.root, self.rows = root, []
        root.mkdir()

    def add(self, name, label, split="train", group="", source="", image=None, **options):
        if isinstance(image, bytes):
            (self.root / name).write_bytes(image)
        else:
            image.save(self.root / name, **options)
        self.rows.append(dict(zip(COLUMNS, (name, label, split, group, source), strict=True)))

    def write(self):
        with open(self.root / "metadata.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return load_data(self.root)


def blobs(seed, size=64, tint=(1, 1, 1)):
    """A smooth random picture, equal statistics for every seed."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (9, 9)).astype(np.uint8)
    gray = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(gray[..., None] * tint, 0, 255).astype(np.uint8))
