"""Runs of one recipe with different seeds: statistics over the seeds, and the gain over the baseline, paired by seed.

Reads the files of the seeds' own folders; nothing is measured again.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtr, stdtrit

from stillroom.errors import StillroomError
from stillroom.report import run_data
from stillroom.report.errors import NoFinishedSeed, NotARunFolder
from stillroom.report.run_data import ROLES, ModelResult, RunData
from stillroom.report.table import VERIFICATION, WITH_COLUMN
from stillroom.report.task_description import TaskDescription


def ci_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean: t s / sqrt(n), with s over n - 1 and Student's t with n - 1 degrees.

    Source: Student 1908, https://doi.org/10.1093/biomet/6.1.1

    Args:
        values: two or more.
    """
    return t_quantile(len(values)) * stdev(values) / sqrt(len(values))


def t_quantile(count: int) -> float:
    """Half of the 95 % interval of a mean of `count` values in standard errors: 12.7 for 2, 4.3 for 3."""
    return float(stdtrit(count - 1, 0.975))


@dataclass(frozen=True)
class SeedStatistics:
    """One metric over seeds.

    Attributes:
        values: seed -> value; at least one.
        how: how each of them was measured.
        kind: of an energy "measured" or "estimated", of a Performance-Cost Ratio its cost; both if seeds differ.
    """

    values: dict[int, float]
    how: str = ""
    kind: str = ""

    @property
    def p(self) -> float | None:
        """Of the paired t test, for values that are differences: that their mean is 0; None for one seed.

        p = 2 P(T <= -|mean| sqrt(n) / s),  T of Student's t with n - 1 degrees
        """
        values = list(self.values.values())
        if len(values) < 2 or not stdev(values):
            return None
        return float(2 * stdtr(len(values) - 1, -abs(self.mean) * sqrt(len(values)) / stdev(values)))

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return mean(self.values.values())

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds, with n - 1; None for one value."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def range(self) -> tuple[float, float]:
        """Minimum and maximum."""
        return min(self.values.values()), max(self.values.values())

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, see `ci_half_width`; None for one value."""
        if len(self.values) < 2:
            return None
        middle, half = self.mean, ci_half_width(list(self.values.values()))
        return middle - half, middle + half

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`: `value` is the mean."""
        sd = {} if self.sd is None else {"sd": self.sd}
        single = {str(seed): value for seed, value in self.values.items()}
        return {"value": self.mean, **sd, "least": self.range[0], "greatest": self.range[1], "values": single}


