"""Runs of one recipe, a seed each, as figures of all of them: how far seeds differ, and what the teacher added.

Only what the seeds' own folders say is read; nothing is measured again.
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

from scipy.special import stdtrit

from stillroom.errors import StillroomError
from stillroom.report import folder
from stillroom.report.about import About
from stillroom.report.errors import NoFinishedSeed, NotARunFolder
from stillroom.report.folder import ROLES, Folder, Speaker
from stillroom.report.table import CHECKED, ELSEWHERE


def half(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean: t s / sqrt(n), with s over n - 1 and Student's t with n - 1 degrees.

    Source: Student 1908, https://doi.org/10.1093/biomet/6.1.1

    Args:
        values: two or more.
    """
    return reach(len(values)) * stdev(values) / sqrt(len(values))


def reach(count: int) -> float:
    """How many standard errors the 95 % interval of a mean of `count` values reaches: 12.7 of 2, 4.3 of 3."""
    return float(stdtrit(count - 1, 0.975))


@dataclass(frozen=True)
class Spread:
    """One figure over seeds.

    Attributes:
        values: seed -> value; at least one.
        how: how each of them was measured.
        kind: of an energy "measured" or "estimated", of a Performance-Cost Ratio what it is counted in; both where
            seeds differ.
    """

    values: dict[int, float]
    how: str = ""
    kind: str = ""

    @property
    def mean(self) -> float:
        """Of the values."""
        return mean(self.values.values())

    @property
    def sd(self) -> float | None:
        """Their standard deviation, with n - 1; None for one value."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest."""
        return min(self.values.values()), max(self.values.values())

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, see `half`; None for one value."""
        if len(self.values) < 2:
            return None
        middle, reaches = self.mean, half(list(self.values.values()))
        return middle - reaches, middle + reaches

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`: `value` is the mean."""
        sd = {} if self.sd is None else {"sd": self.sd}
        single = {str(seed): value for seed, value in self.values.items()}
        return {"value": self.mean, **sd, "least": self.ends[0], "greatest": self.ends[1], "values": single}


