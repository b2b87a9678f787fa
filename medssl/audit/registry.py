"""Every check of the audit, in the order in which their findings of one severity are told."""

from __future__ import annotations

from medssl.audit.balance import BALANCE
from medssl.audit.confounds import CONFOUNDS
from medssl.audit.duplicates import DUPLICATES
from medssl.audit.group_sizes import GROUP_SIZES
from medssl.audit.group_splits import GROUP_SPLITS
from medssl.audit.label_errors import LABEL_ERRORS
from medssl.audit.label_names import LABEL_NAMES
from medssl.audit.neighbors import NEIGHBORS
from medssl.audit.readable import READABLE
from medssl.audit.reading_notes import READING_NOTES
from medssl.audit.subject import Check

CHECKS: tuple[Check, ...] = (
    READABLE,
    DUPLICATES,
    GROUP_SPLITS,
    GROUP_SIZES,
    LABEL_NAMES,
    BALANCE,
    CONFOUNDS,
    NEIGHBORS,
    LABEL_ERRORS,
    READING_NOTES,
)
