"""Loss terms, learning rate and validation scores by step, downsampled for a chart: `steps.jsonl` and `evals.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.report.format import number

MAX_BUCKETS = 160  # about one for every two pixels of a curve


@dataclass(frozen=True)
class Bucket:
    """Neighbouring steps as one point: mean and range of their values."""

    step: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    stage: str
    buckets: tuple[Bucket, ...]


@dataclass
class StageRecords:
    """The records of one stage: step -> value, None if it was not finite."""

    terms: dict[str, dict[int, float | None]] = field(default_factory=dict)
    rate: dict[int, float | None] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class TrainingHistory:
    """All curves of a run.

    Attributes:
        terms: name of an unweighted loss term -> a curve for every stage that has it.
        rates: learning rate, a curve for every stage.
        scores: the headline metric on the validation split, a curve for every stage.
        weights: stage -> group of terms -> its weight at the end.
        skipped: stage -> number of steps skipped because the loss was not finite.
        steps: stage -> number of recorded steps.
    """

    terms: dict[str, list[Curve]]
    rates: list[Curve]
    scores: list[Curve]
    weights: dict[str, dict[str, float]]
    skipped: dict[str, int]
    steps: dict[str, int]


def read(folder: Path) -> TrainingHistory:
    """The curves of the run in `folder`; a line cut off by a killed process is left out."""
    stages: dict[str, StageRecords] = {}
    for line in _lines(folder, "steps.jsonl"):
        _add(stages.setdefault(str(line.get("stage")), StageRecords()), line)
    names = dict.fromkeys(name for stage in stages.values() for name in stage.terms)
    terms = {name: _curves({key: stage.terms.get(name, {}) for key, stage in stages.items()}) for name in names}
    return TrainingHistory(
        terms={name: curves for name, curves in terms.items() if curves},
        rates=_curves({key: stage.rate for key, stage in stages.items()}),
        scores=_scores(folder),
        weights={key: stage.weights for key, stage in stages.items()},
        skipped={key: len(stage.skipped) for key, stage in stages.items() if stage.skipped},
        steps={key: len(stage.rate) for key, stage in stages.items()},
    )


def downsample(values: dict[int, float | None], max_buckets: int = MAX_BUCKETS) -> tuple[Bucket, ...]:
    """At most `max_buckets` buckets of neighbouring steps; values that are not finite are left out."""
    steps = [step for step in sorted(values) if values[step] is not None]
    count = min(max_buckets, len(steps))
    found = []
    for index in range(count):
        part = steps[index * len(steps) // count : (index + 1) * len(steps) // count]
        finite = [value for step in part if (value := values[step]) is not None]
        found.append(Bucket((part[0] + part[-1]) / 2, sum(finite) / len(finite), min(finite), max(finite)))
    return tuple(found)


def _add(stage: StageRecords, line: dict[str, Any]) -> None:
    value = number(line.get("step"))
    if value is None:
        return
    step = int(value)
    # A resumed run repeats the steps after its last checkpoint: the later line is the valid one.
    stage.rate[step] = number(line.get("lr"))
    for name, term in _table(line.get("terms")).items():
        stage.terms.setdefault(name, {})[step] = number(term)
    weights = {name: number(weight) for name, weight in _table(line.get("weights")).items()}
    stage.weights = {name: weight for name, weight in weights.items() if weight is not None} or stage.weights
    (stage.skipped.add if line.get("skipped") is True else stage.skipped.discard)(step)


def _scores(folder: Path) -> list[Curve]:
    found: dict[str, dict[int, float | None]] = {}
    for line in _lines(folder, "evals.jsonl"):
        step = number(line.get("step"))
        if line.get("split") == "val" and step is not None:
            found.setdefault(str(line.get("stage")), {})[int(step)] = number(line.get("score", line.get("accuracy")))
    return _curves(found)


def _curves(stages: dict[str, dict[int, float | None]]) -> list[Curve]:
    curves = [Curve(stage, downsample(values)) for stage, values in stages.items()]
    return [curve for curve in curves if curve.buckets]


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    # `run_dir.read_stream` does nearly this, but needs torch, which a report must not.
    if not (folder / name).is_file():
        return
    with (folder / name).open(encoding="utf-8", errors="replace") as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line
