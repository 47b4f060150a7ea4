"""Deployment limits of a report: status, sentence and candidates."""

from __future__ import annotations

from typing import Any

import pytest
from kit.compressed import CANDIDATES

from stillroom.report import deployment


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ({"limits": {"latency_ms": 5}, "found": {"latency_ms": {"value": 4}}, "met": True}, "met"),
        ({"limits": {"latency_ms": 5}, "found": {"latency_ms": {"value": 6}}, "met": True}, "MISSED"),
        ({"limits": {"latency_ms": 5}, "found": {"latency_ms": {"value": 4}}, "met": False}, "MISSED"),
        ({"limits": {"latency_ms": 5, "size_mb": 1}, "found": {"latency_ms": 4}, "met": True}, "not checked"),
        ({"limits": {"latency_ms": 5}, "found": None, "met": True}, "not checked"),
        ({"limits": {"latency_ms": 5}, "found": {"latency_ms": 4}}, "not checked"),
        ({"limits": "many", "found": [], "met": None}, "not checked"),
        ({}, "not checked"),
    ],
)
def test_limits_are_met_only_if_each_was_measured_and_kept(target: dict[str, Any], status: str) -> None:
    assert deployment.status(target) == status
    assert not target or status in deployment.verdict(target)


def test_the_verdict_names_limits_and_measurements() -> None:
    target = {
        "file": "litert-8",
        "where": "pi@kitchen",
        "threads": 4,
        "limits": {"latency_ms": 5, "energy_j": 0.001},
        "found": {"latency_ms": {"value": 4.5, "stable": False}, "energy_j": {"value": 0.0005, "source": "estimated"}},
        "met": True,
    }
    sentence = deployment.verdict(target)
    for fact in ("met", "litert-8", "pi@kitchen", "4 threads", "4.50 ms (unstable)", "5.00 ms", "500 µJ", "1.00 mJ"):
        assert fact in sentence, fact


def test_whether_any_candidate_would_do() -> None:
    assert deployment.satisfiable(CANDIDATES).startswith("satisfiable: 1 of 3 ")
    assert deployment.satisfiable(CANDIDATES[:1]).startswith("NOT satisfiable: 0 of 1 ")
    assert deployment.satisfiable(CANDIDATES[2:]).startswith("not known whether satisfiable: 0 of 1 ")
    assert [line.cells[3] for line in deployment.candidate_rows(CANDIDATES)] == ["NO", "yes", "–"]


def test_a_candidate_is_held_to_the_upper_end_of_its_time() -> None:
    (line,) = deployment.candidate_rows([CANDIDATES[0] | {"latency_ms": 4.9, "latency_upper_ms": 5.2}])
    assert line.cells[2:4] == ("4.90 ms, up to 5.20", "NO")
