"""The logits in whatever a library's module returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def extract_logits(said: Any) -> Tensor:
    """The logits in whatever a module returned.

    Raises:
        TypeError: there are none.
    """
    if isinstance(said, Tensor):
        return said
    if isinstance(getattr(said, "logits", None), Tensor):
        return said.logits
    if isinstance(said, Mapping):
        said = [said[name] for name in ("logits", "pred", "out") if name in said]
    if isinstance(said, (tuple, list)) and len(said):
        return extract_logits(said[0])
    raise TypeError(f"a module returned {type(said).__name__}, in which no logits are found")
