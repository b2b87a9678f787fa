"""The model's turns: quick before slow, slow between its steps too, and nobody for ever."""

import threading
import time

import pytest

from medssl.web import turns
from medssl.web.turns import Turns, give_way
from medssl.web.wanted import Stopped

WITHIN = 20.0


def until(condition):
    end = time.monotonic() + WITHIN
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


class Line:
    """Work that comes while the model is held, and the order in which it was done."""

    def __init__(self, patience=WITHIN):
        self.turns, self.done, self.threads = Turns(patience), [], []

    def come(self, name, slow, steps=1):
        def work():
            with self.turns.turn(slow):
                for step in range(steps):
                    if step:
                        give_way()
                    self.done.append(name if steps == 1 else f"{name}{step}")

        waiting = len(self.turns._quick) + len(self.turns._slow)
        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()
        assert until(lambda: len(self.turns._quick) + len(self.turns._slow) == waiting + 1)

    def end(self):
        for thread in self.threads:
            thread.join(WITHIN)
            assert not thread.is_alive()
        return self.done


def test_quick_work_goes_first_each_kind_in_the_order_of_its_coming():
    line = Line()
    with line.turns.turn():
        for name, slow in (("map 1", True), ("class 1", False), ("map 2", True), ("class 2", False)):
            line.come(name, slow)
    assert line.end() == ["class 1", "class 2", "map 1", "map 2"]


def test_slow_work_gives_way_between_its_steps_and_to_no_other_slow_work():
    line = Line()
    with line.turns.turn(slow=True):
        line.come("other map", slow=True)
        line.come("class 1", slow=False)
        line.come("class 2", slow=False)
        give_way()
        line.done.append("the rest of the map")
        give_way()  # nobody quick waits
    assert line.end() == ["class 1", "class 2", "the rest of the map", "other map"]


def test_quick_work_alone_never_gives_way():
    line = Line()
    with line.turns.turn():
        line.come("class", slow=False)
        give_way()
        line.done.append("mine")
    assert line.end() == ["mine", "class"]


def test_slow_work_is_not_starved_by_a_stream_of_quick_work():
    line, ended = Line(patience=0.1), threading.Event()

    def stream():
        while not ended.is_set():
            with line.turns.turn():
                time.sleep(0.01)

    quick = [threading.Thread(target=stream) for _ in range(3)]
    for thread in quick:
        thread.start()
    line.come("map", slow=True, steps=3)
    assert line.end() == ["map0", "map1", "map2"]
    ended.set()
    for thread in quick:
        thread.join(WITHIN)


def test_who_is_no_longer_wanted_leaves_the_line_and_the_turn(monkeypatch):
    model, gone = Turns(), []

    def check():
        if threading.current_thread().name in gone:
            raise Stopped

    monkeypatch.setattr(turns, "check_wanted", check)
    stopped = []

    def work(slow):
        try:
            with model.turn(slow):
                stopped.append("came in")
        except Stopped:
            stopped.append("left")

    gone.append("waits")
    with model.turn():
        thread = threading.Thread(target=work, args=(True,), name="waits")
        thread.start()
        thread.join(WITHIN)
    assert stopped == ["left"]

    def map_of_one_who_left():
        with pytest.raises(Stopped), model.turn(slow=True):
            gone.append(threading.current_thread().name)
            ready.set()
            assert until(lambda: model._quick)
            give_way()

    ready = threading.Event()
    leaving = threading.Thread(target=map_of_one_who_left, name="map")
    leaving.start()
    assert ready.wait(WITHIN)
    held = threading.Event()

    def quick():
        with model.turn():
            held.set()
            leaving.join(WITHIN)
            inside.append(model._holder is not None)

    inside = []
    other = threading.Thread(target=quick)
    other.start()
    other.join(WITHIN)
    assert held.is_set() and inside == [True], "who left releases no other's turn"
    with model.turn():
        pass
