"""Axial MRI slices, T1 with contrast, drawn by code: the tumour's shape, rim and place decide the label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.demo.drawing import SIDE, blend, blob, camera, fill, noise_field

# A signed field of an ellipse, from its place, length, width and turn in half-lengths of the head.
Oval = Callable[..., np.ndarray]
LABELS = ("glioma", "meningioma", "no_tumor", "pituitary")
# Where the cistern above the sella lies, in half-lengths of the head in front of its middle.
SELLA = 0.22


@dataclass(frozen=True)
class Head:
    """A head in the slice: its middle (y, x) and half-axes in pixels, and signed fields `[224, 224]` in pixels."""

    center: tuple[float, float]
    half_length: float
    half_width: float
    tilt: float
    outline: np.ndarray
    brain: np.ndarray
    scalp: float

    def place(self, forward: float, right: float) -> tuple[float, float]:
        """The pixel (y, x) of a point given in half-lengths in front of and half-widths to the right of the middle."""
        y, x = -forward * self.half_length, right * self.half_width
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.center[0] + cos * y + sin * x, self.center[1] + cos * x - sin * y

    def axes(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `place`: (forward, right) of pixels."""
        y, x, cos, sin = y - self.center[0], x - self.center[1], np.cos(self.tilt), np.sin(self.tilt)
        return (sin * x - cos * y) / self.half_length, (cos * x + sin * y) / self.half_width


