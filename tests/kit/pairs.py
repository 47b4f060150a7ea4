"""Small pairs of networks of every kind, and a method set up between two of them."""

from __future__ import annotations

import copy
from functools import cache

import torch

from kit.targets import drawn_target
from stillroom.config.plugins import pick
from stillroom.errors import StillroomError
from stillroom.matching.errors import UnsupportedMethod
from stillroom.matching.feature_info import feature_info
from stillroom.matching.method_setup import bind_taps
from stillroom.models import create_model
from stillroom.teachers.frozen import FrozenTeacher
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
    "pixels from pixels": (("timm/test_efficientnet", {}), ("timm/test_resnet", {})),
    "boxes from boxes": (("timm/test_efficientnet", {}), ("timm/test_resnet", {})),
}
CLASSES = 5


def answers(pair):
    """What both networks of a pair say."""
    first = pair.split()[0]
    return first if first in ("pixels", "boxes") else "classes"


def side(pair):
    return {"classes": 8, "pixels": 16, "boxes": 32}[answers(pair)]


@cache
def networks(pair):
    torch.manual_seed(0)
    how = {"classes": CLASSES, "channels": 1, "size": side(pair), "output_kind": answers(pair)}
    return tuple(create_model(name, **how, **more) for name, more in PAIRS[pair])


def batch(images=6, pair="cnn from cnn", seed=1):
    """Images with what is known of them; of a detector's the first is one where nobody has looked."""
    torch.manual_seed(seed)
    size = side(pair)
    seen = torch.rand(images, 1, size, size)
    target = torch.randint(CLASSES, (images,))
    if answers(pair) == "pixels":
        target = torch.randint(-1, CLASSES, (images, size, size))
    if answers(pair) == "boxes":
        target = drawn_target(images, 3, CLASSES, seed)
        target["known"][0] = False
    return Batch(images=seen, target=target, keys=torch.arange(images))


def ready(name, pair):
    """Student, teacher and the method between them; a StillroomError where it can't work with the two."""
    kind = pick("methods", name)
    if not kind.teaches(answers(pair)):
        raise UnsupportedMethod(method=name, output_kind=answers(pair), able="others")
    student, network = (copy.deepcopy(one) for one in networks(pair))
    method, one, teacher = kind(), batch(pair=pair), FrozenTeacher(network)
    bind_taps(method, feature_info(student, one.images[:2]), feature_info(network, one.images[:2]), name=name)
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
    except StillroomError as refused:
        return refused.code
    return ""


def charge(student, teacher, method, one):
    said = teacher((one.images,), one.keys, method.teacher_taps)
    return method.loss(method.project(student(one.images, method.student_taps)), said, one, 0.5)
