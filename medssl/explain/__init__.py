"""Explainers: a heatmap for one class of one image."""

from medssl.explain.explanation import Explanation
from medssl.explain.vit_cx import ViTCX

__all__ = ["Explanation", "ViTCX"]