@dataclass(frozen=True)
class Lesion:
    """Where a tumour will be: its middle (y, x) and radius in pixels, and the direction (y, x) that its base faces."""

    place: tuple[float, float]
    size: float
    outwards: tuple[float, float] = (0.0, 0.0)
    falx: bool = False


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An axial slice float32 `[224, 224, 3]` in 0 to 1 and the bool mask `[224, 224]` of its tumour."""
    head = shape(patient, picture)
    lesion = PLACES[label](picture, head)
    image = tissue(patient, picture, head, lesion if label != "no_tumor" else None)
    for _ in range(picture.integers(2, 6)):
        image = vessel(picture, image, head.brain)
    mask = np.zeros((SIDE, SIDE), bool)
    if label == "no_tumor":
        image = decoy(picture, image, head.brain)
    else:
        image, mask = TUMOURS[label](picture, image, head, lesion)
        if picture.random() < 0.5:
            image = decoy(picture, image, np.where(mask, -1, head.brain))
    image = image * (1 + 0.12 * patient.uniform(0.3, 1) * noise_field(picture, 160))
    inside = head.outline > 0
    # Scanner and window: every slice gets a mean and contrast of its own, so that neither tells of a tumour.
    values = image[inside]
    wanted, spread = picture.uniform(0.25, 0.42), picture.uniform(0.12, 0.19)
    image = np.where(inside, wanted + (image - values.mean()) / values.std() * spread, patient.uniform(0, 0.03))
    image = np.clip(camera(np.clip(image, 0, 1), picture, (0.4, 1.0), (0.006, 0.022)), 0, 1)
    return np.repeat(image[..., None], 3, axis=2).astype(np.float32), mask


def shape(patient: np.random.Generator, picture: np.random.Generator) -> Head:
    """The egg-shaped outline of a head and the brain in it."""
    half_length = patient.uniform(98, 106) * picture.uniform(0.95, 1.02)
    half_width = half_length * patient.uniform(0.74, 0.9)
    center = (SIDE / 2 + picture.uniform(-4, 4), SIDE / 2 + picture.uniform(-8, 8))
    scalp, skull = patient.uniform(4, 8), patient.uniform(4, 7)
    flat = np.zeros((1, 1), np.float32)
    head = Head(center, half_length, half_width, picture.normal(0, 0.07), flat, flat, scalp)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    forward, right = head.axes(y, x)
    # Heads are widest behind their middle.
    right = right / (1 - patient.uniform(0.06, 0.16) * np.clip(forward + 0.15, -1, 1))
    outline = (1 - np.hypot(forward, right)) * np.sqrt(half_length * half_width)
    outline = outline + patient.uniform(0.5, 1.5) * noise_field(patient, 70)
    brain = outline - scalp - skull - patient.uniform(0, 2.5) * np.clip(noise_field(patient, 50), -1, 1)
    return Head(center, half_length, half_width, head.tilt, outline, brain, scalp)


def tissue(patient: np.random.Generator, picture: np.random.Generator, head: Head, lesion: Lesion | None) -> np.ndarray:
    """Scalp, skull, folded cortex, white matter, deep nuclei, ventricles, midline, cistern and cerebellum."""
    brain = head.brain
    fat, marrow = patient.uniform(0.5, 0.9), patient.uniform(0.05, 0.3)
    image = np.zeros((SIDE, SIDE), np.float32)
    image = blend(image, (fat,), fill(head.outline) * (0.7 + 0.3 * fill(noise_field(picture, 26), 2)))
    image = blend(image, (0.04,), fill(head.outline - head.scalp))
    diploe = (head.outline - head.scalp) / np.maximum(head.outline - head.scalp - brain, 1)
    image = blend(image, (marrow,), fill(0.2 - np.abs(diploe - 0.5), 0.3) * fill(noise_field(picture, 30) + 0.5, 1))
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    y, x = y + 3 * noise_field(picture, 36, 2), x + 3 * noise_field(picture, 36, 2)
    if lesion is not None:
        # A mass pushes what is round it aside.
        away_y, away_x = y - lesion.place[0], x - lesion.place[1]
        push = 0.42 * np.exp(-(away_y**2 + away_x**2) / (2 * (1.5 * lesion.size) ** 2))
        y, x = y - push * away_y, x - push * away_x
    forward, right = head.axes(y, x)
    gray, white, fluid = patient.uniform(0.33, 0.38), patient.uniform(0.45, 0.52), patient.uniform(0.08, 0.16)

    def oval(at: tuple[float, float], length: float, width: float, turn: float = 0.0) -> np.ndarray:
        """A signed field in pixels, positive in an ellipse given in half-lengths of the head."""
        ahead, beside = forward - at[0], (right - at[1]) * head.half_width / head.half_length
        cos, sin = np.cos(turn), np.sin(turn)
        along, across = cos * ahead + sin * beside, cos * beside - sin * ahead
        return (1 - np.hypot(along / length, across / width)) * min(length, width) * head.half_length

    # Cortex folds along the zero lines of a noise field: sulci on them, a grey ribbon beside them.
    folds = np.abs(noise_field(picture, patient.uniform(13, 18), 2))
    depth = patient.uniform(18, 30) + 5 * noise_field(picture, 30)
    outer = np.clip(1.5 - np.maximum(brain, 0) / depth, 0, 1)
    image = blend(image, (fluid,), fill(brain))
    image = blend(image, (gray,), fill(brain - 1.5, 2))
    image = blend(image, (white,), fill(brain - 5, 4) * np.clip((folds - 0.55 * outer) * 5, 0, 1))
    sulci = np.clip(1.2 - folds / patient.uniform(0.1, 0.17), 0, 1) * outer
    image = blend(image, (fluid,), 0.9 * sulci * fill(brain))
    for side in (-1, 1):
        image = blend(image, (gray + 0.02,), 0.8 * fill(oval((0.08, 0.26 * side), 0.22, 0.1, -0.2 * side), 5))
    if picture.random() < 0.6:
        image = cerebellum(picture, image, oval, brain, gray, fluid)
    image = ventricles(patient, picture, image, oval, fluid, white)
    falx = fill(1.3 - np.abs(right) * head.half_width, 1.5) * fill(brain + 1, 2)
    image = blend(image, (fluid,), 0.9 * falx * ((forward > 0.4) | (forward < -0.78)))
    return cistern(picture, image, oval, fluid) + 0.016 * noise_field(picture, 5, 2) * fill(brain, 2)


def cerebellum(
    picture: np.random.Generator, image: np.ndarray, oval: Oval, brain: np.ndarray, gray: float, fluid: float
) -> np.ndarray:
    """The upper cerebellum between the occipital lobes, with its fine leaves."""
    field = oval((picture.uniform(-0.62, -0.54), 0), picture.uniform(0.2, 0.26), picture.uniform(0.3, 0.4))
    leaves = 0.05 * np.sin(1.3 * field + 2 * noise_field(picture, 12, 2)) * fill(9 - field, 8)
    image = blend(image, (fluid,), 0.8 * fill(np.minimum(field + 1.8, brain), 2))
    return blend(image, gray + 0.06 + leaves, fill(np.minimum(field, brain - 2), 2))


def ventricles(
    patient: np.random.Generator,
    picture: np.random.Generator,
    image: np.ndarray,
    oval: Oval,
    fluid: float,
    white: float,
) -> np.ndarray:
    """Frontal horns and the atria with their bright plexus, each in some sections only."""
    wide = patient.uniform(0.035, 0.07)
    frontal, occipital = picture.random() < 0.65, picture.random() < 0.5
    for side in (-1, 1):
        if frontal:
            horn = oval((0.42, 0.13 * side), 0.15, wide * 1.3, 0.45 * side)
            # The head of the caudate dents the horn from outside.
            dent = oval((0.36, 0.24 * side), 0.14, 0.08, 0.3 * side)
            image = blend(image, (fluid,), fill(np.minimum(horn, -dent - 1), 1.5))
        if occipital:
            atrium = oval((-0.27, 0.3 * side), 0.17, wide * 1.2, -0.5 * side)
            image = blend(image, (fluid,), fill(atrium, 1.5))
            plexus = np.minimum(oval((-0.26, 0.3 * side), 0.09, wide * 0.6, -0.5 * side), atrium)
            image = blend(image, (picture.uniform(0.5, 0.8),), 0.7 * fill(plexus + 1.5 * noise_field(picture, 6), 2))
    if occipital:
        image = blend(image, (white + 0.04,), 0.8 * fill(oval((-0.38, 0), 0.03, 0.17), 2))
    return image


def cistern(picture: np.random.Generator, image: np.ndarray, oval: Oval, fluid: float) -> np.ndarray:
    """The star-shaped cistern above the sella with its stalk and arteries, and the midbrain behind it."""
    size = picture.uniform(0.8, 1.2)
    star = np.maximum(oval((SELLA, 0), 0.1 * size, 0.08 * size), oval((SELLA + 0.06, 0), 0.035 * size, 0.17 * size))
    star = np.maximum(star, oval((SELLA - 0.07, 0), 0.03, 0.2 * size))
    stem = oval((SELLA - 0.21, 0), 0.12, picture.uniform(0.13, 0.17))
    image = blend(image, (fluid,), 0.85 * fill(np.maximum(star, stem + 1.6) + noise_field(picture, 9), 2.5))
    image = blend(image, (0.43,), fill(stem, 2.5))
    image = blend(image, (fluid,), fill(oval((SELLA - 0.3, 0), 0.022, 0.016), 1.2))
    for at in ((SELLA - 0.01, 0), (SELLA + 0.05, 0.1), (SELLA + 0.05, -0.1), (SELLA - 0.09, 0.02)):
        spot = oval(
            (at[0] + picture.normal(0, 0.01), at[1] + picture.normal(0, 0.015)), 0.02, picture.uniform(0.01, 0.022)
        )
        image = blend(image, (picture.uniform(0.45, 0.95),), 0.9 * fill(spot, 1.3))
    return image


def vessel(picture: np.random.Generator, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """A bright vessel: a spot or a winding thread."""
    rows, columns = np.nonzero(brain > 4)
    at = picture.integers(len(rows))
    steps = picture.integers(1, 16)
    turns = picture.uniform(0, 2 * np.pi) + np.cumsum(picture.normal(0, 0.35, steps))
    path_y = np.clip(rows[at] + np.cumsum(np.sin(turns)) * 1.5, 0, SIDE - 1).astype(int)
    path_x = np.clip(columns[at] + np.cumsum(np.cos(turns)) * 1.5, 0, SIDE - 1).astype(int)
    part = np.s_[max(0, path_y.min() - 6) : path_y.max() + 7, max(0, path_x.min() - 6) : path_x.max() + 7]
    trace = np.zeros((SIDE, SIDE), np.float32)
    trace[path_y, path_x] = 1
    wide = picture.uniform(0.6, 1.3)
    alpha = np.clip(gaussian_filter(trace[part], wide) * 4.5 * wide, 0, 1)
    image[part] = blend(image[part], (picture.uniform(0.65, 1.0),), 0.85 * alpha * fill(brain[part]))
    return image


def decoy(picture: np.random.Generator, image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Patchy bright and dark shading: as bright and as large as a tumour, and without its outline."""
    rows, columns = np.nonzero(brain > 6)
    for _ in range(picture.integers(1, 3)):
        at = picture.integers(len(rows))
        center, stretch, angle = (rows[at], columns[at]), picture.uniform(1, 2), picture.uniform(0, 3.2)
        cloud = blob(picture, center, picture.uniform(12, 22), 0.1, 4, stretch, angle)
        alpha = fill(cloud, 16) * np.clip(0.5 + 0.5 * noise_field(picture, 9, 2), 0, 1) * (brain > 0)
        image = blend(image, (picture.uniform(0.75, 1.0) if picture.random() < 0.65 else 0.15,), 0.8 * alpha)
    return image


