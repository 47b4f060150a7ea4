"""A device's limits, and whether a file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stillroom.benchmark import remote
from stillroom.benchmark.errors import DeviceLimitsMissed, UnsupportedRuntime
from stillroom.config.schema import Deploy
from stillroom.errors import StillroomError
from stillroom.export.artifact import ExportedFile
from stillroom.export.runtime import find
from stillroom.metrics.measurement import Measurement

SECONDS = 1.5  # that a candidate is run for
MEGABYTE = 1_000_000


def measure_on_device(
    path: Path, runtime: str, target: Deploy, example: Tensor, seconds: float = SECONDS
) -> dict[str, Measurement]:
    """The figures of a file on the target's device, this machine or another, with its number of threads."""
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


def check_device(target: Deploy) -> None:
    """Refuse a target whose files could not be made or measured, before anything is trained.

    Raises:
        ExportError: as `Runtime.ready`, or SR-X733 there is no such runtime.
        UnsupportedRuntime: SR-B915 the runtime does not declare how a device opens its files.
    """
    runtime = find(target.runtime)
    runtime.ready()
    if not runtime.measurable:
        raise UnsupportedRuntime(runtime=target.runtime)


def usable_bits(target: Deploy) -> list[Literal[32, 8, 4]]:
    """The bits of the target that its runtime's files can hold."""
    able = find(target.runtime).bits
    return [bits for bits in target.bits if bits in able]


def within(target: Deploy, *, latency_ms: float, size_mb: float) -> bool:
    """Whether a file keeps the limits; None is no limit."""
    slow = target.latency_ms is not None and latency_ms > target.latency_ms
    large = target.size_mb is not None and size_mb > target.size_mb
    return not slow and not large


def check_files(
    target: Deploy,
    files: Sequence[ExportedFile],
    rows: Sequence[dict[str, Any]],
    example: Tensor,
    headline: str,
) -> tuple[dict[str, Any], StillroomError | None]:
    """Whether a verified file keeps the limits: `target` of `metrics.json`, and the error if none does.

    Of those that do, the best by the headline figure is named; if none does, the fastest.
    """
    able = []
    for made, row in zip(files, rows, strict=True):
        if made.runtime == target.runtime and made.bits in target.bits and row["verified"]:
            time = measure_on_device(made.path, made.runtime, target, example)["latency_ms"]
            size = row["bytes"]["value"] / MEGABYTE
            met = within(target, latency_ms=number(time), size_mb=size)
            able.append((met, row[headline]["value"] if met else -number(time), made.name, time, size))
    found: dict[str, Any] = {
        "runtime": target.runtime,
        "threads": target.threads,
        "where": describe_device(target),
        "limits": {k: getattr(target, k) for k in ("latency_ms", "size_mb") if getattr(target, k) is not None},
    }
    if not able:
        why = f"no file for {target.runtime} was verified"
        return found | {"met": False, "found": {}, "why": why}, DeviceLimitsMissed(
            why=why, limits=describe_limits(target)
        )
    met, _, name, time, size = max(able, key=lambda one: one[:2])
    size_mb = {"value": size, "how": "size of the file in 10^6 bytes"}
    figures = {"latency_ms": time.as_dict(), "size_mb": size_mb}
    why = f"{name} takes {time.value:.3g} ms and {size:.3g} MB on {describe_device(target)}"
    found |= {"file": name, "found": figures, "met": met, "why": why}
    return found, None if met else DeviceLimitsMissed(why=why, limits=describe_limits(target))


def number(figure: Measurement) -> float:
    """The value of a measurement that is one number."""
    return float(figure.value)  # type: ignore[arg-type]


def describe_device(target: Deploy) -> str:
    """The device in words."""
    return target.host or "this machine"


def describe_limits(target: Deploy) -> str:
    """The limits in words."""
    parts = [f"{target.latency_ms:g} ms"] if target.latency_ms is not None else []
    parts += [f"{target.size_mb:g} MB"] if target.size_mb is not None else []
    return " and ".join(parts) or "no limit"
