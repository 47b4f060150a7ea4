"""Fixtures of the tests that read a run folder; a module asks for them with `pytest_plugins = ["kit.fixtures"]`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kit.run import make


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, made once. Tests may write its report and its card, and change nothing else."""
    return make(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def run_copy(made_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))
