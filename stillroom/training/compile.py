"""torch.compile for the student's forward pass, in pieces as large as the taps allow.

A tap is a hook that comes and goes with each forward pass, and a compiled piece is deaf to hooks on what lies inside
it. So the parts around a tapped one stay as they are, and what is compiled is what lies beside it and in it.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Collection, Iterator

import torch
from torch import nn

from stillroom.models._taps import INPUT_SUFFIX
from stillroom.models.network import Network
from stillroom.training.errors import CompileFailed

log = logging.getLogger("stillroom")


def compile_student(student: Network, taps: Collection[str], once: Callable[[], object]) -> None:
    """Compile a `Network` in place: its names, tensors and the values it gives, up to rounding, stay what they are.

    Args:
        student: what is compiled. A second call does nothing.
        taps: that are read during training.
        once: runs one forward and one backward pass, in which the compiling is done.

    Raises:
        CompileFailed: SR-R530 there is no compiler, or the network is beyond it.
    """
    # A network with several heads is tapped at the first one too when a further one is.
    tapped = {tap.removesuffix(INPUT_SUFFIX) for tap in (*taps, *student.head)} if taps else set()
    found = [part for part in pieces(student.module, tapped) if "forward" not in vars(part)]
    if not found:
        return
    for part in found:
        part.forward = torch.compile(part.forward, dynamic=False)
    started = time.monotonic()
    try:
        with warnings.catch_warnings():  # of the gradients of what pieces hand on, which the tracer inspects
            warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
            once()
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InvalidCxxCompiler) as problem:
        raise CompileFailed(problem=str(problem).strip().partition("\n")[0]) from problem
    log.info("compiled the student's forward pass in %.0f s, %d pieces", time.monotonic() - started, len(found))


def pieces(module: nn.Module, tapped: Collection[str]) -> Iterator[nn.Module]:
    """The largest parts of `module` without a tap inside; single layers, which gain nothing, are left out.

    Args:
        module: the whole.
        tapped: names of tapped parts. One of them may be a piece: its own hooks are called around its `forward`.
    """
    inside = {name.partition(".")[0] for name in tapped if name}
    if not inside:
        yield from [module] if next(module.children(), None) else []
        return
    for name, child in module.named_children():
        yield from pieces(child, {tap.removeprefix(name).removeprefix(".") for tap in tapped if _within(tap, name)})


def _within(tap: str, name: str) -> bool:
    """Whether `tap` is the part `name` or lies in it."""
    return tap == name or tap.startswith(f"{name}.")
