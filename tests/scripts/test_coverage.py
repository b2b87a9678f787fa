"""The benchmark of coverage: its table before and after, and a choice that leaves test alone."""

import sys

import pytest

from medssl.backbones.backbone import Backbone
from medssl.backbones.embedder import Embedder
from tests.conftest import ROOT, make_folder

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import coverage  # noqa: E402


@pytest.fixture(scope="module")
def given(tiny_backbone, tmp_path_factory):
    place = tmp_path_factory.mktemp("coverage")
    data = make_folder(place / "shades", ("amber", "dots", "jade"), seed=1, count=240)
    return Embedder.of(Backbone.from_pretrained(tiny_backbone)), str(data), place / "cache"


def test_the_table_holds_thirds_bands_and_classes_before_and_after(given):
    table = coverage.before_and_after(coverage.fit(*given, 0, out_of_fold=False), 50, 0)
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 1 + 3 + 3 + 3 and all(row.count("|") == 9 for row in rows)
    assert rows[2].startswith("| all | 48 | 24 |") and "Calibrated on validation by group" in table
    assert "| amber | 16 | 8 |" in table


def test_the_choice_uses_train_and_validation_alone(given):
    fitted = coverage.fit(*given, 0, out_of_fold=True)
    assert set(fitted.logits) == {"train", "val"}
    one, two = (coverage.choice_table([fitted], 2, 0) for _ in range(2))
    assert one == two and len(one.splitlines()) == 2 + len(coverage.BANDS) * len(coverage.MASSES)
