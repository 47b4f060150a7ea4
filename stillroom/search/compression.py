"""The compression that keeps a device's limits, chosen by measuring files before anything is trained.

Speed and size of a file depend on the architecture, not on the values of the weights. So candidates are made from the
initial student, exported, and run on the device; the first that keeps the limits, starting with the mildest, is the
compression of the run. Its accuracy is known after training.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillroom.benchmark.target import (
    MEGABYTE,
    describe_device,
    describe_limits,
    measure_on_device,
    number,
    usable_bits,
    within,
)
from stillroom.config.plugins import pick
from stillroom.config.schema import Compress, Deploy, Export, Training
from stillroom.data.sampling import sample_images
from stillroom.export.artifact import ExportedFile
from stillroom.export.runtime import find
from stillroom.models.network import Network
from stillroom.search.errors import NoCompressionWithinLimits
from stillroom.stages.compress import compression_view
from stillroom.stages.experiment import Experiment
from stillroom.tasks.predictor import Predictor

log = logging.getLogger("stillroom")

SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15)  # of the student's MACs that stay, the mildest first
NUM_CALIBRATION = 32  # images: the ranges of a candidate need not be good


@dataclass(frozen=True)
class Candidate:
    """A way to make the student smaller: a share of its MACs, and the bits of the file."""

    share: float
    bits: Literal[32, 8, 4]

    @property
    def what(self) -> str:
        """For people."""
        words = {32: "float", 8: "int8", 4: "4-bit weights"}[self.bits]
        return words if self.share == 1 else f"{words}, {self.share:.0%} of the MACs"

    def sections(self, training: Training) -> tuple[Compress, ...]:
        """The `[[compress]]` sections that make it, each with a third of the student's training behind it."""
        train = training.third()
        found = []
        if self.share < 1:
            found.append(Compress(name="prune", train=train, arguments={"macs": self.share}))
        if self.bits < 32:
            arguments = {} if self.bits == 8 else {"bits": self.bits, "weights_only": True}
            found.append(Compress(name="quantize", train=train, arguments=arguments))
        return tuple(found)


@dataclass(frozen=True)
class CompressionChoice:
    """The measured candidates, ready for JSON, and why the one with `chosen` was taken."""

    why: str
    table: list[dict[str, Any]]

    @property
    def candidate(self) -> Candidate:
        """The chosen one."""
        row = next(row for row in self.table if row.get("chosen"))
        return Candidate(row["share"], row["bits"])


@dataclass(frozen=True)
class Deployment:
    """What is done for a device: compressions, files, and how the compressions were chosen, where they were."""

    compress: tuple[Compress, ...]
    export: tuple[Export, ...]
    choice: CompressionChoice | None = None


def candidates(target: Deploy) -> list[Candidate]:
    """The mildest first: pruning costs more accuracy than quantisation does."""
    return [Candidate(share, bits) for share in SHARES for bits in sorted(usable_bits(target), reverse=True)]


def resolve_target(
    experiment: Experiment,
    target: Deploy | None,
    compress: tuple[Compress, ...],
    export: tuple[Export, ...],
    *,
    known: CompressionChoice | None = None,
) -> Deployment:
    """The compressions and files of a run: those of the recipe, and for a target those that it asks for.

    Args:
        experiment: whose student is compressed.
        target: the device's limits, its profile applied; None: there are none.
        compress: sections of the recipe; none lets the target choose.
        export: sections of the recipe.
        known: the choice made before an interruption, or by another seed of the same recipe.

    Raises:
        NoCompressionWithinLimits: SR-B931 no candidate keeps the limits; nothing was trained.
    """
    if target is None:
        return Deployment(compress, export)
    if compress:
        usable = usable_bits(target)
        return Deployment(compress, _with_files(export, target, [8] if 8 in usable else usable))
    engine = experiment.engine
    choice = known or engine.broadcast(choose(experiment, target) if engine.first else None)
    candidate = choice.candidate
    log.info("target: %s, because it is %s", candidate.what, choice.why)
    sections = candidate.sections(experiment.training)
    return Deployment(sections, _with_files(export, target, [candidate.bits]), choice)


def choose(experiment: Experiment, target: Deploy) -> CompressionChoice:
    """The mildest candidate that keeps the limits.

    Raises:
        NoCompressionWithinLimits: SR-B931 there is none.
    """
    rows = list(measure_candidates(experiment, target, enough=1))
    limits, device = describe_limits(target), describe_device(target)
    best = next((row for row in rows if row["meets"]), None)
    if best is None:
        raise NoCompressionWithinLimits(limits=limits, rows=_lines(rows), where=device)
    best["chosen"] = True
    return CompressionChoice(f"the mildest that keeps within {limits} on {device}", rows)


def measure_candidates(
    experiment: Experiment, target: Deploy, *, enough: int | None = None
) -> Iterator[dict[str, Any]]:
    """Candidates as measured on the device, the mildest first, until `enough` of them keep the limits."""
    met = 0
    for candidate in candidates(target):
        row = measure_candidate(experiment, target, candidate)
        log.info("target: %s: %s", candidate.what, _line(row))
        yield row
        met += row["meets"]
        if enough and met >= enough:
            return


def measure_candidate(experiment: Experiment, target: Deploy, candidate: Candidate) -> dict[str, Any]:
    """MACs, size and latency of a candidate made from the initial student, ready for JSON."""
    network = _candidate_network(experiment, candidate)
    images = sample_images(experiment.data.splits["train"], NUM_CALIBRATION)
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        runtime = find(target.runtime)
        path = runtime.write(
            Predictor(network, experiment.task),
            Path(folder, f"candidate{runtime.suffixes[0]}"),
            example=images[:1],
            classes=experiment.data.classes,
            bits=candidate.bits,
            calibration=[images] if candidate.bits == 8 else (),
            task=experiment.task,
        )
        size = ExportedFile(runtime=target.runtime, bits=candidate.bits, path=path, gate=0.0).bytes
        time = measure_on_device(path, target.runtime, target, images[:1])["latency_ms"]
    median = number(time)
    upper = time.ci95[1] if time.ci95 else median
    return {
        "what": candidate.what,
        "share": candidate.share,
        "bits": candidate.bits,
        "macs": experiment.macs(network),
        "size_mb": size / MEGABYTE,
        "latency_ms": median,
        "latency_upper_ms": upper,
        "meets": within(target, latency_ms=upper, size_mb=size / MEGABYTE),
    }


def _candidate_network(experiment: Experiment, candidate: Candidate) -> Network:
    """The initial student, pruned; the values of its weights change neither speed nor size."""
    student = experiment.initial_student()
    if candidate.share == 1:
        return student
    return pick("compress", "prune")(macs=candidate.share).shrink(student, compression_view(experiment, None), 1)


def _with_files(export: tuple[Export, ...], target: Deploy, bits: Sequence[Literal[32, 8, 4]]) -> tuple[Export, ...]:
    """The files of the recipe, and one for the target's runtime where it is not among them."""
    existing = {(one.runtime, one.bits) for one in export}
    wanted = [n for n in bits if (target.runtime, n) not in existing]
    return export + tuple(Export(runtime=target.runtime, bits=n) for n in wanted)


def _line(row: dict[str, Any]) -> str:
    return f"{row['latency_ms']:.3g} ms, {row['size_mb']:.3g} MB, {'within' if row['meets'] else 'beyond'} the limits"


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{row['what']}: {_line(row)}" for row in rows)
