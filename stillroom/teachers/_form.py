"""A teacher's outputs as rows of numbers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from stillroom.types import Output, OutputKind

Rows = dict[str, NDArray[Any]]
"""Column -> [n, ...], the i-th row everywhere belongs to the same output."""

WHOLE = 1000
"""Classes up to which all logits are stored."""

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
"""At these the classes that are not stored have exactly their total probability."""

LARGEST = 65504.0  # of float16
TAP, SOUND = "tap.", "sound"


@dataclass(frozen=True, kw_only=True)
class OutputLayout:
    """What is stored of an output, and in how many bits.

    Logits of up to 1,000 classes, and all other predictions and taps, are stored whole. Of more classes, with 16 bits,
    the `leading` largest are stored, and log sum exp(z / T) over the others for several temperatures T. Read for one T,
    each of the others gets the logit c with (K - leading) exp(c / T) = sum exp(z / T): the softmax at T then gives the
    leading classes their probability, and the others together their total.

    Attributes:
        shapes: of one output: "pred" and `tap.NAME` -> shape.
        bits: 16 or 32.
        leading: how many classes are stored; 0: all.
        temperatures: see above.
        covered: at each of them, the measured mean probability of the stored classes; 1 where all are.
    """

    shapes: dict[str, tuple[int, ...]]
    bits: int
    leading: int = 0
    temperatures: tuple[float, ...] = ()
    covered: tuple[float, ...] = ()

    @property
    def taps(self) -> tuple[str, ...]:
        """The inner features that are stored too."""
        return tuple(name.removeprefix(TAP) for name in self.shapes if name.startswith(TAP))

    @property
    def columns(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Column -> its type, and its shape in one row."""
        number = np.dtype(f"float{self.bits}")
        found: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {n: (number, s) for n, s in self.shapes.items()}
        if self.leading:
            del found["pred"]
            found["pred.values"] = number, (self.leading,)
            found["pred.classes"] = np.dtype("uint16" if self.shapes["pred"][0] <= 2**16 else "int32"), (self.leading,)
            found["pred.tail"] = np.dtype("float32"), (len(self.temperatures),)
        return found | {SOUND: (np.dtype("uint8"), ())}

    @property
    def bytes(self) -> int:
        """Of one row."""
        return sum(kind.itemsize * int(np.prod(shape)) for kind, shape in self.columns.values())

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> OutputLayout:
        """What `as_dict` gave."""
        lists = {name: tuple(stored[name]) for name in ("temperatures", "covered")}
        return cls(**{**stored, **lists, "shapes": {name: tuple(shape) for name, shape in stored["shapes"].items()}})

    def rows(self, output: Output) -> Rows:
        """Answers as rows. One that is not finite is kept as zeros, and known as unsound."""
        parts = {"pred": output.pred} | {TAP + name: value for name, value in output.taps.items()}
        flat = {name: parts[name].float() for name in self.shapes}
        sound = torch.stack([value.flatten(1).isfinite().all(1) for value in flat.values()]).all(0)
        flat = {name: torch.where(_along(sound, value), value, 0.0) for name, value in flat.items()}
        kept = self._leading(flat.pop("pred")) if self.leading else {}
        if self.bits == 16:
            flat = {name: value.clamp(-LARGEST, LARGEST) for name, value in flat.items()}
        return {
            name: value.cpu().numpy().astype(self.columns[name][0])
            for name, value in (kept | flat | {SOUND: sound}).items()
        }

    def output(self, rows: Rows, *, temperature: float = 1.0) -> Output:
        """Rows as answers in float32; an unsound one is NaN, as the teacher's own was.

        Args:
            rows: every column, [n, ...].
            temperature: where leading classes alone are kept: the one of `temperatures` that it is read for.
        """
        found = {name: torch.from_numpy(rows[name].astype(np.float32)) for name in self.shapes if name in rows}
        if self.leading:
            found["pred"] = self._spread(rows, temperature)
        sound = torch.from_numpy(rows[SOUND]).bool()
        if not sound.all():
            found = {name: torch.where(_along(sound, value), value, torch.nan) for name, value in found.items()}
        return Output(pred=found["pred"], taps={name: found[TAP + name] for name in self.taps})

    def _leading(self, logits: Tensor) -> dict[str, Tensor]:
        values, classes = logits.topk(self.leading, 1)
        rest = logits.scatter(1, classes, -torch.inf)
        tail = torch.stack([(rest / t).logsumexp(1) for t in self.temperatures], 1)
        return {"pred.values": values.clamp(-LARGEST, LARGEST), "pred.classes": classes, "pred.tail": tail}

    def _spread(self, rows: Rows, temperature: float) -> Tensor:
        (classes,) = self.shapes["pred"]
        tail = torch.from_numpy(rows["pred.tail"][:, self.temperatures.index(temperature)].copy())
        level = temperature * (tail - float(np.log(classes - self.leading)))
        chosen = torch.from_numpy(rows["pred.classes"].astype(np.int64))
        values = torch.from_numpy(rows["pred.values"].astype(np.float32))
        return level[:, None].repeat(1, classes).scatter(1, chosen, values)


def choose_layout(
    sample: Output, output_kind: OutputKind, *, bits: int, mass: float = 0.99, temperatures: tuple[float, ...] = ()
) -> OutputLayout:
    """The form that suits a network's answers.

    Args:
        sample: of as many images as there are at hand; their shapes count, and where classes are left out, how much
            probability the first ones hold.
        output_kind: what `pred` is.
        bits: 16 or 32. With 32 every logit is kept.
        mass: mean probability, at T = 1, that the kept classes cover at least.
        temperatures: of the methods that will read them, besides `TEMPERATURES`.
    """
    parts = {"pred": sample.pred} | {TAP + name: value for name, value in sample.taps.items()}
    shapes = {name: tuple(value.shape[1:]) for name, value in parts.items()}
    if output_kind != "classes" or bits == 32 or shapes["pred"][0] <= WHOLE:
        return OutputLayout(shapes=shapes, bits=bits)
    levels = tuple(sorted({*TEMPERATURES, *temperatures}))
    logits = sample.pred.float()
    covered = [log_softmax(logits / t, 1).exp().sort(1, descending=True).values.cumsum(1).mean(0) for t in levels]
    leading = min(int((covered[levels.index(1.0)] < mass).sum()) + 1, shapes["pred"][0] - 1)
    found = tuple(round(float(one[leading - 1]), 4) for one in covered)
    return OutputLayout(shapes=shapes, bits=bits, leading=leading, temperatures=levels, covered=found)


def _along(rows: Tensor, value: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to stand beside `value`."""
    return rows.view(-1, *[1] * (value.ndim - 1))
