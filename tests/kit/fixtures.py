"""Fixtures of the tests that read a run folder; a module asks for them with `pytest_plugins = ["kit.fixtures"]`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kit.dense_runs import WORDS, make_dense
from kit.run import make


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, made once. Tests may write its report and its card, and change nothing else."""
    return make(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def run_copy(made_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def dense_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each other kind of answers. Tests may write their reports and cards."""
    root = tmp_path_factory.mktemp("runs")
    for answers in WORDS:
        make_dense(root / answers, answers)
    return root


@pytest.fixture(params=WORDS)
def dense_run(request: pytest.FixtureRequest, dense_runs: Path) -> Path:
    """One of these after the other."""
    return dense_runs / str(request.param)


@pytest.fixture
def dense_copy(dense_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(dense_run, tmp_path / dense_run.name))
