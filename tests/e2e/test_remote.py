"""Measuring a file in a process of its own, here and over SSH, and what is said where that can't be."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from kit.devices import linear, python, script, stand_in

from stillroom.benchmark import remote
from stillroom.benchmark.remote import measure
from stillroom.errors import StillroomError
from stillroom.export.runtime import Runtime

IMAGES = np.random.default_rng(0).random((4, 3, 4, 4), dtype=np.float32)
FIGURES = {"latency_ms", "latency_p95_ms", "throughput", "load_ms", "peak_mb", "energy_j"}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the other machine makes its temporary folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def told(path: Path) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(path).run(None, {"images": IMAGES})[0])


def taken(path: Path, **options: Any) -> remote.Measured:
    given = {"runtime": "onnx", "images": IMAGES, "seconds": 0.1, "python": sys.executable} | options
    return measure(path, **given)


def test_here(tmp_path: Path) -> None:
    path = linear(tmp_path / "student.onnx", batch="B")
    found = taken(path, watts=10.0)
    figures = found.figures()
    assert set(figures) == FIGURES
    assert found.single.n >= 10 and found.batch.batch == 32 and found.single.threads == 1
    assert figures["latency_ms"].value == found.single.p50 and figures["latency_ms"].ci95 is not None
    assert f"onnx {onnxruntime.__version__} on " in figures["latency_ms"].how
    assert 1 < figures["peak_mb"].value < 500 and "VmHWM" in figures["peak_mb"].how
    np.testing.assert_allclose(found.answers, told(path), atol=1e-6)


def test_over_ssh_it_is_the_same_and_nothing_is_left(tmp_path: Path, temporary: Path) -> None:
    """With a start-up file that prints, and names that a shell would take apart."""
    path = linear(tmp_path / "a; touch $(pwned) 'x'.onnx", batch=1)
    command = python(tmp_path / "py 'thon'; touch pwned")
    ssh = stand_in(tmp_path, before="echo Welcome to the board")
    found = taken(path, host="pi@board", python=str(command), ssh=ssh)
    assert set(found.figures()) | {"energy_j"} == FIGURES
    assert found.facts["looped"]
    np.testing.assert_allclose(found.answers, told(linear(tmp_path / "b.onnx", batch="B")), atol=1e-6)
    assert not list(temporary.iterdir()) and not list(tmp_path.rglob("*pwned)")) and not list(tmp_path.rglob("pwned"))


def test_a_file_with_a_companion(tmp_path: Path, temporary: Path) -> None:
    ssh = stand_in(tmp_path)  # first: a file that is open for writing when OpenVINO forks can't be run for a while
    openvino = pytest.importorskip("openvino")
    source = linear(tmp_path / "a.onnx", batch="B")
    openvino.save_model(openvino.convert_model(source), tmp_path / "student.xml", compress_to_fp16=False)
    found = taken(tmp_path / "student.xml", runtime="openvino", host="board", ssh=ssh)
    np.testing.assert_allclose(found.answers, told(source), atol=1e-5)
    assert not list(temporary.iterdir())


def test_a_python_in_the_home_folder_there(tmp_path: Path, temporary: Path) -> None:
    ssh = stand_in(tmp_path)
    python(tmp_path / "home" / "python")
    assert taken(linear(tmp_path / "a.onnx", batch="B"), host="board", python="~/python", ssh=ssh).single.n >= 10


def refusal(*arguments: Any, **options: Any) -> StillroomError:
    with pytest.raises(StillroomError) as caught:
        taken(*arguments, **options)
    return caught.value


def test_a_host_that_is_not_reached(tmp_path: Path) -> None:
    path = linear(tmp_path / "a.onnx", batch="B")
    last = "ssh: Could not resolve hostname nowhere: Name or service not known"
    ssh = script(tmp_path / "ssh", f"echo debug >&2; echo '{last}' >&2; exit 255")
    failure = refusal(path, host="nowhere", ssh=str(ssh))
    assert failure.code == "SR-B910" and failure.why == last and "ssh nowhere true" in failure.fix
    assert refusal(path, host="nowhere", ssh=str(tmp_path / "none")).code == "SR-B910"


@pytest.mark.parametrize("host", ["-oProxyCommand=touch pwned", "a b", "a;b", "$(a)", "a\nb", "`a`"])
def test_what_is_no_host_name_never_reaches_ssh(tmp_path: Path, host: str) -> None:
    ssh = script(tmp_path / "ssh", f"touch {tmp_path}/called; exit 255")
    assert refusal(linear(tmp_path / "a.onnx", batch="B"), host=host, ssh=str(ssh)).code == "SR-B914"
    assert not (tmp_path / "called").exists()


def test_a_runtime_that_is_missing_there(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('gone', name='onnxruntime')", encoding="utf-8")
    command = str(python(tmp_path / "python", before=f"export PYTHONPATH='{tmp_path}'"))
    failure = refusal(linear(tmp_path / "a.onnx", batch="B"), host="board", python=command, ssh=stand_in(tmp_path))
    assert failure.code == "SR-B911" and f"{command} -m pip install onnxruntime" in failure.fix
    assert not list(temporary.iterdir())


def test_a_file_that_is_broken_and_a_python_that_is_not_there(tmp_path: Path, temporary: Path) -> None:
    path, ssh = tmp_path / "a.onnx", stand_in(tmp_path)
    path.write_bytes(b"no model")
    failure = refusal(path, host="board", ssh=ssh)
    assert failure.code == "SR-B912" and "onnxruntime" in failure.why
    failure = refusal(path, host="board", python="python0", ssh=ssh)
    assert failure.code == "SR-B912" and "python0" in failure.why
    failure = refusal(path, host="board", python="true", ssh=ssh)  # it ends well and says nothing
    assert failure.code == "SR-B912"
    assert not list(temporary.iterdir())


def test_what_does_not_end(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    command = str(script(tmp_path / "python", "exec sleep 3"))
    path = linear(tmp_path / "a.onnx", batch="B")
    assert refusal(path, host="board", python=command, ssh=stand_in(tmp_path)).code == "SR-B913"
    assert not list(temporary.iterdir())


def test_a_folder_that_was_not_made_is_not_removed(tmp_path: Path, temporary: Path) -> None:
    (temporary / "kept").touch()
    ssh = stand_in(tmp_path, before="mktemp() { echo /; }; case $1 in mktemp*) echo /; exit;; esac")
    failure = refusal(linear(tmp_path / "a.onnx", batch="B"), host="board", ssh=ssh)
    assert failure.code == "SR-B912" and "mktemp" in failure.why
    assert (temporary / "kept").exists()


class Abacus(Runtime):
    """Does not declare how a device opens its files."""


def test_a_runtime_that_does_not_say_how_a_device_opens_its_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.onnx", runtime=f"{__name__}:Abacus").code == "SR-B915"


def test_a_runtime_that_is_none(tmp_path: Path) -> None:
    failure = refusal(tmp_path / "a.onnx", runtime="onx")
    assert failure.code == "SR-X733" and "did you mean 'onnx'?" in failure.what


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[str]:
    """An `ssh` that reaches a real server on this machine by the name `board`, with keys that are thrown away."""
    server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not server or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("needs openssh-server and openssh-client")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {tmp_path}/host", "StrictModes no", "UsePAM no"]
    there += [f"AuthorizedKeysFile {tmp_path}/user.pub", f"PidFile {tmp_path}/pid"]
    (tmp_path / "sshd_config").write_text("\n".join(there), encoding="utf-8")
    here = ["Host board", "HostName 127.0.0.1", f"Port {port}", f"User {getpass.getuser()}"]
    here += [f"IdentityFile {tmp_path}/user", "IdentitiesOnly yes", f"UserKnownHostsFile {tmp_path}/known"]
    (tmp_path / "ssh_config").write_text("\n".join([*here, "StrictHostKeyChecking yes"]), encoding="utf-8")
    name = (tmp_path / "host.pub").read_text(encoding="utf-8")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {name}", encoding="utf-8")
    process = subprocess.Popen([server, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield str(script(tmp_path / "real ssh", f'exec ssh -F "{tmp_path}/ssh_config" "$@"'))
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.slow
def test_over_a_real_ssh(tmp_path: Path, sshd: str) -> None:
    path = linear(tmp_path / "student.onnx", batch="B")
    before = set(Path("/tmp").glob("stillroom-*"))
    found = taken(path, host="board", ssh=sshd)
    np.testing.assert_allclose(found.answers, told(path), atol=1e-6)
    assert set(Path("/tmp").glob("stillroom-*")) <= before
    (tmp_path / "known").write_text("", encoding="utf-8")  # a host whose key is not known
    failure = refusal(path, host="board", ssh=sshd)
    assert failure.code == "SR-B910" and "Host key verification failed" in failure.why
