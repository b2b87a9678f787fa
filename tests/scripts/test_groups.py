"""The table of images beside groups: from the bundles' own metrics."""

import sys

import pytest

from medssl.bundle.bundle import Bundle
from medssl.errors import DataError
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import groups  # noqa: E402


@pytest.fixture
def bundle(tiny_bundle_folders):
    return Bundle.load(tiny_bundle_folders["tints"])


def test_images_and_groups_stand_beside_each_other(bundle):
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in groups.table([bundle]).splitlines()]
    assert [len(row) for row in found] == [len(groups.COLUMNS)] * 4
    level = bundle.metrics["group_level"]
    for row, counted, figures in zip(
        found[2:], ("images", "groups"), (bundle.metrics["classification"], level["classification"]), strict=True
    ):
        assert row[0] == "tints" and row[2] == counted
        assert row[4].startswith(f"{figures['accuracy']['value']:.3f} [")
        assert row[5].startswith(f"{figures['auroc']['value']:.3f} [")
    assert found[3][3].startswith(f"{level['groups']},")


def test_a_bundle_whose_data_name_no_groups_is_refused(bundle):
    bundle.metrics["group_level"] = {}
    with pytest.raises(DataError, match="no figures of groups"):
        groups.table([bundle])
