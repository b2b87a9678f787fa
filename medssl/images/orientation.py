"""Pictures the right way up."""

from __future__ import annotations

from PIL import Image

ORIENTATION_TAG = 274
# EXIF orientation to what brings the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: object) -> Image.Image:
    """The image turned as an orientation (EXIF and TIFF tag 274) says; an odd one turns nothing."""
    # Pillow's own exif_transpose also rewrites the EXIF, and fails on odd tags that do not matter here.
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