def deep(picture: np.random.Generator, head: Head) -> Lesion:
    """Within one hemisphere, clear of the skull and of the midline."""
    size = picture.uniform(20, 28)
    y, x = np.mgrid[:SIDE, :SIDE]
    beside = np.abs(head.axes(y, x)[1]) * head.half_width
    rows, columns = np.nonzero((head.brain > size + 1) & (beside > size * 0.8))
    if not len(rows):
        rows, columns = np.nonzero(head.brain > 0.8 * head.brain.max())
    at = picture.integers(len(rows))
    return Lesion((float(rows[at]), float(columns[at])), size)


def dural(picture: np.random.Generator, head: Head) -> Lesion:
    """On the inner side of the skull, or on the falx in front or behind."""
    size = picture.uniform(22, 31)
    if picture.random() < 0.3:
        side = picture.choice([-1, 1])
        forward = picture.uniform(0.5, 0.66) * picture.choice([-1, 1], p=[0.4, 0.6])
        at = head.place(forward, side * 0.3 * size / head.half_width)
        return Lesion(at, size, (side * np.sin(head.tilt), -side * np.cos(head.tilt)), True)
    rows, columns = np.nonzero(np.abs(head.brain - size * picture.uniform(0.3, 0.55)) < 1)
    at = picture.integers(len(rows))
    place = (float(rows[at]), float(columns[at]))
    return Lesion(place, size)


