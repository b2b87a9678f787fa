"""A picture is read, hashed, encoded and searched once, whatever is asked of it."""

import numpy as np
import pytest

from medssl.bundle import Analyzer, Bundle, PictureEncodings, suggest_task
from medssl.errors import BundleError, LibraryError
from medssl.images import Picture, read
from tests.conftest import sample


@pytest.fixture
def counted(monkeypatch, tiny_bundles):
    """How often an image is decoded, hashed, encoded and searched."""
    calls = {"read": 0, "hash": 0, "encode": 0, "search": 0}
    bundle = tiny_bundles["shapes"]

    def counting(name, function):
        def call(*given, **settings):
            calls[name] += 1
            return function(*given, **settings)

        return call

    monkeypatch.setattr("medssl.images.picture.read_image", counting("read", read.read_image))
    monkeypatch.setattr("medssl.images.picture.image_id", counting("hash", read.image_id))
    monkeypatch.setattr(type(bundle), "encode", counting("encode", Bundle.encode))
    monkeypatch.setattr(bundle.library, "search", counting("search", bundle.library.search))
    return calls


def test_one_decode_one_hash_one_encode_for_everything(counted, tiny_bundles, tiny_data):
    encodings = PictureEncodings.open(sample(tiny_data["shapes"], "dots"))
    assert {item.name for item in suggest_task(tiny_bundles, encodings)} == set(tiny_bundles)
    opened = Analyzer.open(tiny_bundles["shapes"], encodings)
    label = opened.prediction.label
    cases = opened.cases(6)
    opened.explanation()
    opened.explanation("plain", "grad_cam")
    opened.likeness(cases[0], "grad_cam")
    *_, analysis = opened.steps(top_k=3)
    assert analysis.prediction.label == label and analysis.cases == cases[:3]
    assert counted["read"] == counted["hash"] == counted["encode"] == counted["search"] == 1


def test_the_class_alone_searches_and_decodes_no_cases(counted, tiny_bundles, tiny_data):
    opened = tiny_bundles["shapes"].open(sample(tiny_data["shapes"], "dots"))
    assert opened.prediction.label in tiny_bundles["shapes"].labels
    assert counted["search"] == 0


def test_more_cases_are_searched_anew_and_fewer_are_not(counted, tiny_bundles, tiny_data):
    opened = tiny_bundles["shapes"].open(sample(tiny_data["shapes"], "dots"))
    assert opened.cases(2) == opened.cases(5)[:2] == opened.cases(3)[:2]
    assert counted["search"] == 2


def test_a_heatmap_is_computed_once_a_class_and_method(tiny_bundles, tiny_data):
    opened = tiny_bundles["shapes"].open(sample(tiny_data["shapes"], "dots"))
    first = opened.explanation(method="grad_cam")
    assert opened.explanation(opened.prediction.label, "grad_cam") is first
    assert opened.explanation("plain", "grad_cam").target == "plain"


def test_it_equals_the_one_call_form(tiny_bundles, tiny_data):
    path = sample(tiny_data["shapes"], "stripes")
    bundle = tiny_bundles["shapes"]
    analysis, opened = bundle.analyze(path), bundle.open(path)
    assert opened.prediction == analysis.prediction
    assert [case.id for case in opened.cases()] == [case.id for case in analysis.cases]
    np.testing.assert_array_equal(opened.explanation().heatmap, analysis.explanation.heatmap)
    by_hand = bundle.verify(path, analysis.explanation)
    assert opened.verification(analysis.explanation).insertion == by_hand.insertion


def test_a_question_that_cannot_be_answered_is_refused_before_anything_is_computed(counted, tiny_bundles, tiny_data):
    opened = tiny_bundles["shapes"].open(sample(tiny_data["shapes"], "dots"))
    for ask, error, message in (
        (lambda: opened.explanation("purple"), BundleError, "no class 'purple'.*dots"),
        (lambda: opened.explanation(method="lime"), BundleError, "no explainer 'lime'"),
        (lambda: next(opened.steps("purple")), BundleError, "no class 'purple'"),
    ):
        with pytest.raises(error, match=message):
            ask()
    assert counted["encode"] == 0
    with pytest.raises(LibraryError, match="no case 'nobody'"):
        opened.likeness("nobody")


def test_a_picture_passes_through(tiny_data):
    picture = Picture.read(sample(tiny_data["shapes"], "dots"))
    assert Picture.read(picture) is picture
    assert picture.id == read.image_id(picture.image)
