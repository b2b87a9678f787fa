"""Explainers: a heatmap for one class of one image."""

from medssl.explain.explanation import Explanation
from medssl.explain.registry import EXPLAINERS, make_explainer
from medssl.explain.vit_cx import ViTCX

__all__ = ["EXPLAINERS", "Explanation", "ViTCX", "make_explainer"]
