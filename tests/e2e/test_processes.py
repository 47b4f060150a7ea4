"""One process equals two, however they are started; what ends one of them ends all, and a run recovers from it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kit import faulty
from kit.command import QUICK, STILLROOM, environment, stillroom
from kit.resume import wait_for_steps
from kit.training import furthest
from safetensors.torch import load_file

from stillroom.io.run_dir import read_stream

STEADY = [*QUICK, "train.optimizer=sgd", "teacher.train.optimizer=sgd", "train.lr=0.01", "teacher.train.lr=0.01"]
"""SGD: Adam divides by the gradient's size, and so hides a wrong scale and magnifies rounding."""

COUPLED = [
    'methods=["hinton", "fitnet", "dist", {name = "crd", bank = 256}, "reviewkd", "wkd_logits"]',
    "gradient_balancing=true",
]
"""Parts of their own, batch norms of their own, correlations over the batch, queues, running covariances."""

UNEVEN = ["train.batch=250", "teacher.train.batch=250", "data.val=0.171", "train.lr=1e-3", "teacher.train.lr=1e-3"]
"""An odd number of training images, and epochs that end inside a batch, and there inside one process's part. The rate
is small, for with larger steps rounding alone grows to more than the test allows."""


def begin(how, words, cwd, restarts=0, **env):
    """The command in two processes: the processes that the test has to wait for."""
    command, env = [str(STILLROOM), *map(str, words)], environment(OMP_NUM_THREADS="1", **env)
    commands = {0: ([*command, "--devices", "2", "--max-restarts", str(restarts)], {})}
    if how == "torchrun":
        options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
        module = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "stillroom"]
        commands = {0: ([*module, *command[1:]], {})}
    if how == "srun":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        both = {"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost", "SLURM_JOB_ID": "7"}
        both |= {"SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place = {n: {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)} for n in (0, 1)}
        commands = {n: (command, both | place[n]) for n in (0, 1)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(c, cwd=cwd, env=env | more, **pipes) for c, more in commands.values()]


def done(processes):
    """Exit codes, and what process 0 said on stdout and stderr; nothing of the run is left alive."""
    said = [process.communicate(timeout=280) for process in processes]
    return [process.returncode for process in processes], *said[0]


def assert_one_equals_two(folder):
    for stage in ("teacher", "baseline", "student"):
        one, two = (load_file(folder / str(n) / f"{stage}.safetensors") for n in (1, 2))
        assert furthest(one, two) < 1e-4, stage
    losses = [[line["loss"] for line in read_stream(folder / str(n), "steps.jsonl")] for n in (1, 2)]
    assert len(losses[0]) == len(losses[1]) == 36
    assert max(abs(a - b) / max(1, a) for a, b in zip(*losses, strict=True)) < 1e-4
    assert json.loads((folder / "2" / "run.json").read_text())["hardware"]["processes"] == 2


@pytest.mark.parametrize(
    ("how", "words"),
    [
        pytest.param("devices", UNEVEN, id="devices"),
        pytest.param("torchrun", COUPLED, id="torchrun", marks=pytest.mark.slow),
        pytest.param("srun", UNEVEN, id="srun", marks=pytest.mark.slow),
    ],
)
def test_one_process_equals_two(how, words, tmp_path):
    stillroom("run", *STEADY, *words, "--folder", "1", cwd=tmp_path, OMP_NUM_THREADS="1")
    codes, out, err = done(begin(how, ["run", *STEADY, *words, "--folder", "2"], tmp_path))
    assert not any(codes), err
    assert out.count("2/report.html") == 1 and "Traceback" not in err
    assert err.count("SR-M302") <= 1  # what all processes notice is said once
    assert_one_equals_two(tmp_path)


# A process that fails


FAULTY = [*STEADY, "methods=faulty:Faulty", "baseline=false", "teacher.train.steps=4", "--folder", "x"]

SAID = {
    "mistake": (1, r"SR-R520 process {} of 2 ended: ValueError: seven is no number\n  why    faulty.py, line \d+"),
    "disaster": (1, r"SR-R520 process {} of 2 ended: RuntimeError: eight is no number\n  why    faulty.py, line \d+"),
    "kill": (5, r"SR-R520 process {} of 2 ended (by SIGKILL|without an error of its own)\n"),
    "sleep": (5, r"SR-R521 process {} of 2 stands still   faulty.py, line \d+, in <lambda>\n"),
    "stop": (5, r"SR-R521 process {} of 2 stands still   stopped by a signal \(SIGSTOP\)\n"),
}


def alive(folder):
    """Processes that work in a folder, zombies apart."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").resolve() == folder.resolve() and b"faulty:Faulty" in (
                    entry / "cmdline"
                ).read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def nothing_is_alive(folder):
    deadline = time.monotonic() + 30
    while alive(folder):
        assert time.monotonic() < deadline, "a process outlives the run"
        time.sleep(0.1)


def ends(fault, folder, how="devices", restarts=0):
    """Two processes of which one fails: exit codes and stderr. As under srun, the failure of one ends the other."""
    shutil.copy(faulty.__file__, folder)
    processes = begin(how, ["run", *FAULTY], folder, restarts, FAULT=fault, STILLROOM_TIMEOUT="15")
    while len(processes) > 1 and not any(process.poll() for process in processes):
        time.sleep(0.1)
    if len(processes) > 1:  # as long as one needs to say what was wrong
        time.sleep(10)
        for process in processes:
            process.kill()
    codes, _, err = done(processes)
    nothing_is_alive(folder)
    return codes, err


def recorded(folder):
    info = json.loads((folder / "x" / "run.json").read_text())
    return info["status"], info["exit_code"], info["resumable"], info["last_step"]


def assert_told_once(err, fault):
    kind, _, rank = fault.partition(":")
    assert len(re.findall(SAID[kind][1].format(rank), err)) == 1 and err.count("SR-R") == 1, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run of two processes that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    codes, err = ends("", folder)
    assert codes == [0], err
    return folder / "x"


def assert_same_bytes(one, two):
    for stage in ("teacher", "student"):
        assert (one / f"{stage}.safetensors").read_bytes() == (two / f"{stage}.safetensors").read_bytes(), stage


@pytest.mark.slow
@pytest.mark.parametrize("how", ["devices", "torchrun"])
@pytest.mark.parametrize("fault", ["kill:0", "kill:1"])
def test_a_run_recovers_from_a_kill_by_itself(undisturbed, how, fault, tmp_path):
    codes, err = ends(fault, tmp_path, how, restarts=1)
    assert codes == [0] and "resumed at step 5" in err
    assert_told_once(err, fault)
    assert json.loads((tmp_path / "x" / "run.json").read_text())["status"] == "done"
    assert_same_bytes(undisturbed, tmp_path / "x")


@pytest.mark.slow
def test_a_mistake_in_one_process_is_told_once_and_one_process_goes_on(undisturbed, tmp_path):
    codes, err = ends("mistake:1", tmp_path)
    assert codes == [1]
    assert_told_once(err, "mistake:1")
    assert recorded(tmp_path) == ("failed", 1, True, 5)
    assert "seven is no number" in (tmp_path / "x" / "run.log").read_text()
    assert "resumed at step 5" in stillroom("run", *FAULTY, cwd=tmp_path).stderr
    one, two = (load_file(folder / "student.safetensors") for folder in (tmp_path / "x", undisturbed))
    assert furthest(one, two) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill:1", "kill:0", "disaster:1", "sleep:1", "stop:1", "stop:0"])
def test_whatever_ends_one_process_ends_all(fault, tmp_path):
    codes, err = ends(fault, tmp_path)
    code = SAID[fault.partition(":")[0]][0]
    assert codes == [code]
    assert_told_once(err, fault)
    assert recorded(tmp_path) == ("failed", code, True, 5)


@pytest.mark.slow
def test_process_0_tells_its_own_mistake(tmp_path):
    codes, err = ends("mistake:0", tmp_path)
    assert codes == [1] and err.count("SR-0000 a fault of this program: ValueError: seven is no number") == 1
    assert "SR-R" not in err and recorded(tmp_path) == ("failed", 1, True, 5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun", "srun"])
@pytest.mark.parametrize("fault", ["mistake:1", "kill:1", "sleep:1"])
def test_other_launchers_end_with_the_same_message(how, fault, tmp_path):
    codes, err = ends(fault, tmp_path, how)
    code = SAID[fault.partition(":")[0]][0]
    assert_told_once(err, fault)
    assert recorded(tmp_path) == ("failed", code, True, 5)
    assert codes[0] == (1 if how == "torchrun" else code)  # torchrun's own exit code is always 1


LONG = [*FAULTY, "train.steps=12", "train.checkpoint_seconds=1000"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_to_the_launcher_leaves_no_worker_and_a_run_that_resumes(undisturbed, number, code, tmp_path):
    shutil.copy(faulty.__file__, tmp_path)
    (process,) = begin("devices", ["run", *LONG], tmp_path)
    wait_for_steps(tmp_path / "x", 4 + 2, process)
    process.send_signal(number)
    codes, _, err = done([process])
    nothing_is_alive(tmp_path)
    assert codes == [code] and "Traceback" not in err
    if number != signal.SIGKILL:
        assert err.count("stopped, everything is saved; the same command goes on") == 1
        status, exit_code, resumable, step = recorded(tmp_path)
        assert (status, exit_code, resumable) == ("stopped", code, True) and step >= 2
    codes, _, err = done(begin("devices", ["run", *LONG], tmp_path))
    assert codes == [0] and ("resumed at step" in err or number == signal.SIGKILL)
    one, two = (load_file(folder / "student.safetensors") for folder in (tmp_path / "x", undisturbed))
    assert furthest(one, two) == 0


# What is refused


@pytest.mark.slow
def test_a_batch_that_can_not_be_shared_is_refused(tmp_path):
    codes, _, err = done(begin("devices", ["run", *QUICK, "train.batch=65", "--folder", "x"], tmp_path))
    assert codes == [2] and err.count("SR-R523 train.batch = 65 can't be shared equally by 2 processes") == 1
    assert "set train.batch to 64 or 66" in err
    assert not (tmp_path / "x" / "run.json").exists()


@pytest.mark.slow
def test_one_equals_two_through_a_chain_of_compressions(tmp_path):
    """Up to the last training, which rounds: there a difference in the seventh digit may move a weight by a level."""
    chain = 'compress=[{name="prune", round_to=1}, {name="factorize", energy=0.9, least=2}, "quantize"]'
    for count in (1, 2):
        stillroom("run", *STEADY, chain, "--folder", str(count), "--devices", str(count), cwd=tmp_path)
    for stage in ("distilled", "prune", "factorize", "student"):
        one, two = (load_file(tmp_path / str(n) / f"{stage}.safetensors") for n in (1, 2))
        assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
        apart = torch.cat([(one[name] - two[name]).abs().flatten().float() for name in one])
        assert (apart > 1e-4).float().mean() < (0.01 if stage == "student" else 1e-9), stage
    figures = [json.loads((tmp_path / str(n) / "metrics.json").read_text()) for n in (1, 2)]
    assert [len(found["stages"]) for found in figures] == [3, 3]
