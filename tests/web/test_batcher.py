"""Visitors at the same time share a forward; heatmaps hold up no class."""

import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file

from medssl.bundle.analyzer import PictureEncodings
from medssl.bundle.bundle import Bundle
from medssl.web import page
from medssl.web.batcher import Batcher
from medssl.web.guard import GuardRules
from medssl.web.page import build_app, launch_options
from medssl.web.service import HEAVY_AT_ONCE, Service

WITHIN = 120.0
CLOSE = 1e-5  # of probabilities and cosines; one forward of eight and eight forwards of one round differently


def until(condition):
    end = time.monotonic() + WITHIN
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class Served:
    """The app in this process, with what its bundles encoded, a batch an entry."""

    def __init__(self, bundles, monkeypatch):
        self.bundles, self.batches = bundles, []
        plain = Bundle.encode_frames

        def counted(bundle, frames):
            self.batches.append(len(frames))
            return plain(bundle, frames)

        monkeypatch.setattr(Bundle, "encode_frames", counted)
        monkeypatch.setattr(page, "Service", self.service_of)
        self.demo = build_app(bundles)
        rules = replace(GuardRules.of("127.0.0.1"), queued_calls=64)
        _, self.url, _ = self.demo.launch(prevent_thread_lock=True, quiet=True, **launch_options(rules))

    def service_of(self, *arguments):
        self.service = Service(*arguments)
        return self.service

    def ask(self, image, endpoint, *values):
        return Client(self.url, verbose=False).submit(handle_file(str(image)), *values, api_name=f"/{endpoint}")

    def waiting(self, count):
        return until(lambda: len(self.service._batcher._waiting) == count)


@pytest.fixture
def served(tiny_bundles, monkeypatch):
    running = Served(tiny_bundles, monkeypatch)
    yield running
    running.demo.close()


@pytest.fixture(scope="module")
def images(tiny_data):
    return sorted(tiny_data["shapes"].glob("*.png"))[:7]


def close(found, expected):
    assert found["label"] == expected.label and found["prediction_set"] == list(expected.prediction_set)
    for label, probability in expected.probabilities.items():
        assert found["probabilities"][label] == pytest.approx(probability, abs=CLOSE)
    assert found["familiarity"] == pytest.approx(expected.familiarity, abs=CLOSE)


def test_one_alone_waits_for_nobody_and_gets_the_answer_of_python(served, tiny_bundles, images):
    expected = tiny_bundles["shapes"].analyze(images[0], explain=False)
    found = served.ask(images[0], "classify", "shapes").result(WITHIN)
    assert {key: found[key] for key in asdict(expected.prediction)} == asdict(expected.prediction)
    assert served.batches == [1]


def test_those_who_wait_together_share_a_forward_and_get_their_own_answers(served, tiny_bundles, images):
    with served.service.turn():
        classes = [served.ask(image, "classify", "shapes") for image in images[:3]]
        others = [served.ask(image, "similar", "shapes", 4) for image in images[3:6]]
        suggested = served.ask(images[6], "classify")
        assert served.waiting(7)
    for image, job in zip(images[:3], classes, strict=True):
        close(job.result(WITHIN), tiny_bundles["shapes"].analyze(image, explain=False).prediction)
    for image, job in zip(images[3:6], others, strict=True):
        expected = tiny_bundles["shapes"].analyze(image, top_k=4, explain=False).cases
        found = job.result(WITHIN)["cases"]
        assert [case["id"] for case in found] == [case.id for case in expected]
        assert [case["score"] for case in found] == pytest.approx([case.score for case in expected], abs=CLOSE)
    task = suggested.result(WITHIN)["task"]
    close(suggested.result(WITHIN), tiny_bundles[task].analyze(images[6], explain=False).prediction)
    assert served.batches == [7] and not served.service._batcher._waiting


def test_no_more_than_a_batch_at_once(served, tiny_bundles, images, monkeypatch):
    monkeypatch.setattr(tiny_bundles["shapes"].backbone, "batch_size", lambda _: 4)
    with served.service.turn():
        jobs = [served.ask(image, "classify", "shapes") for image in images[:6]]
        assert served.waiting(6)
    for image, job in zip(images, jobs, strict=False):
        close(job.result(WITHIN), tiny_bundles["shapes"].analyze(image, explain=False).prediction)
    assert served.batches == [4, 2]


def test_heatmaps_in_line_hold_up_no_class(served, tiny_bundles, images, monkeypatch):
    """More heatmaps than are let in, the first of them in the middle of its masks until the classes are answered."""
    answered, begun, plain = threading.Event(), [], Bundle.explain_class

    def waits(bundle, picture, target, method, **settings):
        begun.append(target)
        while not answered.is_set():
            settings["progress"](0.0)
            time.sleep(0.01)
        return plain(bundle, picture, target, method, **settings)

    monkeypatch.setattr(Bundle, "explain_class", waits)
    maps = [served.ask(images[0], "explain", "shapes", "", "vit_cx") for _ in range(HEAVY_AT_ONCE + 2)]
    assert until(lambda: begun)
    for image in images[:3]:
        found = served.ask(image, "classify", "shapes").result(WITHIN)
        close(found, tiny_bundles["shapes"].analyze(image, explain=False).prediction)
    assert len(begun) == 1 and not any(job.done() for job in maps)
    answered.set()
    expected = tiny_bundles["shapes"].analyze(images[0], method="vit_cx").explanation
    for job in maps:
        assert job.result(WITHIN)["probability"] == pytest.approx(expected.probability, abs=CLOSE)


def test_a_part_of_a_batch_is_what_one_alone_gives(tiny_bundles, images):
    bundle = tiny_bundles["shapes"]
    pictures = [PictureEncodings.open(image) for image in images]
    frames = np.stack([bundle.head.preprocess.resize(one.picture.image) for one in pictures])
    together = bundle.encode_frames(frames)
    for place, one in enumerate(pictures):
        alone, part = bundle.encode(one.picture.image), together.single(place)
        for name in ("cls", "patches", "maps"):
            torch.testing.assert_close(getattr(part, name), getattr(alone, name), atol=1e-4, rtol=1e-4)
            assert getattr(part, name).untyped_storage().nbytes() == getattr(part, name).nbytes, "holds no others"
        same = bundle.encode_frames(frames[place : place + 1])
        assert torch.equal(same.cls, alone.cls) and torch.equal(same.maps, alone.maps)


def test_a_forward_that_fails_is_one_callers_error(tiny_bundles, images, monkeypatch):
    bundle, batcher = tiny_bundles["shapes"], Batcher()
    one, two = (batcher.ask(PictureEncodings.open(image), [bundle]) for image in images[:2])
    plain, failed = Bundle.encode_frames, []

    def fails_once(bundle, frames):
        if not failed:
            failed.append(len(frames))
            raise RuntimeError("out of memory")
        return plain(bundle, frames)

    monkeypatch.setattr(Bundle, "encode_frames", fails_once)
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.answer(one)
    batcher.answer(two)
    assert failed == [2] and two[0].answered and not one[0].answered


def test_who_left_is_not_encoded(tiny_bundles, images, monkeypatch):
    bundle, batcher = tiny_bundles["shapes"], Batcher()
    one, two = (batcher.ask(PictureEncodings.open(image), [bundle]) for image in images[:2])
    batcher.leave(two)
    batcher.answer(one)
    assert one[0].answered and not two[0].answered
    assert not batcher.ask(one[0].encodings, [bundle, tiny_bundles["tints"]]), "both need the same, which is there"
