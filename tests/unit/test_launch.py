"""Workers of `--devices N`: the first of their failures is the one reported, none outlives another or the launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit import workers
from kit.command import environment

from stillroom.distributed.errors import killed, lines_for
from stillroom.distributed.launch import End, first_failure
from stillroom.errors import Exit, Stopped
from stillroom.io.errors import DiskFull
from stillroom.io.run_end import record_end

# Which failure was the first


OWN, ASKED, BROKEN, WAITED = 0, 1, 2, 3


def end(rank, secondary=OWN, time=1.0, exit=Exit.FAILED, text="seven"):
    return End(rank, lines_for(_raised(ValueError(text))), int(exit), secondary, "Traceback ...", time)


def _raised(problem):
    try:
        raise problem
    except type(problem) as caught:
        return caught


def found(tmp_path, *ends, world=3):
    failure = first_failure({one.rank: one for one in ends}, world, tmp_path)
    return getattr(failure, "code", "stopped"), getattr(failure, "values", {}).get("rank"), int(failure.exit)


def test_the_earliest_fault_of_its_own(tmp_path):
    assert found(tmp_path, end(0, BROKEN, 1.2), end(1, time=1.1, exit=Exit.DATA), end(2, time=1.3)) == ("SR-R520", 1, 3)


def test_process_0_prints_its_own_fault_itself(tmp_path):
    failure = first_failure({0: end(0, time=1.2), 1: end(1, time=1.1)}, 2, tmp_path)
    assert failure.values["rank"] == 0 and failure.told
    assert not first_failure({0: end(0, BROKEN), 1: end(1)}, 2, tmp_path).told
    assert not first_failure({0: End(0, killed(-9)), 1: end(1, BROKEN)}, 2, tmp_path).told, "it could not"


def test_one_that_was_killed(tmp_path):
    assert found(tmp_path, end(0, BROKEN), End(1, killed(-9)), end(2, BROKEN)) == ("SR-R520", 1, 5)
    assert found(tmp_path, end(0, BROKEN), end(1, BROKEN)) == ("SR-R520", 2, 5), "it has left no record"
    assert found(tmp_path, end(1, ASKED), end(2, BROKEN)) == ("SR-R520", 0, 5), "torchrun asks the others to stop"


def test_one_that_others_have_waited_for(tmp_path):
    assert found(tmp_path, end(0, WAITED), end(2, WAITED)) == ("SR-R521", 1, 5)
    assert found(tmp_path, end(0, WAITED), end(1, ASKED), end(2, WAITED)) == ("SR-R521", 1, 5)
    assert found(tmp_path, end(0, WAITED), end(1, BROKEN)) == ("SR-R521", 2, 5), "a connection closes after a timeout"
    assert found(tmp_path, end(0, WAITED), end(1, time=9.0)) == ("SR-R520", 1, 1), "it has a fault of its own"


def test_all_were_asked_to_stop(tmp_path):
    asked = [end(rank, ASKED, exit=Exit.TERMINATED) for rank in range(3)]
    assert found(tmp_path, *asked) == ("stopped", None, 143)
    assert found(tmp_path, end(0, BROKEN), asked[1], end(2, BROKEN)) == ("stopped", None, 143), "one alone, so all end"


def test_connections_that_break_without_any_cause(tmp_path):
    assert found(tmp_path, *(end(rank, BROKEN) for rank in range(3))) == ("SR-R520", 0, 1)


def test_what_is_secondary():
    def ended(problem):
        return End.of(1, _raised(problem)).secondary

    assert ended(ValueError("a")) == ended(RuntimeError("Timed out")) == OWN, "it comes from here"
    assert ended(Stopped(Exit.TERMINATED)) == ASKED
    for text, secondary in {"Connection closed by peer": BROKEN, "Timed out waiting 3000ms for recv": WAITED}.items():
        path = "/env/torch/distributed/distributed_c10d.py"
        with pytest.raises(RuntimeError) as caught:
            exec(compile(f"raise RuntimeError({text!r})", path, "exec"), {})
        assert End.of(1, caught.value).secondary == secondary
    full = End.of(1, _raised(DiskFull(path="a", free="0", problem="b")))
    assert (full.secondary, full.exit) == (OWN, 5) and full.lines["words"].startswith(": SR-R501 ")


def test_a_record_is_read_as_it_was_written():
    one = end(1, BROKEN)
    assert End(*json.loads(json.dumps(one))) == one


def test_the_end_is_noted_in_the_newest_run_of_a_folder(tmp_path):
    for seed, status in enumerate(["done", "failed", "running"]):
        (tmp_path / f"seed-{seed}").mkdir()
        (path := tmp_path / f"seed-{seed}" / "run.json").write_text(json.dumps({"status": status, "exit_code": 6}))
        os.utime(path, (seed, seed))
    record_end(tmp_path, Stopped(Exit.TERMINATED))
    infos = [json.loads((tmp_path / f"seed-{seed}" / "run.json").read_text()) for seed in range(3)]
    assert [info["status"] for info in infos] == ["done", "failed", "stopped"]
    assert [info["exit_code"] for info in infos] == [6, 6, 143]
    before = (tmp_path / "seed-0" / "run.json").read_text()
    record_end(tmp_path / "seed-0", Stopped(Exit.TERMINATED))
    record_end(tmp_path / "elsewhere", Stopped(Exit.TERMINATED))
    record_end(None, Stopped(Exit.TERMINATED))
    assert (tmp_path / "seed-0" / "run.json").read_text() == before, "it had ended well"


# Two processes


def begin(folder, *faults, how=(), timeout=60.0):
    """The program of `kit/workers.py` in two processes, in a folder."""
    (folder / "run.json").write_text('{"status": "running"}')
    command = [sys.executable, *how, workers.__file__, *faults]
    env = environment(OMP_NUM_THREADS="1", STILLROOM_TIMEOUT=str(timeout))
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(folder, process):
    """Exit code, stdout, stderr, when nothing is left alive."""
    out, err = process.communicate(timeout=280)
    deadline = time.monotonic() + 30
    while any(_alive(int(path.read_text())) for path in folder.glob("*.pid")):
        assert time.monotonic() < deadline, "a worker outlives its launcher"
        time.sleep(0.1)
    return process.returncode, out, err


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def recorded(folder):
    info = json.loads((folder / "run.json").read_text())
    return info["status"], info.get("exit_code"), info.get("resumable")


def test_each_one_that_is_killed_is_named_and_all_start_again(tmp_path):
    code, out, err = done(tmp_path, begin(tmp_path, "kill:1", "kill:0"))
    first, _, second = err.partition("  next   all processes are started again")
    assert first.startswith("SR-R520 process 1 of 2 ended by SIGKILL\n") and "SR-R520 process 0 of 2" in second
    assert (code, out) == (5, "") and recorded(tmp_path) == ("failed", 5, True)


def test_a_process_that_stands_still_is_named_with_its_line(tmp_path):
    line = workers.FAULTS["sleep"].__code__.co_firstlineno
    code, _, err = done(tmp_path, begin(tmp_path, "sleep:1", timeout=3))
    assert code == 5 and err.count("SR-R") == 1
    assert err.startswith(f"SR-R521 process 1 of 2 stands still   workers.py, line {line}, in <lambda>\n")
    assert recorded(tmp_path) == ("failed", 5, True)
    assert "process 0\nTimeout" in (tmp_path / "run.log").read_text()


def test_no_worker_outlives_a_launcher_that_is_killed(tmp_path):
    process = begin(tmp_path, "sleep")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    assert done(tmp_path, process)[0] == -9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("mistake:1", 1, "SR-R520 process 1 of 2 ended: ValueError: seven is no number\n  why    workers.py, line "),
        ("mistake:0", 1, "seven is no number\n"),
        ("mistake", 1, "seven is no number\n"),
        ("exit:1", 5, "SR-R520 process 1 of 2 ended with exit code 9 and left no record\n"),
        ("stop:1", 5, "SR-R521 process 1 of 2 stands still   "),
        ("stop:0", 5, "SR-R521 process 0 of 2 stands still   "),
        ("sleep:0", 5, "SR-R521 process 0 of 2 stands still   workers.py, line "),
    ],
)
def test_whatever_ends_one_ends_all_and_is_said_once(tmp_path, fault, code, text):
    found, _, err = done(tmp_path, begin(tmp_path, fault, timeout=4))
    assert found == code and err.startswith(text) and err.count("SR-R") == text.count("SR-R")
    assert recorded(tmp_path) == ("failed", code, True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill:0", "kill:1", "mistake:1", "sleep:1"])
def test_torchrun_ends_with_the_same_message(tmp_path, fault):
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    code, _, err = done(tmp_path, begin(tmp_path, fault, how=how, timeout=4))
    kind, _, rank = fault.partition(":")
    words = {
        "kill": f"SR-R520 process {rank} of 2 ended without an error of its own\n",
        "mistake": f"SR-R520 process {rank} of 2 ended: ValueError: seven is no number\n",
        "sleep": f"SR-R521 process {rank} of 2 stands still   workers.py, line ",
    }
    assert code == 1 and words[kind] in err and err.count("SR-R") == 1
    assert recorded(tmp_path) == ("failed", 1 if kind == "mistake" else 5, True)
    if kind == "kill":
        assert err.partition("Root Cause")[2].partition("local_rank: ")[2].startswith(rank), "torchrun's own table"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_to_the_launcher_stops_all(tmp_path, number, code):
    process = begin(tmp_path, "sleep")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, number)
    assert done(tmp_path, process)[0] == code and recorded(tmp_path) == ("stopped", code, True)
