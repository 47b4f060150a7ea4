"""Tensors for any method, made from what the method declares that it reads: no networks, no images."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kit.batches import batch_of
from kit.targets import drawn_pred, drawn_target
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms

CLASSES = 5
Shape = tuple[int, ...]

FORMS: dict[str, tuple[Shape, Shape]] = {
    "maps": ((3, 4, 4), (5, 2, 2)),
    "tokens": ((17, 3), (10, 5)),
    "tokens to a map": ((17, 3), (5, 8, 8)),
    "a map to tokens": ((3, 8, 8), (10, 5)),
    "vectors": ((3,), (5,)),
    "a vector to a map": ((3,), (5, 4, 4)),
    "a map to a vector": ((3, 4, 4), (5,)),
}
"""Shapes of a feature, without the images, of the student and of the teacher."""

FURTHER: dict[str, tuple[Shape, Shape]] = {"stages": ((2, 8, 8), (5, 8, 8)), "edges": ((2, 8, 8), (5, 8, 8))}
"""A second pair of features, for methods that read several stages."""

OWN: dict[str, list[tuple[Shape, Shape]]] = {
    "blocks": [((17, 4), (17, 6))] * 3,
    "attention": [((10, 12), (10, 24))],
}
"""Methods that read one place of a ViT have no choice of form."""


@dataclass(frozen=True)
class Pair:
    """What two networks make of one batch."""

    student: Output
    teacher: Output
    batch: Batch

    def map(self, change: Any, *, teacher: Any = None) -> Pair:
        """`change` applied to the student's tensors, and `teacher`, or else `change`, to the teacher's."""
        return replace(self, student=_changed(self.student, change), teacher=_changed(self.teacher, teacher or change))

    def rows(self, chosen: Any) -> Pair:
        """Those images."""
        cut = self.map(lambda x: x[chosen])
        return replace(cut, batch=self.batch.map(lambda x: x[chosen]))

    def leaves(self) -> list[Tensor]:
        """The student's tensors, each asked for its gradient."""
        return [x.requires_grad_() for x in (self.student.pred, *self.student.taps.values())]


def variants(kind: type[Method]) -> Iterator[dict[str, Any]]:
    """Arguments under which a method is tried: the defaults, every other word of a Literal, every flag turned."""
    yield {}
    hints = typing.get_type_hints(kind.__init__)
    for name, parameter in inspect.signature(kind).parameters.items():
        if typing.get_origin(hints[name]) is typing.Literal:
            yield from ({name: word} for word in typing.get_args(hints[name]) if word != parameter.default)
        elif hints[name] is bool:
            yield {name: not parameter.default}


def pair(
    method: Method, images: int = 4, *, form: str = "maps", seed: int = 0, dtype: torch.dtype = torch.float64
) -> Pair:
    """Random numbers of the shapes that the method reads, with labels for every image."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(images, *shape, generator=draw, dtype=torch.float64)).to(dtype)

    target: Any = torch.randint(CLASSES, (images,), generator=draw)
    preds = [normal(CLASSES, scale=3) for _ in range(2)]
    if "boxes" in method.output_kinds:
        preds = [drawn_pred(images, 9, CLASSES, seed=seed + i).to(dtype) for i in range(2)]
        preds[1][..., 4:] += 2  # a teacher that is sure of something
        target = drawn_target(images, 3, CLASSES, seed)
        target["known"] = torch.arange(images) % 2 == 1
    taps: list[dict[str, Tensor]] = [{}, {}]
    for i, shapes in enumerate(_shapes(method, form)):
        for side, letter, shape in zip(taps, "st", shapes, strict=True):
            side[f"{letter}{i}"] = normal(*shape)
    if method.default_taps == "members":
        taps[1] = {f"{n}/pred": normal(CLASSES, scale=3) for n in (1, 2, 3)}
    taps[0] |= {name: normal(CLASSES, scale=3) for name in method.student_taps if method.default_taps == "pred"}
    student, teacher = (Output(pred=pred, taps=side) for pred, side in zip(preds, taps, strict=True))
    return Pair(student, teacher, batch_of(images, target))


def connected(method: Method, given: Pair, *, seed: int = 0) -> Method:
    """The method bound to the features of the pair and set up on two of its images, in float64."""
    torch.manual_seed(seed)
    taps = tuple(given.student.taps), tuple(given.teacher.taps)
    if method.default_taps == "members":
        taps = ("s",) * len(taps[1]), tuple(f"{n}/t" for n in range(1, len(taps[1]) + 1))
    method.bind_taps(*taps)
    two = given.rows(slice(2))
    method.setup(two.student, two.teacher)
    return method.double()


def terms_of(method: Method, given: Pair, *, seed: int = 7, progress: float = 0.5) -> Terms:
    """The method's terms; masks and directions are drawn with `seed`."""
    torch.manual_seed(seed)
    return method.loss(method.project(given.student), given.teacher, given.batch, progress)


def logit_terms(
    method: Method, student: Tensor, teacher: Tensor, target: Any = None, *, progress: float = 0.5, **more: Any
) -> Terms:
    """The terms of a method that reads predictions alone."""
    batch = batch_of(len(student), target, **more)
    return method.loss(Output(pred=student), Output(pred=teacher), batch, progress)


def _shapes(method: Method, form: str) -> list[tuple[Shape, Shape]]:
    if method.default_taps in ("pred", "members"):
        return []
    further = [FURTHER[method.default_taps]] if method.default_taps in FURTHER else []
    return OWN.get(method.default_taps) or [FORMS[form], *further]


def _changed(output: Output, change: Any) -> Output:
    return Output(pred=change(output.pred), taps={name: change(tap) for name, tap in output.taps.items()})
