"""What every test may ask for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)  # the same cases everywhere, however busy it is
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

    On one thread: layers this small gain nothing from two, and beside another program two wait for each other until
    the demo takes ten times as long.
    """
    from kit.command import stillroom

    home = tmp_path_factory.mktemp("demo")
    began = time.monotonic()
    done = stillroom("demo", "--folder", home / "digits", cwd=home, OMP_NUM_THREADS="1")
    return Demo(home / "digits", done.stdout, time.monotonic() - began)