@dataclass(frozen=True)
class Seeds:
    """A folder with a run in `seed-N` for each seed of its recipe.

    Attributes:
        path: the folder.
        name: the recipe's.
        recipe: as it was written.
        asked: the recipe's seeds.
        runs: seed -> its folder, for those that were begun.
    """

    path: Path
    name: str
    recipe: str
    asked: tuple[int, ...]
    runs: dict[int, Folder]

    @cached_property
    def measured(self) -> dict[int, Folder]:
        """The runs that have come to their figures."""
        return {seed: run for seed, run in self.runs.items() if run.leads(run.speaker("student")) is not None}

    @property
    def first(self) -> Folder:
        """The first of these, whose words stand for all; one recipe made them."""
        return next(iter(self.measured.values()))

    @property
    def about(self) -> About:
        """What the task is called, and which figure leads."""
        return self.first.about

    @cached_property
    def speakers(self) -> tuple[Speaker, ...]:
        """Teacher, baseline, student and files, as the first run has them."""
        return self.first.speakers

    def spread(self, speaker: str, name: str) -> Spread | None:
        """A figure of a speaker over the seeds that measured it; None where nobody did, or it is not one number."""
        said = {seed: run.speaker(speaker) for seed, run in self.measured.items()}
        found = {seed: one.value(name) for seed, one in said.items() if one}
        values = {seed: value for seed, value in found.items() if value is not None}
        figures = [one.figures[name] for one in said.values() if one and name in one.figures]
        kinds = {figure.source or figure.cost for figure in figures}
        kind = " and ".join(sorted(kinds - {""}))
        return Spread(values, next((figure.how for figure in figures), ""), kind) if values else None

    def on_front(self, speaker: str) -> list[int] | None:
        """The seeds in which it is on the Pareto front; None where that was never asked."""
        said = {seed: one.front for seed, run in self.measured.items() if (one := run.speaker(speaker))}
        asked = any(front is not None for front in said.values())
        return [seed for seed, front in said.items() if front] if asked else None

    def gain(self, name: str) -> Spread | None:
        """Student minus untaught student of the same seed; None where no seed has both."""
        taught, untaught = self.spread("student", name), self.spread("baseline", name)
        if taught is None or untaught is None:
            return None
        both = {seed: taught.values[seed] - untaught.values[seed] for seed in taught.values if seed in untaught.values}
        return Spread(both) if both else None

    def shares(self) -> list[str]:
        """The figures in 0..1 that all networks have in all seeds, the leading one first."""
        lead, networks = self.about.headline, [role for role in ROLES if self.first.speaker(role)]
        skipped = ELSEWHERE | CHECKED | {lead}
        names = [lead, *(name for name in self.first.speakers[0].figures if name not in skipped)]
        found = {name: [self.spread(role, name) for role in networks] for name in names}
        return [name for name, spreads in found.items() if all(one and _is_share(one) for one in spreads)]

    def unverified(self, file: str) -> list[int]:
        """The seeds whose file of that name failed its check."""
        said = {seed: run.speaker(file) for seed, run in self.measured.items()}
        return [seed for seed, one in said.items() if one and not one.verified]

    def teachers(self) -> list[int | None]:
        """Whose teachers taught: seeds; None for one that came as it is, and was nobody's."""
        return list(
            dict.fromkeys(run.run.get("teacher_of_seed", _own(seed, run)) for seed, run in self.measured.items())
        )

    def missing(self) -> dict[int, dict[str, Any]]:
        """Seed -> how far it came, for those without figures."""
        runs = {seed: self.runs[seed].run if seed in self.runs else {} for seed in self.asked}
        return {
            seed: {"status": run.get("status", "not begun"), "exit_code": run.get("exit_code")}
            for seed, run in runs.items()
            if seed not in self.measured
        }

    def metrics(self) -> dict[str, Any]:
        """`metrics.json` of all seeds: in the shape of a run's, each figure with its mean as `value`."""
        found: dict[str, Any] = {"seeds": list(self.measured)}
        found |= {"missing": {str(seed): how for seed, how in self.missing().items()}} if self.missing() else {}
        found |= {one.key: self._figures(one) for one in self.speakers if one.role not in ("file", "stage")}
        stages = [one for one in self.speakers if one.role == "stage"]
        found |= (
            {"stages": [{"stage": one.key, "what": one.what} | self._figures(one) for one in stages]} if stages else {}
        )
        found["exports"] = [
            {"target": one.target, "bits": one.bits, "verified": not self.unverified(one.key)}
            | {"unverified_seeds": self.unverified(one.key)}
            | self._figures(one)
            for one in self.speakers
            if one.role == "file"
        ]
        gains = {name: self.gain(name) for name in self.shares()}
        found["gain"] = {name: _paired(gain) for name, gain in gains.items() if gain}
        return found

    def _figures(self, speaker: Speaker) -> dict[str, Any]:
        found = {name: self.spread(speaker.key, name) for name in speaker.figures}
        count = f"mean over {len(self.measured)} seeds; of each"
        said = {name: one.as_dict() | {"how": f"{count}: {one.how}"} for name, one in found.items() if one}
        front = self.on_front(speaker.key)
        return said if front is None else said | {"front_seeds": front}


def there(path: Path) -> bool:
    """Whether the folder at `path` is that of several seeds."""
    recipe, run = path / "recipe.toml", path / "run.json"
    return recipe.is_file() and not run.exists() and len(tomllib.loads(recipe.read_text("utf-8")).get("seeds", [])) > 1


def read(path: Path) -> Seeds:
    """The folder at `path`.

    Raises:
        StillroomError: SR-C460 it is not a folder of several seeds; SR-C461 one of their files is spoilt.
    """
    if not there(path):
        raise NotARunFolder(folder=path)
    text = (path / "recipe.toml").read_text(encoding="utf-8")
    recipe = tomllib.loads(text)
    asked, name = tuple(recipe["seeds"]), str(recipe.get("name") or path.resolve().name)
    folders = {seed: path / f"seed-{seed}" for seed in asked}
    runs = {seed: folder.read(place) for seed, place in folders.items() if (place / "run.json").is_file()}
    return Seeds(path, name, text, asked, runs)


def unmeasured(path: Path) -> StillroomError:
    """What to say where no seed has come to its figures."""
    missing = read(path).missing()
    return NoFinishedSeed(
        folder=path, seeds=", ".join(f"seed {seed}: {how['status']}" for seed, how in missing.items())
    )


def _is_share(spread: Spread) -> bool:
    return spread.ends[0] >= 0 and spread.ends[1] <= 1


def _own(seed: int, run: Folder) -> int | None:
    """Its own seed, for a run that trained its teacher."""
    return seed if any(stage.startswith("teacher") for stage in run.part("stages")) else None


def _paired(gain: Spread) -> dict[str, Any]:
    how = "student minus the untaught student of the same seed"
    interval = f"; 95 % interval of the mean, Student's t with {len(gain.values) - 1} degrees of freedom"
    ends = {"ci95": list(gain.ci95)} if gain.ci95 else {}
    return gain.as_dict() | ends | {"how": how + (interval if ends else "")}
