"""What a run may claim: every network and file on the test images, in one pass, and on the clock, in one sitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillroom import operations
from stillroom.benchmark import latency
from stillroom.data.dataset import Dataset
from stillroom.data.loader import in_order
from stillroom.data.random import spaced
from stillroom.evaluate import Evaluation, Speaker, evaluate
from stillroom.export._diagnosis import diagnose
from stillroom.export._verify import Verification, settle
from stillroom.metrics._figure import Figure
from stillroom.plugins import module
from stillroom.samples import Samples
from stillroom.tasks.task import Task
from stillroom.types import Output

SHOWN = 32  # images at a time when test images are shown
BATCH = 32  # images at a time when throughput is measured
TELLING = 64  # images on which it is found out why a file failed
GALLERY = 10_000  # images of a split, at most, that others are compared with


@dataclass(frozen=True, kw_only=True)
class Made:
    """A file that was exported."""

    target: str
    bits: int
    path: Path
    gate: float

    @property
    def name(self) -> str:
        """How it is called among the speakers."""
        return f"{self.target}-{self.bits}"

    @property
    def companions(self) -> tuple[str, ...]:
        """Endings of the files beside it that it is nothing without."""
        suffixes: tuple[str, ...] = module("export", self.target).SUFFIXES
        return tuple(suffix for suffix in suffixes if suffix != self.path.suffix)

    @property
    def bytes(self) -> int:
        """Of the file and its companions."""
        files = [self.path, *(self.path.with_suffix(suffix) for suffix in self.companions)]
        return sum(file.stat().st_size for file in files)

    def load(self, threads: int | None = None) -> Speaker:
        """The file on its own runtime."""
        speaker: Speaker = module("export", self.target).load(self.path, threads=threads)
        return speaker


def judge(
    networks: Mapping[str, Speaker],
    files: Sequence[Made],
    data: Dataset,
    task: Task,
    *,
    device: torch.device,
    samples: Path | None,
    splits: Sequence[str] = ("test",),
) -> tuple[Evaluation, dict[str, Verification]]:
    """Show the test images to everybody, once; hold each file against the student it was made from.

    Args:
        networks: "student", and where there are such "teacher" and "baseline"; each gives the task's answers.
        files: what was exported of the student.
        data: whose images are read.
        task: whose metrics count.
        device: where the networks are.
        samples: folder for thumbnails of telling images; None keeps none.
        splits: which are read, one after the other.
    """
    speakers = dict(networks) | {made.name: made.load() for made in files}
    collected = Samples(speakers, task)
    compared = [name for name in task.gallery if name not in splits]
    rows = {name: spaced(len(data.splits[name]), GALLERY) for name in compared}
    result = evaluate(
        speakers,
        chain(
            chain.from_iterable(in_order(data.splits[name], SHOWN, rows=rows[name]) for name in compared),
            chain.from_iterable(in_order(data.splits[name], SHOWN) for name in splits),
        ),
        task,
        data.classes,
        against={name: "teacher" for name in networks if name != "teacher" and "teacher" in networks}
        | {made.name: "student" for made in files},
        judge=None if data.labelled or "teacher" not in networks else "teacher",
        gallery={int(item) for name in compared for item in data.splits[name].items[rows[name]]},
        keep=collected.keep,
        device=device,
    )
    verdicts = {made.name: check(made, result.figures[made.name], task) for made in files}
    for made in files:
        if not verdicts[made.name].passed:
            cause = explain(made, networks["student"], data, task, device)
            verdicts[made.name] = replace(verdicts[made.name], cause=cause)
    if samples:
        collected.write(samples, data.classes, data.source.name)
    return result, verdicts


def check(made: Made, figures: Mapping[str, Figure], task: Task) -> Verification:
    """The file's answers against the student's.

    Where there was nothing to agree on, as with detectors that see no object at all, they agree.
    """
    nothing = Figure(value=1.0, how="neither file nor network found anything", n=0)
    tolerance = task.tolerance if made.bits == 32 else 1.0
    return Verification(figure=figures.get("agreement", nothing), gate=made.gate, tolerance=tolerance)


def explain(made: Made, network: Speaker, data: Dataset, task: Task, device: torch.device) -> str:
    """What is wrong with the preprocessing of a file that failed; empty where that is not what is wrong.

    The training images tell, for the test images have been shown once already.
    """
    split = data.splits.get("train") or next(iter(data.splits.values()))
    images = next(in_order(split, TELLING, rows=spaced(len(split), TELLING))).images.to(device)

    def agree(answer: Output, other: Output) -> float:
        return float(task.same(answer, Output(pred=other.pred.to(answer.pred.device))).mean())

    return diagnose(made.load(), network, images, agree, gate=made.gate) or ""


def kept(result: Evaluation) -> dict[str, Tensor]:
    """What of an evaluation is worth a file: predictions, how right each is, and whose images they are."""
    scores = {f"{name}.score": score for name, score in result.scores.items()}
    target = {} if result.targets is None else {"target": result.targets}
    return result.predictions | scores | target | {"key": result.keys}


def settled(files: Sequence[Made], verdicts: Mapping[str, Verification]) -> list[Made]:
    """The files under the names they have earned."""
    return [replace(made, path=settle(made.path, verdicts[made.name], made.companions)) for made in files]


def time_all(
    networks: Mapping[str, nn.Module], files: Sequence[Made], example: Tensor, *, seconds: float = 3.0
) -> dict[str, dict[str, Figure]]:
    """Latency for one image on one thread and throughput for many, all in turns, so that their ratios hold."""
    speakers = dict(networks) | {made.name: made.load(threads=1) for made in files}
    one = latency.interleaved(speakers, example[:1], seconds=seconds)
    many = latency.interleaved(
        speakers, example[:1].expand(BATCH, -1, -1, -1).contiguous(), seconds=seconds * 2 / 3, warmup=2
    )
    return {
        name: latency.figures(one[name]) | {"throughput": latency.throughput(many[name])["images_per_second"]}
        for name in speakers
    }


def cost(network: nn.Module, shape: tuple[int, int, int], files: Sequence[Path]) -> dict[str, Figure]:
    """Parameters, MACs and bytes of a network; `files` hold its weights, if the run has written them."""
    side = f"{shape[1]}x{shape[2]}"
    there = all(file.is_file() for file in files)
    how_big = "size of the file of its float32 weights" if there else "float32 weights, 4 bytes a parameter"
    size = sum(file.stat().st_size for file in files) if there else 4 * operations.parameters(network)
    return {
        "parameters": Figure(value=operations.parameters(network), how="counted"),
        "macs": Figure(
            value=operations.macs(network, shape),
            how=f"multiply-accumulates of one {side} image, counted by torch's FlopCounterMode / 2; FLOPs = 2 x MACs",
        ),
        "bytes": Figure(value=size, how=how_big),
    }


def plain(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as `metrics.json` holds them."""
    return {name: figure.as_dict() for name, figure in figures.items()}


def export_row(
    made: Made, folder: Path, verdict: Verification, found: Mapping[str, Figure], times: Mapping[str, Figure]
) -> dict[str, Any]:
    """One element of `exports` in `metrics.json`."""
    whole = ", ".join((made.path.suffix, *made.companions))
    size = Figure(value=made.bytes, how=f"size of the files {whole}" if made.companions else "size of the file")
    figures = dict(found) | verdict.figures() | {"bytes": size} | dict(times)
    return {
        "target": made.target,
        "bits": made.bits,
        "path": str(made.path.relative_to(folder)),
        "verified": verdict.passed,
        "gate": verdict.gate,
    } | plain(figures)
