"""The small classifiers over an embedding, and how they are fitted."""

from medssl.heads.fit_linear import fit_head
from medssl.heads.fit_patch import fit_patch_head
from medssl.heads.head import ClassificationHead, Head, Prediction
from medssl.heads.patch import PatchHead, load_head

__all__ = [
    "ClassificationHead",
    "Head",
    "PatchHead",
    "Prediction",
    "fit_head",
    "fit_patch_head",
    "load_head",
]
