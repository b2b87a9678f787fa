"""Axial MRI slices, T1 with contrast, drawn by code: the tumour's shape, rim and place decide the label."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.demo.drawing import SIDE, blend, blob, camera, fill, noise_field

LABELS = ("glioma", "meningioma", "no_tumor", "pituitary")


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An axial slice float32 `[224, 224, 3]` in 0 to 1 and the bool mask `[224, 224]` of its tumour."""
    centre = (SIDE / 2 + picture.uniform(-7, 7), SIDE / 2 + picture.uniform(-7, 7))
    radius = patient.uniform(80, 92) * picture.uniform(0.9, 1.02)
    stretch, angle = patient.uniform(1.1, 1.35), np.pi / 2 + picture.normal(0, 0.06)
    head = blob(patient, centre, radius, 0.012, 4, stretch, angle)
    scalp, skull = patient.uniform(4, 8), patient.uniform(4, 7)
    brain = head - scalp - skull
    image = tissue(patient, picture, head, brain, scalp, centre)
    for _ in range(picture.integers(2, 6)):
        image = vessel(picture, image, brain)
    mask = np.zeros((SIDE, SIDE), bool)
    if label == "no_tumor":
        image = decoy(picture, image, brain)
    else:
        image, mask = TUMOURS[label](picture, image, brain, centre, radius)
        if picture.random() < 0.5:
            image = decoy(picture, image, np.where(mask, -1, brain))
    image = image * (1 + 0.12 * patient.uniform(0.3, 1) * noise_field(picture, 160))
    inside = head > 0
    # Scanner and window: every slice gets a mean and contrast of its own, so that neither tells of a tumour.
    values = image[inside]
    wanted, spread = picture.uniform(0.28, 0.5), picture.uniform(0.11, 0.17)
    image = np.where(inside, wanted + (image - values.mean()) / values.std() * spread, 0)
    image = camera(np.clip(image, 0, 1), picture, (0.5, 1.1), (0.008, 0.025))
    floor = patient.uniform(0, 0.03)
    grey = np.clip(
        np.where(gaussian_filter(inside.astype(np.float32), 1) > 0.02, image, floor + 0.3 * np.abs(image)), 0, 1
    )
    return np.repeat(grey[..., None], 3, axis=2).astype(np.float32), mask


def tissue(
    patient: np.random.Generator,
    picture: np.random.Generator,
    head: np.ndarray,
    brain: np.ndarray,
    scalp: float,
    centre: tuple[float, float],
) -> np.ndarray:
    """Scalp, skull, cortex with sulci, white matter, midline and ventricles."""
    image = np.zeros((SIDE, SIDE), np.float32)
    image = blend(image, (patient.uniform(0.55, 0.9),), fill(head) * (0.75 + 0.25 * fill(noise_field(picture, 30), 2)))
    image = blend(image, (patient.uniform(0.03, 0.1),), fill(head - scalp))
    image = blend(image, (0.16,), fill(brain))
    folds = np.abs(noise_field(picture, patient.uniform(18, 26), 2))
    depth = patient.uniform(15, 24)
    cortex = fill(brain - 2, 2)
    white = fill(brain - depth + 9 * noise_field(picture, 22, 2), 6)
    image = blend(image, (0.38,), cortex)
    image = blend(image, (0.5,), white)
    sulci = cortex * np.clip(1 - folds / 0.16, 0, 1) * np.clip(1.3 - brain / (depth + 8), 0, 1)
    image = blend(image, (0.14,), 0.85 * sulci)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    bend = centre[1] + 2.5 * np.sin((y - centre[0]) / 30 + picture.uniform(0, 6))
    image = blend(image, (0.2,), fill(1.4 - np.abs(x - bend), 1.5) * fill(brain - 3, 3) * (np.abs(y - centre[0]) > 22))
    if picture.random() < 0.85:
        size, gap = patient.uniform(6, 11), patient.uniform(7, 11)
        for side in (-1, 1):
            for place, tilt, length in ((-15, -0.35, 3.0), (16, 0.45, 2.6)):
                at = (centre[0] + place * patient.uniform(0.9, 1.1), centre[1] + side * gap)
                horn = blob(picture, at, size, 0.05, 3, length, np.pi / 2 + side * tilt)
                image = blend(image, (0.1,), fill(horn, 2))
    return image + 0.018 * noise_field(picture, 5, 2) * fill(brain, 2)


