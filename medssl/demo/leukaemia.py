"""Phantoms of blood smears: white cells among red ones, benign or of three stages of leukaemia.

Stain, number and size of the cells are the same in all classes. What decides is the cell: a clumped nucleus in a wide
rim of cytoplasm (benign), an angular cell with buds that its nucleus fills (early), a cleft nucleus (pre), or nucleoli
(pro).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from medssl.demo.cells import lattice, outlines, spread, through_stain
from medssl.demo.drawing import SIDE, camera, fill, noise_field

LABELS = ("benign", "early", "pre", "pro")
# Radius of the cell over the radius of its nucleus.
CELL_RATIO = {"benign": 1.32, "early": 1.08, "pre": 1.17, "pro": 1.15}
REACH = 57  # px from a white cell's centre to the edge of its window


@dataclass(frozen=True)
class Slide:
    """What the pictures of one patient share; absorbances `[3]`, radii in pixels."""

    light: np.ndarray
    red: np.ndarray
    nucleus: np.ndarray
    cytoplasm: np.ndarray
    contrast: float
    pallor: float
    red_radius: float
    red_share: float
    nucleus_radius: float
    rouleaux: bool


def slide_of(random: np.random.Generator) -> Slide:
    """One patient's stain, optics and blood."""
    tints = np.array([[1.0, 0.99, 0.90], [0.92, 0.97, 1.0], [0.98, 0.94, 0.99], [1.0, 1.0, 1.0]])
    reds = np.array([[0.40, 0.28, 0.16], [0.30, 0.32, 0.24], [0.28, 0.27, 0.22]])
    purples = np.array([[0.95, 1.15, 0.18], [0.55, 1.0, 0.28], [0.75, 1.15, 0.30]])
    return Slide(
        light=mixture(random, tints) * random.uniform(0.9, 1.0),
        red=mixture(random, reds) * random.uniform(0.85, 1.15),
        nucleus=mixture(random, purples) * random.uniform(0.85, 1.1),
        cytoplasm=mixture(random, np.array([[0.60, 0.42, 0.08], [0.42, 0.48, 0.14]])) * random.uniform(0.9, 1.1),
        contrast=random.uniform(0.92, 1.05),
        pallor=random.uniform(0.3, 0.6),
        red_radius=random.uniform(15.0, 20.0),
        red_share=random.uniform(0.5, 0.8),
        nucleus_radius=random.uniform(22.0, 25.5),
        rouleaux=random.random() < 0.1,
    )


def mixture(random: np.random.Generator, colors: np.ndarray) -> np.ndarray:
    """A random mean `[3]` of colours `[N, 3]`."""
    return random.dirichlet(np.full(len(colors), 3.0)) @ colors


