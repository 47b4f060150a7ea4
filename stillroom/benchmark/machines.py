"""Where a file is measured: a temporary folder on this machine, or on another one over SSH.

This machine needs nothing but `ssh`, the other a shell with mktemp, tar, cat and rm. Names of files never reach a
shell; what does is quoted.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from stillroom.benchmark.errors import HostUnreachable, MeasurementFailed, MeasurementTimedOut
from stillroom.errors import StillroomError

HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.@:%/\[\]-]*")
"""What may be handed to ssh: no option, nothing that a shell or a proxy command would take for more than a name."""

FOLDER = re.compile(r"(?!.*\.\.)/[A-Za-z0-9_./+-]+/stillroom-[A-Za-z0-9.]+")
"""What `mktemp` answers: a path without `..`."""

PATIENCE = 120.0  # seconds beyond the measuring itself: to import a runtime on a slow board, and compile a large file
WAIT = 15  # seconds for a host to answer

Done = subprocess.CompletedProcess[bytes]


class LocalMachine:
    """A temporary folder on this machine."""

    def __init__(self, folder: str):
        self.folder = folder
        self.python = sys.executable

    def send(self, files: Mapping[str, bytes]) -> None:
        """Files, by name, into the folder."""
        for name, content in files.items():
            Path(self.folder, name).write_bytes(content)

    def run(self, command: Sequence[str], limit: float) -> Done:
        """A command and all that it printed, within so many seconds."""
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit)

    def fetch(self, name: str) -> bytes:
        """A file of the folder."""
        return Path(self.folder, name).read_bytes()


class SshMachine:
    """A temporary folder on another machine."""

    def __init__(self, host: str, python: str, ssh: str):
        # What is quoted is not expanded; but a command begins in the home folder.
        self.host, self.python, self.folder = host, re.sub(r"^~/", "./", python), ""
        self._ssh = [ssh, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={WAIT}", host]

    def run(self, command: Sequence[str], limit: float, given: bytes = b"") -> Done:
        """A command, which reads `given`, and all that it printed, within so many seconds."""
        line = " ".join(quote(word) for word in command)  # ssh hands one line to a shell there
        try:
            done = subprocess.run([*self._ssh, line], input=given, capture_output=True, timeout=limit)
        except FileNotFoundError as problem:
            raise HostUnreachable(host=self.host, problem=f"{self._ssh[0]}: no such command here") from problem
        if done.returncode == 255:  # ssh's own; a script with this exit code is taken for it too
            raise HostUnreachable(host=self.host, problem=last_line(done.stderr))
        return done

    def send(self, files: Mapping[str, bytes]) -> None:
        """Files, by name, into the folder."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        self.checked(["tar", "-xf", "-", "-C", self.folder], packed.getvalue())

    def fetch(self, name: str) -> bytes:
        """A file of the folder, with what the shell's start-up files may have printed before it."""
        return self.checked(["cat", f"{self.folder}/{name}"])

    def checked(self, command: Sequence[str], given: bytes = b"") -> bytes:
        """What a command prints; an error where its exit code is not 0."""
        try:
            done = self.run(command, PATIENCE, given)
        except subprocess.TimeoutExpired as problem:
            raise MeasurementTimedOut(where=self.host, seconds=round(PATIENCE)) from problem
        if done.returncode:
            raise MeasurementFailed(where=self.host, problem=last_line(done.stderr) or f"`{command[0]}` failed")
        return done.stdout


Machine = LocalMachine | SshMachine


@contextmanager
def local_machine() -> Iterator[LocalMachine]:
    """A fresh folder on this machine, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        yield LocalMachine(folder)


@contextmanager
def ssh_machine(host: str, python: str, ssh: str) -> Iterator[SshMachine]:
    """A fresh folder on another machine, gone afterwards."""
    machine = SshMachine(host, python, ssh)
    made = machine.checked(["mktemp", "-d", "-t", "stillroom-XXXXXXXX"]).decode(errors="replace").split()
    # A shell's start-up files may print before; anything but the folder asked for must never reach `rm -rf`.
    if not made or not FOLDER.fullmatch(made[-1]):
        raise MeasurementFailed(where=host, problem="mktemp named no folder")
    machine.folder = made[-1]
    try:
        yield machine
    finally:
        with suppress(StillroomError, subprocess.TimeoutExpired):  # the first error is the one to report
            machine.run(["rm", "-rf", "--", machine.folder], 2 * WAIT)


def last_line(output: bytes) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
