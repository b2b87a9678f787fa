"""Head + library + metrics + card of one task: built, measured, served and published as one."""

from medssl.bundle.build import build_bundle
from medssl.bundle.bundle import Analysis, Bundle, suggest_task
from medssl.bundle.publish import publish_bundle

__all__ = [
    "Analysis",
    "Bundle",
    "build_bundle",
    "publish_bundle",
    "suggest_task",
]
