"""An exported file, opened on its own runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.export._tools import cores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from stillroom.types import Output


class RuntimeModel:
    """A file on its own runtime: images [B, C, H, W] in 0..1 to an `Output`, as of a network.

    Args:
        path: the file.
        threads: how many it computes with; None: every core this process may use.

    Attributes:
        facts: what the file states about itself, see `_facts.facts`; empty for a file of other origin.
    """

    facts: dict[str, str]

    def __init__(self, path: Path, threads: int | None = None):
        self.path, self.threads = Path(path), threads or cores()
        self.facts = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; empty when the file does not list them."""
        return tuple(json.loads(self.facts.get("classes", "[]")))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Images float32 [B, C, H, W] in 0..1 to the answer [B, ...], in memory of its own. Needs no torch."""
        raise NotImplementedError

    def __call__(self, images: Tensor) -> Output:
        """Images [B, C, H, W] in 0..1, on any device, to the answer on the CPU in float32."""
        import torch

        from stillroom.types import Output

        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        return Output(pred=torch.from_numpy(self.run(pixels)))
