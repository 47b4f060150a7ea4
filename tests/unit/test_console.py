"""The progress line of a training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stillroom.cli import console
from stillroom.training.step import Step

STEP = Step(
    step=1,
    images=64,
    loss=1.5,
    terms={},
    weights={},
    grad_norm=1.0,
    lr=0.1,
    seconds=0.5,
    wait=0.0,
    skipped=False,
)


@pytest.fixture
def show(monkeypatch):
    """Shows steps of half a second; returns the last line that was printed."""
    clock, lines = [100.0], [""]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(console.err, "print", lambda text, **_: lines.append(text))
    display = console.ProgressDisplay()

    def shown(first: int, last: int, wait: float) -> str:
        for step in range(first, last + 1):
            clock[0] += 0.5
            display("student", replace(STEP, step=step, wait=wait), 100, 0.25)
        return lines[-1]

    return shown


def test_speed_is_shown_in_steps_and_in_images(show):
    assert "student  1/100  loss 1.500  best val 25.0%  2.0 steps/s  128 images/s" in show(1, 1, 0.0)
    assert show(2, 100, 0.0).endswith("00:00:00 left")


def test_data_wait_is_averaged_over_the_last_steps(show):
    assert "data wait 0%" in show(1, 1, 0.0)
    assert "data wait 10%" in show(2, 22, 0.05)  # a line at step 22
    assert "data wait 50%" in show(23, 90, 0.25)  # what was 50 steps ago no longer counts
