"""Pictures of a lesion map: colour or contour over the image, with the box of its maximum, at screen size."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

from medssl.explain.explanation import colored
from medssl.heads.lesion_map import PART, Box, LesionMap
from medssl.report.pictures import for_screen

COLOR, CONTOUR = "color", "contour"
STYLES = {COLOR: "Color", CONTOUR: "Contour"}
LINE, EDGE = (255, 221, 0), (0, 0, 0)  # yellow inside black is seen on grey, on stains and on a fundus
SMALL = 512  # pixels: smaller pictures are enlarged, so that a line is not as wide as what it surrounds


def canvas_of(image: Image.Image) -> Image.Image:
    """The image as something to draw on: at most screen size, and not too small for a line."""
    shown = for_screen(image)
    factor = max(1, -(-SMALL // max(shown.size)))
    return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.BICUBIC)


def draw_box(canvas: Image.Image, box: Box, color: tuple[int, int, int] = LINE) -> None:
    """Draw the outline of a box, fractions of width and height, onto a picture."""
    width, height = canvas.size
    left, top, right, bottom = box
    corners = (left * width, top * height, max(right * width - 1, left * width), max(bottom * height - 1, top * height))
    pen = ImageDraw.Draw(canvas)
    unit = max(1, round(max(canvas.size) / 256))
    for grown, shade in ((unit, EDGE), (0, color)):
        outer = (corners[0] - grown, corners[1] - grown, corners[2] + grown, corners[3] + grown)
        pen.rectangle(outer, outline=shade, width=unit + grown)


def draw_cross(canvas: Image.Image, place: tuple[float, float]) -> None:
    """Draw a small cross at a point (x, y), fractions of width and height."""
    x, y = place[0] * canvas.width, place[1] * canvas.height
    pen, unit = ImageDraw.Draw(canvas), max(1, round(max(canvas.size) / 256))
    for shade, width in ((EDGE, 3 * unit), (LINE, unit)):
        for line in ((x - 6 * unit, y, x + 6 * unit, y), (x, y - 6 * unit, x, y + 6 * unit)):
            pen.line(line, fill=shade, width=width)


def outlined(image: Image.Image, box: Box) -> Image.Image:
    """The image at screen size with the outline of a box."""
    canvas = canvas_of(image)
    draw_box(canvas, box)
    return canvas


def contour(canvas: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """The picture with a line round all that is at least half as probable as the maximum."""
    inside = heatmap >= PART * heatmap.max()
    unit = max(1, round(max(canvas.size) / 256))
    line = inside & ~binary_erosion(inside, iterations=unit)
    pixels = np.array(canvas)
    pixels[binary_dilation(line, iterations=1) & ~line] = EDGE
    pixels[line] = LINE
    return Image.fromarray(pixels)


def lesion_picture(
    image: Image.Image, found: LesionMap, opacity: float = 0.5, style: str = COLOR, boxed: bool = True
) -> Image.Image:
    """The image under its lesion map, with (`boxed`) the box of the maximum; the map is only resized.

    In colour the most probable place is the strongest, and nothing is stretched: a map of low probabilities is faint.
    """
    canvas = canvas_of(image)
    resized = Image.fromarray(found.heatmap).resize(canvas.size, Image.Resampling.BILINEAR)
    heatmap = np.clip(np.asarray(resized, np.float32), 0, 1)
    canvas = contour(canvas, heatmap) if style == CONTOUR else colored(canvas, heatmap, opacity)
    if boxed:
        draw_box(canvas, found.box, LINE)
    return canvas