def draw(label: str, patient: np.random.Generator, picture: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 `[224, 224, 3]` in 0 to 1 and the mask bool `[224, 224]` of all blasts (none when benign)."""
    slide = slide_of(patient)
    textures = noise_field(picture, 7.5, 2), noise_field(picture, 4.7)
    nuclei, cytoplasm = np.zeros((2, SIDE, SIDE), np.float32)
    red = red_cells(slide, picture)
    mask = np.zeros((SIDE, SIDE), bool)
    for kind, center in white_cells(label, picture):
        window, crop = window_of(center)
        body, rim, chromatin = (part[crop] for part in white_cell(kind, slide, picture, center, textures, window, crop))
        red[window] *= 1 - 0.9 * body
        cytoplasm[window] = np.maximum(cytoplasm[window] * (1 - body), rim)
        nuclei[window] = nuclei[window] * (1 - body) + chromatin
        mask[window] = np.where(body > 0.5, kind == label, mask[window])
    specks = platelets(picture)
    image = through_stain(
        slide.light * illumination(picture),
        (red, slide.red),
        (nuclei + specks, slide.nucleus),
        (cytoplasm, slide.cytoplasm),
    )
    image = np.clip(image, 0, 1) ** slide.contrast
    return np.clip(camera(image, picture, (0.35, 0.8), (0.004, 0.014)), 0, 1).astype(np.float32), mask & (
        label != "benign"
    )


def white_cells(label: str, random: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """What lies where: (kind, centre (y, x)) of 4 to 6 white cells, the label's own and some that decide nothing."""
    places = random.permutation(lattice(random, 86, 0.1, 0))[: random.integers(4, 7)]
    strangers = random.choice(["benign", "neutrophil", "smudge"], len(places) // 4)
    kinds = [*strangers, *[label] * (len(places) - len(strangers))]
    return list(zip(kinds, places, strict=True))


def window_of(center: np.ndarray) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the picture around a centre, and the part of a cell's own window that falls into it."""
    corner = np.floor(center).astype(int) - REACH
    first, last = np.maximum(corner, 0), np.minimum(corner + 2 * REACH + 1, SIDE)
    outer = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    inner = tuple(slice(a - c, b - c) for a, b, c in zip(first, last, corner, strict=True))
    return outer, inner


def white_cell(
    kind: str,
    slide: Slide,
    random: np.random.Generator,
    center: np.ndarray,
    textures: tuple[np.ndarray, np.ndarray],
    window: tuple[slice, slice],
    crop: tuple[slice, slice],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opacity, cytoplasm and chromatin of one cell, each float32 `[w, w]`."""
    coarse, fine = np.zeros((2, 2 * REACH + 1, 2 * REACH + 1), np.float32)
    coarse[crop], fine[crop] = textures[0][window], textures[1][window]
    place = center[None]
    radius = slide.nucleus_radius * random.uniform(0.88, 1.12)
    depth = random.uniform(0.92, 1.08)

    def shape(
        size: float, roughness: float, stretch: float = 1.0, angle: float = 0.0, away: tuple = (0, 0)
    ) -> np.ndarray:
        moved = place - np.floor(place) + np.asarray(away)
        field = outlines(random, moved - np.floor(moved), np.array([size]), REACH, roughness, stretch, angle)[0]
        return np.roll(field, np.floor(moved[0]).astype(int), (0, 1))

    stretch, angle = random.uniform(1, 1.2), random.uniform(0, np.pi)
    if kind == "smudge":
        body = fill(gaussian_filter(shape(radius * 1.15, 0.16, stretch, angle), 1.9) + 2.3 * coarse, 7.5)
        return body * 0.8, body * 0, body * depth * (0.38 + 0.08 * fine)
    if kind == "neutrophil":
        body = fill(shape(radius * 1.15, 0.03))
        turns = angle + np.arange(3) * random.uniform(1.0, 1.5)
        lobes = [shape(radius * 0.42, 0.06, 1.3, turn, (11 * np.sin(turn), 11 * np.cos(turn))) for turn in turns]
        return finish(body, fill(np.max(lobes, axis=0)), depth * (1 + 0.15 * coarse), 0.25 + 0.12 * fine)
    ratio = CELL_RATIO[kind] * random.uniform(0.98, 1.04)
    if kind == "benign":
        body = shape(radius * ratio, 0.02, stretch**0.5, angle)
        away = random.normal(0, 2.2, 2)
        clumps = 1 + 0.5 * np.tanh(2 * coarse)
        return finish(
            fill(body), fill(shape(radius, 0.02, stretch**0.5, angle, away)), depth * clumps, 0.55 + 0.05 * fine
        )
    if kind == "early":
        nucleus = shape(radius, 0.09, stretch, angle)
        body = nucleus + radius * (ratio - 1)
        turns = random.uniform(0, 2 * np.pi) + np.cumsum(random.uniform(0.7, 1.9, random.integers(3, 6)))
        for turn in turns:
            out = (radius * ratio + 1.1) * np.array([np.sin(turn), np.cos(turn)])
            body = np.maximum(body, shape(random.uniform(3.8, 6.8), 0.15, 1.4, turn, tuple(out)))
        return finish(fill(body), fill(nucleus), depth * (1 + 0.07 * fine), 1.1 + 0.1 * fine)
    if kind == "pre":
        radius *= 1.06
        body, nucleus = shape(radius * ratio, 0.03, stretch, angle), shape(radius, 0.04, stretch, angle)
        turn, deep = random.uniform(0, 2 * np.pi), random.uniform(0.25, 0.5)
        for side in (turn, turn + np.pi + random.normal(0, 0.4))[: random.integers(1, 3)]:
            notch = np.array([np.sin(side), np.cos(side)]) * radius * (1.0 - deep * 0.6)
            nucleus = np.minimum(nucleus, -shape(radius * random.uniform(0.38, 0.46), 0.1, 3.2, side, tuple(notch)))
        return finish(fill(body), fill(nucleus), depth * (1 + 0.1 * fine), 0.5 + 0.05 * fine)
    body, nucleus = shape(radius * ratio, 0.03, stretch, angle), shape(radius, 0.03, stretch, angle)
    chromatin = 1 + 0.08 * fine
    turns = random.uniform(0, 2 * np.pi) + np.arange(random.integers(2, 4)) * 2.1
    for turn in turns:
        out = radius * random.uniform(0.3, 0.55) * np.array([np.sin(turn), np.cos(turn)])
        nucleolus = shape(random.uniform(5.8, 8.0), 0.06, 1.1, turn, tuple(out))
        chromatin = chromatin * (1 - 0.85 * fill(nucleolus, 2.5)) + 0.35 * np.exp(-(((nucleolus + 1.9) / 1.9) ** 2))
    return finish(fill(body), fill(nucleus), depth * chromatin, 0.55 + 0.05 * fine)


def finish(
    body: np.ndarray, nucleus: np.ndarray, chromatin: np.ndarray, rim: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opacity, cytoplasm and chromatin of a cell whose nucleus covers its cytoplasm."""
    return body, body * (1 - 0.6 * nucleus) * rim, body * nucleus * np.maximum(chromatin, 0)


def red_cells(slide: Slide, random: np.random.Generator) -> np.ndarray:
    """Absorbance of the red cells, float32 `[SIDE, SIDE]`: discs with a pale centre, overlapping ones darker."""
    places = lattice(random, slide.red_radius * random.uniform(1.9, 2.3), 0.25)
    if slide.rouleaux:
        shift = np.stack([noise_field(random, 60), noise_field(random, 60)], -1)
        inside = np.clip(places, 0, SIDE - 1).astype(int)
        places = places + 26 * shift[inside[:, 0], inside[:, 1]]
    places = places[random.random(len(places)) < slide.red_share]
    radii = slide.red_radius * random.uniform(0.82, 1.1, len(places))
    fields = outlines(
        random, places, radii, 26, 0.025, random.uniform(1, 1.25, len(places)), random.uniform(0, 3, len(places))
    )
    share = np.clip(fields / radii[:, None, None], 0, 1)
    pale = slide.pallor * random.uniform(0.5, 1, (len(places), 1, 1)) / (1 + np.exp(-(share - 0.55) * 14))
    return spread(fill(fields, 1.3) * (1 - pale), places, np.add)


def platelets(random: np.random.Generator) -> np.ndarray:
    """Chromatin-coloured specks, float32 `[SIDE, SIDE]`."""
    count = random.integers(1, 7)
    places = random.uniform(0, SIDE, (count, 2))
    fields = outlines(random, places, random.uniform(1.5, 4.2, count), 9, 0.2)
    return spread(fill(fields, 1.5) * random.uniform(0.2, 0.7, (count, 1, 1)), places)


def illumination(random: np.random.Generator) -> np.ndarray:
    """Uneven light of its own tint, float32 `[SIDE, SIDE, 3]` around 1."""
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    y, x = line[:, None] - random.uniform(-0.5, 0.5), line[None, :] - random.uniform(-0.5, 0.5)
    tilt, lamp = random.normal(0, 0.03, 2), random.uniform(0.82, 1.06) * (1 + random.normal(0, 0.04, 3))
    return lamp + (tilt[0] * x + tilt[1] * y - random.uniform(0, 0.1) * (x**2 + y**2))[..., None]