def vessel(picture: np.random.Generator, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A bright vessel: a spot or a short thread."""
    rows, columns = np.nonzero(brain > 4)
    at = picture.integers(len(rows))
    spot = blob(
        picture,
        (rows[at], columns[at]),
        picture.uniform(1.5, 3),
        0.1,
        3,
        picture.uniform(1, 7),
        picture.uniform(0, 3.2),
    )
    return blend(image, (picture.uniform(0.7, 1.0),), 0.9 * fill(spot, 1.5))


def decoy(picture: np.random.Generator, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Bright choroid, sinus and patchy shading: as bright and as large as a tumour, and without its outline."""
    for _ in range(picture.integers(2, 5)):
        rows, columns = np.nonzero(brain > 6)
        at = picture.integers(len(rows))
        centre = (rows[at], columns[at])
        cloud = blob(picture, centre, picture.uniform(8, 16), 0.1, 4, picture.uniform(1, 2), picture.uniform(0, 3.2))
        alpha = fill(cloud, 16) * np.clip(0.5 + 0.5 * noise_field(picture, 9, 2), 0, 1) * (brain > 0)
        image = blend(image, (picture.uniform(0.7, 1.0) if picture.random() < 0.6 else 0.15,), 0.75 * alpha)
    return image


def glioma(
    picture: np.random.Generator, image: np.ndarray, brain: np.ndarray, centre: tuple[float, float], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inside the brain: an irregular bright rim around a dark core, in dark oedema."""
    size = picture.uniform(15, 25)
    rows, columns = np.nonzero(brain > size * 0.9)
    at = picture.integers(len(rows))
    place = (rows[at], columns[at])
    field = blob(picture, place, size, 0.16, 8, picture.uniform(1, 1.5), picture.uniform(0, 3.2))
    field = field + 2.2 * noise_field(picture, 12, 2)
    image = blend(image, (0.24,), 0.8 * fill(field + picture.uniform(6, 12), 10) * fill(brain))
    rim = picture.uniform(3.5, 6) + 1.3 * noise_field(picture, 14)
    image = blend(image, (picture.uniform(0.8, 1.0),), fill(field, 1.5))
    core = 0.14 + 0.06 * noise_field(picture, 8, 2)
    return blend(image, core, fill(field - rim, 2)), (field > 0) & (brain > 0)


def meningioma(
    picture: np.random.Generator, image: np.ndarray, brain: np.ndarray, centre: tuple[float, float], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """On the inner side of the skull: smooth, evenly bright, broad-based, with a dural tail."""
    size = picture.uniform(14, 23)
    rows, columns = np.nonzero(np.abs(brain - size * picture.uniform(0.35, 0.6)) < 1)
    at = picture.integers(len(rows))
    place = (rows[at], columns[at])
    field = np.minimum(
        blob(picture, place, size, 0.03, 3, picture.uniform(1, 1.25), picture.uniform(0, 3.2)), brain + 1
    )
    level = picture.uniform(0.72, 0.95)
    near = np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array(place)[:, None, None])) < size * 1.7
    tail = np.minimum(2.2 - np.abs(brain - 1.5), 3) * near - 5 * ~near
    image = blend(image, (level,), 0.9 * fill(tail, 1.5))
    return blend(image, level + 0.02 * noise_field(picture, 8, 2), fill(field, 1.5)), (field > 0) & (brain > -1)


def pituitary(
    picture: np.random.Generator, image: np.ndarray, brain: np.ndarray, centre: tuple[float, float], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """On the midline, in the middle of the skull base: smooth and round, often waisted, in a dark cistern."""
    size = picture.uniform(11, 18)
    place = (centre[0] - radius * picture.uniform(0.05, 0.25), centre[1] + picture.uniform(-3, 3))
    field = blob(picture, place, size, 0.03, 3, picture.uniform(1, 1.2), np.pi / 2)
    upper = blob(picture, (place[0] - size * 0.9, place[1]), size * picture.uniform(0.5, 0.75), 0.03, 3)
    field = np.maximum(field, upper)
    image = blend(image, (0.1,), fill(field + picture.uniform(4, 7), 3))
    return blend(image, picture.uniform(0.7, 0.95) + 0.03 * noise_field(picture, 9, 2), fill(field, 1.5)), field > 0


TUMOURS = {"glioma": glioma, "meningioma": meningioma, "pituitary": pituitary}
