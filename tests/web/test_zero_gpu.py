"""A ZeroGPU Space, played by a package `spaces` that lets only pickles through and says when it is inside."""

from __future__ import annotations

import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from medssl.backbones.backbone import Backbone
from medssl.bundle.bundle import Bundle, suggest_task
from medssl.errors import BundleError
from medssl.images.read import read_image
from medssl.web import zero_gpu
from tests.conftest import sample


class Space:
    """What was asked of the GPU, and whether this moment is inside such a call."""

    def __init__(self) -> None:
        self.inside, self.asked = False, []

    def gpu(self, duration: int):
        """The decorator: arguments and result go through a pickle, as between processes."""

        def decorate(function):
            def call(*arguments):
                self.asked.append((arguments[1], duration))
                self.inside = True
                try:
                    return pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(arguments)))))
                finally:
                    self.inside = False

            return call

        return decorate


@pytest.fixture
def space(monkeypatch):
    found = Space()
    module = ModuleType("spaces")
    module.GPU, module.__spec__ = found.gpu, object()
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(zero_gpu, "_lent", [])
    return found


@pytest.fixture
def image(tiny_data):
    return sample(tiny_data["shapes"], "stripes")


def test_all_model_work_goes_inside_and_qdrant_stays_outside(space, tiny_bundle_folders, image, monkeypatch):
    plain = Bundle.load(tiny_bundle_folders["shapes"])
    expected = plain.analyze(image, verify=True)
    lent = zero_gpu.lend(Bundle.load(tiny_bundle_folders["shapes"]))
    searched = []
    search = lent.library.search
    monkeypatch.setattr(lent.library, "search", lambda *a, **k: (searched.append(space.inside), search(*a, **k))[1])
    found = lent.analyze(image, verify=True)
    assert [name for name, _ in space.asked] == ["encode", "explain_class", "verify"] and searched == [False]
    assert all(0 < seconds <= 60 for _, seconds in space.asked)
    assert found.prediction == expected.prediction and found.to_dict()["cases"] == expected.to_dict()["cases"]
    np.testing.assert_array_equal(found.explanation.heatmap, expected.explanation.heatmap)
    assert found.verification.insertion_minus_deletion == expected.verification.insertion_minus_deletion
    likeness, plainly = (bundle.explain_case(image, expected.cases[0].id) for bundle in (lent, plain))
    np.testing.assert_array_equal(likeness.explanation.heatmap, plainly.explanation.heatmap)
    assert space.asked[-1][0] == "explain_likeness" and likeness.case.id == expected.cases[0].id
    assert [one.name for one in suggest_task({"shapes": lent}, image)] == ["shapes"]


def test_errors_come_out_as_they_are(space, tiny_bundle_folders, image):
    lent = zero_gpu.lend(Bundle.load(tiny_bundle_folders["shapes"]))
    with pytest.raises(BundleError, match="no class 'purple'"):
        lent.explain_class(read_image(image), "purple", "vit_cx")


def test_on_such_a_space_the_model_waits_on_the_cpu(space, tiny_backbone, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Backbone.from_pretrained(tiny_backbone).device.type == "cpu"


def test_elsewhere_nothing_changes(tiny_bundle_folders, monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    bundle = zero_gpu.lend(Bundle.load(tiny_bundle_folders["shapes"]))
    assert not zero_gpu.on_zero_gpu() and not set(zero_gpu.MODEL_WORK) & set(vars(bundle))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not zero_gpu.on_zero_gpu(), "the package is not there"
