"""A running server under clients that cancel, leave, never listen, or ask for more than their part."""

import threading
import time
from dataclasses import replace

import gradio as gr
import httpx
import pytest
from gradio_client import Client

from medssl.web.guard import MEGABYTE, GuardRules
from medssl.web.page import launch_options
from medssl.web.plain_answers import PlainBlocks
from medssl.web.plain_errors import guarded
from medssl.web.service import MODEL, Service
from medssl.web.wanted import Stopped, check_wanted

WITHIN = 20.0
CALLS = 3


class Work:
    """An endpoint that works until nobody wants it, as an explanation looks after each batch of masks."""

    def __init__(self):
        self.service = Service({})
        self.ended = []
        self.together = self.most_together = 0

    def work(self, name: str) -> str:
        """Work in a turn of the model."""
        try:
            with self.service.turn():
                self.together += 1
                self.most_together = max(self.most_together, self.together)
                try:
                    while name != "short":
                        check_wanted()
                        time.sleep(0.02)
                finally:
                    self.together -= 1
        except Stopped:
            self.ended.append(name)
            raise
        return name


def until(condition):
    end = time.monotonic() + WITHIN
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.fixture(scope="module")
def served():
    """Work, and the address of its server, where a call is given up after a second without a listener."""
    done = Work()
    with PlainBlocks() as demo:
        name, out = gr.Textbox(label="name", elem_id="name"), gr.Textbox(label="out", elem_id="out")
        gr.on([], guarded(done.work), name, out, api_name="work", **MODEL)
    demo.queue(max_size=16, default_concurrency_limit=1, api_open=False)
    rules = replace(GuardRules.of("127.0.0.1"), queued_calls=CALLS, patience=1.0, upload_bytes=MEGABYTE)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options(rules))
    yield done, url.rstrip("/")
    demo.close()


def ask(url, name):
    return httpx.post(f"{url}/gradio_api/call/work", json={"data": [name]}, timeout=WITHIN)


def answered(url):
    """Whether a short call goes through, so that nothing holds slots or the model."""
    return Client(url, verbose=False).predict("short", api_name="/work") == "short"


def test_a_call_that_nobody_listens_for_is_given_up(served):
    work, url = served
    assert ask(url, "silent").status_code == 200
    assert until(lambda: "silent" in work.ended) and answered(url)


def test_silent_callers_get_no_more_than_their_part_and_give_it_back(served):
    work, url = served
    answers = [ask(url, f"joiner {number}") for number in range(CALLS + 2)]
    assert [answer.status_code for answer in answers] == [200] * CALLS + [429] * 2
    assert f"{CALLS} calls waiting" in answers[-1].json()["detail"]
    assert until(lambda: sum(name.startswith("joiner") for name in work.ended) == CALLS)
    assert answered(url) and work.most_together == 1


def test_a_client_that_goes_away_gives_back_slot_and_processor(served):
    work, url = served
    event = ask(url, "left").json()["event_id"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{url}/gradio_api/call/work/{event}", timeout=2)
    assert until(lambda: "left" in work.ended) and answered(url)


def test_a_cancelled_call_ends(served):
    work, url = served
    job = Client(url, verbose=False).submit("cancelled", api_name="/work")
    # A client that has not heard yet which call is its own cancels nothing.
    assert until(lambda: work.together == 1 and job.communicator.event_id)
    job.cancel()
    assert until(lambda: "cancelled" in work.ended) and answered(url)


def test_bytes_a_minute_are_bounded(served):
    _, url = served
    part = {"files": ("a.png", b"x" * (700 * 1024))}
    assert httpx.post(f"{url}/gradio_api/upload", files=part, timeout=WITHIN).status_code == 200
    refused = httpx.post(f"{url}/gradio_api/upload", files=part, timeout=WITHIN)
    assert refused.status_code == 429 and "1 MB within a minute" in refused.json()["detail"]


def test_the_model_takes_one_at_a_time():
    service, inside, most = Service({}), [], []

    def work():
        with service.turn():
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
