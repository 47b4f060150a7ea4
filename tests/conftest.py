"""What every test may ask for."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from stillroom.io.files import write_json

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=25)  # the same cases everywhere
settings.register_profile("wide", deadline=None, max_examples=300)  # `make test-slow`: other cases every time
settings.load_profile("steady")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of larger real data beside the checkout; a fresh clone alone has none, and skips."""
    if not SHARED.is_dir():
        pytest.skip("needs the data folder ../shared/data beside the checkout")
    return SHARED


@dataclass(frozen=True)
class Demo:
    """What `stillroom demo` left, and what it said."""

    folder: Path
    stdout: str
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`stillroom demo`, run once through the command, without a network. Copy the folder to change anything in it.

    Once for all processes that share the tests: the first makes it, the others wait.

    On one thread: layers this small gain nothing from two, and beside another program two wait for each other until
    the demo takes ten times as long.
    """
    from kit.command import stillroom

    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    said = home / "said.json"
    try:
        home.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 280
        while not said.exists():
            assert time.monotonic() < deadline, "the demo in the other process did not end well"
            time.sleep(0.2)
    else:
        began = time.monotonic()
        done = stillroom("demo", "--folder", home / "digits", cwd=home, OMP_NUM_THREADS="1")
        write_json(said, {"stdout": done.stdout, "seconds": time.monotonic() - began})
    return Demo(home / "digits", **json.loads(said.read_text(encoding="utf-8")))
