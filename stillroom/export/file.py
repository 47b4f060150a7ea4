"""What an export target is, and what all of them share.

A target is a file of this folder with two functions in it:

    def NAME(network, path, *, example, classes, bits=32, calibration=(), ...) -> Path
        writes the network, its preprocessing included, and says where;
    def load(path, *, threads=None) -> Opened
        opens what was written on the target's own runtime; the result takes images [B, C, H, W] in 0..1 as a network
        does;

    def ready() -> None
        says before any work is done when a package is missing;

and `SUFFIXES`, the endings of the files that it writes: the one that is opened, and its companions, if it has any.
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.errors import StillroomError
from stillroom.export._errors import ExportFailed, ExportPackagesMissing, UnsupportedOperator
from stillroom.export._resize import PlainResize
from stillroom.models.network import Network
from stillroom.tasks.task import Task
from stillroom.types import Output, OutputKind


class Export(Protocol):
    """The writing half of a target."""

    def __call__(
        self,
        network: nn.Module,
        path: Path,
        *,
        example: Tensor,
        classes: tuple[str, ...],
        bits: int = 32,
        calibration: Iterable[Tensor] = (),
        base: Path | None = None,
        task: Task | None = None,
    ) -> Path:
        """Write `network` to `path` and return `path`.

        Args:
            network: maps images [B, C, H, W] in 0..1 to an answer, as `Predictor` does; it is left as it was.
            path: the file to write; it appears whole or not at all.
            example: [B, C, H, W], any image of the right shape.
            classes: names in label order, written into the file.
            bits: 32 for floats, 8 for integers.
            calibration: image batches [B, C, H, W] in 0..1 whose activations set the integer ranges.
            base: the float file of the same network, where this target has written it already; it may save work.
            task: what the answers mean, whether images may have any size, and how answers are compared; None: logits
                of a classifier, for images of the example's size.
        """
        ...


OUTPUTS: dict[OutputKind, tuple[str, str]] = {
    "classes": ("logits", "float32 [B, {classes}]"),
    "pixels": ("logits", "float32 [B, {classes}, H, W]"),
    "boxes": (
        "boxes",
        "float32 [B, M, 6]: left, top, right, bottom in pixels of the image given, score 0..1, class; -1 is no box",
    ),
    "vector": ("vector", "float32 [B, D], of length 1"),
}
"""What a network says -> the name of the file's output, and what is in it."""


def facts(
    *, classes: tuple[str, ...], example: Tensor, task: Task | None, bits: int, any_size: bool | None = None
) -> dict[str, str]:
    """What every file says of itself, so that somebody who has only the file can use it.

    Args:
        classes: names in label order.
        example: [B, C, H, W], an image of the right shape.
        task: what the answers mean; None: logits of a classifier.
        bits: 32 for floats.
        any_size: whether the file takes images of any height and width; None: as the task allows.
    """
    channels, height, width = shape(example)
    order = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    any_size = bool(task and task.any_size) if any_size is None else any_size
    sides = "H, W" if any_size else f"{height}, {width}"
    answers: OutputKind = task.output_kind if task else "classes"
    name, output = OUTPUTS[answers]
    return {
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "input": f"images: float32 [B, {channels}, {sides}], {order}, 0..1; normalisation is inside",
        "output": f"{name}: {output.format(classes=len(classes))}",
        "answers": answers,
        "bits": str(bits),
    } | ({"task": type(task).__name__.lower()} if task else {})


class RuntimeModel:
    """A file on its own runtime: images [B, C, H, W] in 0..1 to an `Output`, as a network does.

    Args:
        path: the file.
        threads: how many it computes with; None: every core this process may use.

    Attributes:
        facts: what the file says of itself, see `facts`; empty for a stranger's file.
    """

    facts: dict[str, str]

    def __init__(self, path: Path, threads: int | None):
        self.path, self.threads = Path(path), threads or cores()
        self.facts = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; empty when the file does not say."""
        return tuple(json.loads(self.facts.get("classes", "[]")))

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, to the answer on the CPU in float32."""
        raise NotImplementedError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_line(problem: Exception) -> str:
    """Exporters' messages fill screens; the first line says what went wrong, and `from` keeps the rest."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0] if lines else ''}".strip()


UNSUPPORTED = (
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'",  # ... Failure message: No decompositions registered for
    r"No conversion rule found for operations: ([^\n]+)",  # OpenVINO
    r"Missing out variants: \{'([\w:.]+)'",  # ExecuTorch
    r"Operator (?:torch\.ops\.)?([\w.:]+) is not Aten Canonical",  # ExecuTorch
    r"Lowering not found: ([\w.]+)",  # LiteRT
)
"""How exporters say that they know no such operator; the group is its name."""


def unsupported(problem: BaseException) -> str | None:
    """The operator that the target does not have, if that is what an exporter's error says, its causes included."""
    said: BaseException | None = problem
    while said is not None:
        for pattern in UNSUPPORTED:
            found = re.search(pattern, str(said))
            if found:
                return found[1].removesuffix(".default")
        said = said.__cause__ or said.__context__
    return None


def refusal(target: str, path: Path, problem: Exception) -> StillroomError:
    """What to raise from an exporter's error: SR-X730 where an operator is missing, SR-X703 for all else."""
    operator = unsupported(problem)
    if operator:
        return UnsupportedOperator(target=target, operator=operator, path=path)
    return ExportFailed(target=target, path=path, problem=first_line(problem))


class ExportWrapper(nn.Module):
    """A network reduced to what an exporter understands: a tensor in, a tensor out.

    Args:
        network: images -> Output.
        any_size: whether images of any height and width will come; the network then resizes without a look.
        plain_resize: for targets that have no antialiased resize: it becomes two matrix products. The matrices are
            constants of the program, which so takes images of the traced size only.
    """

    def __init__(self, network: nn.Module, *, any_size: bool = False, plain_resize: bool = False):
        super().__init__()
        if any_size and plain_resize:
            raise ValueError("a plain resize is made for one size of images")
        self.plain_resize = plain_resize
        # A copy, so that moving and freezing it leaves the caller's network where and as it is.
        self.network = deepcopy(network).cpu().float().eval().requires_grad_(False)
        for part in self.network.modules():
            if isinstance(part, Network):
                part.always_resize = any_size

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] in 0..1 to the answer."""
        with PlainResize() if self.plain_resize else nullcontext():
            output: Output = self.network(images)
        return output.pred


def require(target: str, *packages: str) -> None:
    """Refuse, before any work is done, when a package that `target` needs is not installed.

    Raises:
        ExportPackagesMissing: SR-X702 names the packages.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ExportPackagesMissing(target=target, packages=" ".join(missing))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence for tools that talk while they work; what they raise still comes through.

    A handler is lent to the root logger, because the first `logging.info` of a tool would otherwise set up logging
    for the whole process.
    """
    root, level, deaf = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(deaf)
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(deaf)


def shape(example: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of one image of the example."""
    if example.dim() != 4:
        raise ValueError(f"an example is [B, C, H, W], got {list(example.shape)}")
    channels, height, width = example.shape[1:]
    return channels, height, width


def pair(example: Tensor, *, any_size: bool = False) -> Tensor:
    """[2, C, H, W] of the example's first image: tracing one image alone would fix B to 1.

    With `any_size` its height and width are changed to two numbers that are neither equal nor the network's own.
    """
    one = example[:1].detach().to(torch.float32).cpu()
    if any_size:
        one = F.interpolate(one, (one.shape[-2] + 13, one.shape[-1] + 27))
    return one.expand(2, -1, -1, -1).contiguous()
