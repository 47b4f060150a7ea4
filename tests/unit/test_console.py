"""The line that says how training goes."""

from __future__ import annotations

import pytest

from stillroom import console
from stillroom.step import Step

STEP = Step(
    step=1, images=64, loss=1.5, terms={}, weights={}, grad_norm=1.0, lr=0.1, seconds=0.5, wait=0.0, skipped=False
)


@pytest.fixture
def lines(monkeypatch):
    clock, said = [100.0], []
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(console.err, "print", lambda text, **_: said.append(text))
    watch = console.Watch()

    def show(step, wait):
        clock[0] += 0.5
        watch("student", console.replace(STEP, step=step, wait=wait), 100, 0.25)
        return said[-1]

    return show
