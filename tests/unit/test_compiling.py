"""What is compiled of a network, and what its failure says; compiled trainings are in e2e."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from kit import training
from kit.training import TRAINING, furthest, replace

from stillroom.errors import StillroomError
from stillroom.models import create_model
from stillroom.training.compile import compile_student, pieces


def parts(module, *heard):
    names = {part: name for name, part in module.named_modules()}
    return [names[part] for part in pieces(module, heard)]


def test_the_largest_parts_in_which_nothing_is_heard():
    network = create_model("resnet20", classes=10, channels=3, size=32).module
    assert parts(network) == [""]
    assert parts(network, "layer2") == ["layer1", "layer2", "layer3"]
    assert parts(network, "layer2.1") == ["layer1", "layer2.0", "layer2.1", "layer2.2", "layer3"]
    assert parts(network, "layer2.1", "layer2.1.relu") == ["layer1", "layer2.0", "layer2.2", "layer3"]
    assert parts(network, "linear") == ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize("methods", [{"hinton": {}}, {"hinton": {}, "fitnet": {}}])
def test_dynamo_sees_what_eager_sees(monkeypatch, methods):
    """Traced, not compiled: taps are heard at each step, not only at the first."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    _, plain = training.steps(one := training.learner(methods), config := replace(TRAINING, steps=4))
    _, traced = training.steps(two := training.learner(methods), replace(config, compile=True))
    assert [step.terms for step in traced] == [pytest.approx(step.terms, rel=1e-4) for step in plain]
    assert one.state_dict().keys() == two.state_dict().keys()
    assert furthest(one.state_dict(), two.state_dict()) < 1e-4


def test_no_compiler_is_said_plainly(monkeypatch):
    def none(*_):
        raise torch._inductor.exc.InvalidCxxCompiler

    monkeypatch.setattr(torch, "compile", lambda _forward, **_: none)
    network = create_model("resnet8", classes=10, channels=1, size=8)
    with pytest.raises(StillroomError, match="compiler") as caught:
        compile_student(network, (), lambda: network(torch.zeros(1, 1, 8, 8)))
    assert caught.value.code == "SR-R530" and caught.value.exit == 5