@dataclass(frozen=True)
class MultiSeedResults:
    """A folder with a run in `seed-N` for each seed of its recipe.

    Attributes:
        path: the folder.
        name: the recipe's.
        recipe: as text.
        seeds: of the recipe.
        runs: seed -> its run, for those that have started.
    """

    path: Path
    name: str
    recipe: str
    seeds: tuple[int, ...]
    runs: dict[int, RunData]

    @cached_property
    def measured(self) -> dict[int, RunData]:
        """The runs that have results."""
        return {seed: run for seed, run in self.runs.items() if run.headline(run.model("student")) is not None}

    @property
    def first(self) -> RunData:
        """The first of these; what depends on the recipe only is read from it."""
        return next(iter(self.measured.values()))

    @property
    def task(self) -> TaskDescription:
        """The task of the recipe."""
        return self.first.task

    @property
    def models(self) -> tuple[ModelResult, ...]:
        """Teacher, baseline, student and files, in the order of the first run."""
        return self.first.models

    def statistics(self, key: str, name: str) -> SeedStatistics | None:
        """A metric of a model over the seeds that measured it; None if none did, or if it is not one number."""
        models = {seed: run.model(key) for seed, run in self.measured.items()}
        found = {seed: model.value(name) for seed, model in models.items() if model}
        values = {seed: value for seed, value in found.items() if value is not None}
        metrics = [model.metrics[name] for model in models.values() if model and name in model.metrics]
        kinds = {metric.source or metric.cost for metric in metrics}
        kind = " and ".join(sorted(kinds - {""}))
        return SeedStatistics(values, next((metric.how for metric in metrics), ""), kind) if values else None

    def front_seeds(self, key: str) -> list[int] | None:
        """The seeds in which a model is on the Pareto front; None if the runs have no front."""
        fronts = {seed: model.front for seed, run in self.measured.items() if (model := run.model(key))}
        has_front = any(front is not None for front in fronts.values())
        return [seed for seed, front in fronts.items() if front] if has_front else None

    def gain(self, name: str) -> SeedStatistics | None:
        """Student minus baseline of the same seed; None if no seed has both."""
        student, baseline = self.statistics("student", name), self.statistics("baseline", name)
        if student is None or baseline is None:
            return None
        seeds = [seed for seed in student.values if seed in baseline.values]
        gains = {seed: student.values[seed] - baseline.values[seed] for seed in seeds}
        return SeedStatistics(gains) if gains else None

    def common_metrics(self) -> list[str]:
        """The metrics in 0..1 that all networks have in all seeds, the headline metric first."""
        headline, networks = self.task.headline, [role for role in ROLES if self.first.model(role)]
        skipped = WITH_COLUMN | VERIFICATION | {headline}
        names = [headline, *(name for name in self.first.models[0].metrics if name not in skipped)]
        found = {name: [self.statistics(role, name) for role in networks] for name in names}
        return [name for name, each in found.items() if all(one and _is_share(one) for one in each)]

    def unverified_seeds(self, file: str) -> list[int]:
        """The seeds whose file of that name failed verification."""
        models = {seed: run.model(file) for seed, run in self.measured.items()}
        return [seed for seed, model in models.items() if model and not model.verified]

    def teacher_seeds(self) -> list[int | None]:
        """The seeds whose runs trained a teacher that was used; None stands for a teacher with given weights."""
        found = [run.info.get("teacher_of_seed", _own_teacher(seed, run)) for seed, run in self.measured.items()]
        return list(dict.fromkeys(found))

    def missing(self) -> dict[int, dict[str, Any]]:
        """Seed -> status, of those without results."""
        runs = {seed: self.runs[seed].info if seed in self.runs else {} for seed in self.seeds}
        return {
            seed: {"status": run.get("status", "not started"), "exit_code": run.get("exit_code")}
            for seed, run in runs.items()
            if seed not in self.measured
        }

    def metrics(self) -> dict[str, Any]:
        """`metrics.json` of all seeds: in the shape of a run's, each metric with its mean as `value`."""
        found: dict[str, Any] = {"seeds": list(self.measured)}
        found |= {"missing": {str(seed): status for seed, status in self.missing().items()}} if self.missing() else {}
        found |= {model.key: self._row(model) for model in self.models if model.role not in ("file", "stage")}
        stages = [model for model in self.models if model.role == "stage"]
        found |= {"stages": [{"stage": one.key, "what": one.what} | self._row(one) for one in stages]} if stages else {}
        found["exports"] = [
            {"target": model.target, "bits": model.bits, "verified": not self.unverified_seeds(model.key)}
            | {"unverified_seeds": self.unverified_seeds(model.key)}
            | self._row(model)
            for model in self.models
            if model.role == "file"
        ]
        gains = {name: self.gain(name) for name in self.common_metrics()}
        found["gain"] = {name: _gain_record(gain) for name, gain in gains.items() if gain}
        return found

    def _row(self, model: ModelResult) -> dict[str, Any]:
        found = {name: self.statistics(model.key, name) for name in model.metrics}
        how = f"mean over {len(self.measured)} seeds; of each"
        row = {name: one.as_dict() | {"how": f"{how}: {one.how}"} for name, one in found.items() if one}
        seeds = self.front_seeds(model.key)
        return row if seeds is None else row | {"front_seeds": seeds}


def is_multi_seed(path: Path) -> bool:
    """Whether the folder at `path` holds runs of several seeds."""
    recipe, run = path / "recipe.toml", path / "run.json"
    return recipe.is_file() and not run.exists() and len(tomllib.loads(recipe.read_text("utf-8")).get("seeds", [])) > 1


def read(path: Path) -> MultiSeedResults:
    """The folder at `path`.

    Raises:
        NotARunFolder: SR-C460, it does not hold runs of several seeds.
        UnreadableRunFile: SR-C461.
    """
    if not is_multi_seed(path):
        raise NotARunFolder(folder=path)
    text = (path / "recipe.toml").read_text(encoding="utf-8")
    recipe = tomllib.loads(text)
    seeds, name = tuple(recipe["seeds"]), str(recipe.get("name") or path.resolve().name)
    folders = {seed: path / f"seed-{seed}" for seed in seeds}
    runs = {seed: run_data.read(folder) for seed, folder in folders.items() if (folder / "run.json").is_file()}
    return MultiSeedResults(path, name, text, seeds, runs)


def no_results(path: Path) -> StillroomError:
    """The error for a folder in which no seed has results."""
    missing = read(path).missing()
    statuses = ", ".join(f"seed {seed}: {record['status']}" for seed, record in missing.items())
    return NoFinishedSeed(folder=path, seeds=statuses)


def _is_share(metric: SeedStatistics) -> bool:
    return metric.range[0] >= 0 and metric.range[1] <= 1


def _own_teacher(seed: int, run: RunData) -> int | None:
    """Its own seed, for a run that trained its teacher."""
    return seed if any(stage.startswith("teacher") for stage in run.section("stages")) else None


def _gain_record(gain: SeedStatistics) -> dict[str, Any]:
    how = "student minus baseline of the same seed"
    interval = f"; 95 % interval of the mean, Student's t with {len(gain.values) - 1} degrees of freedom"
    ends = {"ci95": list(gain.ci95)} if gain.ci95 else {}
    return gain.as_dict() | ends | {"how": how + (interval if ends else "")}
