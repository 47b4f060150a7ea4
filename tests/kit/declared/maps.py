"""Methods that compare places of maps and tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kit.method_laws import Declared, Law
from stillroom.methods.at import at_loss
from stillroom.methods.cwd import cwd_loss
from stillroom.methods.fitnet import hint_loss
from stillroom.methods.mgd import mgd_loss
from stillroom.methods.minilm import Relation, minilm_loss
from stillroom.methods.nst import nst_loss
from stillroom.methods.ofd import margin, negatives, ofd_loss
from stillroom.methods.pkd import pkd_loss
from stillroom.methods.reviewkd import hcl_loss
from stillroom.methods.skd import skd_loss
from stillroom.methods.vid import vid_loss
from stillroom.methods.vitkd import vitkd_loss
from stillroom.methods.wkd_features import wkd_features_loss

MIXED = ("a vector to a map", "a map to a vector")
NO_VECTORS = ("vectors", *MIXED)
SETS = ("order of images", "batch twice")
PLACES = (*SETS, "order of places")
SQUARES = ("a constant on both", *SETS, "order of channels", "the two exchanged")


def squares(loss: Any, *keeps: str, shape: str = "B C 3 3") -> Law:
    """A mean or sum of squared differences."""
    return Law(loss=loss, student=shape, keeps=(*SQUARES, *keeps), equal=0, degree=2)


def own_margin(student: Tensor, teacher: Tensor) -> Tensor:
    return ofd_loss(student, teacher, margin(negatives(teacher)))


def four_variances(student: Tensor, teacher: Tensor) -> Tensor:
    variance = torch.tensor([0.1, 1, 2, 9], dtype=torch.promote_types(student.dtype, torch.float32))
    return vid_loss(student, teacher, variance)


def nst(channels: int, other: int, side: int) -> Law:
    """Few and many channels for the places there are: the two ways to multiply."""
    return Law(
        loss=nst_loss,
        student=f"B {channels} {side} {side}",
        teacher=f"B {other} {side} {side}",
        keeps=(*PLACES, "student's scale and sign a channel", "student's order of channels", "the two exchanged"),
        most=2 + 1e-9,
    )


def minilm(relation: Relation, heads: int) -> Law:
    return Law(
        loss=partial(minilm_loss, relation=relation, heads=heads),
        student="B N 12",
        teacher="B N 24",
        scale=2,
        keeps=("order of images", "order of tokens", "batch twice"),
    )


MAPS = {
    "at": Declared(
        laws={
            f"power={power}": Law(
                loss=partial(at_loss, power=power),
                student="B C 4 4",
                teacher="B D 4 4",
                keeps=(
                    *PLACES,
                    "student's scale an image",
                    "teacher's scale an image",
                    "student's order of channels",
                    "the two exchanged",
                ),
                equal=0,
                most=2 / 16,
                loud=1e4,
            )
            for power in (1.0, 2.0, 4.0)
        },
        refuses=NO_VECTORS,
        bad=({"power": 0.5},),
    ),
    "nst": Declared(
        laws={f"{c} and {d} channels": nst(c, d, side) for c, d, side in ((3, 5, 4), (12, 9, 2), (2, 20, 3))},
        refuses=NO_VECTORS,
    ),
    "cwd": Declared(
        laws={
            f"T={t}": Law(
                loss=partial(cwd_loss, temperature=t),
                student="B C 3 4",
                keeps=(*PLACES, "order of channels", "student's constant a channel"),
                equal=1e-9,
                abs=1e-9,
            )
            for t in (0.5, 1.0, 4.0)
        },
        without=("of",),
        refuses=NO_VECTORS,
        bad=({"temperature": 0.0}, {"of": "taps"}),
    ),
    "fitnet": Declared(laws={"": squares(hint_loss, "order of places")}, refuses=MIXED),
    "mgd": Declared(
        laws={"": squares(mgd_loss, "order of places")},
        refuses=MIXED,
        bad=({"masked": -0.1}, {"masked": 1.0}, {"over": "pixels"}),
    ),
    "vitkd": Declared(
        laws={"": squares(vitkd_loss, "order of places")},
        bad=({"alpha": -1.0}, {"beta": -1.0}, {"masked": 0.0}, {"masked": 1.5}, {"student_taps": ("a",)}),
    ),
    "reviewkd": Declared(laws={f"side {n}": squares(hcl_loss, shape=f"B C {n} {n}") for n in (1, 5)}, refuses=MIXED),
    "wkd_features": Declared(
        laws={
            "grid=1": Law(
                loss=partial(wkd_features_loss, ratio=4.0, grid=1),
                student="B C 5 4",
                scale=3,
                keeps=(*SQUARES, "order of places", "student's order of places"),
                equal=0,
            ),
            "grid=2": Law(
                loss=partial(wkd_features_loss, ratio=1.0, grid=2), student="B C 5 4", scale=3, keeps=SQUARES, equal=0
            ),
        },
        variants=({"grid": 2},),
        refuses=(),
        bad=({"ratio": -1.0}, {"grid": 0}),
    ),
    "ofd": Declared(
        laws={
            "": Law(
                loss=own_margin, student="B C 3 3", keeps=(*PLACES, "order of channels"), equal=0, least=0, degree=2
            )
        },
        refuses=MIXED,
        alone=False,
    ),
    "skd": Declared(
        laws={
            "": Law(
                loss=skd_loss,
                student="B C 3 4",
                teacher="B D 3 4",
                keeps=(
                    *PLACES,
                    "student's rotation",
                    "student's scale an image",
                    "teacher's scale an image",
                    "the two exchanged",
                ),
                most=4,
            )
        },
        refuses=NO_VECTORS,
        bad=({"nodes": 1},),
    ),
    "pkd": Declared(
        laws={
            "": Law(
                loss=pkd_loss,
                student="B C 3 5",
                keeps=(
                    *PLACES,
                    "order of channels",
                    "student's scale and shift",
                    "teacher's scale and shift",
                    "the two exchanged",
                ),
                most=2,
                rel=1e-3,
            )
        },
        refuses=MIXED,
        relations=True,
        alone=False,
    ),
    "vid": Declared(
        laws={
            "": Law(loss=four_variances, student="B 4 3 3", keeps=(*PLACES, "a constant on both"), equal=None, rel=1e-7)
        },
        refuses=MIXED,
        bad=({"variance": 0}, {"variance": 1e-5}),
    ),
    "minilm": Declared(
        laws={f"{relation} {heads}": minilm(relation, heads) for relation, heads in (("qk", 1), ("vv", 2), ("qq", 4))},
        variants=({"relations": ("qq", "kk")}, {"heads": 2}),
        bad=({"relations": ()}, {"relations": ("qv",)}, {"relations": ("qk", "qk")}, {"heads": 0}),
    ),
    "fgd": Declared(
        refuses=NO_VECTORS,
        bad=({"background": -1}, {"attention": -1}, {"temperature": 0}),
    ),
}
