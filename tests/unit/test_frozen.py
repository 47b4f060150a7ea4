"""What a frozen network says, and in which precision it thinks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stillroom.config import recipe
from stillroom.distributed.one_process import OneProcess
from stillroom.models import create_model
from stillroom.models.network import Network
from stillroom.pipeline.prepare import prepare
from stillroom.stages import build
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher


class Noting(nn.Module):
    """Keeps the type that its layer computed in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, images):
        said = self.layer(images.flatten(1))
        self.seen = said.dtype
        return said


def asked(frozen, images):
    return frozen((images,), torch.arange(len(images)), ("layer",))


@pytest.fixture
def images():
    return torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("outer", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("several", [False, True])
def test_it_computes_in_its_own_precision_and_speaks_in_float32(images, dtype, outer, several):
    module = Noting()
    network = Network(module, classes=3)
    teacher = FrozenTeacher(Ensemble([network, network]) if several else network, precision=dtype)
    with torch.autocast("cpu", outer, enabled=outer != torch.float32):
        said = asked(teacher, images)
        assert torch.is_autocast_enabled("cpu") == (outer != torch.float32)
    assert module.seen == dtype
    assert said.pred.dtype == said.taps["layer"].dtype == torch.float32
    assert torch.equal(said.pred, asked(teacher, images).pred) and torch.equal(said.pred, teacher.predict(images).pred)


def test_half_precision_is_near(images):
    network = create_model("resnet8", classes=5, channels=3, size=8)
    exact = FrozenTeacher(network).predict(images.repeat(1, 1, 4, 4)).pred
    near = FrozenTeacher(network, precision=torch.bfloat16).predict(images.repeat(1, 1, 4, 4)).pred
    assert not torch.equal(exact, near) and torch.allclose(exact, near, atol=0.05 * exact.abs().max().item())


def test_double_precision_stays_double(images):
    teacher = FrozenTeacher(Network(Noting(), classes=3).double())
    assert asked(teacher, images).pred.dtype == torch.float64


def test_a_map_is_laid_over_it(images):
    network = Network(Noting(), classes=3)
    plain = FrozenTeacher(network).predict(images).pred
    assert torch.equal(FrozenTeacher(network, map=(2, 0)).predict(images).pred, plain[:, [2, 0]])


def test_a_spread_copy_answers_in_its_place(images):
    whole, spread = Network(Noting(), classes=3), Network(Noting(), classes=3)
    teacher = FrozenTeacher(whole, map=(2, 0), spread=spread)
    said, alone = teacher.predict(images), teacher.alone.predict(images)
    assert torch.equal(said.pred, FrozenTeacher(spread, map=(2, 0)).predict(images).pred)
    assert torch.equal(alone.pred, FrozenTeacher(whole, map=(2, 0)).predict(images).pred)
    assert teacher.network is whole and teacher.spread is spread


@pytest.mark.parametrize(
    ("teacher", "train", "found"),
    [
        ("auto", "float32", torch.float32),
        ("auto", "bfloat16", torch.bfloat16),
        ("float32", "bfloat16", torch.float32),
        ("float16", "float32", torch.float16),
    ],
)
def test_what_the_recipe_asks_for(teacher, train, found):
    asked = recipe.read("digits", {"teacher.precision": teacher, "train.precision": train})
    assert build.teacher_precision(asked.teacher, asked.train, torch.device("cpu")) == found
    experiment = prepare(asked, OneProcess())
    assert experiment.freeze(experiment.initial_teachers()).precision == found
