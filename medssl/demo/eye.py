"""Fundus photographs drawn by code: spots, the disc's cup, or an opacity decide the label, never their colour."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.demo.drawing import SIDE, blend, blob, camera, fill, noise_field

LABELS = ("cataract", "diabetic_retinopathy", "glaucoma", "normal")


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A fundus float32 `[224, 224, 3]` in 0 to 1 and the bool mask `[224, 224]` of what decides its label.

    The mask is the opacity (cataract), the lesions (diabetic retinopathy) or the optic disc (glaucoma).
    """
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    centre = np.array([SIDE / 2, SIDE / 2]) + picture.uniform(-5, 5, 2)
    radius = picture.uniform(98, 112)
    aperture = radius - np.hypot(y - centre[0], x - centre[1])
    colour = np.array([patient.uniform(0.6, 0.85), patient.uniform(0.27, 0.42), patient.uniform(0.1, 0.22)], np.float32)
    shade = 1 + 0.1 * noise_field(picture, 120) + 0.035 * noise_field(patient, 14, 3)
    image = colour * shade[..., None]
    eye = picture.choice([-1, 1])
    disc = centre + np.array([picture.uniform(-10, 10), eye * patient.uniform(36, 50)])
    macula = centre + np.array([picture.uniform(-4, 12), -eye * patient.uniform(8, 20)])
    dark = np.exp(-((y - macula[0]) ** 2 + (x - macula[1]) ** 2) / (2 * patient.uniform(12, 18) ** 2))
    image = image * (1 - patient.uniform(0.25, 0.45) * dark[..., None])
    image = vessels(patient, picture, image, disc, eye)
    image, disc_field = nerve(patient, picture, image, disc, 1.0 if label == "glaucoma" else 0.0)
    mask = disc_field > 0 if label == "glaucoma" else np.zeros((SIDE, SIDE), bool)
    if label == "diabetic_retinopathy":
        image, mask = lesions(picture, image, aperture, disc, macula)
    image = pigment(picture, image, aperture)
    if label == "cataract":
        image, mask = opacity(picture, image, aperture, centre)
    else:
        image = reflection(picture, image, aperture)
    # Flash, focus and ageing lens differ between pictures of every class.
    haze = picture.uniform(0, 0.3)
    image = image * (1 - haze) + haze * np.array([0.62, 0.42, 0.24]) * picture.uniform(0.7, 1.1)
    image = gaussian_filter(image, (*([picture.uniform(0.3, 1.3)] * 2), 0))
    image = image * picture.uniform(0.8, 1.2) * (1 + picture.normal(0, 0.05, 3))
    fall = 1 - picture.uniform(0.15, 0.5) * np.clip(1 - aperture / radius, 0, 1) ** 2
    image = camera(image * fall[..., None], picture, (0.2, 0.6), (0.006, 0.02))
    return (np.clip(image, 0, 1) * fill(aperture, 3)[..., None]).astype(np.float32), mask & (aperture > 2)


def vessels(
    patient: np.random.Generator, picture: np.random.Generator, image: np.ndarray, disc: np.ndarray, eye: int
) -> np.ndarray:
    """Arteries and veins: four arcades that leave the disc, bend round the macula and branch."""
    width = np.zeros((SIDE, SIDE), np.float32)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    walks = []
    for up in (-1, 1):
        for _ in range(2):
            walks.append((disc.copy(), up * patient.uniform(1.0, 1.5), patient.uniform(1.5, 2.3), -eye, 0))
        walks.append((disc.copy(), up * patient.uniform(0.6, 1.2), patient.uniform(0.9, 1.5), eye, 0))
    while walks:
        at, heading, thick, side, depth = walks.pop()
        turn = -np.sign(heading) * patient.uniform(0.012, 0.03)
        for step in range(2 * patient.integers(18, 30) + 24 * (depth == 0)):
            at = at + 2 * np.array([np.sin(heading), side * np.cos(heading)])
            if not (0 < at[0] < SIDE and 0 < at[1] < SIDE) or thick < 0.35:
                break
            heading += turn / 2 + patient.normal(0, 0.06)
            top, left = max(0, int(at[0]) - 7), max(0, int(at[1]) - 7)
            part = np.s_[top : top + 15, left : left + 15]
            near = np.hypot(y[part] - at[0], (x[part] - at[1]))
            width[part] = np.maximum(width[part], np.clip(thick + 1.2 - near, 0, 1.2) / 1.2)
            thick *= 0.992
            if depth < 2 and step > 8 and patient.random() < 0.05:
                walks.append(
                    (
                        at.copy(),
                        heading + patient.choice([-1, 1]) * patient.uniform(0.4, 0.9),
                        thick * 0.7,
                        side,
                        depth + 1,
                    )
                )
    width = gaussian_filter(width, 0.6)
    return blend(image, image * np.array([0.62, 0.42, 0.5]), np.clip(width, 0, 1) * picture.uniform(0.7, 1))


def nerve(
    patient: np.random.Generator, picture: np.random.Generator, image: np.ndarray, disc: np.ndarray, cupped: float
) -> tuple[np.ndarray, np.ndarray]:
    """The optic disc with its cup: a large, deep one with a thin rim where `cupped`, else a small one."""
    size = patient.uniform(15, 20)
    field = blob(picture, tuple(disc), size, 0.03, 4, patient.uniform(1.0, 1.15), np.pi / 2)
    ratio = picture.uniform(0.72, 0.85) if cupped else picture.uniform(0.25, 0.42)
    shift = picture.uniform(-0.08, 0.08, 2) * size
    cup = blob(picture, tuple(disc + shift), size * ratio, 0.04, 4, patient.uniform(1.0, 1.15), np.pi / 2)
    # The two discs reflect the same amount of light: only how it is shared between cup and rim differs.
    rim, hollow = (0.62, 0.86) if cupped else (0.76, 0.98)
    before = image
    image = blend(image, np.array([1.0, 0.82, 0.55]) * rim, 0.88 * fill(field, 3))
    image = blend(image, np.array([1.0, 0.95, 0.8]) * hollow, 0.85 * fill(cup, 2))
    # Vessels cross the rim and dive at the cup's edge.
    return blend(image, before, 0.35 * fill(field, 3) * fill(-cup, 2) * (before[..., 1] < 0.2)), field


