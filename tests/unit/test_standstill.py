"""A step that does not end: when it is one, and who is to blame. Nobody is who is at work outside of a step."""

from __future__ import annotations

import sys
import time

import pytest

from stillroom.distributed import peers, standstill
from stillroom.distributed.peers import Peers
from stillroom.distributed.standstill import PATIENCE, Pace, Standstill


def test_the_first_passes_take_as_long_as_they_like(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(standstill.time, "monotonic", lambda: now[0])
    pace = Pace()
    for took in (100.0, 100.0, 100.0, 1.0, 3.0):
        with pace:
            now[0] += took
            assert pace.late() == 0
    with pace:
        now[0] += 29.0  # ten times the longest
        assert pace.late() == 0
        now[0] += 2.0
        assert pace.late() == 31.0 and pace.inside
    assert pace.late() == 0 and not pace.inside
    pace.again()
    with pace:
        now[0] += 1000.0
        assert pace.late() == 0


def test_patience_is_a_least_and_can_be_set(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(standstill.time, "monotonic", lambda: now[0])
    pace = Pace()
    for _ in range(4):
        with pace:
            now[0] += 0.01
    with pace:
        now[0] += 14.0
        assert pace.late() == 0
        now[0] += 2.0
        assert pace.late() == 16.0
        monkeypatch.setenv(PATIENCE, "60")
        assert pace.late() == 0


# Whose fault it is


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three processes, played in one, of which the test says what the second and third say."""
    for module in (peers, standstill):
        monkeypatch.setattr(module, "POLL", 0.01)
        monkeypatch.setattr(module, "HEARING", 0.2)
    all = [Peers(tmp_path, rank, 3) for rank in (0, 1, 2)]
    yield all
    for one in all:
        one.close()


class Fixed(Pace):
    """So many seconds late."""

    def __init__(self, seconds, inside=True):
        super().__init__()
        self._late, self._began = seconds, 0.0 if inside else None

    def late(self):
        return self._late


def stands(place, *, waits, inside=True, late=0.0):
    return {"place": place, "waits": waits, "inside": inside, "late": late}


def found(one, monkeypatch, place="mine.py, line 1, in loss", waits=True, seconds=0.5):
    """What is said in the end."""
    monkeypatch.setattr(standstill, "_place", lambda frame: {"place": place, "waits": waits})
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if failure := one.look():
            return failure.code, failure.values["rank"], failure.values["place"]
        time.sleep(0.01)
    return None


WAITING, SLEEPING, SAVING = stands("a", waits=True), stands("b", waits=False), stands("c", waits=False, inside=False)


@pytest.mark.parametrize(
    ("others", "mine", "said"),
    [
        ((SLEEPING, WAITING), True, (1, "b")),
        ((WAITING, SLEEPING), True, (2, "b")),
        ((WAITING, WAITING), False, (0, "mine.py, line 1, in loss")),
        ((WAITING, WAITING), True, (0, "mine.py, line 1, in loss")),
        ((WAITING, None), True, (2, "it does not say where")),
        ((SAVING, None), True, (2, "it does not say where")),
        ((SAVING, SLEEPING), True, (2, "b")),
        ((SAVING, WAITING), True, None),
    ],
)
def test_process_0_names_who_keeps_the_others_waiting(three, monkeypatch, others, mine, said):
    for one, word in zip(three[1:], others, strict=True):
        one.say(stands=word)
    answer = found(Standstill(three[0], Fixed(20.0)), monkeypatch, waits=mine)
    assert answer == (said and ("SR-R521", *said))


def test_process_0_is_not_to_blame_while_it_saves(three, monkeypatch):
    for one in three[1:]:
        one.say(stands=stands("a", waits=True, late=20.0))
    assert found(Standstill(three[0], Fixed(0.0, inside=False)), monkeypatch, waits=False) is None


def test_process_1_names_process_0_where_that_says_nothing(three, monkeypatch):
    late = Standstill(three[1], Fixed(20.0))
    assert found(late, monkeypatch) == ("SR-R521", 0, "it does not say where")
    three[0].say(stands=SAVING)
    assert found(late, monkeypatch) is None


def test_all_say_where_they_stand_as_soon_as_one_waits_too_long(three, monkeypatch):
    monkeypatch.setattr(standstill, "_place", lambda frame: {"place": "here", "waits": False})
    paces = [Fixed(0.0), Fixed(20.0), Fixed(0.0)]
    looks = [Standstill(one, pace) for one, pace in zip(three, paces, strict=True)]
    for turn in (1, 0, 2):
        looks[turn].look()
    assert [three[0].words(rank)["stands"]["late"] for rank in (0, 1, 2)] == [0, 20.0, 0]
    paces[1]._late = 0.0
    for turn in (1, 0, 1, 2):
        looks[turn].look()
    assert [three[0].words(rank)["stands"] for rank in (0, 1, 2)] == [None] * 3


def test_where_a_thread_stands():
    frame = sys._getframe()
    here = standstill._place(frame)
    assert here["place"].startswith("test_standstill.py, line ") and not here["waits"]
    globals = {"__name__": "torch.distributed.distributed_c10d"}
    waiting = type("Frame", (), {"f_code": frame.f_code, "f_lineno": 1, "f_globals": globals})
    assert standstill._place(waiting)["waits"]
