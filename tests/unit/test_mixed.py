"""Mixed images on their way through everything else: batches, methods, recipes, `check` and training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from kit import training
from kit.pairs import PAIRS, answers, charge, ready, works
from kit.pairs import batch as pair_batch

from stillroom.config import recipe
from stillroom.config.plugins import choices, pick
from stillroom.config.schema import Augment
from stillroom.data.loader import Loader
from stillroom.diagnostics.preflight import preflight
from stillroom.errors import StillroomError
from stillroom.models import create_model
from stillroom.tasks.classification import Classification
from stillroom.training.distiller import Distiller
from stillroom.types import Batch, Mixed

MIXED = Mixed(target=torch.tensor([4, 5, 6, 7]), share=torch.tensor([0.5, 0.6, 0.7, 0.8]))
BATCH = Batch(images=torch.rand(4, 1, 2, 2), target=torch.arange(4), keys=torch.arange(4), mixed=MIXED)
LEAST = {"data": "digits", "teacher": "resnet8", "student": "resnet8"}
BOTH = Augment(shift=0.1, mixup=0.4, cutmix=1.0, num_views=2)


def test_a_batch_takes_its_partners_along():
    parts = list(BATCH.split(2))
    assert [part.mixed.target.tolist() for part in parts] == [[4, 5], [6, 7]]
    assert torch.equal(parts[1].mixed.share, MIXED.share[2:])
    moved = BATCH.to(torch.device("meta"))
    assert moved.mixed.target.is_meta and moved.mixed.share.is_meta
    assert replace(BATCH, mixed=None).map(lambda tensor: tensor[:1]).mixed is None
    padded = replace(MIXED, target={"boxes": torch.arange(8).reshape(4, 2)})
    assert next(replace(BATCH, mixed=padded).split(4)).mixed.target["boxes"].tolist() == [[0, 1]]


@pytest.mark.parametrize("name", choices("methods"))
def test_methods_read_the_greater_part_s_class_and_nothing_else(name):
    """What they charge for a mixed image is what they would charge for its pixels with its own label."""
    if not pick("methods", name).teaches("classes"):
        pytest.skip("teaches no classifier")
    pair = next(pair for pair in PAIRS if answers(pair) == "classes" and not works(name, pair))
    plain = pair_batch(6, pair)
    said = []
    for one in (plain, replace(plain, mixed=Mixed(target=plain.target.flip(0), share=torch.full((6,), 0.6)))):
        student, teacher, method = ready(name, pair)
        torch.manual_seed(3)
        said.append({term: value.item() for term, value in charge(student, teacher, method, one).items()})
    assert said[0] == said[1] and all(np.isfinite(value) for value in said[0].values())


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_task_whose_labels_can_t_be_mixed_says_so_key_by_key(task):
    with pytest.raises(StillroomError) as refused:
        recipe.check(LEAST | {"task": task, "augment": {"mixup": 0.2, "cutmix": 1.0}})
    for kind in ("mixup", "cutmix"):
        assert f"augment.{kind}: must be 0, for the labels of two images can't be made one in {task}" in str(
            refused.value
        )
    assert recipe.check(LEAST | {"task": task, "augment": {"num_views": 3}}).augment.distinct_views == 3


def test_tasks_of_classes_and_of_vectors_mix():
    teacher = {"network": "timm/test_vit", "weights": "pretrained"}
    for task in ("classification", "embedding"):
        found = recipe.check(LEAST | {"teacher": teacher, "task": task, "augment": {"mixup": 0.2}})
        assert found.augment.mixup == 0.2


def test_check_takes_a_mixed_batch_through_every_measurement():
    found = preflight(
        recipe.check(LEAST | {"augment": {"mixup": 0.4, "cutmix": 1.0}, "methods": ["hinton", "dkd", "hard"]})
    )
    assert found["losses"][0].startswith("task/ce = ") and len(found["conventions"]) == 3


def test_training_on_mixed_images_is_its_own_and_comes_again():
    config = training.replace(training.TRAINING, steps=3, grad_accum_steps=2)
    (_, first), (_, second), (_, plain) = (
        training.steps(training.learner(), config, augment=augment)
        for augment in (BOTH, BOTH, replace(BOTH, mixup=0.0, cutmix=0.0))
    )
    assert [step.terms for step in first] == [step.terms for step in second]
    assert first[0].terms["task/ce"] != plain[0].terms["task/ce"]
    assert all(np.isfinite(value) for step in first for value in step.terms.values())


def test_a_student_learns_from_mixed_images():
    torch.manual_seed(0)
    one = Distiller(create_model("resnet8", classes=10, channels=1, size=8), Classification(), {}, {"task": 1.0})
    config = training.replace(training.TRAINING, steps=60, batch=64)
    training.steps(one, config, taught=False, augment=BOTH)
    batch = Loader(training.digits().splits["val"], batch=200, seed=0).at(0)
    right = (one.student.eval()(batch.images, ()).pred.argmax(1) == batch.target).float().mean()
    assert right > 0.6, "chance is 0.1"
