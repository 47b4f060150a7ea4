"""The contract of a compression: it makes a network smaller, which is then trained to recover the accuracy.

A file of this folder holds one class, named like the file, whose constructor takes the keys of `[[compress]]`. A
compression does not train: `shrink` returns a network that is ready for training, the caller trains it like any
student, and `finalize` returns the result. With several `rounds` this is repeated, with a part of the compression each
time.

Changes of structure are recorded in `network.edits`, so that a file of weights is enough to rebuild the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from stillroom.models.network import Network
from stillroom.types import Batch, Output


@dataclass(frozen=True, kw_only=True)
class CompressionContext:
    """The data that a compression may use. None of it is from the val or test split.

    Attributes:
        images: [n, C, H, W] in 0..1, evenly spaced over the training split, n at most 256; on the CPU.
        batches: some batches of the training split, with their targets.
        loss: (network, batch) -> the task's loss, a scalar with a gradient; for a task without a label loss, the
            distance to the teacher's predictions.
        teacher: images [B, C, H, W] -> the teacher's output.
        seed: for random numbers.
    """

    images: Tensor
    batches: Sequence[Batch]
    loss: Callable[[Network, Batch], Tensor]
    teacher: Callable[[Tensor], Output]
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.images.shape[1], self.images.shape[2], self.images.shape[3]


class Compression(Protocol):
    """One way to make a network smaller.

    Attributes:
        rounds: how often `shrink`, training and `finalize` are repeated, at least 1.
        interim_teacher: the teacher in all rounds but the last: "teacher" for the recipe's, "before" for the network
            before it was compressed.
    """

    rounds: int
    interim_teacher: Literal["teacher", "before"]
    needs: ClassVar[tuple[str, ...]]
    """Import names of packages that it needs; the extra in `pyproject.toml` is named like the file."""

    def shrink(self, network: Network, context: CompressionContext, round: int) -> Network:
        """A smaller copy of `network`, in evaluation mode, on the CPU and ready for training; `network` is not changed.

        Deterministic: the same network and context give the same result.

        Args:
            network: the result of the previous round; in round 1 the original network.
            context: the data that may be used.
            round: 1 to `rounds`.

        Raises:
            StillroomError: SR-M38x it can't be made smaller in this way.
        """

    def finalize(self, network: Network) -> Network:
        """The network after training, without modules that were only needed for training."""
