"""Finding the logits in the return value of a library's module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def extract_logits(output: Any) -> Tensor:
    """The logits in the return value of a module, see `Network`.

    Raises:
        TypeError: there are none.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, Mapping):
        output = [output[name] for name in ("logits", "pred", "out") if name in output]
    if isinstance(output, (tuple, list)) and len(output):
        return extract_logits(output[0])
    raise TypeError(f"a module returned {type(output).__name__}, in which no logits are found")
