"""What happened while training, thinned to what a chart can show: `steps.jsonl` and `evals.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.report.format import number

BUCKETS = 160  # about one for every two pixels of a curve


@dataclass(frozen=True)
class Bucket:
    """Neighbouring steps as one mark: the mean of their values, and how far these reach."""

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
class Stage:
    """Raw numbers of one stage: step -> value, None where it was not finite."""

    terms: dict[str, dict[int, float | None]] = field(default_factory=dict)
    rate: dict[int, float | None] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class History:
    """All curves of a run.

    Attributes:
        terms: name of a raw loss term -> one curve for every stage that has it.
        rates: learning rate, a curve for every stage.
        scores: the headline figure on the validation split, a curve for every stage.
        weights: stage -> group of terms -> the weight it had at the end.
        skipped: stage -> number of steps left out because they were not finite.
        steps: stage -> number of steps seen.
    """

    terms: dict[str, list[Curve]]
    rates: list[Curve]
    scores: list[Curve]
    weights: dict[str, dict[str, float]]
    skipped: dict[str, int]
    steps: dict[str, int]


def read(folder: Path) -> History:
    """The curves of the run in `folder`; a line that a killed process tore is left out."""
    stages: dict[str, Stage] = {}
    for line in _lines(folder, "steps.jsonl"):
        _add(stages.setdefault(str(line.get("stage")), Stage()), line)
    names = dict.fromkeys(name for stage in stages.values() for name in stage.terms)
    terms = {name: _curves({key: stage.terms.get(name, {}) for key, stage in stages.items()}) for name in names}
    return History(
        terms={name: curves for name, curves in terms.items() if curves},
        rates=_curves({key: stage.rate for key, stage in stages.items()}),
        scores=_scores(folder),
        weights={key: stage.weights for key, stage in stages.items()},
        skipped={key: len(stage.skipped) for key, stage in stages.items() if stage.skipped},
        steps={key: len(stage.rate) for key, stage in stages.items()},
    )


def thin(values: dict[int, float | None], most: int = BUCKETS) -> tuple[Bucket, ...]:
    """At most `most` buckets of neighbouring steps; what is not finite is left out."""
    steps = [step for step in sorted(values) if values[step] is not None]
    found = []
    for place in range(min(most, len(steps))):
        part = steps[place * len(steps) // min(most, len(steps)) : (place + 1) * len(steps) // min(most, len(steps))]
        held = [value for step in part if (value := values[step]) is not None]
        found.append(Bucket((part[0] + part[-1]) / 2, sum(held) / len(held), min(held), max(held)))
    return tuple(found)


def _add(stage: Stage, line: dict[str, Any]) -> None:
    step = number(line.get("step"))
    if step is None:
        return
    at = int(step)
    # A resumed run repeats the steps after its last checkpoint: the later line is the one that counted.
    stage.rate[at] = number(line.get("lr"))
    for name, value in _table(line.get("terms")).items():
        stage.terms.setdefault(name, {})[at] = number(value)
    weights = {name: number(value) for name, value in _table(line.get("weights")).items()}
    stage.weights = {name: value for name, value in weights.items() if value is not None} or stage.weights
    (stage.skipped.add if line.get("skipped") is True else stage.skipped.discard)(at)


def _scores(folder: Path) -> list[Curve]:
    seen: dict[str, dict[int, float | None]] = {}
    for line in _lines(folder, "evals.jsonl"):
        step = number(line.get("step"))
        if line.get("split") == "val" and step is not None:
            seen.setdefault(str(line.get("stage")), {})[int(step)] = number(line.get("score", line.get("accuracy")))
    return _curves(seen)


def _curves(stages: dict[str, dict[int, float | None]]) -> list[Curve]:
    curves = [Curve(stage, thin(values)) for stage, values in stages.items()]
    return [curve for curve in curves if curve.buckets]


def _table(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    # `run.read_stream` does nearly this, but `run` needs torch, and a report must not.
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
