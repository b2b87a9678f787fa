"""Head + library + metrics + card of one task: built, measured, served and published as one."""

from medssl.bundle.analyzer import Analysis, Analyzer, PictureEncodings
from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.bundle.publish import publish_bundle

__all__ = [
    "Analysis",
    "Analyzer",
    "Bundle",
    "PictureEncodings",
    "build_bundle",
    "publish_bundle",
    "suggest_task",
]
