"""The list of slow tests names tests that there are."""

import re

import pytest

from tests.conftest import ROOT
from tests.slow import SLOW, is_slow


@pytest.mark.parametrize("entry", SLOW)
def test_every_entry_names_something(entry):
    path, _, name = entry.partition("::")
    assert (ROOT / path).exists(), f"{path} is gone: take it from tests/slow.py"
    assert not name or re.search(rf"^def {name}", (ROOT / path).read_text("utf-8"), re.M), f"{path} has no {name}"


def test_what_starts_a_server_is_slow_wherever_it_lies():
    assert is_slow("tests/web/test_new.py::test_it", ("app", "tmp_path"))
    assert not is_slow("tests/web/test_new.py::test_it", ("tmp_path",))
