"""Is distillation really on? Every way it was silently off in other tools, as a test that the sign of it shows."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from kit import training
from torch import nn

from stillroom.config.recipe import read
from stillroom.data.loader import Loader
from stillroom.diagnostics import distillation
from stillroom.diagnostics.preflight import preflight
from stillroom.errors import StillroomError
from stillroom.methods._logits import rows
from stillroom.methods.hinton import Hinton
from stillroom.methods.method import Method
from stillroom.models import create_model
from stillroom.models.network import Network
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.state import State
from stillroom.types import Output


def scene(methods=None):
    learner, teacher = training.learner(methods).train(), training.teacher()
    batch = Loader(training.digits().splits["train"], batch=16, seed=0).at(0)
    return learner, teacher, batch, teacher((batch.images,), batch.keys, learner.teacher_taps)


def state_of(learner):
    return State.fresh(learner, training.TRAINING, scaled=False)


def test_each_term_has_a_value_a_weight_and_a_pull():
    learner, _, batch, heard = scene({"hinton": {}, "fitnet": {}})
    found = distillation.terms(learner, heard, batch)
    assert [term.name for term in found] == ["task/ce", "hinton/kl", "fitnet/hint"]
    assert [term.weight for term in found] == [1.0, 0.9, 100.0]
    assert all(term.value > 0 and term.gradient_norm > 0 for term in found)


def test_a_tap_in_a_list_that_never_runs_is_refused():
    """mmrazor 197, 339: a ModuleList as a layer gave no loss, and nobody was told."""

    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x):
            return self.layers[0](x.mean((2, 3)).expand(-1, 4))

    network = Network(Listed(), classes=4, channels=1)
    with pytest.raises(StillroomError) as refused:
        network(torch.rand(2, 1, 8, 8), ("layers",))
    assert refused.value.code == "SR-M307"


def test_a_tap_that_does_not_exist_is_refused_with_the_nearest_name():
    """mmrazor 174, 589: a layer's name that is not there ended in a KeyError; yolo-distiller 13: in a loss of 0."""
    with pytest.raises(StillroomError) as refused:
        training.learner({"fitnet": {"student_taps": ["module.layer2"], "teacher_taps": ["layer2"]}})
    assert refused.value.code == "SR-M306" and "layer2" in str(refused.value)


def test_a_loss_that_does_not_reach_the_student_is_refused():
    """yolov8_distillation 6: hooks that heard nothing made a loss that taught nothing."""

    class Deaf(Method):
        def loss(self, student, teacher, batch, progress):
            return {"nothing": student.pred.detach().square().mean() + 0 * student.pred.sum()}

    learner, _, batch, heard = scene()
    learner.methods["hinton"] = Deaf()
    with pytest.raises(StillroomError) as refused:
        distillation.terms(learner, heard, batch)
    assert refused.value.code == "SR-M331" and "hinton/nothing" in str(refused.value)


def test_a_teacher_in_training_mode_is_refused():
    _, teacher, batch, heard = scene()
    assert "evaluation mode" in distillation.check_frozen(teacher, batch, heard)
    teacher.network.layer = None
    teacher.network.train()
    with pytest.raises(StillroomError, match="training mode") as refused:
        distillation.check_frozen(teacher, batch, heard)
    assert refused.value.code == "SR-T320"


def test_a_projector_that_no_optimiser_knows_is_refused():
    """arXiv 2605.31191: feature distillation did nothing while the projector was left out of the clip group."""
    learner, _, batch, heard = scene({"fitnet": {}})
    said = list(distillation.check_parameters(learner, state_of(learner), heard, batch))
    assert len(said) == 1 and said[0].startswith("fitnet: 1,056 ")  # 32 x 32 and 32
    before = state_of(learner)
    learner.methods["fitnet"].late = nn.Linear(2, 2)
    with pytest.raises(StillroomError, match=r"late\.weight") as refused:
        list(distillation.check_parameters(learner, before, heard, batch))
    assert refused.value.code == "SR-T321"


def outputs():
    torch.manual_seed(0)
    return Output(pred=torch.randn(8, 10)), Output(pred=2 * torch.randn(8, 10))


def test_conventions_of_a_right_loss():
    _, _, batch, _ = scene()
    said = distillation.conventions("hinton", Hinton(), *outputs(), dataclasses.replace(batch, target=batch.target[:8]))
    assert "x1.00 with the batch doubled" in said and "x1.00 with classes of" in said and "T = 8 for 4" in said


