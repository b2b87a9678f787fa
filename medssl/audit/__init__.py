"""What is wrong with a data set, found before anything is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.runtime import lazy_exports

if TYPE_CHECKING:
    from medssl.audit.audit import Audit as Audit
    from medssl.audit.audit import audit_data as audit_data
    from medssl.audit.findings import Finding as Finding

_PLACES = {
    "Audit": "medssl.audit.audit",
    "Finding": "medssl.audit.findings",
    "audit_data": "medssl.audit.audit",
}

__getattr__, __all__ = lazy_exports(__name__, _PLACES)
