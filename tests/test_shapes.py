"""A JSON file that does not fit is refused by a sentence that names file and field."""

import pytest
from pydantic import TypeAdapter
from typing_extensions import NotRequired, TypedDict

from medssl.errors import DataError
from medssl.shapes import check_shape, read_json


class Inner(TypedDict):
    count: int


class Outer(TypedDict):
    name: str
    inner: NotRequired[list[Inner]]


SHAPE = TypeAdapter(Outer)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "a.json does not fit: name: field required"),
        ({"name": 3}, "a.json does not fit: name is 3: input should be a valid string"),
        ({"name": "x", "inner": [{"count": "1"}]}, r"inner\.0\.count is '1': input should be a valid integer"),
        ({"name": "x", "inner": [{}]}, r"inner\.0\.count: field required"),
        ([], "the whole"),
        ({"name": "\x1b[31m" * 100, "inner": 1}, r"inner is 1"),
    ],
)
def test_the_first_field_that_does_not_fit_is_named(values, words):
    with pytest.raises(DataError, match=words) as refused:
        check_shape(SHAPE, values, "a.json", DataError)
    said = str(refused.value)
    assert said.endswith("Make or download it again.") and said.isprintable() and len(said) < 300


def test_what_fits_passes():
    check_shape(SHAPE, {"name": "x", "inner": [{"count": 1}], "more": object()}, "a.json", DataError)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "a.json cannot be read as JSON"),
        (b"\xff\xfe", "a.json cannot be read as JSON"),
        (b"[" * 100_000, "a.json cannot be read as JSON"),
        (b"[1]", "a.json holds no JSON object"),
        (None, r"a.json cannot be read as JSON \(No such file or directory\)"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_json(path, "a.json", DataError)
