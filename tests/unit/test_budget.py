"""A budget: which candidates there are, and who is said to keep within it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stillroom.benchmark import target
from stillroom.config import recipe
from stillroom.config.schema import Deploy
from stillroom.errors import Exit
from stillroom.export import artifact
from stillroom.metrics.measurement import Measurement
from stillroom.search import compression
from stillroom.search.compression import Candidate
from stillroom.stages import compress

LEAST = {"data": "digits", "teacher": "resnet20", "student": "resnet8"}


def test_the_mildest_comes_first():
    found = compression.candidates(Deploy())
    assert found[:4] == [Candidate(1.0, 32), Candidate(1.0, 8), Candidate(0.75, 32), Candidate(0.75, 8)]
    assert [one.bits for one in compression.candidates(Deploy(bits=(8,)))] == [8] * len(compression.SHARES)


def test_a_candidate_is_a_compression_that_a_recipe_takes():
    """Its sections are those that a recipe would be read as, with the training that they inherit."""
    for training in ({"epochs": 12}, {"steps": 100, "lr": 0.03}):
        for candidate in compression.candidates(Deploy(bits=(32, 8, 4))):
            one = recipe.check(LEAST | {"train": training})
            sections = candidate.sections(one.train)
            written = [{"name": section.name} | section.arguments for section in sections]
            assert sections == recipe.check(LEAST | {"train": training, "compress": written}).compress
            assert [s.name for s in sections] == ["prune"] * (candidate.share < 1) + ["quantize"] * (
                candidate.bits < 32
            )


@pytest.mark.parametrize(
    ("limits", "meets"),
    [
        ({}, True),
        ({"latency_ms": 2.0}, True),
        ({"latency_ms": 1.9}, False),
        ({"size_mb": 1.0}, True),
        ({"latency_ms": 5.0, "size_mb": 0.9}, False),
    ],
)
def test_what_is_not_limited_is_free(limits, meets):
    assert target.within(Deploy(**limits), latency_ms=2.0, size_mb=1.0) is meets


def row(accuracy, size, verified=True):
    return {"accuracy": {"value": accuracy}, "bytes": {"value": size}, "verified": verified}


@pytest.fixture
def timed(monkeypatch):
    """Files that take as many milliseconds as their names say."""

    def on_device(path, runtime, target, example, seconds=1.0):
        return {"latency_ms": Measurement(value=float(path.stem), how="made up")}

    monkeypatch.setattr(target, "measure_on_device", on_device)


def files(*times, target="onnx"):
    return [
        artifact.ExportedFile(runtime=target, bits=bits, path=Path(f"{time}.onnx"), gate=0.9)
        for bits, time in zip((32, 8), times, strict=True)
    ]


def test_of_those_within_the_best_counts(timed):
    rows = [row(0.9, 2e6), row(0.8, 5e5)]
    said, missed = target.check_files(Deploy(latency_ms=6), files(5, 3), rows, torch.zeros(1), "accuracy")
    assert said["met"] and missed is None and said["file"] == "onnx-32" and said["found"]["latency_ms"]["value"] == 5
    said, missed = target.check_files(Deploy(latency_ms=4), files(5, 3), rows, torch.zeros(1), "accuracy")
    assert said["met"] and said["file"] == "onnx-8" and said["found"]["size_mb"]["value"] == 0.5


def test_a_missed_target_ends_with_eight(timed):
    said, missed = target.check_files(
        Deploy(latency_ms=2, size_mb=1), files(5, 3), [row(0.9, 2e6), row(0.8, 5e5)], torch.zeros(1), "accuracy"
    )
    assert not said["met"] and said["file"] == "onnx-8" and said["limits"] == {"latency_ms": 2, "size_mb": 1}
    assert missed.code == "SR-B930" and missed.exit == Exit.TARGET_MISSED == 8 and "3 ms" in str(missed)


def test_an_unverified_file_meets_nothing(timed):
    rows = [row(0.9, 2e6), row(0.8, 5e5, verified=False)]
    said, missed = target.check_files(Deploy(latency_ms=4), files(5, 3), rows, torch.zeros(1), "accuracy")
    assert not said["met"] and said["file"] == "onnx-32" and missed
    said, missed = target.check_files(Deploy(runtime="openvino"), files(5, 3), rows, torch.zeros(1), "accuracy")
    assert not said["met"] and "no file for openvino was verified" in said["why"] and missed


def test_stages_have_names_of_their_own():
    made = recipe.check(LEAST | {"compress": "prune, quantize, prune, prune, quantize"}).compress
    assert compress.stage_names(made) == ["distilled", "prune", "quantize", "prune-2", "prune-3", "student"]
    assert compress.stage_names(()) == ["student"] and compress.stage_descriptions(())["student"] == "distilled"
    said = compress.stage_descriptions(
        recipe.check(LEAST | {"compress": [{"name": "prune", "macs": 0.4, "distill": False}]}).compress
    )
    assert said == {"distilled": "distilled", "student": "prune, macs=0.4, without the teacher"}
