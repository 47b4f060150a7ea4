"""Joules against arithmetic, and against meters that the test turns."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stillroom.benchmark import device
from stillroom.benchmark.energy import (
    Nvml,
    Rapl,
    best_known,
    estimated,
    grams,
    joules,
    kwh,
    measured,
    metered,
    reduction,
)


class World:
    """Time that only moves when something is done: `power` watts in the meter, one core at work.

    Args:
        idle: watts while nothing is computed.
        busy: watts while something is.
        readable: whether there is a counter.
    """

    name = "fake"

    def __init__(self, idle: float = 3.0, busy: float = 11.0, readable: bool = True):
        self.idle, self.busy, self.readable = idle, busy, readable
        self.now = self.used = self.total = 0.0

    def joules(self) -> float | None:
        return self.total if self.readable else None

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.total += self.idle * seconds

    def work(self, calls: int) -> None:
        for _ in range(calls):
            self.now += 0.01
            self.used += 0.01
            self.total += self.busy * 0.01

    def metered(self, calls: int, **options: Any) -> Any:
        fake = {"clock": lambda: self.now, "sleep": self.sleep, "cpu": lambda: self.used}
        return metered(lambda: self.work(calls), calls=calls, meter=self, **fake, **options)


def test_units() -> None:
    assert joules(watts=1, seconds=3600) == 3600
    assert kwh(3600) == pytest.approx(0.001)
    assert grams(kwh(3.6e6), grid=400) == pytest.approx(400)


def test_the_sign_of_a_reduction() -> None:
    assert reduction(baseline=100, new=68) == pytest.approx(0.32)
    assert reduction(baseline=68, new=100) == pytest.approx(-32 / 68)
    with pytest.raises(ValueError, match="0 joules"):
        reduction(baseline=0, new=1)


def test_idle_power_is_subtracted_and_told() -> None:
    found = World(idle=3, busy=11).metered(calls=200)
    assert (found.source, found.n) == ("measured", 200)
    assert found.joules == pytest.approx((11 - 3) * 0.01)
    assert found.facts["idle_watts"] == pytest.approx(3) and "3.0 W of the idle machine" in found.how


@pytest.mark.parametrize("readable", [True, False])
def test_twice_the_work_takes_twice_the_energy(readable: bool) -> None:
    """In total; so a call takes the same. By the meter, and by the estimate where there is none."""
    one, two = (World(readable=readable).metered(calls=n, watts=20.0, cpus=4) for n in (50, 100))
    assert one.source == two.source == ("measured" if readable else "estimated")
    assert (two.joules * two.n) / (one.joules * one.n) == pytest.approx(2, rel=0.1)
    if not readable:
        assert one.joules == pytest.approx(0.01 * 20 / 4)


def test_an_estimate_follows_the_cpu_seconds_of_a_real_loop() -> None:
    def loop(calls: int) -> None:
        for _ in range(calls):
            sum(range(20_000))

    absent = World(readable=False)
    found = metered(lambda: loop(100), calls=100, meter=absent, watts=20.0, cpus=4)
    assert found.source == "estimated" and "not measured" in found.how
    assert found.joules == pytest.approx(found.facts["cpu_seconds"] * 20 / 4 / 100) and found.joules > 0


def test_what_is_absent_is_none_and_never_zero() -> None:
    found = World(readable=False).metered(calls=10)
    assert (found.joules, found.source, found.figures()) == (None, "none", {})
    assert "watts" in found.how


@pytest.mark.parametrize("total", [0.0, 5.9])
def test_less_than_the_idle_machine_takes_is_no_figure(total: float) -> None:
    found = measured(total, idle_watts=3, seconds=2, calls=10)
    assert (found.joules, found.source, found.figures()) == (None, "none", {})


def test_the_best_that_is_known() -> None:
    given = {"seconds": 2.0, "cpu_seconds": 2.0, "calls": 10, "cpus": 4}
    assert best_known(total=20.0, idle_watts=3.0, watts=50.0, **given).joules == pytest.approx((20 - 6) / 10)
    assert best_known(total=None, idle_watts=None, watts=50.0, **given).joules == pytest.approx(2 * 50 / 4 / 10)
    assert best_known(total=None, idle_watts=None, watts=None, **given).source == "none"


def test_a_figure_says_how_it_is_known() -> None:
    written = estimated(3.0, watts=10, cpus=2, calls=5).figures()["energy_j"].as_dict()
    assert (written["value"], written["n"], written["source"], written["watts"]) == (3.0, 5, "estimated", 10)
    assert "estimated" in written["how"] and "ci95" not in written
    assert measured(10, idle_watts=0, seconds=1, calls=5).figures()["energy_j"].extra["source"] == "measured"


def powercap(root: Path, domains: dict[str, tuple[str, int, int]]) -> Path:
    """A power cap tree: folder -> name, microjoules, range."""
    for folder, (name, now, top) in domains.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for file, value in (("name", name), ("energy_uj", now), ("max_energy_range_uj", top)):
            (root / folder / file).write_text(f"{value}\n", encoding="ascii")
    return root


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    domains = {
        "intel-rapl:0": ("package-0", 100, 1000),
        "intel-rapl:0:0": ("core", 60, 1000),
        "intel-rapl:0:1": ("dram", 7, 500),
        "intel-rapl:1": ("psys", 400, 1000),
    }
    found = device.energy_counters(powercap(tmp_path, domains))
    assert found == {"intel-rapl:0": (100, 1000), "intel-rapl:0:1": (7, 500)}


def test_a_counter_may_begin_anew(tmp_path: Path) -> None:
    top = 262_143_328_850
    meter = Rapl(powercap(tmp_path, {"intel-rapl:0": ("package-0", top - 2_000_000, top)}))
    assert meter.joules() == 0
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 1_000_000, top)})
    assert meter.joules() == pytest.approx(3.0, abs=1e-5)
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 1_500_000, top)})
    assert meter.joules() == pytest.approx(3.5, abs=1e-5)


def test_counters_that_can_not_be_read_are_none(tmp_path: Path) -> None:
    assert Rapl(tmp_path / "nothing").joules() is None
    powercap(tmp_path, {"intel-rapl:0": ("package-0", 1, 1000)})
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()  # as for everybody but root
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()
    assert device.energy_counters(tmp_path) == {} and device.joules_between({}, {}) is None


def test_a_cuda_device_counts_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5_000_000, 5_002_500])
    stand_in = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    assert Nvml().joules() == pytest.approx(2.5)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as if it were not installed
    assert Nvml().joules() is None
