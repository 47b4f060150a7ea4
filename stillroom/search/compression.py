"""A budget as the input: which compression meets it, measured before anything is trained.

What a file's speed and size depend on is the form of the network, not what it has learnt. So candidates are made of the
untrained student, exported, and run on the device; the first that keeps within the budget, from the mildest on, is what
the student will be made into. Whether it then knows enough, training says.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.benchmark.target import MEGABYTE, describe_device, describe_limits, measure_on_device, number, within
from stillroom.config import device_profile
from stillroom.config import recipe as recipes
from stillroom.config.plugins import pick
from stillroom.config.schema import Recipe, Target
from stillroom.data import sampling
from stillroom.export import artifact, runtime
from stillroom.io.run_dir import RunDir
from stillroom.models.network import Network
from stillroom.search.errors import NoCompressionWithinLimits
from stillroom.stages import compress
from stillroom.stages.train import Stages
from stillroom.tasks.predictor import Predictor

log = logging.getLogger("stillroom")

SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)  # of the student's MACs that stay, the mildest first
CALIBRATION = 32  # images: a candidate's ranges need not be good, only there


@dataclass(frozen=True)
class Candidate:
    """A way to make the student smaller: a share of its MACs, and the bits of the file."""

    share: float
    bits: int

    @property
    def what(self) -> str:
        """As a person would say it."""
        words = {32: "float", 8: "int8", 4: "4-bit weights"}[self.bits]
        return words if self.share == 1 else f"{words}, {self.share:.0%} of the MACs"

    @property
    def compress(self) -> list[dict[str, Any]]:
        """As `[[compress]]` says it."""
        prune: list[dict[str, Any]] = [{"name": "prune", "macs": self.share}] if self.share < 1 else []
        rounded: dict[int, dict[str, Any]] = {8: {}, 4: {"bits": 4, "weights_only": True}}
        return prune + ([{"name": "quantize"} | rounded[self.bits]] if self.bits in rounded else [])


def candidates(target: Target) -> list[Candidate]:
    """The mildest first: pruning costs more than rounding does. Bits that the runtime's files can't hold are none."""
    able = set(target.bits) & set(runtime.find(target.runtime).bits)
    return [Candidate(share, bits) for share in SHARES for bits in sorted(able, reverse=True)]


def resolve_target(stages: Stages) -> Recipe:
    """The recipe with all that its target asks for: the compression, unless it names one, and a file to be held to it.

    What was chosen is kept in `run.json`, so that a resume goes on with the same, and so do the recipe's other seeds.

    Raises:
        NoCompressionWithinLimits: SR-B931 nothing that is tried keeps within the budget; nothing was trained.
    """
    recipe, run = stages.recipe, stages.run
    if recipe.target is None:
        return recipe
    target = device_profile.with_profile(recipe.target)
    recipe = replace(recipe, target=target)
    if recipe.compress:
        return _with_files(recipe, target, [8] if 8 in target.bits else list(target.bits))
    known = run.info.get("chosen") or _chosen_by_another_seed(run)
    if known is None and stages.engine.first:
        rows = list(measure_candidates(stages, target, enough=1))
        best = next((row for row in rows if row["meets"]), None)
        if best is None:
            raise NoCompressionWithinLimits(
                limits=describe_limits(target), rows=_lines(rows), where=describe_device(target)
            )
        best["chosen"] = True
        known = {
            "why": f"the mildest that keeps within {describe_limits(target)} on {describe_device(target)}",
            "table": rows,
        }
    if known:
        run.note(chosen=known)
    stages.engine.barrier()
    known = known or run.info["chosen"]
    row = next(row for row in known["table"] if row.get("chosen"))
    chosen = Candidate(row["share"], row["bits"])
    log.info("target: %s, because it is %s", chosen.what, known["why"])
    given = recipe.as_dict() | {"compress": chosen.compress}
    return _with_files(replace(recipe, compress=recipes.check(given).compress), target, [chosen.bits])


def _chosen_by_another_seed(run: RunDir) -> dict[str, Any] | None:
    if run.info.get("students", 1) == 1:
        return None
    others = sorted(run.folder.parent.glob("seed-*/run.json"))
    return next((chosen for path in others if (chosen := RunDir(path.parent).info.get("chosen"))), None)


def _with_files(recipe: Recipe, target: Target, bits: Sequence[int]) -> Recipe:
    """The recipe, with a file for the target's runtime among those that it makes."""
    there = {(one.target, one.bits) for one in recipe.export}
    wanted = [{"target": target.runtime, "bits": n} for n in bits if (target.runtime, n) not in there]
    given = recipe.as_dict()
    more = recipes.check(given | {"export": [*given["export"], *wanted]}).export
    return replace(recipe, export=more)


def measure_candidates(stages: Stages, target: Target, *, enough: int | None = None) -> Iterator[dict[str, Any]]:
    """Candidates as they measure on the device, the mildest first, until `enough` of them keep within the budget."""
    met = 0
    for candidate in candidates(target):
        row = measure_candidate(stages, target, candidate)
        log.info("target: %s: %s", candidate.what, _line(row))
        yield row
        met += row["meets"]
        if enough and met >= enough:
            return


def measure_candidate(stages: Stages, target: Target, candidate: Candidate) -> dict[str, Any]:
    """What a candidate made of the untrained student comes to."""
    student = stages.untrained()
    network = _formed(stages, student, candidate)
    images = sampling.sample_images(stages.data.splits["train"], CALIBRATION)
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        kind = runtime.find(target.runtime)
        path = kind.write(
            Predictor(network, stages.task),
            Path(folder, f"candidate{kind.suffixes[0]}"),
            example=images[:1],
            classes=stages.data.classes,
            bits=candidate.bits,
            calibration=[images] if candidate.bits == 8 else (),
            task=stages.task,
        )
        size = artifact.ExportedFile(target=target.runtime, bits=candidate.bits, path=path, gate=0.0).bytes
        time = measure_on_device(path, target.runtime, target, images[:1])["latency_ms"]
    median = number(time)
    upper = time.ci95[1] if time.ci95 else median
    return {
        "what": candidate.what,
        "share": candidate.share,
        "bits": candidate.bits,
        "macs": stages.macs(network),
        "size_mb": size / MEGABYTE,
        "latency_ms": median,
        "latency_upper_ms": upper,
        "meets": within(target, latency_ms=upper, size_mb=size / MEGABYTE),
    }


def _formed(stages: Stages, student: Network, candidate: Candidate) -> Network:
    """The untrained student in a candidate's form; how its weights are rounded changes neither speed nor size."""
    if candidate.share == 1:
        return student
    return pick("compress", "prune")(macs=candidate.share).shrink(student, compress.view(stages, None), 1)


def _line(row: dict[str, Any]) -> str:
    return f"{row['latency_ms']:.3g} ms, {row['size_mb']:.3g} MB, {'within' if row['meets'] else 'beyond'} the budget"


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{row['what']}: {_line(row)}" for row in rows)
