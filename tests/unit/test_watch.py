"""Processes that watch each other: two of them played in one process, for a file's lock belongs to who opened it."""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from stillroom.data.sources._errors import DataNotFound
from stillroom.distributed import peers, watch
from stillroom.distributed.peers import Peers
from stillroom.distributed.standstill import Pace
from stillroom.distributed.watch import Watch
from stillroom.errors import Exit, StillroomError, Stopped


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Seconds become hundredths."""
    for module in (peers, watch):
        monkeypatch.setattr(module, "POLL", 0.02)
        monkeypatch.setattr(module, "HEARING", 0.4)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():  # whoever ends because of another ignores them for good
        signal.signal(number, handler)


@pytest.fixture
def pair(tmp_path):
    both = [Peers(tmp_path, rank, 2) for rank in (0, 1)]
    yield both
    for one in both:
        one.close()


def watching(one, pace=None):
    return Watch(one, pace or Pace(), lambda problem: int(problem.exit))


# Peers


def test_a_process_is_there_until_it_ends_however_it_ends(pair):
    zero, one = pair
    assert not zero.gone(1) and not one.gone(0)
    one.close()
    assert zero.gone(1) and zero.gone(1)  # to look changes nothing


def test_words_are_heard_and_add_up(pair):
    zero, one = pair
    one.say(stuck="here")
    one.say(exit=3)
    assert zero.words(1)["stuck"] == "here" and zero.words(1)["exit"] == 3
    assert zero.words(0)["pid"] == one.words(1)["pid"]
    (zero.folder / ".processes" / "1").write_text('{"half')
    assert zero.words(1) == {}


def test_another_run_has_the_place(pair, tmp_path):
    with pytest.raises(StillroomError, match="SR-R510 locked by pid"):
        Peers(tmp_path, 1, 2)


def test_a_place_is_taken_as_soon_as_an_earlier_run_has_left_it(pair, tmp_path):
    threading.Timer(0.1, pair[1].close).start()
    Peers(tmp_path, 1, 2).close()


def test_a_disk_that_is_not_shared_is_told(tmp_path):
    alone = Peers(tmp_path, 1, 2)
    with pytest.raises(StillroomError, match=r"SR-R524 process 1 on .* does not see what process 0 wrote"):
        alone.see_all()
    alone.close()


def test_who_stands_still_is_ended(pair, monkeypatch):
    zero, one = pair
    killed = []
    monkeypatch.setattr(peers.os, "kill", lambda pid, number: killed.append(pid))
    one.say(pid=-7)
    zero.see_off([1])
    assert killed == [-7]
    one.say(host="elsewhere")
    zero.see_off([1])
    one.close()
    zero.see_off([1])
    assert killed == [-7]


# Watch


@contextmanager
def meanwhile(one, problem=None):
    """The other process, which is done at once, or fails."""
    caught = []

    def work():
        try:
            with watching(one).open(lambda: None):
                if problem:
                    raise problem
        except Exception as found:
            caught.append(found)
        one.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield caught
    thread.join()


def broken():
    """What is heard of a process that has ended, where one waits for it."""
    time.sleep(0.05)
    raise RuntimeError("Connection closed by peer [127.0.0.1]:51234")


def test_all_goes_well(pair):
    with meanwhile(pair[1]) as caught, watching(pair[0]).open(lambda: None):
        time.sleep(0.1)
        assert not pair[0].gone(1)  # it waits for process 0
    assert not caught and pair[0].gone(1)


@pytest.mark.parametrize("problem", [ValueError("seven"), DataNotFound(path="a", hint="")], ids=["fault", "failure"])
def test_process_0_tells_what_process_1_failed_of(pair, problem):
    with (
        meanwhile(pair[1], problem) as caught,
        pytest.raises(StillroomError) as heard,
        watching(pair[0]).open(lambda: None),
    ):
        broken()
    exit = Exit.DATA if isinstance(problem, StillroomError) else Exit.FAILED
    assert (heard.value.code, heard.value.exit, heard.value.told) == ("SR-R520", exit, False)
    assert heard.value.what.startswith("process 1 of 2 ended: ")
    assert ("ValueError: seven" in heard.value.what) or ("SR-D101" in heard.value.what)
    (quiet,) = caught
    assert (quiet.code, quiet.exit, quiet.told) == ("SR-R520", exit, True)


def test_process_1_ends_as_process_0_and_says_nothing(pair):
    own = DataNotFound(path="a", hint="")
    with meanwhile(pair[1]) as caught, pytest.raises(StillroomError) as heard, watching(pair[0]).open(lambda: None):
        raise own
    assert heard.value is own and not own.told
    assert (caught[0].exit, caught[0].told) == (Exit.DATA, True)


def test_a_process_that_vanishes(pair):
    zero, one = pair
    one.close()
    with pytest.raises(StillroomError) as heard, watching(zero).open(lambda: None):
        broken()
    assert heard.value.what == "process 1 of 2 ended without a word" and heard.value.exit == Exit.RESOURCES


def test_process_1_speaks_where_process_0_has_vanished(pair, tmp_path):
    zero, one = pair
    zero.close()
    (tmp_path / "run.json").write_text('{"status": "running"}')
    with pytest.raises(StillroomError) as heard, watching(one).open(lambda: None):
        broken()
    assert heard.value.what == "process 0 of 2 ended without a word" and not heard.value.told
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "failed", "exit_code": 5, "resumable": True}


def test_an_error_of_its_own_that_looks_like_a_broken_connection(pair):
    problem = RuntimeError("shapes do not fit")
    with meanwhile(pair[1]) as caught, pytest.raises(RuntimeError) as heard, watching(pair[0]).open(lambda: None):
        raise problem
    assert heard.value is problem
    assert caught[0].what == "process 0 of 2 ended: RuntimeError: shapes do not fit" and caught[0].told


def test_one_who_was_asked_to_stop_stops_all(pair):
    with (
        meanwhile(pair[1], Stopped(Exit.TERMINATED)) as caught,
        pytest.raises(Stopped) as heard,
        watching(pair[0]).open(lambda: None),
    ):
        broken()
    assert heard.value.exit == caught[0].exit == Exit.TERMINATED
    assert caught[0].told and not heard.value.told


def test_a_launcher_that_stops_the_others_hides_nothing(pair):
    """torchrun sends SIGTERM to all when one has died."""
    pair[1].close()
    with pytest.raises(StillroomError, match="ended without a word"), watching(pair[0]).open(lambda: None):
        raise Stopped(Exit.TERMINATED)


def test_a_main_thread_that_can_not_leave_is_left_behind(pair, monkeypatch):
    """It waits for an accelerator, say, that waits for one of a process that has died."""
    ended = threading.Event()
    monkeypatch.setattr(watch.os, "_exit", lambda code: (codes.append(code), ended.set(), time.sleep(60)))
    codes, zero = [], watching(pair[0])
    thread = threading.Thread(target=zero._look, daemon=True)
    thread.start()
    time.sleep(0.1)
    assert not ended.is_set()
    pair[1].close()
    assert ended.wait(5) and codes == [Exit.RESOURCES]
