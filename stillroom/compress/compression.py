"""The contract of a compression: a network made smaller, and taught again what it lost by it.

A file of this folder holds one class, named as the file, whose constructor takes what `[[compress]]` says. It trains
nothing: `shrink` gives a network that is ready to be trained, whoever called it trains that as any student is trained,
and `settle` gives what comes of it. With several `rounds` this is done several times, a little of it each time.

What a compression changes besides numbers is in `network.form`, so that a file of weights is enough to go on from.
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
    """What a compression may look at; nothing of it is of the val or test split.

    Attributes:
        images: [n, C, H, W] in 0..1, evenly spread over the training split, n at most 256; on the CPU.
        batches: some of the training split's batches, with what is known of them.
        loss: (network, batch) -> what the task charges, a scalar with a gradient; for a task whose labels teach
            nothing, how far the network is from the teacher.
        teacher: what the teacher says of [B, C, H, W] images.
        seed: of whatever is drawn.
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
        rounds: times that `shrink`, training and `settle` take turns, at least 1.
        interim_teacher: who teaches in all rounds but the last: the recipe's teacher, or the network as it came here.
    """

    rounds: int
    interim_teacher: Literal["teacher", "before"]
    needs: ClassVar[tuple[str, ...]]
    """Packages that must be there, by their import names; the extra of `pyproject.toml` is called as the file."""

    def shrink(self, network: Network, view: CompressionContext, round: int) -> Network:
        """A copy of `network`, smaller, in evaluation mode, on the CPU and ready to be trained; `network` stays as is.

        Deterministic: the same network and the same view give the same.

        Args:
            network: as the round before left it; as it came here in round 1.
            view: what may be looked at.
            round: 1 to `rounds`.

        Raises:
            StillroomError: SR-M38x it can't be made smaller in this way.
        """

    def finalize(self, network: Network) -> Network:
        """What comes of a shrunk network after training: a network without any aid that training needed."""
