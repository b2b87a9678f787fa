"""Which tests go to one worker, and in which order."""

from types import SimpleNamespace

import pytest

from tests.conftest import ROOT, pytest_collection_modifyitems


def test_the_hub_is_one_unit_and_every_other_file_its_own():
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: tests are not dealt out")
    from tests.dealing import RoomScheduling

    unit = RoomScheduling._split_scope
    scheduling = RoomScheduling.__new__(RoomScheduling)
    assert unit(scheduling, "tests/hub/test_pull.py::test_a") == unit(scheduling, "tests/hub/test_space.py::test_b[x]")
    assert unit(scheduling, "tests/web/test_page.py::test_a[a::b]") == "tests/web/test_page.py"


def test_files_with_a_slow_test_go_first_and_stay_whole():
    def item(path, name):
        return SimpleNamespace(path=ROOT / path, nodeid=f"{path}::{name}", add_marker=lambda marker: None)

    quick, part = "tests/data/test_split.py", "tests/bundle/test_build.py"
    items = [
        item(quick, "test_a"),
        item(part, "test_b"),
        item(part, "test_a_patch_head_is_tried"),
        item(quick, "test_c"),
    ]
    pytest_collection_modifyitems(items)
    assert [one.nodeid.split("::test_")[1] for one in items] == ["b", "a_patch_head_is_tried", "a", "c"]
