"""Processes that begin with their libraries imported; see `fork_server`."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")
SHIM = """#!{python} -IS
import json, os, signal, socket, sys
sys.path.insert(0, {folder!r})
from forked import brief
client = socket.socket(socket.AF_UNIX)
client.connect({path!r})
request = {{"argv": [{command!r}, *brief(sys.argv[1:])], "cwd": os.getcwd(), "env": dict(os.environ)}}
socket.send_fds(client, [json.dumps(request).encode()], [0, 1, 2])
answers = client.makefile()
process = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(process, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def brief(words: Iterable[str]) -> list[str]:
    """The words of a command, which times networks for less than 3 s where it runs a recipe."""
    words = list(words)
    timed = words[:1] == ["run"] and not any(word.startswith("bench.") for word in words)
    return words + (["bench.seconds=0.2"] if timed else [])


class Process:
    """As much of `subprocess.Popen` as tests use."""

    def __init__(self, server: Path, argv: list[str], *, cwd: Path, env: dict[str, str], code: str | None = None):
        self.args, self.returncode = argv, None
        self._client = socket.socket(socket.AF_UNIX)
        self._client.connect(str(server))
        self._streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        request = {"argv": argv, "cwd": str(cwd), "env": env, "code": code}
        with open(os.devnull) as nothing:
            streams = [nothing.fileno(), *(stream.fileno() for stream in self._streams)]
            socket.send_fds(self._client, [json.dumps(request).encode()], streams)
        self.pid = self._answer()

    def _answer(self) -> int:
        """The next line of the server, read no further than its end."""
        line = b""
        while not line.endswith(b"\n"):
            read = self._client.recv(1)
            assert read, "the server left"
            line += read
        return int(line)

    def send_signal(self, number: int) -> None:
        """To a process that may be over already."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit status, if it is over."""
        if self.returncode is None and select.select([self._client], [], [], 0)[0]:
            self.returncode = self._answer()
            self._client.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its two outputs, at its end."""
        began = time.monotonic()
        while self.poll() is None:
            left = None if timeout is None else began + timeout - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            select.select([self._client], [], [], left)
        outputs = []
        for stream in self._streams:
            stream.seek(0)
            outputs.append(stream.read())
            stream.close()
        return outputs[0], outputs[1]


def server(command: Path, env: dict[str, str]) -> Path:
    """The socket of a server that is ready, and beside it a script with the name of `command` that asks it."""
    folder = Path(tempfile.mkdtemp(prefix="fork-server-"))
    path = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env | {"OMP_NUM_THREADS": "1"},  # numpy's threads too begin with the import
    )
    atexit.register(process.communicate)  # closes its input, at which it ends
    atexit.register(shutil.rmtree, folder)
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    script = folder / command.name
    script.write_text(
        SHIM.format(folder=str(SERVER.parent), python=sys.executable, path=str(path), command=str(command))
    )
    script.chmod(0o755)
    return path
