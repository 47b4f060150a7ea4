"""A compression of one's own, as a recipe names it: `kit.compressions:Same`."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

from stillroom.compress.compression import View
from stillroom.models.network import Network


class Same:
    """Makes nothing smaller: what is left of a chain is then what the chain itself does.

    Args:
        rounds: how often.
        between: who teaches until the last round.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, rounds: int = 1, between: Literal["teacher", "before"] = "before"):
        self.rounds, self.between = rounds, between

    def shrink(self, network: Network, view: View, round: int) -> Network:
        """The network itself, copied."""
        return copy.deepcopy(network).eval()

    def settle(self, network: Network) -> Network:
        """As it was trained."""
        return network
