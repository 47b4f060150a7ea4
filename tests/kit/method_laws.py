"""What a method's loss must not notice: named changes of its arguments, and a table's row to declare them in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

RANGES = {"B": (1, 6), "K": (2, 9), "C": (2, 5), "D": (2, 6), "N": (2, 6)}
"""Letters of a shape and the sizes drawn for them; a number stands for itself."""


@dataclass(frozen=True)
class Drawn:
    """Arguments of a loss."""

    student: Tensor
    teacher: Tensor
    target: Tensor


@dataclass(frozen=True, kw_only=True)
class Law:
    """One loss under one set of arguments, and what holds for it whatever the numbers.

    Attributes:
        loss: of student and teacher, and of the true classes where `labels` is set; one scalar or several.
        student: its shape as letters of `RANGES` and numbers, images first.
        teacher: likewise; the student's where left out.
        scale: of the normal numbers that are drawn.
        labels: whether the loss takes a class in 0..K-1 for each image.
        equal: what two equal arguments may cost, and any others cost more; None where they may cost anything.
        least: what any arguments cost at least; where it is given, others than equal ones may cost nothing.
        most: what any arguments cost at most; a function of the arguments where it depends on them.
        keeps: changes in `CHANGES` that leave every part as it is.
        degree: the power of a by which the loss grows when both arguments are multiplied by a.
        rel, abs: how nearly.
        ranges: instead of `RANGES`.
        near: how nearly half precision and autocast give what float32 does for the same rounded numbers.
        loud: what numbers are multiplied by where half precision has to stay finite.
        check: arguments of `gradcheck`; None: it has no gradient.
    """

    loss: Callable[..., Any]
    student: str = "B K"
    teacher: str = ""
    scale: float = 1.0
    labels: bool = False
    equal: float | None = 1e-12
    least: float | None = None
    most: float | Callable[[Drawn], float] = math.inf
    keeps: tuple[str, ...] = ()
    degree: float | None = None
    rel: float = 1e-8
    abs: float = 1e-10
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    near: float = 1e-4
    loud: float = 1000.0
    check: Mapping[str, float] | None = field(default_factory=dict)

    def __call__(self, drawn: Drawn) -> Tensor:
        """All parts of the loss, [parts]."""
        found = self.loss(drawn.student, drawn.teacher, *([drawn.target] if self.labels else []))
        return torch.stack(list(found) if isinstance(found, tuple) else [found])

    def draw(self, seed: int, *, dtype: torch.dtype = torch.float64, **sizes: int) -> Drawn:
        """Arguments of a random size; `sizes` fixes letters."""
        draw = torch.Generator().manual_seed(seed)
        ranges = {**RANGES, **self.ranges}
        drawn = {
            letter: int(torch.randint(low, high + 1, (), generator=draw)) for letter, (low, high) in ranges.items()
        }
        sizes = drawn | sizes
        shapes = [[sizes[part] if part in sizes else int(part) for part in words.split()] for words in self._words]
        student, teacher = (self.scale * torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
        target = torch.randint(sizes["K"], (sizes["B"],), generator=draw)
        return Drawn(student.to(dtype), teacher.to(dtype), target)

    @property
    def _words(self) -> tuple[str, str]:
        return self.student, self.teacher or self.student


@dataclass(frozen=True, kw_only=True)
class Declared:
    """A method's row of the table. Whatever is left out has the default of a method that nobody declared.

    Attributes:
        laws: its losses by a name.
        bad: arguments that its constructor refuses; the first of each is the one at fault.
        variants: arguments to try besides those that are found by their types.
        without: arguments of whose other words none can be tried on made-up features.
        refuses: forms of features, of `kit.method_inputs.FORMS`, that can't be compared; None: unknown.
        relations: it compares the images of a batch with each other: one alone teaches nothing.
        alone: an image costs the same whatever else is in the batch, and a batch the mean of its images.
        empty: terms that are not 0 where there is no image.
        same: arguments that are another name for the defaults.
        precision: of its terms where everything is given in float64.
        check: arguments for `gradcheck` of the whole method, or why there is none.
        arguments: those under which it has a gradient to check.
    """

    laws: Mapping[str, Law] = field(default_factory=dict)
    bad: tuple[Mapping[str, Any], ...] = ()
    variants: tuple[Mapping[str, Any], ...] = ()
    without: tuple[str, ...] = ()
    refuses: tuple[str, ...] | None = None
    relations: bool = False
    alone: bool = True
    empty: tuple[str, ...] = ()
    same: tuple[Mapping[str, Any], ...] = ()
    precision: torch.dtype = torch.float64
    check: Mapping[str, float] | str = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def changed(name: str, given: Drawn, seed: int) -> Drawn:
    """The arguments after the change of that name."""
    draw = torch.Generator().manual_seed(seed + 1)
    student, teacher, *target = CHANGES[name](given.student, given.teacher, given.target, draw)
    return Drawn(student, teacher, target[0] if target else given.target)


def _order(size: int, draw: torch.Generator) -> Tensor:
    return torch.randperm(size, generator=draw)


def _factors(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Positive, from a tenth to ten."""
    return 10 ** (2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1)


