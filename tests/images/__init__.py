"""Tests of reading images; `shared_inputs` is where files that were once read wrongly lie, or a skip."""

import os
from pathlib import Path

import pytest


def shared_inputs() -> Path:
    """The folder of such files. Skips the test where it is not at hand."""
    place = os.environ.get("MEDSSL_REAL_DATA")
    if not place:
        pytest.skip("MEDSSL_REAL_DATA is not set: the files that were read wrongly were not tried")
    return Path(place) / "inputs"
