"""Forks itself for every command of a test: a process of its own for each, without seconds of imports for each.

    python fork_server.py SOCKET

It imports libraries alone, nothing of the program under test, and ends when its standard input does. A client sends
one request with its three standard streams, gets the number of the process, and at its end the exit status. When a
client leaves earlier, the process is killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "scipy.stats",
    "scipy.optimize",
    "PIL.Image",
    "pydantic",
    "click",
    "rich.console",
    "jinja2",
    "safetensors.torch",
    "onnx",
    "onnxscript",
    "torch.onnx",
    "sklearn.datasets",
    "sklearn.linear_model",
)
"""What takes long to import and starts no thread: a fork has none but its own, and may hang without them."""

HARMLESS = {"jemalloc_bg_thd"}
"""Threads that their library ends before a fork and starts again after it."""


def threads() -> set[str]:
    """Names of this process's threads; the first one is called "python" here."""
    tasks = Path("/proc/self/task")
    names = {task.name: (task / "comm").read_text().strip() for task in tasks.iterdir()}
    return {"python" if number == str(os.getpid()) else name for number, name in names.items()}


def serve(path: str) -> dict:
    """Wait for clients; returns in the processes that are to do a request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    while True:
        ready, _, _ = select.select([listener, 0], [], [], 1.0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            os._exit(0)
        if listener not in ready:
            continue
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return attend(client)
        client.close()


def attend(client: socket.socket) -> dict:
    """Start the process of one client and wait for either; returns in that process."""
    data, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    request = json.loads(data)
    process = os.fork()
    if process == 0:
        client.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    client.sendall(f"{process}\n".encode())
    watch = os.pidfd_open(process)
    ready, _, _ = select.select([watch, client], [], [])
    if watch not in ready:
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(OSError):
        client.sendall(f"{status}\n".encode())
    os._exit(0)


def begin(request: dict) -> None:
    """As a fresh interpreter would, from here on."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = request["argv"]
    sys.modules["torch"].set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    code = request.get("code")
    if code is not None:
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        return
    from stillroom.cli import main

    sys.exit(main())


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    if more := threads() - HARMLESS - {"python"}:
        sys.exit(f"threads after the imports: {', '.join(sorted(more))}")
    sys.path.pop(0)  # this file's folder
    begin(serve(sys.argv[1]))
