"""Four small pairs of networks, and a method set up between two of them."""

from __future__ import annotations

import copy
from functools import cache

import torch

from stillroom.errors import Failure
from stillroom.lessons import connect
from stillroom.models import build
from stillroom.plugins import pick
from stillroom.survey import survey
from stillroom.teachers.frozen import Frozen
from stillroom.types import Batch

VIT = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4, "num_heads": 2}
PAIRS = {
    "cnn from cnn": (("resnet8", {}), ("resnet14", {"width": 2.0})),
    "vit from vit": (
        ("timm/vit_tiny_patch16_224", VIT | {"distilled": True}),
        ("timm/vit_tiny_patch16_224", VIT | {"embed_dim": 32, "depth": 5}),
    ),
    "cnn from vit": (("resnet8", {}), ("timm/vit_tiny_patch16_224", VIT)),
    "vit from cnn": (("timm/vit_tiny_patch16_224", VIT | {"distilled": True}), ("resnet14", {})),
}


@cache
def networks(pair):
    torch.manual_seed(0)
    return tuple(build(name, classes=5, channels=1, size=8, **more) for name, more in PAIRS[pair])


def batch(images=6):
    torch.manual_seed(1)
    return Batch(images=torch.rand(images, 1, 8, 8), target=torch.randint(5, (images,)), keys=torch.arange(images))


def ready(name, pair):
    """Student, teacher and the method between them; a Failure where it can't work with the two."""
    student, network = (copy.deepcopy(one) for one in networks(pair))
    method, one, teacher = pick("methods", name)(), batch(), Frozen(network)
    connect(method, survey(student, one.images[:2]), survey(network, one.images[:2]), name=name)
    torch.manual_seed(2)
    student.eval()
    with torch.no_grad():
        said = student(one.images[:2], method.student_taps)
    method.setup(said, teacher((one.images[:2],), one.keys[:2], method.teacher_taps))
    return student, teacher, method


@cache
def works(name, pair):
    try:
        ready(name, pair)
    except Failure as refused:
        return refused.code
    return ""


def charge(student, teacher, method, one):
    said = teacher((one.images,), one.keys, method.teacher_taps)
    return method.loss(method.project(student(one.images, method.student_taps)), said, one, 0.5)
