"""Latency, throughput, parameters, MACs and bytes of networks and files, measured in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from stillroom.benchmark import latency
from stillroom.export.artifact import ExportedFile
from stillroom.metrics.measurement import Measurement
from stillroom.models import flops

BATCH = 32  # images at a time when throughput is measured


def time_all(
    networks: Mapping[str, nn.Module], files: Sequence[ExportedFile], example: Tensor, *, seconds: float = 3.0
) -> dict[str, dict[str, Measurement]]:
    """Latency for one image on one thread and throughput for many, all in turns, so that their ratios hold."""
    callables = dict(networks) | {made.name: made.load(threads=1) for made in files}
    one = latency.interleaved(callables, example[:1], seconds=seconds)
    many = latency.interleaved(
        callables, example[:1].expand(BATCH, -1, -1, -1).contiguous(), seconds=seconds * 2 / 3, warmup=2
    )
    return {
        name: latency.figures(one[name]) | {"throughput": latency.throughput(many[name])["images_per_second"]}
        for name in callables
    }


def cost(network: nn.Module, shape: tuple[int, int, int], files: Sequence[Path]) -> dict[str, Measurement]:
    """Parameters, MACs and bytes of a network; `files` hold its weights, if the run has written them."""
    side = f"{shape[1]}x{shape[2]}"
    written = all(file.is_file() for file in files)
    how_big = "size of the file of its float32 weights" if written else "float32 weights, 4 bytes a parameter"
    size = sum(file.stat().st_size for file in files) if written else 4 * flops.parameters(network)
    return {
        "parameters": Measurement(value=flops.parameters(network), how="counted"),
        "macs": Measurement(
            value=flops.macs(network, shape),
            how=f"multiply-accumulates of one {side} image, counted by torch's FlopCounterMode / 2; FLOPs = 2 x MACs",
        ),
        "bytes": Measurement(value=size, how=how_big),
    }
