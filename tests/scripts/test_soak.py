"""The soak's own parts: what it sends, and how it counts. The soak itself is run by hand."""

from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from medssl.errors import ImageError
from medssl.images import read_image
from scripts.benchmarks import soak


def test_good_files_are_pictures_and_hostile_ones_are_refused_or_of_one_color():
    generator = np.random.default_rng(0)
    assert read_image(soak.good_file(generator)).size == (96, 96)
    refused = 0
    for _ in range(8):
        data = soak.hostile_file(generator)
        if len(data) < 100_000:
            with pytest.raises(ImageError):
                read_image(data)
            refused += 1
    assert refused


def test_a_class_is_answered_a_broken_file_refused_and_a_dead_server_told_from_a_fault(app):
    server = SimpleNamespace(url=app.url, deaths=0, up=SimpleNamespace(is_set=lambda: True))
    assert soak.ask(server, "class", soak.good_file(np.random.default_rng(0))) == ("answered", "")
    outcome, said = soak.ask(server, "class", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert outcome == "refused with a sentence" and "SVG" in said
    server.url = "http://127.0.0.1:9"
    assert soak.ask(server, "class", b"x")[0] == "errors"
    server.up = SimpleNamespace(is_set=lambda: False)
    assert soak.ask(server, "class", b"x")[0] == "cut by a kill"


@pytest.mark.parametrize(
    ("status", "outcome"), [(429, "told to wait"), (404, "refused with a sentence"), (500, "errors")]
)
def test_refusals_by_status(status, outcome):
    assert soak.outcome_of(httpx.Response(status, text="said"))[0] == outcome


def test_the_report_counts_each_question_once():
    tally = soak.Tally()
    tally.add("class", "answered")
    tally.add("class", "answered")
    tally.add("page", "errors", "no such element")
    server = SimpleNamespace(deaths=1, peak_kb=2048)
    options = SimpleNamespace(users=2, minutes=1, chromium="", seed=0)
    said = soak.report(tally, server, 3, options)
    assert "| class | 2 | 0 | 0 | 0 | 0 |" in said and "| page | 0 | 0 | 0 | 0 | 1 |" in said
    assert "2 MB" in said and "left at the end: 3" in said and "no such element" in said


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "61"], ["--users", "0"]])
def test_it_is_bounded(arguments):
    with pytest.raises(SystemExit):
        soak.main(arguments)
