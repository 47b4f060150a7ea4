"""Methods of pooled vectors, and of what the images of a batch are to each other."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kit.method_laws import Declared, Law
from stillroom.methods.cc import cc_loss
from stillroom.methods.cosine import cosine_loss
from stillroom.methods.crd import crd_loss
from stillroom.methods.pkt import pkt_loss
from stillroom.methods.rkd import rkd_angle_loss, rkd_distance_loss
from stillroom.methods.simreg import simreg_loss
from stillroom.methods.sliced_wasserstein import sliced_wasserstein_loss
from stillroom.methods.sp import sp_loss
from stillroom.methods.vkd import vkd_loss

SETS = ("order of images", "batch twice")
LENGTHS = ("student's scale an image", "teacher's scale an image", "the two exchanged")
DIRECTIONS = F.normalize(torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
BANK = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)


def along_thirty_directions(student: Tensor, teacher: Tensor) -> Tensor:
    return sliced_wasserstein_loss(student, teacher, DIRECTIONS)


def among_six_others(student: Tensor, teacher: Tensor) -> Tensor:
    """Of which every image counts all but one."""
    s, t = (F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1) for x in (student, teacher))
    counted = torch.arange(6).expand(len(s), -1) != 2
    return crd_loss(s, t, BANK.to(s.dtype), counted, s.new_tensor(1.5), 0.5)


def relation(loss: object, *keeps: str, least: int = 3, equal: float = 1e-20) -> Law:
    return Law(
        loss=loss,
        student="B C",
        teacher="B D",
        ranges={"B": (least, 7)},
        keeps=("order of images", "student's rotation", *keeps),
        equal=equal,
        rel=1e-7,
        abs=1e-9,
        near=1e-3,
    )


VECTORS = {
    "cosine": Declared(laws={"": Law(loss=cosine_loss, student="B D", keeps=(*SETS, *LENGTHS), most=2)}, refuses=()),
    "simreg": Declared(
        laws={
            "unit": Law(loss=partial(simreg_loss, unit=True), student="B D", keeps=(*SETS, *LENGTHS), most=4),
            "whole": Law(
                loss=partial(simreg_loss, unit=False),
                student="B D",
                keeps=(*SETS, "a constant on both", "the two exchanged"),
                degree=2,
            ),
        },
        variants=({"layers": 1}, {"layers": 3}),
        refuses=(),
        bad=({"layers": 0},),
    ),
    "vkd": Declared(
        laws={
            "": Law(
                loss=vkd_loss,
                student="B D",
                ranges={"D": (6, 9)},
                keeps=(*SETS, "teacher's scale and shift"),
                equal=None,
                least=0,
                rel=1e-2,
                loud=1e4,
            )
        },
        refuses=(),
    ),
    "sliced_wasserstein": Declared(
        laws={
            "": Law(
                loss=along_thirty_directions,
                student="B 4",
                keeps=(*SETS, "student's order of images", "a constant on both", "the two exchanged"),
                equal=1e-20,
                degree=2,
                loud=1e4,
            )
        },
        refuses=(),
        relations=True,
        alone=False,
        bad=({"directions": 0},),
    ),
    "sp": Declared(
        laws={
            "": Law(
                loss=sp_loss,
                student="B C 2 2",
                teacher="B D 2 2",
                ranges={"B": (2, 6)},
                keeps=(
                    "order of images",
                    "student's rotation",
                    "student's scale",
                    "student's order of places",
                    "the two exchanged",
                ),
                equal=1e-20,
                most=lambda drawn: 4 / len(drawn.student),
                abs=1e-12,
                near=1e-3,
            )
        },
        refuses=(),
        relations=True,
        alone=False,
    ),
    "rkd": Declared(
        laws={
            "distance": relation(rkd_distance_loss, "student's scale and shift", "the two exchanged"),
            "angle": relation(rkd_angle_loss, "student's scale and shift", "the two exchanged"),
        },
        refuses=(),
        relations=True,
        alone=False,
        variants=({"distance": 0.0, "angle": 1.0}, {"distance": 1.0, "angle": 0.0}),
        bad=({"distance": -1}, {"angle": -1}, {"distance": 0, "angle": 0}),
    ),
    "pkt": Declared(
        laws={
            "": relation(pkt_loss, "student's scale an image", "teacher's scale an image", equal=1e-15),
        },
        refuses=(),
        relations=True,
        alone=False,
    ),
    "cc": Declared(
        laws={
            f"gamma={gamma} order={order}": relation(
                partial(cc_loss, gamma=gamma, order=order), *LENGTHS, least=2, equal=1e-20
            )
            for gamma, order in ((0.4, 2), (0.4, 1), (1.5, 4))
        },
        variants=({"gamma": 1.0, "order": 3},),
        refuses=(),
        relations=True,
        alone=False,
        bad=({"gamma": 0}, {"order": 0}),
    ),
    "crd": Declared(
        laws={"": Law(loss=among_six_others, student="B 4", keeps=SETS, equal=None, least=0)},
        refuses=(),
        variants=({"bank": 3, "dim": 4},),
        bad=(
            {"dim": 0},
            {"bank": 0},
            {"temperature": 0},
            {"student_taps": ("a", "b")},
            {"teacher_taps": ("a", "b")},
        ),
        alone=False,
        check="a gradient reaches the anchors alone",
    ),
}
