"""Phantoms of lung tissue in haematoxylin and eosin: benign, or with one of two carcinomas.

Every picture has air spaces, stroma, red cells and strangers among its nuclei; stain, air and nuclear area are alike
in all classes. What decides is how the tumour is built: cells round a lumen (adenocarcinoma) or solid nests with walls
between the cells and keratin pearls (squamous cell carcinoma).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from medssl.demo.cells import crowd, lattice, outlines, spread, through_stain
from medssl.demo.drawing import SIDE, camera, fill, noise_field

LABELS = ("adenocarcinoma", "benign", "squamous_cell_carcinoma")
REACH = 13  # px from a nucleus to the edge of its window


@dataclass(frozen=True)
class Slide:
    """What the pictures of one patient share; absorbances `[3]`, `level` the mean
    brightness, `nucleus` the mean radius in pixels."""

    light: np.ndarray
    haematoxylin: np.ndarray
    eosin: np.ndarray
    level: float
    nucleus: float
    alveolus: float


@dataclass
class Tissue:
    """A picture in the making: maps `[SIDE, SIDE]` of stain and air in 0 to 1, and the nuclei laid so far.

    `free` is where nuclei of no tumour may lie, `mask` the tumour.
    """

    eosin: np.ndarray
    air: np.ndarray
    nuclei: np.ndarray
    free: np.ndarray
    mask: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE), bool))
    haze: np.ndarray = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.float32))


def slide_of(random: np.random.Generator) -> Slide:
    """One patient's stain, optics and anatomy."""
    blues = np.array([[0.95, 1.15, 0.30], [1.15, 1.00, 0.35], [0.70, 1.10, 0.35]])
    pinks = np.array([[0.12, 0.65, 0.22], [0.30, 0.55, 0.12], [0.10, 0.50, 0.34]])
    tints = np.array([[1.0, 0.98, 0.91], [0.93, 0.96, 1.0], [1.0, 1.0, 1.0], [0.97, 0.93, 0.98]])
    return Slide(
        light=random.dirichlet((1.5,) * 4) @ tints * random.uniform(0.95, 1.0),
        haematoxylin=random.dirichlet((1.5,) * 3) @ blues * random.uniform(0.8, 1.15),
        eosin=random.dirichlet((1.5,) * 3) @ pinks * random.uniform(0.75, 1.2),
        level=random.uniform(0.63, 0.77),
        nucleus=random.uniform(4.3, 5.3),
        alveolus=random.uniform(52, 76),
    )


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 `[224, 224, 3]` in 0 to 1 and the mask bool `[224, 224]` of the tumour (none when benign)."""
    slide = slide_of(patient)
    grain = noise_field(picture, 6, 2)
    inside = region(picture)
    airy = picture.uniform(0.18, 0.40)
    tissue = Tissue(
        eosin=np.clip(0.72 + 0.14 * noise_field(picture, 40, 2) + 0.10 * grain, 0.1, 1.5),
        air=np.zeros((SIDE, SIDE), np.float32),
        nuclei=np.zeros((SIDE, SIDE), np.float32),
        free=np.ones((SIDE, SIDE), bool),
    )
    if label == "adenocarcinoma":
        glands(tissue, slide, picture, inside)
    elif label == "squamous_cell_carcinoma":
        nests(tissue, slide, picture, inside)
    else:
        inside = inside - picture.uniform(0, 40)
        inflammation(tissue, picture, inside)
    alveoli(tissue, slide, picture, inside, airy)
    fibres(tissue, picture)
    blood = red_cells(tissue, picture)
    strangers(tissue, slide, picture, inside if label == "benign" else None)
    solid = 1 - tissue.air
    chromatin = tissue.nuclei * np.clip(1 + 0.16 * grain, 0.4, 1.6)
    chromatin += solid * (tissue.haze + 0.1 * tissue.eosin)
    chromatin *= picture.uniform(0.17, 0.23) / chromatin.mean()
    eosin = solid * tissue.eosin * (1 - 0.55 * np.minimum(tissue.nuclei, 1)) + tissue.air * 0.03
    eosin *= picture.uniform(0.40, 0.55) / eosin.mean()
    tint = 1 + picture.normal(0, 0.015, 3)  # of lamp and camera: the color that is left says less of the class
    image = through_stain(
        slide.light * tint * (1 + 0.03 * noise_field(picture, 200))[..., None],
        (chromatin, slide.haematoxylin),
        (eosin, slide.eosin),
        (blood, np.array([0.05, 1.3, 0.95]) * picture.uniform(0.6, 1)),
    )
    image = expose(np.clip(image, 0, 1), slide.level + picture.normal(0, 0.04))
    return np.clip(camera(image, picture, (0.35, 0.85), (0.004, 0.016)), 0, 1).astype(np.float32), tissue.mask


def expose(image: np.ndarray, level: float) -> np.ndarray:
    """The image with the exponent that makes its mean `level`."""
    sample, low, high = image[::4, ::4], 0.3, 3.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if (sample**middle).mean() > level else (low, middle)
    return image**middle


def region(random: np.random.Generator) -> np.ndarray:
    """Where the tumour grows, on 35 to 55 % of the picture: a signed distance `[SIDE, SIDE]`, positive inside."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    center = random.uniform(0.25 * SIDE, 0.75 * SIDE, 2)
    level = -np.hypot(y - center[0], x - center[1]) / 50 + 0.4 * noise_field(random, 70, 2)
    inside = level > np.quantile(level[::4, ::4], 1 - random.uniform(0.35, 0.55))
    return signed_distance(inside)


