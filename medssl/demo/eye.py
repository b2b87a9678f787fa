"""Fundus photographs drawn by code: spots, the disc's cup, or an opacity decide the label, never their colour."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.demo.drawing import SIDE, blend, blob, camera, fill, noise_field

LABELS = ("cataract", "diabetic_retinopathy", "glaucoma", "normal")
# Choroid and pigment of different people, RGB.
TONES = np.array([(0.78, 0.36, 0.15), (0.62, 0.26, 0.12), (0.72, 0.46, 0.24), (0.6, 0.44, 0.36), (0.8, 0.32, 0.2)])
# The side in pixels of the part that the disc is drawn in.
WINDOW = 96
BLOOD, EXUDATE = (0.42, 0.14, 0.09), (0.98, 0.86, 0.5)


@dataclass(frozen=True)
class Fundus:
    """Where things lie, (y, x) in pixels; `aperture` `[224, 224]` is positive inside the camera's field."""

    aperture: np.ndarray
    radius: float
    center: np.ndarray
    disc: np.ndarray
    macula: np.ndarray
    eye: int


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A fundus float32 `[224, 224, 3]` in 0 to 1 and the bool mask `[224, 224]` of what decides its label.

    The mask is the opacity (cataract), the lesions (diabetic retinopathy) or the optic disc (glaucoma).
    """
    fundus = field_of_view(patient, picture)
    image = retina(patient, picture, fundus)
    image, disc = nerve(patient, picture, image, fundus, label == "glaucoma")
    mask = disc if label == "glaucoma" else np.zeros((SIDE, SIDE), bool)
    if label == "diabetic_retinopathy":
        image, mask = lesions(picture, image, fundus)
    else:
        image = freckles(picture, image, fundus)
    if label == "cataract":
        image, mask = opacity(picture, image, fundus)
    else:
        image = reflection(picture, image, fundus)
    # Flash, focus and ageing lens differ between pictures of every class.
    haze = picture.uniform(0, 0.12)
    image = image * (1 - haze) + haze * np.array([0.6, 0.42, 0.26]) * picture.uniform(0.6, 1.1)
    blur = picture.uniform(0.2, 0.6)
    image = gaussian_filter(image, (blur, blur, 0)) * picture.uniform(0.68, 1.15) * (1 + picture.normal(0, 0.09, 3))
    image = image * illumination(picture, fundus)[..., None]
    image = camera(image, picture, (0.2, 0.5), (0.006, 0.02)) * fill(fundus.aperture, 2)[..., None]
    return np.clip(image + picture.uniform(0, 0.02), 0, 1).astype(np.float32), mask & (fundus.aperture > 2)


def field_of_view(patient: np.random.Generator, picture: np.random.Generator) -> Fundus:
    """A round field, in some cameras cut off above and below or with a notch, and where disc and macula lie in it."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    center = np.array([SIDE / 2, SIDE / 2]) + picture.uniform(-4, 4, 2)
    radius = picture.uniform(98, 118)
    aperture = radius - np.hypot(y - center[0], x - center[1])
    if picture.random() < 0.3:
        aperture = np.minimum(aperture, picture.uniform(86, 100) - np.abs(y - center[0]))
    if picture.random() < 0.3:
        turn = picture.uniform(0.5, 1.0)
        notch = np.hypot(y - center[0] + radius * np.sin(turn), x - center[1] - radius * np.cos(turn))
        aperture = np.maximum(aperture, np.minimum(5 - notch, 3))
    eye = int(picture.choice([-1, 1]))
    disc = center + np.array([picture.uniform(-14, 14), eye * patient.uniform(24, 40)])
    macula = disc + np.array([picture.uniform(2, 12), -eye * patient.uniform(72, 84)])
    return Fundus(aperture, radius, center, disc, macula, eye)


