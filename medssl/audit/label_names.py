"""Check: labels that differ only by case, blanks, number format or Unicode form."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

import numpy as np

from medssl.audit.findings import ERROR, finding
from medssl.audit.subject import TABLE, Check, Outcome, Subject


def plain_label(name: str) -> str:
    """A label without case, blanks, '-', '_', trailing '.0', leading zeros and odd forms of letters."""
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?", text):
        return f"{float(text.replace(',', '.')):g}"
    return re.sub(r"[\W_]+", "", text) or text


def check_label_names(subject: Subject) -> Outcome:
    """Groups of labels that are probably one class written in several ways."""
    alike = defaultdict(list)
    counts = np.bincount(subject.labels.astype(int), minlength=len(subject.label_names))
    for name, count in zip(subject.label_names, counts.tolist(), strict=True):
        alike[plain_label(name)].append(f"{name!r} ({count} images)")
    several = [", ".join(names) for names in alike.values() if len(names) > 1]
    if not several:
        return Outcome()
    text = "Labels differ only by case, blanks, punctuation, number format or form of letters: one class or several?"
    return Outcome([finding("labels written alike", ERROR, several, text)])


LABEL_NAMES = Check("label names", TABLE, check_label_names)