def test_a_loss_divided_by_its_classes_shows():
    """deit 134, mmdetection 11108: KL divided by every number in it is K times too weak."""

    class Divided(Hinton):
        def loss(self, student, teacher, batch, progress):
            return {"kl": super().loss(student, teacher, batch, progress)["kl"] / student.pred.shape[1]}

    _, _, batch, _ = scene()
    said = distillation.conventions(
        "divided", Divided(), *outputs(), dataclasses.replace(batch, target=batch.target[:8])
    )
    assert "x0.50 with classes of" in said


def test_a_temperature_without_its_square_shows():
    class Bare(Hinton):
        def loss(self, student, teacher, batch, progress):
            return {"kl": super().loss(student, teacher, batch, progress)["kl"] / self.temperature**2}

    _, _, batch, _ = scene()
    batch = dataclasses.replace(batch, target=batch.target[:8])
    ratios = []
    for method in (Hinton(), Bare()):
        ratios.append(
            float(distillation.conventions("x", method, *outputs(), batch).split("gradient x")[1].split(" ")[0])
        )
    assert ratios[1] == pytest.approx(ratios[0] / 4, abs=0.01)


class Knowing(nn.Module):
    """Says the digit whose number is written into the image's first pixel, if the pixel is as it should be."""

    def __init__(self, order):
        super().__init__()
        self.order = order

    def forward(self, x):
        said = (x[:, 0, 0, 0] * 9).round().long().clamp(0, 9)
        return torch.nn.functional.one_hot(self.order[said], 10).float() * 10


class Written:
    """A split whose images hold their labels, for a teacher that can be right."""

    def __init__(self, images=400):
        self.labels = torch.arange(images) % 10

    def __len__(self):
        return len(self.labels)

    def take(self, rows):
        pixels = (self.labels[rows].float() / 9 * 255).round().to(torch.uint8)
        return pixels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4), self.labels[rows], rows


def knowing(order=None, mean=(0.0,), std=(1.0,)):
    order = torch.arange(10) if order is None else order
    return FrozenTeacher(Network(Knowing(order), classes=10, channels=1, mean=mean, std=std))


def test_a_teacher_that_knows_is_left_in_peace():
    said = distillation.teacher_accuracy(knowing(), Written(), 10)
    assert said == ["right on 100.0% of 400 val images, chance is 10.0%"]


def test_classes_in_another_order_are_found_with_the_map_that_mends_them():
    """deit 124: other classes than the data's, and nobody noticed."""
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    said = distillation.teacher_accuracy(knowing(order), Written(), 10)
    assert any("SR-M313" in line and str(order.tolist()) in line for line in said)
    mended = FrozenTeacher(knowing(order).network, map=order.tolist())
    assert distillation.teacher_accuracy(mended, Written(), 10)[0].startswith("right on 100.0%")


def test_pixels_normalised_in_another_way_are_found():
    """lightly-train 901: a wrong normalisation corrupted the teacher's features without a word."""
    said = distillation.teacher_accuracy(knowing(mean=(0.485,), std=(0.229,)), Written(), 10)
    assert any("SR-M314" in line and "pixels as they are" in line for line in said)
    assert any("SR-M302" in line for line in said) or not said[0].startswith("right on 100.0%")


def test_pixels_are_put_back_after_the_question():
    teacher = knowing(mean=(0.25,), std=(0.5,))
    distillation.teacher_accuracy(teacher, Written(), 10)
    assert teacher.network.mean.item() == 0.25 and teacher.network.std.item() == 0.5


def test_check_says_all_of_it():
    said = preflight(read("digits", {"methods": "hinton,fitnet", "train.batch": 16}))
    assert said["methods"] == ["hinton: predictions", "fitnet: layer2 [32, 4, 4] ~ layer2 [64, 4, 4]"]
    losses = [line for line in said["losses"] if " = " in line.partition(",")[0]]
    assert len(losses) == 3 and "fitnet: 2,112 parameters" in said["gradients"][1]
    assert said["conventions"][0].startswith("hinton: x1.00 with the batch doubled")


def test_a_teacher_as_it_is_is_asked_what_it_knows(tmp_path):
    torch.manual_seed(0)
    from safetensors.torch import save_file

    network = create_model("resnet8", classes=10, channels=1, size=8)
    save_file(network.weights(), tmp_path / "teacher.safetensors")
    recipe = {
        "teacher.network": "resnet8",
        "teacher.width": 1.0,
        "teacher.weights": str(tmp_path / "teacher.safetensors"),
    }
    said = preflight(read("digits", recipe))
    assert "SR-M302" in " ".join(said["teacher accuracy"])
    assert rows(torch.zeros(2, 3, 4, 4)).shape == (32, 3)