def illumination(picture: np.random.Generator, fundus: Fundus) -> np.ndarray:
    """The flash `[224, 224]`: darker or, less often, brighter towards the rim and to one side."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    outwards = np.clip(1 - fundus.aperture / fundus.radius, 0, 1) ** 2
    turn = picture.uniform(0, 2 * np.pi)
    side = ((y - SIDE / 2) * np.sin(turn) + (x - SIDE / 2) * np.cos(turn)) / SIDE
    return 1 - picture.uniform(-0.1, 0.25) * outwards + picture.uniform(0, 0.2) * side


def retina(patient: np.random.Generator, picture: np.random.Generator, fundus: Fundus) -> np.ndarray:
    """Pigment, choroid and macula under the vessels, `[224, 224, 3]`."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    mix = patient.dirichlet(np.full(len(TONES), 2.0))
    color = (mix @ TONES) * patient.uniform(0.92, 1.08) * (1 + patient.normal(0, 0.03, 3))
    grain = 0.05 * noise_field(picture, 90) + 0.025 * noise_field(picture, 7, 2)
    # Vessels of the choroid show through where pigment is thin.
    choroid = np.clip(1 - np.abs(noise_field(picture, 13)) / 0.9, 0, 1) * np.clip(noise_field(picture, 80), 0, 1.5)
    image = color * (1 + grain)[..., None]
    image = image * (1 + patient.uniform(0, 0.16) * choroid[..., None] * np.array([0.6, 0.9, 0.5]))
    away = (y - fundus.macula[0]) ** 2 + (x - fundus.macula[1]) ** 2
    pit = patient.uniform(0.2, 0.4) * np.exp(-away / (2 * patient.uniform(10, 16) ** 2))
    image = image * (1 - pit[..., None] * np.array([0.8, 1.0, 1.0]))
    vein, artery = vessels(patient, fundus)
    strength = picture.uniform(0.75, 1.0)
    image = blend(image, image * np.array([0.62, 0.4, 0.48]), strength * vein)
    image = blend(image, image * np.array([0.85, 0.55, 0.55]), strength * artery)
    return image.astype(np.float32)


def vessels(patient: np.random.Generator, fundus: Fundus) -> tuple[np.ndarray, np.ndarray]:
    """The opacities `[224, 224]` of veins and of arteries: arcades from the disc round the macula, with branches."""
    walks, steps = [], []
    y, x = (float(value) for value in fundus.disc)
    for up in (-1, 1):
        for kind, thick in ((0, patient.uniform(1.8, 2.5)), (1, patient.uniform(1.3, 1.9))):
            start_y, start_x = y + patient.normal(0, 1.5), x + patient.normal(0, 1.5)
            walks.append((start_y, start_x, up * patient.uniform(0.9, 1.6), thick, -fundus.eye, 0, kind))
            if patient.random() < 0.8:
                walks.append((start_y, start_x, up * patient.uniform(0.4, 1.3), thick * 0.65, fundus.eye, 0, kind))
        if patient.random() < 0.7:
            walks.append((y, x, up * patient.uniform(0.15, 0.5), 0.7, -fundus.eye, 1, 0))
    while walks:
        y, x, heading, thick, side, depth, kind = walks.pop()
        length = patient.integers(30, 56) if depth else 64
        bend = 0.0 if depth else -np.sign(heading) * patient.uniform(0.01, 0.028)
        wander, chance = patient.normal(bend, 0.055, length), patient.random(length)
        for step in range(length):
            y, x = y + 2 * sin(heading), x + 2 * side * cos(heading)
            if not (4 <= y < SIDE - 5 and 4 <= x < SIDE - 5) or thick < 0.3:
                break
            steps.append((kind, y, x, thick))
            heading += wander[step]
            thick *= 0.986
            if depth < 3 and step > 6 and chance[step] < 0.07:
                fork = heading + patient.choice([-1, 1]) * patient.uniform(0.4, 1.0)
                walks.append((y, x, fork, thick * patient.uniform(0.55, 0.8), side, depth + 1, kind))
    kind, y, x, thick = (column[:, None, None] for column in np.array(steps, np.float32).T)
    rows, columns = np.mgrid[-4:5, -4:5]
    rows, columns = rows + y.astype(int), columns + x.astype(int)
    cover = np.clip(thick + 0.6 - np.hypot(rows - y, columns - x), 0, 1) * np.minimum(1, 0.4 + thick)
    layers = np.zeros((2, SIDE, SIDE), np.float32)
    np.maximum.at(layers, (np.broadcast_to(kind.astype(int), rows.shape), rows, columns), cover)
    layers = gaussian_filter(layers, (0, 0.5, 0.5))
    return layers[0], layers[1]


