"""Any image file -> an RGB picture, and back to its frame."""

from medssl.images.picture import Picture
from medssl.images.preprocess import Preprocess
from medssl.images.read import image_id, read_image

__all__ = [
    "Picture",
    "Preprocess",
    "image_id",
    "read_image",
]
