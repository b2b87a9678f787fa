"""A task as a head's config.json holds it: there and back, and refused by its field where it does not fit."""

import pytest

from medssl.data.tasks import TASKS, Task
from medssl.errors import BundleError

STORED = TASKS["brain"].to_dict()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_there_and_back(name):
    assert Task.from_dict(TASKS[name].to_dict()) == TASKS[name]


def test_the_license_is_stored_as_earlier_versions_spelled_it():
    assert STORED["licence"] == TASKS["brain"].license and "license" not in STORED


@pytest.mark.parametrize("field", ["name", "title", "labels", "modality"])
def test_a_missing_field_is_refused_by_its_name(field):
    stored = {key: value for key, value in STORED.items() if key != field}
    with pytest.raises(BundleError, match=f"task.*config.json does not fit: {field}: field required"):
        Task.from_dict(stored)


@pytest.mark.parametrize("field", sorted(STORED))
@pytest.mark.parametrize("value", [3, None, {"a": 1}, [["b"]]], ids=str)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(field, value):
    with pytest.raises(BundleError, match=f"task.*does not fit: {field}"):
        Task.from_dict({**STORED, field: value})


def test_an_unknown_field_is_refused_by_its_name():
    with pytest.raises(BundleError, match="surprise"):
        Task.from_dict({**STORED, "surprise": 1})