def nerve(
    patient: np.random.Generator, picture: np.random.Generator, image: np.ndarray, fundus: Fundus, cupped: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The optic disc and its mask `[224, 224]`: its cup is large and notches the rim, or is small and round."""
    top, left = int(fundus.disc[0]) - WINDOW // 2, int(fundus.disc[1]) - WINDOW // 2
    part, at, size = (
        np.s_[top : top + WINDOW, left : left + WINDOW],
        fundus.disc - (top, left),
        patient.uniform(20, 28),
    )
    turn = np.pi / 2 + patient.normal(0, 0.15)
    field = blob(patient, tuple(at), size, 0.02, 4, patient.uniform(1.0, 1.2), turn, WINDOW)
    # Both kinds draw the same numbers, so that one eye can be drawn with either cup.
    share, shift, tall = picture.random(), picture.uniform(-0.06, 0.06, 2) * size, picture.random()
    notch, up = picture.uniform(0.1, 0.16) * size, picture.choice([-1, 1])
    ratio = 0.68 + 0.12 * share if cupped else 0.22 + 0.16 * share
    middle = at + shift + (np.array([up * notch, 0.0]) if cupped else 0)
    cup = blob(picture, tuple(middle), size * ratio, 0.03, 4, 1.0 + 0.2 * tall, np.pi / 2, WINDOW)
    inside, hollow = fill(field, picture.uniform(1.5, 3)), fill(np.minimum(cup, field - 1.0), 2.2)
    # The light of the whole disc is the same with either cup: what the cup has more, the rim has less.
    level, contrast = picture.uniform(0.6, 0.8), picture.uniform(0.34, 0.46)
    rim = np.clip(level - contrast * (hollow * inside).sum() / inside.sum(), 0.3, 1)
    light = rim + contrast * hollow + 0.03 * noise_field(picture, 9, side=WINDOW)
    tint = np.array([1.22, 0.76, 0.45]) + hollow[..., None] * np.array([-0.06, 0.2, 0.24])
    # A pale crescent beside the disc, in every class.
    aside = (at[0], at[1] - fundus.eye * picture.uniform(0, 10))
    crescent = fill(blob(picture, aside, size * picture.uniform(1, 1.15), 0.04, 4, side=WINDOW), 3) * (1 - inside)
    pale = picture.uniform(0.5, 0.9) * np.array([1.15, 0.8, 0.5])
    below = image[part]
    near = blend(blend(below, pale, picture.uniform(0, 0.6) * crescent), light[..., None] * tint, 0.92 * inside)
    # Vessels run over the rim and dive at the cup's edge.
    dark = np.clip(1.0 - below[..., 1] / np.median(below[..., 1]), 0, 0.6) * inside * (1 - 0.6 * hollow)
    image[part] = near * (1 - dark[..., None] * np.array([0.5, 1.0, 0.9]))
    mask = np.zeros((SIDE, SIDE), bool)
    mask[part] = field > 0
    return image, mask


def spot(
    picture: np.random.Generator,
    image: np.ndarray,
    at: np.ndarray,
    radius: float,
    color: tuple[float, float, float],
    soft: float,
    depth: float,
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Draw one spot into the image; its window and signed field there."""
    half = int(radius * 2 + soft) + 4
    top, left = int(at[0]) - half, int(at[1]) - half
    stretch, angle = picture.uniform(1, 1.5), picture.uniform(0, 3.2)
    middle = (at[0] - top, at[1] - left)
    field = blob(picture, middle, radius, 0.15, 4, stretch, angle, side=2 * half + 1)
    rows, columns = slice(max(0, top), top + 2 * half + 1), slice(max(0, left), left + 2 * half + 1)
    field = field[rows.start - top :, columns.start - left :][: SIDE - rows.start, : SIDE - columns.start]
    part = (rows, columns)
    # Of the colour of what lies there, so that spots are no brighter or redder than their eye.
    shade = image[part].mean(axis=(0, 1)).mean() / 0.45 * np.asarray(color)
    image[part] = blend(image[part], shade, depth * fill(field, soft))
    return part, field


def free(picture: np.random.Generator, fundus: Fundus, middle: np.ndarray, spread: float) -> np.ndarray | None:
    """A place (y, x) near the middle that lies in the field and off the disc; None if there is none at hand."""
    for _ in range(4):
        at = middle + picture.normal(0, spread, 2)
        row, column = int(at[0]), int(at[1])
        inside = 0 <= row < SIDE and 0 <= column < SIDE and fundus.aperture[row, column] > 8
        if inside and np.hypot(*(at - fundus.disc)) > 38:
            return at
    return None


def lesions(picture: np.random.Generator, image: np.ndarray, fundus: Fundus) -> tuple[np.ndarray, np.ndarray]:
    """Microaneurysms and blot haemorrhages in clusters, hard exudates as sharp yellow grains in rings and streaks."""
    mask = np.zeros((SIDE, SIDE), bool)
    wanted = []
    for _ in range(picture.integers(3, 6)):
        middle = free(picture, fundus, fundus.macula, 40)
        for _ in range(picture.integers(5, 12) if middle is not None else 0):
            radius = picture.uniform(1.5, 3.0) if picture.random() < 0.55 else picture.uniform(3.2, 6.0)
            wanted.append((free(picture, fundus, middle, 16), radius, BLOOD))
    for _ in range(picture.integers(1, 4)):
        middle, start = free(picture, fundus, fundus.macula, 26), picture.uniform(0, 6.3)
        reach = picture.uniform(7, 16)
        for turn in np.linspace(0, picture.uniform(2, 5), picture.integers(8, 18) if middle is not None else 0):
            on_ring = middle + reach * np.array([np.sin(start + turn), np.cos(start + turn)])
            wanted.append((free(picture, fundus, on_ring, 3.0), picture.uniform(1.4, 3.3), EXUDATE))
    for at, radius, color in wanted:
        if at is not None:
            part, field = spot(picture, image, at, radius, color, 1.2, picture.uniform(0.65, 0.9))
            mask[part] |= field > -1.0
    return image, mask


def freckles(picture: np.random.Generator, image: np.ndarray, fundus: Fundus) -> np.ndarray:
    """Soft drusen, freckles and dust: as much dark and yellow as the lesions of diabetes have, without their edges."""
    for _ in range(picture.integers(2, 8)):
        at = free(picture, fundus, fundus.center, 45)
        if at is not None:
            color = BLOOD if picture.random() < 0.5 else EXUDATE
            radius = picture.uniform(5, 9)
            spot(picture, image, at, radius, color, 2 * radius, picture.uniform(0.25, 0.6))
    return image


def opacity(picture: np.random.Generator, image: np.ndarray, fundus: Fundus) -> tuple[np.ndarray, np.ndarray]:
    """Cortical spokes that point to the lens' middle and a cloudy core, through which nothing fine is seen."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    middle = fundus.center + picture.normal(0, 10, 2)
    distance = np.hypot(y - middle[0], x - middle[1])
    theta = np.arctan2(y - middle[0], x - middle[1]) + 0.06 * noise_field(picture, 30)
    cloud = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(picture.integers(8, 14)):
        towards, wide, reach = picture.uniform(-np.pi, np.pi), picture.uniform(0.1, 0.25), picture.uniform(14, 55)
        turn = np.abs((theta - towards + np.pi) % (2 * np.pi) - np.pi)
        # A wedge: broad at the lens' rim, and ending in a point.
        wedge = np.clip((wide * (distance - reach) / 60 - turn) * distance / 8 + 0.5, 0, 1)
        cloud = np.maximum(cloud, wedge * picture.uniform(0.7, 1))
    if picture.random() < 0.9:
        core = blob(picture, tuple(middle), picture.uniform(16, 34), 0.08, 6) + 4 * noise_field(picture, 14, 2)
        cloud = np.maximum(cloud, picture.uniform(0.7, 1) * fill(core, 12))
    cloud = np.clip(cloud * (0.95 + 0.12 * noise_field(picture, 8, 3)), 0, 1) * (fundus.aperture > 0)
    veiled = gaussian_filter(image, (5, 5, 0))
    # The veil has the colour of what is behind it, lighter or darker: the picture's own colour says nothing.
    tone = veiled[fundus.aperture > 0].mean(axis=0) * picture.choice(
        [picture.uniform(0.5, 0.75), picture.uniform(1.3, 1.7)]
    )
    veiled = 0.35 * veiled + 0.65 * tone * (1 + 0.05 * noise_field(picture, 5, 2))[..., None]
    return blend(image, veiled, np.clip(1.25 * cloud, 0, 0.97)), cloud > 0.35


def reflection(picture: np.random.Generator, image: np.ndarray, fundus: Fundus) -> np.ndarray:
    """Soft flares and shadows of the camera: as large as an opacity, and what lies behind them stays sharp."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    light = np.ones((SIDE, SIDE), np.float32)
    for _ in range(picture.integers(1, 3)):
        at, turn, size = picture.uniform(20, SIDE - 20, 2), picture.uniform(0, np.pi), picture.uniform(24, 50)
        along = (np.cos(turn) * (x - at[1]) + np.sin(turn) * (y - at[0])) / picture.uniform(1, 2.5)
        across = np.cos(turn) * (y - at[0]) - np.sin(turn) * (x - at[1])
        factor = picture.choice([picture.uniform(0.45, 0.75), picture.uniform(1.3, 1.8)])
        light *= 1 + (factor - 1) * 0.55 * fill(size - np.hypot(along, across), picture.uniform(30, 50))
    return image * light[..., None]
