"""train.compile through the real compiler: the same training, its names, and a resume."""

from __future__ import annotations

import pytest
import torch
from kit import training
from kit.training import TRAINING, furthest, replace, same

from stillroom.errors import StillroomError
from stillroom.io import checkpoint
from stillroom.training.state import State

METHODS = {"hinton": {}, "fitnet": {}}
COMPILED = replace(TRAINING, steps=6, compile=True)


@pytest.mark.slow
def test_a_compiled_training_is_nearly_the_same_and_resumes(tmp_path):
    _, plain = training.steps(one := training.learner(METHODS), replace(COMPILED, compile=False))
    _, told = training.steps(two := training.learner(METHODS), COMPILED)
    assert [step.terms for step in told] == [pytest.approx(step.terms, rel=1e-3) for step in plain]
    assert one.state_dict().keys() == two.state_dict().keys()
    assert furthest(one.state_dict(), two.state_dict()) < 1e-3

    state, _ = training.steps(training.learner(METHODS), COMPILED, until=3)
    checkpoint.save(tmp_path, state.step, state.parts(), state.scalars())
    again = training.learner(METHODS, seed=3)
    resumed = State.fresh(again, COMPILED, scaled=False)
    resumed.load(*checkpoint.load(checkpoint.list_checkpoints(tmp_path)[-1]))
    training.steps(again, COMPILED, state=resumed)
    assert same(two.state_dict(), again.state_dict())


@pytest.mark.slow
def test_a_machine_without_a_compiler_says_so(tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(StillroomError, match="ompiler") as caught:
        training.steps(training.learner(), COMPILED)
    assert caught.value.code == "SR-R530"
