"""Tables between the marks of a page: whole, in their place, and nowhere else."""

import sys

import pytest

from medssl.errors import DataError
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
from marks import put_between  # noqa: E402

BEGIN, END = "<!-- begin -->", "<!-- end -->"


def test_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{END} above\n{BEGIN}\nold\n{END}\nbelow {END}\n")
    put_between(page, BEGIN, END, "new")
    assert page.read_text() == f"{END} above\n{BEGIN}\n\nnew\n\n{END}\nbelow {END}\n"


@pytest.mark.parametrize("text", ["no marks", f"{END}\n{BEGIN}", BEGIN])
def test_a_page_without_marks_is_refused(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(DataError, match="no place"):
        put_between(page, BEGIN, END, "new")
    assert page.read_text() == text
