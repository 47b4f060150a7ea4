"""The interface of a family of models, and the specification of the network that it builds.

A family is one file of this folder with one class, named like the file, that implements `Family`. The folder is the
registry: a new file adds names for recipes, a row of `stillroom list` and a case of the conformance tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from stillroom.models.network import Network
from stillroom.types import OutputKind

HeadPolicy = Literal["keep", "any", "replace"]
"""What happens to the classifier in a file, see `models.restore`."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Properties of a network that follow from the data, the task and the choice of weights.

    Attributes:
        classes: K; None for the model's own number, which with `pretrained` keeps the trained head.
        channels: of the data, 1 or 3. If a model needs 3, its family says so to `Network`, which repeats grey images.
        size: side of the data's images, in pixels. A model that can't take it keeps its own, and `Network` resizes.
        output_kind: of the network; with `boxes` or `pixels` the name of a classifier means its backbone with a
            suitable head. For `vector` there are no classes: the embedding has the width of the backbone.
        pretrained: fetch the library's pretrained weights.
        mean: of the pixels, one number per channel, 0..1; None for the family's default.
        std: standard deviation, likewise.
    """

    classes: int | None
    channels: int
    size: int
    output_kind: OutputKind = "classes"
    pretrained: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def pixels(self, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """`mean` and `std` for `Network`: the library's with pretrained weights, else the data's if they are known."""
        if self.pretrained:
            return {"mean": mean, "std": std}
        return {"mean": self.mean or mean, "std": self.std or std}


class Family(Protocol):
    """A family of models. Its class is instantiated without arguments and has no state.

    Attributes:
        example: full name of a small model of the family, for the conformance tests.
        has_pixel_statistics: whether the library states the normalisation of its pretrained weights. If so, it takes
            precedence over the statistics of the data whenever trained weights are used.
    """

    example: str
    has_pixel_statistics: bool

    def matches(self, name: str) -> bool:
        """Whether a name in a recipe belongs to this family. Must not import a library."""

    def names(self, like: str = "") -> list[str]:
        """Full names that contain `like`. Without `like`, a large family returns a single pattern: `timm/NAME`."""

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """Build the network `name`.

        Args:
            name: as in the recipe, including the family's prefix.
            spec: of the network.
            **arguments: passed to the model.

        Raises:
            StillroomError: SR-M303 no such model, SR-M304 wrong arguments, SR-M305 wrong output shape, SR-M308 no
                pretrained weights, SR-N801 they can't be downloaded.
        """


@runtime_checkable
class FileFamily(Family, Protocol):
    """A family whose files contain whole networks, which are opened instead of built and loaded."""

    def open(self, path: Path, spec: NetworkSpec, *, head: HeadPolicy, trust: str | None, **arguments: Any) -> Network:
        """The network in a file; `head` and `trust` as in `models.restore`."""
