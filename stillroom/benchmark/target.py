"""A device's limits, and whether a file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from stillroom.benchmark import remote
from stillroom.benchmark.errors import DeviceLimitsMissed
from stillroom.config.schema import Deploy
from stillroom.errors import StillroomError
from stillroom.export import artifact
from stillroom.metrics.measurement import Measurement

SECONDS = 1.5  # that a candidate is run for


MEGABYTE = 1_000_000


def measure_on_device(
    path: Path, runtime: str, target: Deploy, example: Tensor, seconds: float = SECONDS
) -> dict[str, Measurement]:
    """The figures of a file where the target says: this machine or another, with its number of threads."""
    return remote.measure(
        path,
        runtime=runtime,
        images=example,
        threads=target.threads,
        seconds=seconds,
        host=target.host,
        python=target.python,
        watts=target.watts,
    ).figures()


def within(target: Deploy, *, latency_ms: float, size_mb: float) -> bool:
    """Whether a file keeps within the budget; what the budget does not name is free."""
    slow = target.latency_ms is not None and latency_ms > target.latency_ms
    large = target.size_mb is not None and size_mb > target.size_mb
    return not slow and not large


def check_files(
    target: Deploy,
    files: Sequence[artifact.ExportedFile],
    rows: Sequence[dict[str, Any]],
    example: Tensor,
    headline: str,
) -> tuple[dict[str, Any], StillroomError | None]:
    """Whether a verified file keeps within the budget: `target` of `metrics.json`, and the failure if none does.

    Of those that do it is the one that is right most often; if none does, the fastest.
    """
    able = []
    for made, row in zip(files, rows, strict=True):
        if made.target == target.runtime and made.bits in target.bits and row["verified"]:
            time = measure_on_device(made.path, made.target, target, example)["latency_ms"]
            size = row["bytes"]["value"] / MEGABYTE
            met = within(target, latency_ms=number(time), size_mb=size)
            able.append((met, row[headline]["value"] if met else -number(time), made.name, time, size))
    said: dict[str, Any] = {
        "runtime": target.runtime,
        "threads": target.threads,
        "where": describe_device(target),
        "limits": {k: getattr(target, k) for k in ("latency_ms", "size_mb") if getattr(target, k) is not None},
    }
    if not able:
        why = f"no file for {target.runtime} was verified"
        return said | {"met": False, "found": {}, "why": why}, DeviceLimitsMissed(
            why=why, limits=describe_limits(target)
        )
    met, _, name, time, size = max(able, key=lambda one: one[:2])
    size_mb = {"value": size, "how": "size of the file in 10^6 bytes"}
    found = {"latency_ms": time.as_dict(), "size_mb": size_mb}
    why = f"{name} takes {time.value:.3g} ms and {size:.3g} MB on {describe_device(target)}"
    said |= {"file": name, "found": found, "met": met, "why": why}
    return said, None if met else DeviceLimitsMissed(why=why, limits=describe_limits(target))


def number(figure: Measurement) -> float:
    """The value of a figure that is one number."""
    return float(figure.value)  # type: ignore[arg-type]


def describe_device(target: Deploy) -> str:
    """The device in words."""
    return target.host or "this machine"


def describe_limits(target: Deploy) -> str:
    """The budget in words."""
    parts = [f"{target.latency_ms:g} ms"] if target.latency_ms is not None else []
    parts += [f"{target.size_mb:g} MB"] if target.size_mb is not None else []
    return " and ".join(parts) or "no limit"
