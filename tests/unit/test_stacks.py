"""Where a process stands is written when it has exchanged nothing for too long, and one that was stopped is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from stillroom.distributed import stacks
from stillroom.distributed.stacks import Pauses, innermost_call, records_in, stalled

DUMP = """Timeout (0:00:02)!
Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3/threading.py", line 331 in wait
Thread 0x00007f0000000002 (most recent call first):
  File "/home/me/mine.py", line 41 in loss
  File "/home/me/stillroom/training/loop.py", line 144 in _gradients
"""

LATE = """
import sys, time
from pathlib import Path
from stillroom.distributed.stacks import StackDump
one = StackDump(Path(sys.argv[1]))
for _ in range(10):
    time.sleep(0.1)
    one.postpone()
print(Path(sys.argv[1]).read_text() == "")
def late():
    time.sleep(1)
late()
print(Path(sys.argv[1]).read_text())
one.postpone()
print(Path(sys.argv[1]).read_text() == "")
one.close()
time.sleep(1)
print(Path(sys.argv[1]).read_text() == "")
"""


def test_stacks_are_written_by_a_process_that_is_late(tmp_path):
    """In a process of its own, for pytest uses the same timer."""
    env = os.environ | {"STILLROOM_TIMEOUT": "0.6"}
    done = subprocess.run(
        [sys.executable, "-c", LATE, tmp_path / "0.stack"], env=env, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-2] == lines[-1] == "True"
    assert innermost_call("\n".join(lines[1:-2])) == "<string>, line 11, in late"


def test_the_main_thread_is_the_last_one():
    assert innermost_call(DUMP) == "mine.py, line 41, in loss"
    assert innermost_call("") is None


def test_the_error_has_the_line_and_the_stacks_of_all(tmp_path):
    (tmp_path / "1.stack").write_text(DUMP)
    found = stalled(1, 3, tmp_path)
    assert (found.code, found.values["rank"], found.values["place"]) == ("SR-R521", 1, "mine.py, line 41, in loss")
    assert "process 0\n\nprocess 1\nTimeout" in str(found.__cause__)
    assert stalled(0, 3, tmp_path).values["place"] == "it does not react"


def test_records_of_two_commands_are_apart(tmp_path):
    assert len({records_in(folder, run) for folder in (tmp_path, None) for run in "ab"}) == 4
    assert records_in(tmp_path, "a").is_relative_to(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_is_stopped_for_long_is_noticed(monkeypatch):
    monkeypatch.setattr(stacks, "PAUSE", 0.3)
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        pauses = Pauses({0: os.getpid(), 1: sleeper.pid})
        assert pauses.too_long() is None
        for turn in (1, 2):
            sleeper.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while (found := pauses.too_long()) is None and turn == 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            sleeper.send_signal(signal.SIGCONT)
            time.sleep(0.4)
            if turn == 1:
                assert found is None and pauses.too_long() is None, "the first pause was short"
        assert (found.code, found.values["rank"], found.values["world"]) == ("SR-R521", 1, 2)
    finally:
        sleeper.kill()
        sleeper.wait()
