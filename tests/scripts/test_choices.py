"""The tables of what builds chose: from the bundle's own record, and the test split's word on the explainer."""

import sys

import pytest

from medssl.bundle.bundle import Bundle
from medssl.heads.choice import asked_for
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "benchmarks"))
import choices  # noqa: E402

GAP = {"value": -0.01, "low": -0.03, "high": 0.02, "n": 12, "groups": 6}


@pytest.fixture
def bundle(tiny_bundle_folders):
    return Bundle.load(tiny_bundle_folders["tints"])


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_head_row_holds_what_the_build_recorded(bundle):
    figure = {"value": 0.9, "low": 0.8, "high": 1.0}
    compared = {"images": 12, "groups": 6, "linear": figure, "patch": figure, "patch_minus_linear": GAP}
    bundle.metrics["head_choice"] = {"chosen": "linear", **compared}
    found = cells(choices.head_row(bundle))
    assert len(found) == len(choices.HEADS) and found[0] == "tints"
    assert found[2:7] == ["12 (6)", "0.900 [0.800, 1.000]", "0.900 [0.800, 1.000]", "-0.010 [-0.030, +0.020]", "linear"]
    assert found[7].startswith(f"{bundle.metrics['classification']['balanced_accuracy']['value']:.3f}")
    bundle.metrics["head_choice"] = asked_for("linear")
    assert cells(choices.head_row(bundle))[2:7] == ["-", "-", "-", "-", "linear"]


@pytest.mark.parametrize(("low", "shown"), [(0.1, "Grad-CAM +0.200 [+0.100, +0.300]"), (-0.1, "none")])
def test_the_explainer_row_measures_on_test_what_is_shown_first(bundle, tiny_data, low, shown):
    figures = {"grad_cam": {"less_random": {"value": 0.2, "low": low, "high": 0.3, "n": 12, "groups": 6}}}
    bundle.metrics["explainer_check"] = {"explainers": {"vit_cx": {"less_random": GAP}, **figures}}
    found = cells(choices.explainer_row(bundle, str(tiny_data["tints"]), 3, 0, progress=False))
    assert len(found) == len(choices.EXPLAINERS)
    assert found[2:5] == ["12 (6)", "-0.010 [-0.030, +0.020]", shown]
    assert found[5] == "3 (3)" and found[7].startswith(shown.split()[0])
