"""medssl: explainable self-supervised classification and similar-case search for medical images (research only)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.errors import BackboneError, BundleError, DataError, ImageError, LibraryError, MedSSLError, PretrainError
from medssl.runtime import lazy_exports

if TYPE_CHECKING:
    from medssl.backbones import Backbone as Backbone
    from medssl.bundle import Analysis as Analysis
    from medssl.bundle import Bundle as Bundle
    from medssl.bundle import build_bundle as build_bundle
    from medssl.bundle import publish_bundle as publish_bundle
    from medssl.bundle import suggest_task as suggest_task
    from medssl.explain import ViTCX as ViTCX
    from medssl.heads import ClassificationHead as ClassificationHead
    from medssl.heads import Prediction as Prediction
    from medssl.images import read_image as read_image
    from medssl.images import read_images as read_images
    from medssl.library import Case as Case
    from medssl.library import CaseLibrary as CaseLibrary

__version__ = "0.2.0"

_PLACES = {
    "Analysis": "medssl.bundle",
    "Backbone": "medssl.backbones",
    "Bundle": "medssl.bundle",
    "Case": "medssl.library",
    "CaseLibrary": "medssl.library",
    "ClassificationHead": "medssl.heads",
    "Prediction": "medssl.heads",
    "ViTCX": "medssl.explain",
    "build_bundle": "medssl.bundle",
    "publish_bundle": "medssl.bundle",
    "read_image": "medssl.images",
    "read_images": "medssl.images",
    "suggest_task": "medssl.bundle",
}

__getattr__, _lazy = lazy_exports(__name__, _PLACES)
__all__ = [
    "BackboneError",
    "BundleError",
    "DataError",
    "ImageError",
    "LibraryError",
    "MedSSLError",
    "PretrainError",
    *_lazy,
]