def _images_of(x: Tensor) -> tuple[int, ...]:
    return (len(x), *(1 for _ in x.shape[1:]))


def _channels_of(x: Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], *(1 for _ in x.shape[2:]))


def _constants(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """From -50 to 50."""
    return 100 * torch.rand(shape, generator=draw, dtype=torch.float64) - 50


def _affine(x: Tensor, draw: torch.Generator) -> Tensor:
    return x * _factors((), draw) + _constants((), draw) / 10


def _turned(x: Tensor, draw: torch.Generator, axis: int) -> Tensor:
    """Multiplied by an orthogonal matrix along one axis."""
    width = x.shape[axis]
    q = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q
    return (x.movedim(axis, -1) @ q).movedim(-1, axis)


def _places(draw: torch.Generator, *maps: Tensor) -> list[Tensor]:
    order = _order(maps[0].flatten(2).shape[2], draw)
    return [x.flatten(2)[..., order].view_as(x) for x in maps]


def _along(axis: int) -> Any:
    def both(s: Tensor, t: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
        order = _order(s.shape[axis], draw)
        return s.index_select(axis, order), t.index_select(axis, order), y[order] if axis == 0 else y

    return both


def _classes(s: Tensor, t: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
    order = _order(s.shape[1], draw)
    return s[:, order], t[:, order], order.argsort()[y]


def _unbelieved(s: Tensor, t: Tensor, y: Tensor, draw: torch.Generator) -> tuple[Tensor, ...]:
    nothing = s.new_full((len(s), int(torch.randint(1, 20, (), generator=draw))), -1e4)
    return torch.cat([s, nothing], 1), torch.cat([t, nothing], 1)


CHANGES: dict[str, Callable[[Tensor, Tensor, Tensor, torch.Generator], tuple[Tensor, ...]]] = {
    "order of images": _along(0),
    "order of tokens": _along(1),
    "order of channels": _along(1),
    "order of classes": _classes,
    "order of places": lambda s, t, y, d: tuple(_places(d, s, t)),
    "batch twice": lambda s, t, y, d: tuple(torch.cat([x, x]) for x in (s, t, y)),
    "classes that neither network believes in": _unbelieved,
    "the two exchanged": lambda s, t, y, d: (t, s),
    "a constant on both": lambda s, t, y, d: (s + (c := _constants((), d)), t + c),
    "a constant an image": lambda s, t, y, d: tuple(x + _constants(_images_of(x), d) for x in (s, t)),
    "student's constant an image": lambda s, t, y, d: (s + _constants(_images_of(s), d), t),
    "student's constant a channel": lambda s, t, y, d: (s + _constants(_channels_of(s), d) / 10, t),
    "student's scale": lambda s, t, y, d: (s * _factors((), d), t),
    "student's scale an image": lambda s, t, y, d: (s * _factors(_images_of(s), d), t),
    "student's scale and sign a channel": lambda s, t, y, d: (
        s * torch.randn(_channels_of(s), generator=d, dtype=torch.float64),
        t,
    ),
    "student's scale and shift": lambda s, t, y, d: (_affine(s, d), t),
    "student's rotation": lambda s, t, y, d: (_turned(s, d, 1), t),
    "student's order of images": lambda s, t, y, d: (s[_order(len(s), d)], t),
    "student's order of channels": lambda s, t, y, d: (s[:, _order(s.shape[1], d)], t),
    "student's order of places": lambda s, t, y, d: (*_places(d, s), t),
    "teacher's scale an image": lambda s, t, y, d: (s, t * _factors(_images_of(t), d)),
    "teacher's scale and shift": lambda s, t, y, d: (s, _affine(t, d)),
    "teacher's cube": lambda s, t, y, d: (s, t**3),
}
"""Student, teacher, true classes and a source of randomness -> the same, changed; classes may be left out."""
