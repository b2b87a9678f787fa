"""Figures with 95 % intervals over groups; nothing of medssl's own in them."""

from medssl.metrics.classification import METRICS, classification_metrics, format_metrics, retrieval_metrics
from medssl.metrics.paired import holm, paired_difference, paired_differences

__all__ = [
    "METRICS",
    "classification_metrics",
    "format_metrics",
    "holm",
    "paired_difference",
    "paired_differences",
    "retrieval_metrics",
]
