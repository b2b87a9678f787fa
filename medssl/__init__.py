"""medssl: explainable self-supervised classification and similar-case search for medical images (research only)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from medssl.errors import BackboneError, BundleError, DataError, ImageError, LibraryError, MedSSLError

if TYPE_CHECKING:
    from medssl.backbones import Backbone as Backbone
    from medssl.build import build_bundle as build_bundle
    from medssl.bundle import Analysis as Analysis
    from medssl.bundle import Bundle as Bundle
    from medssl.bundle import suggest_task as suggest_task
    from medssl.explain import ViTCX as ViTCX
    from medssl.heads import ClassificationHead as ClassificationHead
    from medssl.heads import Prediction as Prediction
    from medssl.images import read_image as read_image
    from medssl.library import Case as Case
    from medssl.library import CaseLibrary as CaseLibrary

__version__ = "0.1.0"

# Loaded on first use, so that `--help` of a script does not wait for torch.
_PLACES = {
    "Analysis": "medssl.bundle",
    "Backbone": "medssl.backbones",
    "Bundle": "medssl.bundle",
    "Case": "medssl.library",
    "CaseLibrary": "medssl.library",
    "ClassificationHead": "medssl.heads",
    "Prediction": "medssl.heads",
    "ViTCX": "medssl.explain",
    "build_bundle": "medssl.build",
    "read_image": "medssl.images",
    "suggest_task": "medssl.bundle",
}

__all__ = [
    "BackboneError",
    "BundleError",
    "DataError",
    "ImageError",
    "LibraryError",
    "MedSSLError",
    *sorted(_PLACES),
]


def __getattr__(name: str) -> object:
    """The public names, imported when first asked for (PEP 562)."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'medssl' has no attribute {name!r}")
