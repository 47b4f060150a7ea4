"""Structured pruning: whole channels go, together with all that reads or writes them, so that every runtime gains.

Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from stillroom.compress._answers import shapes
from stillroom.compress._channels import Channels, Importance, Plan, quiet
from stillroom.compress._cost import share_of_time
from stillroom.compress._errors import CompressionPackageMissing, NotPrunable, UnreachableShare
from stillroom.compress._plan import Work, even, nearest, ranked
from stillroom.compress.compression import View
from stillroom.errors import StillroomError
from stillroom.models.flops import macs_by_module
from stillroom.models.network import Network
from stillroom.models.surgery import pruned

TRIES = 6

Share = Annotated[float, Gt(0), Le(1)]


class Prune:
    """Take channels out until a share of the work is left.

    Channels that are added to each other, or read by the same layer, go together: a unit. Of each unit the places with
    the lowest scores go. The classifiers keep their outputs, the first layer its inputs; a shortcut that pads channels
    with zeros, as the CIFAR kind of ResNet has, keeps all of its own, and the blocks get narrower inside. Heads of
    attention (timm's, with one layer `qkv`) stay and get narrower. Parts that can't be pruned alone are left. Detectors
    can't be pruned.

    Removing the share p of all channels removes about 1 - (1 - p)² of the parameters.

    Args:
        macs: share of the network's multiply-accumulates that stays, in (0, 1]; the nearest below that can be had. As
            it came here is 1, also in later rounds: round r of R leaves macs^(r/R).
        latency: instead of `macs`, the share of the time for one image that stays, in (0, 1]: of the module in torch
            on one thread of this machine, measured in `shrink`. Two runs then give different networks.
        importance: "magnitude", the squared weights; "taylor", what the loss would change by; "bn", the norms' scales,
            which leaves units without a batch norm as they are. See `Channels.scores`.
        everywhere: rank the channels of all layers as one; false: the same share in each layer.
        round_to: numbers of channels are multiples of it, which processors like; of a unit of fewer than 4 · round_to
            channels, of a half, a quarter and so on of it. Of heads and groups it counts one's own channels.
        rounds: times that pruning and training take turns, at least 1.
        between: as `Compression.between`.

    Raises:
        ValueError: an argument out of its range.
    """

    needs: ClassVar[tuple[str, ...]] = ("torch_pruning",)

    def __init__(
        self,
        *,
        macs: Share = 0.5,
        latency: Share | None = None,
        importance: Importance = "magnitude",
        everywhere: bool = False,
        round_to: Annotated[int, Ge(1)] = 8,
        rounds: Annotated[int, Ge(1)] = 1,
        between: Literal["teacher", "before"] = "before",
    ):
        for name, share in (("macs", macs), ("latency", 1.0 if latency is None else latency)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} is above 0 and at most 1, not {share}")
        if importance not in ("magnitude", "taylor", "bn"):
            raise ValueError(f"importance is 'magnitude', 'taylor' or 'bn', not {importance!r}")
        for name, count in (("round_to", round_to), ("rounds", rounds)):
            if count != int(count) or count < 1:
                raise ValueError(f"{name} is a whole number, at least 1, not {count}")
        if between not in ("teacher", "before"):
            raise ValueError(f"between is 'teacher' or 'before', not {between!r}")
        self.macs, self.latency, self.importance, self.everywhere = macs, latency, importance, everywhere
        self.round_to, self.rounds, self.between = round_to, rounds, between

    def shrink(self, network: Network, view: View, round: int) -> Network:
        """As `Compression.shrink`.

        Raises:
            StillroomError: SR-M380 Torch-Pruning is not installed; SR-M381 the network can't be pruned; SR-M382 not by
                so much.
        """
        if network.output_kind == "boxes":  # following each channel into that list takes Torch-Pruning forever
            raise NotPrunable(problem="a detector's boxes of all places and sizes are one list, not channels")
        network = copy.deepcopy(network).cpu().eval()
        try:
            with quiet():
                import torch_pruning  # noqa: F401
        except ImportError as problem:
            raise CompressionPackageMissing(name="prune", package="torch-pruning", extra="prune") from problem
        try:
            with quiet():
                task = _Task(self, network, view)
                plan = task.in_time(self.latency, round) if self.latency else task.in_work(round)
                return task.result(plan, round)
        except StillroomError:
            raise
        except Exception as problem:  # the graph is drawn from autograd's, which other people's forward passes shape
            line = str(problem).strip().splitlines()
            raise NotPrunable(problem=f"{type(problem).__name__}: {line[0] if line else ''}") from problem

    def settle(self, network: Network) -> Network:
        """As `Compression.settle`: a pruned network is a plain one."""
        return copy.deepcopy(network).cpu().eval()


class _Task:
    """One network to prune: its units, their scores, and what any plan for them would cost."""

    def __init__(self, prune: Prune, network: Network, view: View):
        self.prune, self.network, self.view = prune, network, view
        with torch.no_grad():
            self.example = network.preprocess(view.images[:1])
        self.answers = shapes(copy.deepcopy(network.module), self.example)
        self.counts = macs_by_module(network.module, self.example)
        channels = self._channels()
        scores = self._scores(channels)
        self.only = [index for index, score in enumerate(scores) if score is not None]
        self.scores = [score for score in scores if score is not None]
        if bad := sum(not bool(score.isfinite().all()) for score in self.scores):
            raise NotPrunable(problem=f"the scores of {bad} groups of channels are not finite")
        self.units = [channels.units[index] for index in self.only]
        self._drop_unfit()
        if not self.units:
            norms = " with a batch norm" if prune.importance == "bn" else ""
            raise NotPrunable(problem=f"there is no group of channels{norms} that could get smaller")
        self.attentions = [channels.names[part] for part in channels.attentions]
        self.work = Work(self.counts, self.units, self.attentions)

    def in_work(self, round: int) -> Plan:
        """The plan that leaves the share of this round of the work that there was."""
        goal = self._origin(round) * self.prune.macs ** (round / self.prune.rounds)
        plan = self._least_work(goal)
        if (left := self._count(plan)) > goal * 1.02:
            self._out_of_reach("macs", left / self._origin(round), goal / self._origin(round))
        return plan

    def in_time(self, share: float, round: int) -> Plan:
        """The plan with most work among those tried that take this round's share of the time."""
        wanted = share ** (1 / self.prune.rounds)
        little, much = 0.0, 1.0
        fits: Plan | None = None
        least = math.inf
        for _ in range(TRIES):
            middle = (little + much) / 2
            plan = self._least_work(self.counts[""] * middle)
            taken = share_of_time(self.network.module, self._made(plan), self.example)
            least = min(least, taken)
            little, much = (middle, much) if taken <= wanted else (little, middle)
            fits = plan if taken <= wanted else fits
        if fits is None:
            self._out_of_reach("latency", least, wanted)
        assert fits is not None
        return fits

    def result(self, plan: Plan, round: int) -> Network:
        """The network in the plan's form, made as a file makes it: form first, then weights."""
        if plan == tuple(unit.size for unit in self.units):
            return self.network
        made = self._made(plan)
        edit = pruned.difference(self.network.module, made) | {"macs": self._origin(round)}
        network = copy.deepcopy(self.network)
        network.apply_edits([edit])
        network.module.load_state_dict(made.state_dict())
        with torch.no_grad():
            if not torch.equal(network.module(self.example), made(self.example)):
                raise NotPrunable(problem="a part keeps a tensor that no file would hold")
        return network

    def _channels(self) -> Channels:
        return Channels(copy.deepcopy(self.network.module), self.example, self.network.head)

    def _scores(self, channels: Channels) -> list[Tensor | None]:
        if self.prune.importance != "taylor":
            return channels.scores(self.prune.importance)
        # The graph is of a copy, so the loss is asked of a network around that copy.
        network = copy.deepcopy(self.network)
        network.module = channels.module
        total: list[Tensor | None] = [None] * len(channels.units)
        for batch in self.view.batches:
            network.zero_grad(set_to_none=True)
            with torch.enable_grad():
                self.view.loss(network, batch).backward()
            found = channels.scores("taylor")
            total = [new if old is None or new is None else old + new for old, new in zip(total, found, strict=True)]
        return total

    def _made(self, plan: Plan) -> nn.Module:
        channels = self._channels()
        channels.take(plan, self.scores, self.only)
        return channels.module.eval()

    def _count(self, plan: Plan) -> int:
        return macs_by_module(self._made(plan), self.example)[""]

    def _least_work(self, goal: float) -> Plan:
        """The nearest plan below `goal`.

        Where a network's work is not foretold exactly, the goal is moved and tried again until what is counted fits.
        """
        aim = goal
        for _ in range(TRIES):
            plan = nearest(aim, self.work, self._planner(), [unit.step(self.prune.round_to) for unit in self.units])
            counted = self._count(plan)
            if counted <= goal or counted > self.counts[""]:
                break
            aim *= 0.999 * goal / counted
        return plan

    def _planner(self) -> Callable[[float], Plan]:
        if self.prune.everywhere:
            return lambda gone: ranked(self.units, self.scores, gone, self.prune.round_to)
        return lambda gone: even(self.units, gone, self.prune.round_to)

    def _drop_unfit(self) -> None:
        """Leave the units alone without which the network does not run, or answers in another shape."""
        fit = self._fit(list(range(len(self.units))))
        self.only = [self.only[i] for i in fit]
        self.scores, self.units = [self.scores[i] for i in fit], [self.units[i] for i in fit]

    def _fit(self, some: list[int]) -> list[int]:
        """Those of some units that can all get smaller at once; found by halving, for nearly always all can."""
        halves = even(self.units, 0.5, self.prune.round_to)
        plan = tuple(halves[i] if i in some else unit.size for i, unit in enumerate(self.units))
        if not some or self._runs(plan):
            return some
        middle = len(some) // 2
        return self._fit(some[:middle]) + self._fit(some[middle:]) if middle else []

    def _runs(self, plan: Plan) -> bool:
        try:
            return shapes(self._made(plan), self.example) == self.answers
        except Exception:  # whatever a forward pass raises that was not written for other sizes
            return False

    def _origin(self, round: int) -> int:
        """The work of the network that came here in round 1, as that round noted it."""
        noted = [edit["macs"] for edit in self.network.edits if edit["kind"] == "pruned" and "macs" in edit]
        return noted[-1] if noted and round > 1 else self.counts[""]

    def _out_of_reach(self, name: str, least: float, wanted: float) -> None:
        raise UnreachableShare(name=f"prune {name}", least=least, wanted=wanted)
