"""The cases of one task under one backbone, searchable in Qdrant."""

from medssl.library.library import Case, CaseLibrary

__all__ = [
    "Case",
    "CaseLibrary",
]
