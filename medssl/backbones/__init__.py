"""Frozen image encoders, what they say of an image, and embeddings of whole data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.runtime import lazy_exports

if TYPE_CHECKING:
    from medssl.backbones.backbone import Backbone as Backbone
    from medssl.backbones.backbone import shared_backbone as shared_backbone
    from medssl.backbones.embedder import Embedder as Embedder
    from medssl.backbones.embeddings import embed as embed
    from medssl.backbones.encoding import Encoding as Encoding
    from medssl.backbones.reading import POOLINGS as POOLINGS
    from medssl.backbones.reading import Reading as Reading
    from medssl.backbones.registry import BACKBONES as BACKBONES
    from medssl.backbones.registry import BackboneSpec as BackboneSpec

_PLACES = {
    "BACKBONES": "medssl.backbones.registry",
    "Backbone": "medssl.backbones.backbone",
    "BackboneSpec": "medssl.backbones.registry",
    "Embedder": "medssl.backbones.embedder",
    "Encoding": "medssl.backbones.encoding",
    "POOLINGS": "medssl.backbones.reading",
    "Reading": "medssl.backbones.reading",
    "embed": "medssl.backbones.embeddings",
    "shared_backbone": "medssl.backbones.backbone",
}

__getattr__, __all__ = lazy_exports(__name__, _PLACES)
