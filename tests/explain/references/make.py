"""Make the reference maps: `python -m tests.explain.references.make` in the checkout.

Six runs a picture of the plain version of the published algorithm, with different seeds, on phantoms that are drawn by
code and explained for the predicted class of a shipped bundle. Stored are the mean, over blocks of 7 x 7 pixels, and
what one run has in common with the others (the self-correlation).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medssl.bundle.bundle import Bundle
from medssl.demo.bundles import FOLDER
from medssl.demo.phantom import draw_phantom
from tests.explain.plain_vit_cx import plain_masks, plain_saliency

MAPS = Path(__file__).resolve().parent / "phantoms.npz"
BLOCK = 7  # half a patch
SEEDS = range(100, 106)  # others than the tests use
DISTANCE_THRESHOLD = 0.1
PHANTOM_SEED = 7  # the shipped bundles were fitted on those of seed 0


@dataclass(frozen=True)
class Drawn:
    """A phantom by what it is drawn from."""

    task: str
    label: str
    index: int

    @property
    def image(self) -> Image.Image:
        return Image.fromarray(draw_phantom(self.task, self.label, self.index, PHANTOM_SEED).image)


PICTURES = (
    Drawn("brain-demo", "glioma", 1000),
    Drawn("brain-demo", "meningioma", 1000),
    Drawn("eye-demo", "glaucoma", 1000),
    Drawn("eye-demo", "normal", 1000),
    Drawn("lung-demo", "adenocarcinoma", 1000),
    Drawn("lung-demo", "benign", 1000),
)


def in_blocks(saliency: np.ndarray) -> np.ndarray:
    """The means `[h / 7, w / 7]` of blocks of a map `[h, w]`."""
    height, width = saliency.shape
    return saliency.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3))


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def plain_runs(picture: Drawn, seeds) -> tuple[list[np.ndarray], int, int]:
    """One map in blocks for each seed, the number of masks, and the class explained."""
    bundle = Bundle.load(FOLDER / picture.task)
    backbone, head, image = bundle.backbone, bundle.head, picture.image
    with torch.no_grad():
        encoding = backbone.encode([image], head.preprocess)
        index = int(head.probabilities(encoding.pool(head.pooling))[0].argmax())
        maps = encoding.maps[0].permute(2, 0, 1)
        masks = plain_masks(maps, head.preprocess.size, DISTANCE_THRESHOLD)
    runs = [in_blocks(plain_saliency(backbone, head, image, masks, index, seed)) for seed in seeds]
    return runs, len(masks), index


def main() -> None:
    stored: dict[str, list] = {"self_correlation": [], "masks": [], "target": []}
    maps = {}
    for number, picture in enumerate(PICTURES):
        runs, masks, index = plain_runs(picture, SEEDS)
        others = [np.mean([run for run in runs if run is not one], axis=0) for one in runs]
        own = np.mean([pearson(one, rest) for one, rest in zip(runs, others, strict=True)])
        mean = np.mean(runs, axis=0)
        # The scale says nothing, and 0 to 1 leaves half precision its digits.
        maps[f"map_{number}"] = ((mean - mean.min()) / (mean.max() - mean.min())).astype(np.float16)
        stored["self_correlation"].append(own)
        stored["masks"].append(masks)
        stored["target"].append(index)
        print(picture, f"masks {masks}, class {index}, self-correlation {own:.3f}", flush=True)
    np.savez_compressed(MAPS, **maps, **{name: np.array(values) for name, values in stored.items()})


if __name__ == "__main__":
    main()
