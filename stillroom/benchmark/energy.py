"""Energy of an answer: measured by counters in the hardware, estimated from what the user states, or absent.

What is absent is never 0: it has no figure at all, and its `source` is "none". Software meters cover the processor's
package and its memory, not the power supply, the disk or the screen.

    measured   E = (counter after - counter before - idle power * time) / calls, from RAPL (processors) or NVML (CUDA)
    estimated  E = CPU seconds / logical cores * watts at full load / calls
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from stillroom.benchmark import device
from stillroom.metrics.measurement import Measurement

Source = Literal["measured", "estimated", "none"]


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What one call took.

    Attributes:
        joules: above the idle machine where it is measured; None where it was neither measured nor estimated.
        source: where it comes from.
        how: the same in words; where it is absent, why.
        n: calls it is the mean of.
        facts: what it was computed from, by name.
    """

    joules: float | None
    source: Source
    how: str
    n: int
    facts: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, Measurement]:
        """`energy_j`, joules a call; empty where it is absent."""
        if self.joules is None:
            return {}
        extra = {"source": self.source, **self.facts}
        return {"energy_j": Measurement(value=self.joules, n=self.n, how=self.how, extra=extra)}


def joules(watts: float, seconds: float) -> float:
    """1 W for 1 s is 1 J."""
    return watts * seconds


def kwh(joules: float) -> float:
    """3.6 MJ are 1 kWh."""
    return joules / 3.6e6


def grams(kwh: float, grid: float) -> float:
    """Grams of CO2 equivalent.

    Args:
        kwh: energy.
        grid: grams a kWh, of the reader's own supply and year. None is built in: between grids it differs by more than
            an order of magnitude.
    """
    return kwh * grid


def reduction(baseline: float, new: float) -> float:
    """The share of the baseline's energy that is saved, (baseline - new) / baseline: negative where more is spent.

    Raises:
        ValueError: the baseline is not above 0.
    """
    if baseline <= 0:
        raise ValueError(f"no reduction of {baseline} joules")
    return (baseline - new) / baseline


def measured(total: float, *, idle_watts: float, seconds: float, calls: int, meter: str = "RAPL") -> Energy:
    """The reading of a counter, above what the idle machine would have taken in the same time.

    Args:
        total: joules that the counter went up by.
        idle_watts: power before, while nothing was computed.
        seconds: time between the two readings.
        calls: made in that time.
        meter: its name.
    """
    facts = {"idle_watts": idle_watts, "total_j": total}
    net = (total - joules(idle_watts, seconds)) / calls
    if net <= 0:
        how = f"{meter} rose by no more than it does when the machine is idle: there is too little to measure"
        return Energy(joules=None, source="none", how=how, n=calls, facts=facts)
    how = f"{meter} over {calls} calls in {seconds:.1f} s, above {idle_watts:.1f} W of the idle machine"
    return Energy(joules=net, source="measured", how=how, n=calls, facts=facts)


def estimated(cpu_seconds: float, *, watts: float, cpus: int, calls: int) -> Energy:
    """What the stated power comes to, shared equally among the processor's cores. An estimate, not a measurement.

    Idle power is part of the stated watts, so it is not comparable with a measured figure.

    Args:
        cpu_seconds: of all threads together.
        watts: of the whole processor at full load, as the user states it.
        cpus: logical cores of that processor.
        calls: made in that time.
    """
    how = f"estimated, not measured: CPU seconds over {calls} calls x {watts:g} W as stated / {cpus} cores"
    facts = {"watts": watts, "cpu_seconds": cpu_seconds}
    value = joules(watts, cpu_seconds) / cpus / calls
    return Energy(joules=value, source="estimated", how=how, n=calls, facts=facts)


def best_known(
    *,
    total: float | None,
    idle_watts: float | None,
    seconds: float,
    cpu_seconds: float,
    calls: int,
    cpus: int,
    watts: float | None,
) -> Energy:
    """Measured where a counter was read, estimated where watts are stated, else absent."""
    if total is not None and idle_watts is not None:
        return measured(total, idle_watts=idle_watts, seconds=seconds, calls=calls)
    if watts is not None:
        return estimated(cpu_seconds, watts=watts, cpus=cpus, calls=calls)
    how = "no counter can be read there, and no deploy.watts is stated"
    return Energy(joules=None, source="none", how=how, n=calls)


class Meter(Protocol):
    """A counter of joules."""

    name: str

    def joules(self) -> float | None:
        """Since it was made; None where it can't be read."""
        ...


class Rapl:
    """The processors' own counters, which Linux shows to root. Read it at least once in the minutes that a counter
    takes to wrap around (262 kJ: 44 minutes at 100 W).

    Args:
        root: folder of the power cap interface.
    """

    name = "RAPL"

    def __init__(self, root: Path = device.POWERCAP):
        self._root, self._last, self._total = root, device.energy_counters(root), 0.0

    def joules(self) -> float | None:
        """Since it was made; None where it can't be read."""
        now = device.energy_counters(self._root)
        more = device.joules_between(self._last, now)
        if more is None:
            return None
        self._last, self._total = now, self._total + more
        return self._total


class Nvml:
    """The counter of a CUDA device, where `pynvml` (nvidia-ml-py) is installed and the device has one.

    Args:
        index: of the device.
    """

    name = "NVML"

    def __init__(self, index: int = 0):
        self._read: Callable[[], float] | None = None
        with suppress(Exception):  # not installed, no driver, no such device, no counter: errors of several kinds
            nvml: Any = importlib.import_module("pynvml")
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            first = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._read = lambda: (nvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first) / 1000  # it counts mJ

    def joules(self) -> float | None:
        """Since it was made; None where it can't be read."""
        return None if self._read is None else self._read()


def metered(
    work: Callable[[], Any],
    *,
    calls: int,
    meter: Meter,
    rest: float = 1.0,
    watts: float | None = None,
    cpus: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Any] = time.sleep,
    cpu: Callable[[], float] = time.process_time,
) -> Energy:
    """Energy of `work`, which is called once and makes `calls` calls, in this process.

    Args:
        work: what is measured; it returns when all is done, on a CUDA device too.
        calls: how many calls it makes.
        meter: the counter.
        rest: seconds before it, in which the idle power is taken.
        watts: of the processor at full load, for an estimate where the meter can't be read.
        cpus: logical cores; None: this machine's.
        clock: seconds of the clock.
        sleep: waits so many seconds.
        cpu: seconds of the processor, all threads together.
    """
    first, began = meter.joules(), clock()
    if first is not None:
        sleep(rest)
    start, started, used = meter.joules(), clock(), cpu()
    work()
    end, seconds, used = meter.joules(), clock() - started, cpu() - used
    if first is None or start is None or end is None or started <= began:
        cpus = cpus or os.cpu_count() or 1
        return best_known(
            total=None, idle_watts=None, seconds=seconds, cpu_seconds=used, calls=calls, cpus=cpus, watts=watts
        )
    idle = (start - first) / (started - began)
    return measured(end - start, idle_watts=idle, seconds=seconds, calls=calls, meter=meter.name)
