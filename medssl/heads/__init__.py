"""The small classifiers over an embedding, and how they are fitted."""

from medssl.heads.config import HeadConfig, Thresholds
from medssl.heads.fit_linear import fit_head
from medssl.heads.fit_patch import fit_patch_head
from medssl.heads.head import ClassificationHead, Head, Prediction
from medssl.heads.patch import PatchHead, PatchHeadConfig, load_head

__all__ = [
    "ClassificationHead",
    "Head",
    "HeadConfig",
    "PatchHead",
    "PatchHeadConfig",
    "Prediction",
    "Thresholds",
    "fit_head",
    "fit_patch_head",
    "load_head",
]
