"""The same tasks and splits across several backbones, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.runtime import lazy_exports

if TYPE_CHECKING:
    from medssl.study.plan import StudyPlan as StudyPlan
    from medssl.study.results import Row as Row
    from medssl.study.results import load_rows as load_rows
    from medssl.study.results import save_rows as save_rows
    from medssl.study.study import Study as Study
    from medssl.study.study import compare as compare

_PLACES = {
    "Row": "medssl.study.results",
    "Study": "medssl.study.study",
    "StudyPlan": "medssl.study.plan",
    "compare": "medssl.study.study",
    "load_rows": "medssl.study.results",
    "save_rows": "medssl.study.results",
}

__getattr__, __all__ = lazy_exports(__name__, _PLACES)