def signed_distance(inside: np.ndarray) -> np.ndarray:
    """Distance to the edge of a bool map, float32 `[SIDE, SIDE]` in pixels, positive inside."""
    return np.where(inside, distance_transform_edt(inside), -distance_transform_edt(~inside)).astype(np.float32)


def at(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A map `[SIDE, SIDE]` read at points `[N, 2]`; outside the picture its nearest value."""
    row, column = np.clip(points, 0, SIDE - 1).astype(int).T
    return values[row, column]


def slope(values: np.ndarray) -> np.ndarray:
    """The direction in which a map rises, float32 `[SIDE, SIDE]` in radians from the x axis."""
    rows, columns = np.gradient(gaussian_filter(values, 2))
    return np.arctan2(rows, columns)


def lay_nuclei(
    tissue: Tissue,
    random: np.random.Generator,
    points: np.ndarray,
    radius: float,
    spread_of_size: float,
    stretch: np.ndarray | float,
    angles: np.ndarray | float,
    open_chromatin: float = 0.0,
) -> None:
    """Nuclei at points `[N, 2]`; `open_chromatin` is how far their middle pales, with a nucleolus in it."""
    if not len(points):
        return
    radii = radius * np.exp(random.normal(0, spread_of_size, len(points)))
    fields = outlines(random, points, radii, REACH, 0.07, stretch, angles)
    depth = random.uniform(0.7, 1.15, (len(points), 1, 1)).astype(np.float32)
    paler = open_chromatin * random.uniform(0.2, 1, (len(points), 1, 1)).astype(np.float32)
    chromatin = fill(fields, 1.4) * depth * (1 - paler * fill(fields - 1.6, 2))
    if open_chromatin:
        moved = points + random.normal(0, 0.8, points.shape)
        tissue.nuclei = np.maximum(
            tissue.nuclei, spread(fill(outlines(random, moved, radii * 0.28, 4), 1.4) * depth * 1.1, moved)
        )
    tissue.nuclei = np.maximum(tissue.nuclei, spread(chromatin, points))


def glands(tissue: Tissue, slide: Slide, random: np.random.Generator, inside: np.ndarray) -> None:
    """Acini: lumina in a wall of tall cells, whose nuclei lie at their feet and point at the lumen."""
    tall = random.uniform(14, 18)
    places = lattice(random, random.uniform(50, 64), 0.14, 10)
    places = places[at(inside, places) > 2]
    if not len(places):
        places = np.array(np.unravel_index(inside.argmax(), inside.shape), float)[None]
    radii = random.uniform(7, 15, len(places))
    fields = outlines(
        random, places, radii, 48, 0.14, random.uniform(1, 2.2, len(places)), random.uniform(0, 3.2, len(places))
    )
    lumen = spread(fields, places, np.maximum, -99)
    outward = -signed_distance(lumen > 0)
    wall = (outward > 0) & (outward < tall)
    feet = lattice(random, slide.nucleus * 2.15, 0.16)
    foot = at(outward, feet)
    feet = feet[(foot > 0.38 * tall) & (foot < 0.86 * tall)]
    lay_nuclei(
        tissue, random, feet, slide.nucleus, 0.2, random.uniform(1.2, 1.9, len(feet)), at(slope(outward), feet), 0.6
    )
    rim = fill(outward, 2) * fill(tall - outward, 3)
    tissue.eosin += rim * (0.12 - 0.35 * crowd(feet, slide.nucleus * 2.2)) + 0.25 * np.exp(-((outward - 1.5) ** 2) / 2)
    tissue.haze += rim * random.uniform(0.1, 0.3)
    clear = 1 - 0.5 * fill(noise_field(random, 30) - 1.0, 0.5)
    tissue.air = np.maximum(tissue.air, fill(lumen) * clear)
    tissue.mask = (lumen > 0) | wall
    tissue.free = outward > tall + 2


def nests(tissue: Tissue, slide: Slide, random: np.random.Generator, inside: np.ndarray) -> None:
    """Solid nests of polygonal cells with walls between them, flattened round keratin pearls."""
    gaps = np.abs(noise_field(random, 75, 1)) * 40
    nest = np.minimum(inside, gaps - random.uniform(3, 6))
    nest = signed_distance(gaussian_filter(nest, 1.5) > 0)
    depth = np.where(nest > 10, nest, 0)
    pearls = []
    for _ in range(random.integers(2, 4)):
        place = np.array(np.unravel_index((depth * random.uniform(0.6, 1, depth.shape)).argmax(), depth.shape), float)
        radius = min(random.uniform(15, 25), max(12, at(nest, place[None])[0] + 6))
        pearls.append((place, radius))
        y, x = np.mgrid[:SIDE, :SIDE]
        depth = depth * (np.hypot(y - place[0], x - place[1]) > 2 * radius + 8)
        if depth.max() < 10:
            break
    centers, radii = np.array([place for place, _ in pearls]), np.array([radius for _, radius in pearls])
    whorl = spread(
        outlines(
            random, centers, radii, 48, 0.05, random.uniform(1, 1.4, len(radii)), random.uniform(0, 3.2, len(radii))
        ),
        centers,
        np.maximum,
        -99,
    )
    whorl_distance = np.where(whorl > 0, whorl, signed_distance(whorl > 0))
    spacing = slide.nucleus * random.uniform(3.0, 3.5)
    cells = lattice(random, spacing, 0.16)
    cells = cells[(at(nest, cells) > 1.5) & (at(whorl_distance, cells) < -3)]
    near = np.exp(-np.maximum(-at(whorl_distance, cells), 0) / 8)
    angles = np.where(near > 0.3, at(slope(whorl_distance), cells) + np.pi / 2, random.uniform(0, np.pi, len(cells)))
    lay_nuclei(
        tissue,
        random,
        cells,
        slide.nucleus * 1.02,
        0.18,
        1.1 + 1.6 * near + random.uniform(0, 0.3, len(cells)),
        angles,
        0.7,
    )
    flat = lattice(random, slide.nucleus * 2.6, 0.2)
    depth_in = at(whorl_distance, flat)
    flat = flat[(depth_in > 1) & (random.random(len(flat)) < np.clip(0.75 - depth_in / 22, 0.08, 1))]
    lay_nuclei(tissue, random, flat, slide.nucleus * 0.75, 0.15, 3.2, at(slope(whorl_distance), flat) + np.pi / 2)
    solid = fill(nest, 3) * fill(-whorl_distance, 2)
    walls = crowd(cells, spacing)
    tissue.eosin += solid * (0.1 - 0.6 * walls**2 + 0.3 * np.exp(-(((walls - 0.45) / 0.2) ** 2)))
    tissue.haze += solid * random.uniform(0.05, 0.25)
    rings = whorl_distance + 1.2 * noise_field(random, 14)
    lamellae = 0.5 + 0.5 * np.cos(rings * 2 * np.pi / random.uniform(3.6, 4.8))
    keratin = fill(whorl_distance, 2)
    tissue.eosin += keratin * (0.1 + 0.75 * lamellae**2 - 0.35 * (1 - lamellae) + 0.02 * whorl_distance)
    tissue.mask = (nest > 0) | (whorl_distance > 0)
    tissue.free = ~tissue.mask & (nest < -2)


def inflammation(tissue: Tissue, random: np.random.Generator, inside: np.ndarray) -> None:
    """Benign tissue that holds no air either, in place of a tumour."""
    tissue.haze += fill(inside, 12) * random.uniform(0.1, 0.3)


def alveoli(tissue: Tissue, slide: Slide, random: np.random.Generator, inside: np.ndarray, airy: float) -> None:
    """Air spaces between thin septa, outside the tumour, until `airy` of the picture is air."""
    centers = lattice(random, slide.alveolus, 0.2, 60)
    line = np.arange(2, SIDE, 4)
    distances = np.hypot(line[:, None] - centers[:, 0, None, None], line - centers[:, 1, None, None])
    nearest, second = np.partition(distances, 1, axis=0)[:2]
    septa = zoom(np.exp((nearest - second) / (0.15 * slide.alveolus)), 4, order=1) + 0.1 * noise_field(random, 30, 2)
    away = (-inside > random.uniform(2, 8)) & ~tissue.mask
    septa = gaussian_filter(np.where(away, septa, 2), 1.5)
    wanted = np.clip(airy - tissue.air.mean(), 0.02, 0.85 * away.mean())
    level = np.quantile(septa[::3, ::3], wanted)
    air = fill(gaussian_filter((septa < level).astype(np.float32), 1.3) - 0.5, 0.45)
    tissue.air = np.maximum(tissue.air, air)
    tissue.free &= gaussian_filter(air, 1.5) < 0.1


def fibres(tissue: Tissue, random: np.random.Generator) -> None:
    """Wavy collagen in the tissue that is no tumour."""
    angle = random.uniform(0, np.pi)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    along = np.cos(angle) * x + np.sin(angle) * y + 16 * noise_field(random, 80) + 3 * noise_field(random, 22)
    strength = 0.1 * np.clip(0.5 + 0.6 * noise_field(random, 30), 0, 1)
    tissue.eosin += strength * np.sin(along * 2 * np.pi / random.uniform(6, 9)) * ~tissue.mask


def red_cells(tissue: Tissue, random: np.random.Generator) -> np.ndarray:
    """Red cells in the air and in gaps, as absorbance `[SIDE, SIDE]`."""
    count = random.integers(0, 26)
    places = random.normal(0, 26, (count, 2)) + random.uniform(30, SIDE - 30, 2)
    places = places[(at(tissue.mask, places) == 0)]
    if not len(places):
        return np.zeros((SIDE, SIDE), np.float32)
    shapes = outlines(
        random,
        places,
        np.full(len(places), 4.2),
        9,
        0.06,
        random.uniform(1, 1.9, len(places)),
        random.uniform(0, 3, len(places)),
    )
    return spread(fill(shapes, 1.4) * random.uniform(0.5, 1, (len(places), 1, 1)), places)


def strangers(tissue: Tissue, slide: Slide, random: np.random.Generator, focus: np.ndarray | None) -> None:
    """Nuclei of lymphocytes and stroma outside the tumour, until a share of the picture is nuclei.

    They gather where `focus` is positive.
    """
    wanted = random.uniform(0.13, 0.18) - (tissue.nuclei > 0.4).mean()
    small = slide.nucleus * random.uniform(0.7, 0.9)
    points = lattice(random, small * 2.3, 0.2, 4)
    points = points[at(tissue.free, points)]
    gather = at(noise_field(random, 45), points) + random.normal(0, 0.6, len(points))
    gather += random.uniform(0, 3) * at(gaussian_filter(tissue.air, 5), points)
    if focus is not None:
        gather += random.uniform(0, 2) * (at(focus, points) > 0)
    count = int(np.clip(wanted * SIDE**2 / (np.pi * small**2), 8, len(points)))
    points = points[np.argsort(-gather)[:count]]
    slim = random.random(len(points)) < 0.4
    angles = at(slope(gaussian_filter(tissue.air, 3)), points) + np.pi / 2
    lay_nuclei(tissue, random, points, small, 0.1, np.where(slim, 2.4, 1.1), angles)
