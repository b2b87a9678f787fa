"""Any image file -> an RGB picture, and back to its frame."""

from medssl.images.picture import Picture
from medssl.images.pictures import Pictures, read_images
from medssl.images.preprocess import Preprocess
from medssl.images.read import frame_count, image_id, read_image

__all__ = [
    "Picture",
    "Pictures",
    "Preprocess",
    "frame_count",
    "image_id",
    "read_image",
    "read_images",
]
