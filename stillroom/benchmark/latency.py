"""Times of several callables on one machine, taken in turns so that a busy moment hits all of them alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from stillroom.benchmark.errors import DriftingTiming, UnstableTiming
from stillroom.metrics.measurement import Measurement
from stillroom.models._inference import eval_mode

LARGEST_SPREAD = 0.10
"""Times that spread further are flagged as SR-B901: reported, but no claim may rest on them."""

LARGEST_DRIFT = 0.10
"""Times whose end is slower or faster than their beginning by more are flagged as SR-B902, likewise."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of one callable, in milliseconds a call.

    Attributes:
        p50: median.
        p95: 95th percentile: what one call in twenty exceeds.
        ci95: 95 % confidence interval of the median; None below 6 calls, where no order statistic is that sure.
        p95_ci95: likewise of the 95th percentile; None below 72 calls.
        spread: (84th - 16th percentile) / 2 / median. For a normal distribution that is the coefficient of variation,
            but rare interruptions by other programs can't move it.
        drift: see `drift`; above 1 the calls became slower.
        n: calls timed.
        batch: images in a call.
        threads: threads that torch was given.
    """

    p50: float
    p95: float
    ci95: tuple[float, float] | None
    spread: float
    n: int
    batch: int
    threads: int
    drift: float = 1.0
    p95_ci95: tuple[float, float] | None = None

    @property
    def flag(self) -> str:
        """SR-B902 where the times drift, SR-B901 where they spread otherwise; empty where they do neither."""
        if max(self.drift, 1 / self.drift) > 1 + LARGEST_DRIFT:
            return DriftingTiming.code
        return UnstableTiming.code if self.spread > LARGEST_SPREAD else ""

    @property
    def stable(self) -> bool:
        """Whether the times lie near enough to each other to compare with others."""
        return not self.flag


def summarise(times: list[float], *, batch: int = 1, threads: int = 1) -> Latency:
    """The order statistics of `times`, in milliseconds.

    Raises:
        ValueError: there are no times.
    """
    if not times:
        raise ValueError("no call was timed")
    low, p50, high, p95 = np.percentile(times, [16, 50, 84, 95]).tolist()
    return Latency(
        p50=p50,
        p95=p95,
        ci95=median_interval(times),
        spread=(high - low) / 2 / p50,
        n=len(times),
        batch=batch,
        threads=threads,
        drift=drift(times),
        p95_ci95=interval(times, 0.95),
    )


def drift(times: list[float]) -> float:
    """Median of the last third of `times` over that of the first third, in the order in which they were taken.

    A processor that grows hot lowers its clock, and one that wakes up raises it: times that spread little in any
    short while then still depend on how long was measured. Interruptions by other programs, which come and go, hardly
    move it. 1.0 below 9 times, where a third is too few to have a median.
    """
    third = len(times) // 3
    if third < 3:
        return 1.0
    return float(np.median(times[-third:]) / np.median(times[:third]))


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median, see `interval`. None below 6 values."""
    return interval(values, 0.5)


def interval(values: list[float], share: float) -> tuple[float, float] | None:
    """The 95 % interval of a quantile from order statistics, whatever the distribution.

    The number X of values below the quantile is binomial(n, share), so the j-th smallest of n values lies above it with
    probability P(X < j) and the k-th smallest below it with P(X >= k); j is the greatest and k the smallest for which
    those are at most 2.5 % each. None where there is no such value among so few.
    """
    ordered, n = sorted(values), len(values)
    cumulative = bdtr(np.arange(n + 1), n, share)
    j, k = int(np.searchsorted(cumulative, 0.025)), int(np.searchsorted(cumulative, 0.975)) + 1
    return (ordered[j - 1], ordered[k - 1]) if j and k <= n else None


def interleaved(
    callables: Mapping[str, Callable[[Tensor], Any]],
    example: Tensor,
    *,
    seconds: float = 4.0,
    warmup: int = 5,
    least: int = 10,
    most: int = 1000,
    threads: int = 1,
) -> dict[str, Latency]:
    """Time every callable once a round, in turn, until the time is up.

    Each round starts with another callable, so that none always runs on the caches that the same other one left.

    Args:
        callables: name -> network or opened file; modules are timed in evaluation mode.
        example: [B, C, H, W] images that every call gets; B = 1 for latency.
        seconds: time for all rounds together, without warming up.
        warmup: calls of each before the first that counts.
        least: rounds that are made even when the time is up.
        most: the most rounds.
        threads: threads that torch may use; files are opened with theirs. Set back afterwards.
    """
    names = list(callables)
    times: dict[str, list[float]] = {name: [] for name in names}
    with _calm(callables, threads):
        for name in names:
            for _ in range(warmup):
                callables[name](example)
        end = perf_counter() + seconds
        for turn in range(most):
            if turn >= least and perf_counter() > end:
                break
            start = turn % len(names) if names else 0
            for name in names[start:] + names[:start]:
                times[name].append(_time(callables[name], example))
    return {name: summarise(times[name], batch=len(example), threads=threads) for name in names}


def figures(latency: Latency, *, taken: str = "in turns with the others after warm-up") -> dict[str, Measurement]:
    """`latency_ms` and `latency_p95_ms`; `taken`: how, for the reader."""
    how = f"{_conditions(latency)}, {taken}"
    extra = _spread(latency)
    p50 = Measurement(value=latency.p50, ci95=latency.ci95, n=latency.n, how=f"median of {how}", extra=extra)
    return {
        "latency_ms": p50,
        "latency_p95_ms": Measurement(
            value=latency.p95, ci95=latency.p95_ci95, n=latency.n, how=f"95th percentile of {how}", extra=extra
        ),
    }


def throughput(latency: Latency) -> dict[str, Measurement]:
    """`images_per_second`, from the times of batches larger than one."""
    rate = [1000 * latency.batch / time for time in (latency.p50, *reversed(latency.ci95 or ()))]
    extra = _spread(latency)
    ci95 = (rate[1], rate[2]) if latency.ci95 else None
    how = f"batch size over the median of {_conditions(latency)}"
    return {"images_per_second": Measurement(value=rate[0], ci95=ci95, n=latency.n, how=how, extra=extra)}


def _spread(latency: Latency) -> dict[str, Any]:
    flag = {"flag": latency.flag} if latency.flag else {}
    return {"spread": latency.spread, "drift": latency.drift, "stable": latency.stable} | flag


def _conditions(latency: Latency) -> str:
    threads = f"{latency.threads} thread{'s' * (latency.threads > 1)}"
    return f"{latency.n} calls with batch {latency.batch} on {threads}"


def _time(call: Callable[[Tensor], Any], example: Tensor) -> float:
    """Milliseconds of one call, until its result is available."""
    start = perf_counter()
    call(example)
    if example.is_cuda:
        torch.cuda.synchronize(example.device)
    return 1000 * (perf_counter() - start)


@contextmanager
def _calm(callables: Mapping[str, Any], threads: int) -> Iterator[None]:
    """No gradients, no garbage collection, pinned threads, evaluation mode; afterwards all is as it was."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    try:
        torch.set_num_threads(threads)
        gc.disable()
        with eval_mode(callables.values()), torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
