"""A budget through the command: planned before training, chosen, met, missed, or refused at once."""

from __future__ import annotations

import json

import pytest
from kit.command import QUICK, stillroom

ONE = {"OMP_NUM_THREADS": "1"}
QUICKER = [*QUICK, "baseline=false", "name=small"]


def test_the_mildest_that_fits_is_chosen_and_proved(tmp_path):
    """A resnet8's float file has about 300 kB, its int8 file less than 100.

    Sixty steps: after twelve so many answers are close calls that the int8 file passes its gate or not by how a
    processor's kernels round.
    """
    words = [*QUICKER, "train.steps=60", "train.checkpoint_seconds=60", "deploy.size_mb=0.2"]
    stillroom("run", *words, cwd=tmp_path, **ONE)
    folder = tmp_path / "runs" / "small"
    info, metrics = (json.loads((folder / name).read_text()) for name in ("run.json", "metrics.json"))
    rows = info["chosen"]["table"]
    assert [(row["what"], row["meets"], row.get("chosen", False)) for row in rows] == [
        ("float", False, False),
        ("int8", True, True),
    ]
    assert [row["stage"] for row in info["compress"]] == ["distilled", "student"]
    assert metrics["target"]["met"] and metrics["target"]["file"] == "onnx-8"
    assert metrics["target"]["found"]["size_mb"]["value"] < 0.2 and info["status"] == "done"
    assert [(row["target"], row["bits"]) for row in metrics["exports"]] == [("onnx", 8)]
    assert "0.2" in (folder / "report.html").read_text()


def test_a_missed_budget_ends_with_eight_and_keeps_everything(tmp_path):
    """The file's gate is open: close calls, which twelve steps leave many of, must not hide that it is too slow."""
    words = [*QUICKER, "compress=quantize", "deploy.latency_ms=1e-6", "export=[{bits = 8, agreement = 0.0}]"]
    done = stillroom("run", *words, cwd=tmp_path, code=8, **ONE)
    assert "SR-B930" in done.stderr and "1e-06 ms" in done.stderr
    folder = tmp_path / "runs" / "small"
    info, metrics = (json.loads((folder / name).read_text()) for name in ("run.json", "metrics.json"))
    assert (info["status"], info["exit_code"]) == ("missed", 8) and not metrics["target"]["met"]
    assert (folder / "report.html").is_file() and "MISSED" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_what_nothing_meets_is_refused_before_training(tmp_path):
    done = stillroom("run", *QUICKER, "deploy.latency_ms=1e-6", "deploy.bits=[8]", cwd=tmp_path, code=8, **ONE)
    assert "SR-B931" in done.stderr and "nothing was trained" in done.stderr and "int8, 15% of the MACs" in done.stderr
    assert not list((tmp_path / "runs" / "small").glob("*.safetensors"))


@pytest.mark.slow
def test_plan_says_whether_it_can_be_met(tmp_path):
    done = stillroom("plan", *QUICKER, "deploy.size_mb=0.2", "deploy.bits=[8]", "--json", cwd=tmp_path, **ONE)
    target = json.loads(done.stdout)["target"]
    assert target["satisfiable"] and target["chosen"] == "int8" and target["limits"] == "0.2 MB"
    assert target["candidates"][0]["chosen"] and len(target["candidates"]) == 2
    assert target["candidates"][1]["macs"] < target["candidates"][0]["macs"]
