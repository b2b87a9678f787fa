"""Figures with 95 % intervals over groups; nothing of medssl's own in them."""

from medssl.metrics.classification import classification_metrics
from medssl.metrics.coverage import COVERAGE_HEADER, coverage_rows, format_coverage
from medssl.metrics.metric import METRICS, flagged_share, format_metrics
from medssl.metrics.paired import holm, paired_difference, paired_differences
from medssl.metrics.retrieval import retrieval_metrics, unit

__all__ = [
    "COVERAGE_HEADER",
    "METRICS",
    "classification_metrics",
    "coverage_rows",
    "flagged_share",
    "format_coverage",
    "format_metrics",
    "holm",
    "paired_difference",
    "paired_differences",
    "retrieval_metrics",
    "unit",
]