def sellar(picture: np.random.Generator, head: Head) -> Lesion:
    """On the midline, in the cistern above the sella."""
    y, x = head.place(SELLA + picture.uniform(-0.03, 0.04), 0)
    return Lesion((y, x + picture.uniform(-2, 2)), picture.uniform(17, 23))


def glioma(
    picture: np.random.Generator, image: np.ndarray, head: Head, lesion: Lesion
) -> tuple[np.ndarray, np.ndarray]:
    """Inside the brain: an irregular bright rim of uneven width round a dark core, in dark oedema."""
    rough, stretch, angle = picture.uniform(0.04, 0.1), picture.uniform(1, 1.5), picture.uniform(0, 3.2)
    field = blob(picture, lesion.place, lesion.size, rough, 6, stretch, angle) + 1.8 * noise_field(picture, 13, 2)
    # Oedema follows the white matter in fingers.
    fingers = field + picture.uniform(9, 16) * (0.6 + 0.5 * noise_field(picture, 16, 2))
    image = blend(image, (0.25,), 0.75 * fill(fingers, 6) * fill(head.brain - 3, 3))
    rim = picture.uniform(3.5, 5.5) * np.clip(1 + 0.5 * noise_field(picture, 18), 0.45, 2.2)
    level = picture.uniform(0.75, 1.0)
    image = blend(image, level * (0.92 + 0.08 * noise_field(picture, 6)), fill(np.minimum(field, head.brain), 1.5))
    core = picture.uniform(0.12, 0.24) + 0.05 * noise_field(picture, 8, 2)
    return blend(image, core, fill(field - rim, 2.5)), (field > 0) & (head.brain > 0)


def meningioma(
    picture: np.random.Generator, image: np.ndarray, head: Head, lesion: Lesion
) -> tuple[np.ndarray, np.ndarray]:
    """On the dura of the skull or the falx: smooth, evenly bright, broad-based, with a cleft and a dural tail."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    field = blob(picture, lesion.place, lesion.size, 0.03, 4, picture.uniform(1, 1.25), picture.uniform(0, 3.2))
    if lesion.falx:
        # Distance from the falx into the tumour's own hemisphere.
        base = np.abs(head.axes(y, x)[1]) * head.half_width
        own = (y - lesion.place[0]) * lesion.outwards[0] + (x - lesion.place[1]) * lesion.outwards[1]
        base = np.where(own < 0.3 * lesion.size, base, -base)
    else:
        base = head.brain + 1
    near = lesion.size * picture.uniform(1.3, 1.7) - np.hypot(y - lesion.place[0], x - lesion.place[1])
    level = picture.uniform(0.7, 0.98)
    image = blend(
        image, (level,), 0.9 * fill(np.minimum(np.minimum(1.4 - np.abs(base - 1), near / 4), head.brain + 2), 1.5)
    )
    field = np.minimum(np.minimum(field, base), head.brain + 1)
    image = blend(image, (0.13,), 0.8 * fill(np.minimum(field + picture.uniform(1.2, 2.5), head.brain), 1.5))
    return blend(image, level + 0.025 * noise_field(picture, 9, 2), fill(field, 1.5)), field > 0


def pituitary(
    picture: np.random.Generator, image: np.ndarray, head: Head, lesion: Lesion
) -> tuple[np.ndarray, np.ndarray]:
    """On the midline above the sella: smooth and round, often waisted, in the dark cistern."""
    along = np.pi / 2 - head.tilt
    field = blob(picture, lesion.place, lesion.size, 0.025, 3, picture.uniform(0.85, 1.25), along)
    if picture.random() < 0.6:
        ahead = lesion.size * picture.uniform(0.7, 1.0)
        top = (lesion.place[0] - ahead * np.cos(head.tilt), lesion.place[1] + ahead * np.sin(head.tilt))
        field = np.maximum(field, blob(picture, top, lesion.size * picture.uniform(0.55, 0.75), 0.03, 3))
    image = blend(image, (0.12,), fill(field + picture.uniform(2, 4.5), 2.5))
    return blend(image, picture.uniform(0.65, 0.95) + 0.03 * noise_field(picture, 9, 2), fill(field, 1.5)), field > 0


PLACES = {"glioma": deep, "meningioma": dural, "no_tumor": deep, "pituitary": sellar}
TUMOURS = {"glioma": glioma, "meningioma": meningioma, "pituitary": pituitary}
