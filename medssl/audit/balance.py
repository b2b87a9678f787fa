"""Check: classes of very different size."""

from __future__ import annotations

import numpy as np

from medssl.audit.findings import INFO, WARNING, Finding
from medssl.audit.subject import TABLE, Check, Outcome, Subject

IMBALANCE_INFO, IMBALANCE_WARNING = 3.0, 10.0


def check_balance(subject: Subject) -> Outcome:
    """Classes of very different size."""
    names = subject.label_names
    counts = np.bincount(subject.labels.astype(int), minlength=len(names))
    ratio = counts.max() / max(1, counts.min())
    if ratio < IMBALANCE_INFO:
        return Outcome()
    sizes = ", ".join(f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True))
    severity = WARNING if ratio >= IMBALANCE_WARNING else INFO
    text = f"The largest class has {ratio:.1f} times the images of the smallest: {sizes}."
    return Outcome([Finding("class imbalance", severity, 1, text)])


BALANCE = Check("class balance", TABLE, check_balance)
