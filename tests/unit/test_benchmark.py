"""Counts against published ones, times against a clock that the test turns."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import timm
import torch
from scipy.stats import quantile_test
from torch import Tensor, nn

from stillroom.benchmark import latency as timing
from stillroom.benchmark.latency import drift, figures, interleaved, interval, median_interval, summarise, throughput
from stillroom.models.flops import macs, parameters
from stillroom.models.network import Network


@pytest.mark.parametrize(("name", "gmacs"), [("resnet18", 1.814), ("vit_tiny_patch16_224", 1.2537)])
def test_macs_are_the_published_ones(name: str, gmacs: float) -> None:
    network = Network(timm.create_model(name, num_classes=1000), classes=1000, channels=3)
    assert macs(network, (3, 224, 224)) == pytest.approx(gmacs * 1e9, rel=0.02)


def test_macs_of_a_convolution_by_hand() -> None:
    assert macs(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12)) == 10 * 12 * 8 * 3 * 3 * 3


def test_counting_leaves_the_network_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 10))
    called: list[int] = []
    network[0].register_forward_hook(lambda *_: called.append(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    macs(network, (1, 8, 8))
    assert network.training and len(network[0]._forward_hooks) == 1
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert parameters(network) == 4 * 9 + 4 + 8 + 1440 + 10


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(5, 5)
    assert parameters(nn.Sequential(layer, layer)) == 30


def test_the_summary_by_hand() -> None:
    found = summarise([float(value) for value in range(1, 102)], batch=4, threads=2)
    assert (found.p50, found.p95, found.n, found.batch, found.threads) == (51, 96, 101, 4, 2)
    assert found.spread == pytest.approx((85 - 17) / 2 / 51) and not found.stable


def test_rare_interruptions_do_not_make_times_unstable() -> None:
    quiet = np.random.default_rng(0).normal(10, 0.2, 200)
    assert summarise(quiet.tolist()).spread == pytest.approx(0.02, rel=0.2)  # the coefficient of variation
    quiet[:5] = 500
    assert summarise(quiet.tolist()).stable


@pytest.mark.parametrize("n", [6, 7, 10, 25, 100, 333])
def test_the_median_interval_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    expected = quantile_test(values, p=0.5).confidence_interval(0.95)
    assert median_interval(values.tolist()) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [72, 100, 333, 1000])
def test_the_interval_of_the_95th_percentile_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n).tolist()
    expected = quantile_test(values, p=0.95).confidence_interval(0.95)
    assert interval(values, 0.95) == pytest.approx((expected.low, expected.high))
    assert summarise(values).p95_ci95 == interval(values, 0.95)


def test_71_values_are_too_few_for_the_95th_percentile() -> None:
    assert interval([float(n) for n in range(71)], 0.95) is None
    assert figures(summarise([1.0] * 71))["latency_p95_ms"].ci95 is None


def test_the_median_interval_covers_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    draws = [median_interval(rng.exponential(size=21).tolist()) for _ in range(2000)]
    covered = np.mean([low <= np.log(2) <= high for low, high in draws if low is not None])
    assert 0.94 <= covered <= 0.985  # exactly 97.3 % for 21 values: the next narrower pair has less than 95 %


def test_five_values_are_too_few_for_an_interval() -> None:
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1, 6)
    with pytest.raises(ValueError, match="no call"):
        summarise([])


class Clock:
    """Stands still but for the callables, each of which takes the milliseconds it was given."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now, self.calls = 0.0, list[str]()
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)

    def work(self, name: str, milliseconds: float) -> Any:
        def call(images: Tensor) -> None:
            self.now += milliseconds / 1000
            self.calls.append(name)

        return call


def test_callables_take_turns_and_times_are_theirs(monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    callables = {"a": clock.work("a", 2.0), "b": clock.work("b", 5.0), "c": clock.work("c", 3.0)}
    found = interleaved(callables, torch.zeros(1, 1, 2, 2), seconds=0.195, warmup=2)
    assert {name: round(each.p50, 6) for name, each in found.items()} == {"a": 2, "b": 5, "c": 3}
    assert {each.n for each in found.values()} == {20}  # 10 ms a round: the 20th begins at 190 ms
    rounds = ["".join(clock.calls[at : at + 3]) for at in range(6, len(clock.calls), 3)]
    assert clock.calls[:6] == list("aabbcc")
    assert rounds[:4] == ["abc", "bca", "cab", "abc"]


def test_slow_callables_still_get_the_least_rounds_and_fast_ones_no_more_than_most(monkeypatch: Any) -> None:
    clock = Clock(monkeypatch)
    example = torch.zeros(1, 1, 2, 2)
    assert interleaved({"slow": clock.work("slow", 9000)}, example, seconds=1, least=7)["slow"].n == 7
    assert interleaved({"fast": clock.work("fast", 0.001)}, example, seconds=1, most=50)["fast"].n == 50


def test_timing_leaves_everything_as_it_was() -> None:
    network, seen = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1)), []
    network.register_forward_hook(
        lambda module, *_: seen.append((module.training, torch.get_num_threads(), gc.isenabled()))
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        interleaved({"student": network}, torch.ones(1, 1, 4, 4), seconds=0, threads=1, least=6)
        assert torch.get_num_threads() == 2 and gc.isenabled() and network.training
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {(False, 1, False)} and len(seen) == 5 + 6
    assert network[1].num_batches_tracked == 0


def test_figures_name_the_conditions() -> None:
    found = figures(summarise([10.0] * 15 + [11.0] * 5))
    assert set(found) == {"latency_ms", "latency_p95_ms"}
    written = found["latency_ms"].as_dict()
    assert (written["value"], written["n"], written["stable"]) == (10.0, 20, True)
    assert "20 calls with batch 1 on 1 thread," in written["how"] and "flag" not in written
    assert found["latency_p95_ms"].value == 11.0


def test_unstable_times_are_flagged_and_not_refused() -> None:
    written = figures(summarise([1.0, 2.0] * 10))["latency_ms"].as_dict()
    assert written["flag"] == "SR-B901" and written["stable"] is False


def test_throughput_is_images_over_time() -> None:
    found = throughput(summarise([20.0] * 10 + [40.0] * 5, batch=64))["images_per_second"]
    assert found.value == 64 / 0.020
    assert found.ci95 == (64 / 0.040, 64 / 0.020)


def test_a_clock_that_slows_down_is_flagged() -> None:
    """Little spread at any moment, and yet the median depends on how long was measured."""
    noise = np.random.default_rng(0).normal(1, 0.01, 300)
    hot = summarise((noise * np.linspace(10, 11.8, 300)).tolist())
    assert hot.drift == pytest.approx(11.5 / 10.3, rel=0.01) and hot.spread < 0.10
    written = figures(hot)["latency_ms"].as_dict()
    assert (written["flag"], written["stable"]) == ("SR-B902", False)
    assert summarise((noise * np.linspace(11.8, 10, 300)).tolist()).flag == "SR-B902"  # it woke up


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_interruptions_are_no_drift(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.normal(10, 0.5, 90)
    times[rng.integers(0, 90, 6)] = 200
    assert drift(times.tolist()) == pytest.approx(1, abs=0.05) and summarise(times.tolist()).flag == ""


def test_the_drift_by_hand() -> None:
    assert drift([1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 2.0, 3.0, 9.0]) == 3.0
    assert drift([1.0] * 7 + [9.0]) == 1.0  # eight are too few


def test_figures_say_how_they_were_taken() -> None:
    assert figures(summarise([1.0]), taken="in the dark")["latency_ms"].how.endswith("in the dark")
