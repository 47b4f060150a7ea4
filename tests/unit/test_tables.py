"""Tables on the terminal of a run with compression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.compressed import CANDIDATES, make_compressed

from stillroom.cli import tables

pytest_plugins = ["kit.fixtures"]


@pytest.fixture(scope="module")
def missed(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_compressed(made_run, tmp_path_factory.mktemp("runs") / "missed", met=False)


def test_the_terminal_shows_stages_files_and_the_verdict(missed: Path) -> None:
    metrics = json.loads((missed / "metrics.json").read_text())
    shown = tables.results(metrics)
    assert list(shown.columns[0].cells)[:6] == ["teacher", "baseline", "distilled", "prune", "student", "onnx, float"]
    assert list(shown.columns[7].cells)[5:] == ["yes", "yes", "yes", "NO", "yes", "yes"]
    assert "MISSED" in tables.deployment(metrics) and "\n" not in tables.deployment(metrics)
    assert tables.deployment({}) == ""
    plan = tables.candidates(CANDIDATES)
    assert list(plan.columns[5].cells) == ["", "chosen", ""] and "satisfiable: 1 of 3" in str(plan.caption)


def test_times_show_memory_and_energy_where_there_are_any(missed: Path) -> None:
    metrics = json.loads((missed / "metrics.json").read_text())
    rows = {"student": metrics["student"], "prune": metrics["stages"][1]}
    shown = tables.latencies(rows)
    assert [str(column.header) for column in shown.columns[5:]] == ["peak memory", "energy"]
    assert list(shown.columns[5].cells) == ["2.50 MB", "not measured"]
    assert list(shown.columns[6].cells) == ["2.00 mJ measured", "not measured"]
    assert len(tables.latencies({"prune": metrics["stages"][1]}).columns) == 5
