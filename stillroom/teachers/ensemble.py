"""Several networks as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models._taps import split_tap
from stillroom.models.network import Network
from stillroom.teachers._errors import DetectorEnsemble, NoSuchTeacher, TeacherOutputsDiffer
from stillroom.teachers.frozen import mapped
from stillroom.types import Output, at_least_float32

Combine = Literal["logits", "probabilities"]

PRED = "pred"
"""After a member's number, its own prediction: `2/pred` is the second member's, in the data's classes."""


class Ensemble(nn.Module):
    """Several networks as one: every member runs on the images, preprocessed in its own way. M members, for an image:

        logits          z = 1/M sum_m z_m
        probabilities   z = log(1/M sum_m softmax(z_m)) + 1/M sum_m log sum exp(z_m)

    The softmax of the first is the normalised geometric mean of the members' at every temperature: a class is likely
    only where all members agree. That of the second is the arithmetic mean at T = 1: a confident member is enough. Its
    last term is the same for all classes, so it changes no probability; it keeps the size of the logits, and members
    that agree give together what each gives. At another temperature the softmax of the second is proportional to (mean
    probability)^(1/T); others average the members' softened probabilities, which is no softmax of one vector of logits
    for all T. Vectors are normalised to length 1 and averaged, whatever `combine` is.

    A tap `2/layer3` is the second member's `layer3`, `2/pred` the second's own prediction; a name without a number is
    the first member's.

    Args:
        networks: the members, at least one, all of one output kind.
        maps: for each member, as `FrozenTeacher` takes it; None: all members' outputs are the data's classes.
        combine: what is averaged of logits.

    Attributes:
        output_kind: of every member.
        classes: K; of a vector its width.

    Raises:
        StillroomError: SR-M370 the members are detectors; SR-M371 their output kinds differ.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        maps: Sequence[Sequence[int] | None] | None = None,
        combine: Combine = "logits",
    ):
        super().__init__()
        maps = maps or [None] * len(networks)
        sizes = [network.classes if map is None else len(map) for network, map in zip(networks, maps, strict=True)]
        kinds = [f"{network.output_kind} of {size}" for network, size in zip(networks, sizes, strict=True)]
        if networks[0].output_kind == "boxes":
            raise DetectorEnsemble(count=len(networks))
        if len(set(kinds)) > 1:
            raise TeacherOutputsDiffer(kinds=", ".join(kinds))
        self.output_kind, self.classes, self.combine = networks[0].output_kind, sizes[0], combine
        self.networks = nn.ModuleList(networks)
        for number, map in enumerate(maps, 1):
            self.register_buffer(f"map{number}", None if map is None else torch.tensor(map))

    @property
    def members(self) -> list[Network]:
        """The networks."""
        return [cast(Network, network) for network in self.networks]

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        """What the members say about images, [B, C, H, W] in 0..1.

        Raises:
            StillroomError: SR-M372 there is no member of that number; SR-M306, SR-M307 as of any network.
        """
        members_of, preds, features = self._members_of(taps), list[Tensor](), dict[str, Tensor]()
        for number, network in enumerate(self.networks, 1):
            own = {tap: name for tap, (member, name) in members_of.items() if member == number}
            output = network(images, tuple(dict.fromkeys(name for name in own.values() if name != PRED)))
            preds.append(mapped(at_least_float32(output.pred), getattr(self, f"map{number}"), self.output_kind))
            features |= {tap: preds[-1] if name == PRED else output.taps[name] for tap, name in own.items()}
        return Output(pred=self._combined(torch.stack(preds)), taps={tap: features[tap] for tap in taps})

    def metadata(self) -> dict[str, str]:
        """What its outputs depend on besides `state_dict()`: what is averaged, and each member's preprocessing."""
        output: dict[str, str] = {"combine": self.combine, "answers": self.output_kind}
        for number, network in enumerate(self.members, 1):
            output |= {f"{number}/{name}": value for name, value in network.metadata().items()}
        return output

    def _members_of(self, taps: tuple[str, ...]) -> dict[str, tuple[int, str]]:
        """Tap -> number of its member, and its name there."""
        members_of = {tap: split_tap(tap) for tap in taps}
        for tap, (number, _) in members_of.items():
            if not 1 <= number <= len(self.networks):
                raise NoSuchTeacher(tap=tap, count=len(self.networks))
        return members_of

    def _combined(self, preds: Tensor) -> Tensor:
        """[M, B, K, ...] -> [B, K, ...]."""
        if self.output_kind == "vector":
            return F.normalize(preds, dim=2).mean(0)
        if self.combine == "logits":
            return preds.mean(0)
        level = preds.logsumexp(2, keepdim=True)
        return (preds - level).logsumexp(0) - math.log(len(preds)) + level.mean(0)
