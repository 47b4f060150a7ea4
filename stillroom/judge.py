"""What a run may claim: every network and file on the test images, in one pass, and on the clock, in one sitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillroom.benchmark import latency, operations
from stillroom.data.dataset import Dataset
from stillroom.data.loader import in_order
from stillroom.evaluate import Evaluation, Speaker, evaluate
from stillroom.export._verify import Verification, settle, verify
from stillroom.metrics._figure import Figure
from stillroom.metrics.metric import Metric
from stillroom.models.network import Network
from stillroom.plugins import choices, module, pick
from stillroom.samples import Samples

BATCH = 32  # images at a time when throughput is measured
TOLERANCE = 0.01  # difference in probability that a float file may show; integers round, so theirs is not bounded


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

    def load(self, threads: int | None = None) -> Speaker:
        """The file on its own runtime."""
        speaker: Speaker = module("export", self.target).load(self.path, threads=threads)
        return speaker


def judge(
    networks: Mapping[str, Speaker],
    files: Sequence[Made],
    data: Dataset,
    *,
    device: torch.device,
    samples: Path | None,
    splits: Sequence[str] = ("test",),
) -> tuple[Evaluation, dict[str, Verification]]:
    """Show the test images to everybody, once; hold each file against the student it was made from.

    Args:
        networks: "student", and where there are such "teacher" and "baseline".
        files: what was exported of the student.
        data: whose images are read.
        device: where the networks are.
        samples: folder for thumbnails of telling images; None keeps none.
        splits: which are read, one after the other.
    """
    speakers = dict(networks) | {made.name: made.load() for made in files}
    collected = Samples(speakers)
    result = evaluate(
        speakers,
        chain.from_iterable(in_order(data.splits[split], 128) for split in splits),
        lambda: metrics(data.classes),
        teacher="teacher" if "teacher" in networks else None,
        keep=collected.keep,
        logits=["student", *(made.name for made in files)] if files else (),
        device=device,
    )
    verdicts = {made.name: check(made, result.logits, result.targets) for made in files}
    if samples:
        collected.write(samples, data.classes, data.source.name)
    return result, verdicts


def metrics(classes: tuple[str, ...]) -> list[Metric]:
    """One of each metric there is."""
    return [pick("metrics", name)(classes=classes) for name in choices("metrics")]


def check(made: Made, logits: Mapping[str, Tensor], targets: Tensor) -> Verification:
    """The file's answers against the student's."""
    tolerance = TOLERANCE if made.bits == 32 else 1.0
    return verify(logits["student"], logits[made.name], targets, gate=made.gate, tolerance=tolerance)


def settled(files: Sequence[Made], verdicts: Mapping[str, Verification]) -> list[Made]:
    """The files under the names they have earned."""
    return [replace(made, path=settle(made.path, verdicts[made.name])) for made in files]


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


def cost(network: Network, shape: tuple[int, int, int], file: Path) -> dict[str, Figure]:
    """Parameters, MACs and bytes of a network; `file` holds its weights, if the run has written them."""
    side = f"{shape[1]}x{shape[2]}"
    there = file.is_file()
    how_big = "size of the file of its float32 weights" if there else "float32 weights, 4 bytes a parameter"
    size = file.stat().st_size if there else 4 * operations.parameters(network)
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


def export_row(made: Made, folder: Path, verdict: Verification, times: Mapping[str, Figure]) -> dict[str, Any]:
    """One element of `exports` in `metrics.json`."""
    size = Figure(value=made.path.stat().st_size, how="size of the file")
    figures = {k: v for k, v in verdict.figures().items() if k != "verified"} | {"bytes": size} | dict(times)
    return {
        "target": made.target,
        "bits": made.bits,
        "path": str(made.path.relative_to(folder)),
        "verified": verdict.passed,
        "gate": verdict.gate,
    } | plain(figures)