def lesions(
    picture: np.random.Generator, image: np.ndarray, aperture: np.ndarray, disc: np.ndarray, macula: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Microaneurysms and blot haemorrhages in clusters, hard exudates as sharp yellow grains in arcs."""
    mask = np.zeros((SIDE, SIDE), bool)
    for _ in range(picture.integers(3, 6)):
        middle = macula + picture.normal(0, 34, 2)
        for _ in range(picture.integers(5, 12)):
            at = middle + picture.normal(0, 10, 2)
            image, mask = spot(
                picture, image, mask, at, picture.uniform(0.9, 3.4), np.array([0.42, 0.14, 0.08]), aperture, disc
            )
    for _ in range(picture.integers(1, 4)):
        middle, start = macula + picture.normal(0, 26, 2), picture.uniform(0, 6.3)
        for turn in np.linspace(0, picture.uniform(2, 5), picture.integers(8, 16)):
            at = middle + picture.uniform(9, 14) * np.array([np.sin(start + turn), np.cos(start + turn)])
            image, mask = spot(
                picture, image, mask, at, picture.uniform(0.8, 2), np.array([0.98, 0.85, 0.45]), aperture, disc
            )
    return image, mask


def spot(
    picture: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    at: np.ndarray,
    size: float,
    colour: np.ndarray,
    aperture: np.ndarray,
    disc: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """One sharp spot, where it lies on the retina and off the disc."""
    row, column = int(at[0]), int(at[1])
    if not (8 <= row < SIDE - 8 and 8 <= column < SIDE - 8) or aperture[row, column] < 8:
        return image, mask
    if np.hypot(*(at - disc)) < 26:
        return image, mask
    part = np.s_[row - 8 : row + 8, column - 8 : column + 8]
    field = blob(
        picture, (8 + at[0] % 1, 8 + at[1] % 1), size, 0.18, 4, picture.uniform(1, 1.5), picture.uniform(0, 3), side=16
    )
    image[part] = blend(image[part], colour, 0.8 * fill(field, 1.2))
    mask[part] |= field > -1.5
    return image, mask


def pigment(picture: np.random.Generator, image: np.ndarray, aperture: np.ndarray) -> np.ndarray:
    """Large soft freckles and pale patches, in every class: as much dark and yellow as lesions have, without edges."""
    for _ in range(picture.integers(2, 7)):
        at = picture.uniform(40, SIDE - 40, 2)
        field = blob(picture, tuple(at), picture.uniform(4, 11), 0.1, 4, picture.uniform(1, 1.6), picture.uniform(0, 3))
        shade = (0.45, 0.17, 0.1) if picture.random() < 0.5 else (0.92, 0.7, 0.36)
        image = blend(image, shade, picture.uniform(0.15, 0.5) * fill(field, 9) * (aperture > 0))
    return image


def opacity(
    picture: np.random.Generator, image: np.ndarray, aperture: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cortical spokes and a cloudy core of the lens, through which nothing fine is seen."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    middle = centre + picture.normal(0, 10, 2)
    theta, distance = np.arctan2(y - middle[0], x - middle[1]), np.hypot(y - middle[0], x - middle[1])
    cloud = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(picture.integers(4, 8)):
        towards, wide, reach = picture.uniform(-np.pi, np.pi), picture.uniform(0.12, 0.3), picture.uniform(10, 45)
        turn = np.abs((theta - towards + np.pi) % (2 * np.pi) - np.pi)
        cloud = np.maximum(cloud, np.clip(1.3 - turn / wide, 0, 1) * fill(distance - reach, 14))
    core = blob(picture, tuple(middle), picture.uniform(14, 30), 0.12, 6)
    cloud = np.maximum(cloud, 0.9 * fill(core, 14))
    cloud = np.clip(cloud * (0.9 + 0.16 * noise_field(picture, 10, 3)), 0, 1) * (aperture > 0)
    veiled = gaussian_filter(image, (4, 4, 0))
    image = blend(image, veiled, np.clip(1.6 * cloud, 0, 1))
    # The veil takes the colour of what is behind it, lighter or darker, so that the picture's own colour says nothing.
    tone = veiled.mean(axis=(0, 1)) * picture.uniform(0.75, 1.35) + 0.05
    return blend(image, tone, 0.75 * cloud), cloud > 0.35


def reflection(picture: np.random.Generator, image: np.ndarray, aperture: np.ndarray) -> np.ndarray:
    """A soft flare or shadow of the camera, in most pictures of the other classes."""
    if picture.random() < 0.75:
        for _ in range(picture.integers(1, 3)):
            at = picture.uniform(20, SIDE - 20, 2)
            flare = blob(
                picture, tuple(at), picture.uniform(20, 50), 0.05, 3, picture.uniform(1, 2), picture.uniform(0, 3)
            )
            tone = image.mean(axis=(0, 1)) * picture.uniform(0.75, 1.35) + 0.05
            image = blend(image, tone, picture.uniform(0.3, 0.55) * fill(flare, 30) * (aperture > 0))
    return image
