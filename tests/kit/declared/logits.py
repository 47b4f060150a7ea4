"""Methods of predictions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from kit.method_inputs import logit_terms
from kit.method_laws import Declared, Law
from stillroom.methods.box_logits import box_logits_loss
from stillroom.methods.deit import deit_loss
from stillroom.methods.dist import DIST, Correlation
from stillroom.methods.divergence import Kind, divergence_loss
from stillroom.methods.dkd import dkd_loss
from stillroom.methods.hard import hard_loss
from stillroom.methods.hinton import hinton_loss
from stillroom.methods.lud import lud_loss
from stillroom.methods.nkd import nkd_loss
from stillroom.methods.ofa import ofa_loss
from stillroom.methods.wkd_logits import WKDLogits
from stillroom.types import Output

ROWS = ("order of images", "order of classes", "batch twice")
SOFTMAX = (*ROWS, "a constant an image", "classes that neither network believes in")
ORDERS = ("order of images", "order of classes")
HARD = (*ROWS, "student's constant an image", "teacher's cube", "teacher's scale and shift")
SOME = {"K": (3, 9)}
POLICIES = (
    {"temperature": 0.0},
    {"temperature": -1.0},
    {"temperature": math.inf},
    {"lowest": 0.0},
    {"lowest": 5.0, "temperature": 4.0, "policy": "cosine"},
)
LOUD = 5000.0  # of logits with a deviation of 3: still a number in float16


def parts(kind: Any, **arguments: Any) -> Any:
    """A method as a loss: a new one for every call, so that it remembers nothing."""

    def loss(student: Tensor, teacher: Tensor, target: Tensor | None = None) -> tuple[Tensor, ...]:
        method = kind(**arguments)
        method.setup(*(_output(x) for x in (student, teacher)))
        return tuple(logit_terms(method, student, teacher, target).values())

    return loss


def _output(pred: Tensor) -> Output:
    return Output(pred=pred)


def most(kind: str, beta: float) -> float:
    """The largest value of each bounded divergence, in nats."""
    entropy = -beta * math.log(beta) - (1 - beta) * math.log1p(-beta)
    return {"js": math.log(2), "gjs": entropy, "tv": 1.0, "hellinger": 1.0}.get(kind, math.inf)


def divergence(kind: Any, temperature: float, beta: float) -> Law:
    power = 1 if kind == "tv" else 2
    loss = partial(divergence_loss, kind=kind, temperature=temperature, beta=beta)
    bound = most(kind, beta) * temperature**power * (1 + 1e-12)
    return Law(loss=loss, scale=3, keeps=SOFTMAX, equal=1e-10, most=bound, loud=LOUD)


def dist(kind: Any) -> Law:
    """From four images on no class has a spread so small that the guard against 0 / 0 counts."""
    check = {"eps": 1e-8, "atol": 1e-4}
    least = {} if kind == "pearson" else {"least": -1e-12}
    return Law(
        loss=parts(DIST, correlation=kind, reg=0.05),
        scale=2,
        ranges={"B": (4, 6), "K": (3, 9)},
        keeps=ORDERS,
        equal=1e-9,
        most=2,
        rel=1e-6,
        abs=1e-8,
        loud=LOUD,
        near=1e-3,
        check=check,
        **least,
    )


LOGITS = {
    "hinton": Declared(
        laws={
            f"T={t}": Law(loss=partial(hinton_loss, temperature=t), scale=3, keeps=SOFTMAX, equal=1e-10, loud=LOUD)
            for t in (0.5, 4.0, 20.0)
        },
        bad=POLICIES,
    ),
    "hard": Declared(laws={"": Law(loss=hard_loss, scale=3, keeps=HARD, equal=None, least=0, loud=LOUD)}),
    "deit": Declared(
        laws={
            "hard": Law(loss=partial(deit_loss, kind="hard"), scale=3, keeps=HARD, equal=None, least=0, loud=LOUD),
            "soft": Law(loss=partial(deit_loss, kind="soft"), scale=3, keeps=SOFTMAX, equal=1e-10, loud=LOUD),
        },
        bad=({"kind": "firm"}, {"temperature": 0}, {"student_taps": ()}),
    ),
    "divergence": Declared(
        laws={
            f"{kind} T={t} beta={beta}": divergence(kind, t, beta)
            for kind in get_args(Kind)
            for t, beta in ((1.0, 0.2), (8.0, 0.7))
        },
        variants=({"kind": "gjs", "beta": 0.1},),
        same=({"kind": "gjs"},),
        bad=(*POLICIES, {"kind": "kldiv"}, {"beta": 0.0}, {"beta": 1.0}),
    ),
    "dist": Declared(
        laws={kind: dist(kind) for kind in get_args(Correlation)},
        variants=({"beta": 2.0, "gamma": 3.0, "temperature": 4.0},),
        bad=({"beta": -1.0}, {"gamma": -2.0}, {"temperature": 0.0}, {"reg": 0.0}, {"correlation": "kendall"}),
        relations=True,
        alone=False,
        empty=("intra",),
        arguments={"reg": 0.3},
        check={"eps": 1e-8, "atol": 1e-4},
    ),
    "lud": Declared(
        laws={
            f"reg={reg}": Law(
                loss=partial(lud_loss, reg=reg),
                scale=3,
                ranges={"B": (4, 16), "K": (3, 9)},
                keeps=ORDERS,
                equal=1e-3 if reg else 1e-12,
                least=-1e-12,
                most=2,
                rel=1e-6,
                abs=1e-9,
                loud=LOUD,
                near=1e-2,
                check={"eps": 1e-8, "atol": 1e-4} if reg else None,
            )
            for reg in (0.0, 0.03)
        },
        bad=({"category": -1.0}, {"sample": -2.0}, {"temperature": 0.0}, {"lowest": 5.0}, {"reg": 0.0}),
        relations=True,
        alone=False,
        arguments={"reg": 0.03},
        check={"eps": 1e-8, "atol": 1e-4},
    ),
    "dkd": Declared(
        laws={
            f"T={t}": Law(
                loss=partial(dkd_loss, alpha=1.0, beta=1.0, temperature=t),
                labels=True,
                scale=3,
                ranges=SOME,
                keeps=(*ROWS, "a constant an image"),
                equal=1e-10,
                loud=LOUD,
            )
            for t in (0.5, 4.0, 20.0)
        },
        bad=(*POLICIES, {"alpha": -1}, {"beta": -0.5}),
    ),
    "nkd": Declared(
        laws={
            f"T={t}": Law(
                loss=partial(nkd_loss, gamma=1.5, temperature=t),
                labels=True,
                scale=3,
                ranges=SOME,
                keeps=(*ROWS, "a constant an image"),
                equal=None,
                least=0,
                loud=LOUD,
            )
            for t in (0.5, 1.0, 4.0)
        },
        bad=({"gamma": -1.0}, {"temperature": 0.0}),
    ),
    "ofa": Declared(
        laws={
            f"eps={eps} T={t}": Law(
                loss=partial(ofa_loss, eps=eps, temperature=t),
                labels=True,
                scale=3,
                keeps=(*ROWS, "a constant an image"),
                equal=None,
                least=0,
                loud=LOUD,
            )
            for eps, t in ((0.6, 1.0), (1.0, 2.0), (2.5, 0.7))
        },
        variants=({"eps": 1.5, "temperature": 2.0},),
        bad=({"eps": 0.0}, {"temperature": 0.0}),
    ),
    "wkd_logits": Declared(
        laws={
            "": Law(
                loss=parts(WKDLogits, gamma=1.0, temperature=4.0, iterations=50),
                labels=True,
                scale=3,
                ranges={"B": (2, 6), "K": (3, 8)},
                keeps=(*ORDERS, "a constant an image"),
                equal=None,
                least=0,
                rel=1e-6,
                abs=1e-8,
                loud=LOUD,
                check={"atol": 1e-4},
            )
        },
        bad=({"gamma": -1.0}, {"temperature": 0.0}, {"kappa": -2.0}, {"reg": 0.01}, {"iterations": 0}),
        arguments={"gamma": 1.0, "temperature": 2.0, "iterations": 30},
        check={"atol": 1e-4},
    ),
    "ca_mkd": Declared(bad=({"temperature": 0.0}, {"features": -1.0})),
    "box_logits": Declared(
        laws={
            f"focus={focus}": Law(
                loss=partial(box_logits_loss, focus=focus),
                student="B 7 9",
                scale=3,
                ranges={"B": (2, 5)},
                keeps=("order of images", "order of tokens", "batch twice"),
            )
            for focus in (0.0, 0.5, 1.0, 2.0)
        },
        alone=False,
        bad=({"focus": -0.1},),
    ),
    "ld": Declared(alone=False, bad=({"power": -1}, {"sides": -1})),
    "pseudo_labels": Declared(
        bad=({"score_threshold": 1.2}, {"nms_iou": -0.1}, {"max_detections": 0}, {"on": "some"}, {"assign": "few"}),
        alone=False,
        precision=torch.float32,
        check="boxes of the teacher are given to places, which jump",
    ),
}
