"""Runs that are begun, that end, and whose end is told to whoever pressed Stop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from medssl.web.wanted import Stopped
from medssl.web.work import Work


def quiet(*_args, **_more):
    """A progress bar that nobody sees."""


def test_a_run_that_ended_is_not_stopped():
    work = Work()
    with work.run("table", quiet):
        assert work.running == "table"
    with pytest.raises(ValueError), work.run("table", quiet):
        raise ValueError
    assert work.end() == ""


def test_stop_ends_the_run_at_its_next_step_and_is_told_once():
    work = Work()
    with pytest.raises(Stopped), work.run("table", quiet) as tell:
        assert (work.end(), work.end()) == ("table", "")
        tell(0.5, "half")


def test_a_run_whose_call_was_canceled_is_still_told_to_whoever_stopped_it():
    work = Work()
    with pytest.raises(Stopped), work.run("table", quiet):
        raise Stopped  # as where nobody waits for the call any more
    assert (work.end(), work.end()) == ("table", "")

    def steps():
        with work.run("table", quiet):
            yield 1

    running = steps()
    next(running)
    running.close()  # as the server does with a generator whose call was canceled
    assert (work.end(), work.end()) == ("table", "")


def test_progress_is_sent_now_and_then_and_stop_looked_for_always(monkeypatch):
    work, sent, now = Work(), [], iter([0.0, 0.1, 0.2, 0.6])
    monkeypatch.setattr("medssl.web.work.time", SimpleNamespace(monotonic=lambda: next(now)))
    with pytest.raises(Stopped), work.run("table", lambda _fraction, desc: sent.append(desc)) as tell:
        for number in range(4):
            tell(number / 10, f"Picture {number}")
        work.end()
        tell(0.5, "after Stop")
    assert sent == ["Picture 0", "Picture 3"]


def test_the_end_of_an_old_run_leaves_the_new_one():
    work = Work()
    newer = work.run("analysis", quiet)
    with work.run("table", quiet):
        newer.__enter__()
    assert work.end() == "analysis"
