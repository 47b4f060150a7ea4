"""Structured pruning: remove whole channels, with all weights that depend on them, which speeds up any runtime.

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

from stillroom.compress._channels import Channels, Importance, Plan, quiet
from stillroom.compress._errors import CompressionPackageMissing, NotPrunable, UnreachableShare
from stillroom.compress._output_shapes import output_shapes
from stillroom.compress._plan import MacsEstimate, closest_plan, global_plan, uniform_plan
from stillroom.compress._timing import time_ratio
from stillroom.compress.compression import CompressionContext
from stillroom.errors import StillroomError
from stillroom.models.flops import macs_by_module
from stillroom.models.network import Network
from stillroom.models.surgery import pruned

MAX_TRIES = 6

Share = Annotated[float, Gt(0), Le(1)]


class Prune:
    """Remove channels until a share of the multiply-accumulates (MACs) is left.

    Channels that are added to each other, or are inputs of the same layer, form a group and are removed together. From
    each group the channels with the lowest scores are removed. Classifiers keep their outputs, and the first layer its
    inputs. A shortcut that pads channels with zeros, as in the CIFAR ResNets, keeps its channels; there the blocks get
    narrower inside. Attention heads (timm's, with one layer `qkv`) are kept and get narrower. Parts that can't be
    pruned on their own are not changed. Detectors can't be pruned.

    Removing the share p of all channels removes about 1 - (1 - p)² of the parameters.

    Args:
        macs: share of the network's MACs to keep, in (0, 1]; the largest that can be reached below it is used. It is
            relative to the original network in all rounds: round r of R keeps macs^(r/R).
        latency: instead of `macs`, the share of the latency for one image to keep, in (0, 1]: of the module in torch on
            one thread of this machine, measured in `shrink`. Two runs then give different networks.
        importance: "magnitude", the squared weights; "taylor", the first-order change of the loss; "bn", the scales of
            batch norms, where groups without a batch norm are not pruned. See `Channels.scores`.
        everywhere: rank the channels of all layers together; false: remove the same share in each layer.
        round_to: numbers of channels are multiples of it, which suits processors; in groups of fewer than 4 · round_to
            channels multiples of its half, quarter and so on. For heads and groups it applies to the channels of each.
        rounds: how often pruning and training are repeated, at least 1.
        interim_teacher: as `Compression.interim_teacher`.

    Raises:
        ValueError: an argument is out of its range.
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
        interim_teacher: Literal["teacher", "before"] = "before",
    ):
        for name, share in (("macs", macs), ("latency", 1.0 if latency is None else latency)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} is above 0 and at most 1, not {share}")
        if importance not in ("magnitude", "taylor", "bn"):
            raise ValueError(f"importance is 'magnitude', 'taylor' or 'bn', not {importance!r}")
        for name, count in (("round_to", round_to), ("rounds", rounds)):
            if count != int(count) or count < 1:
                raise ValueError(f"{name} is a whole number, at least 1, not {count}")
        if interim_teacher not in ("teacher", "before"):
            raise ValueError(f"interim_teacher is 'teacher' or 'before', not {interim_teacher!r}")
        self.macs, self.latency, self.importance, self.everywhere = macs, latency, importance, everywhere
        self.round_to, self.rounds, self.interim_teacher = round_to, rounds, interim_teacher

    def shrink(self, network: Network, context: CompressionContext, round: int) -> Network:
        """As `Compression.shrink`.

        Raises:
            StillroomError: SR-M380 Torch-Pruning is not installed; SR-M381 the network can't be pruned; SR-M382 not by
                so much.
        """
        if network.output_kind == "boxes":  # Torch-Pruning's dependency graph of such a list does not end
            raise NotPrunable(problem="a detector's boxes of all locations are one list, not channels")
        network = copy.deepcopy(network).cpu().eval()
        try:
            with quiet():
                import torch_pruning  # noqa: F401
        except ImportError as problem:
            raise CompressionPackageMissing(name="prune", package="torch-pruning", extra="prune") from problem
        try:
            with quiet():
                pruning = _Pruning(self, network, context)
                plan = pruning.plan_by_latency(self.latency, round) if self.latency else pruning.plan_by_macs(round)
                return pruning.result(plan, round)
        except StillroomError:
            raise
        except Exception as problem:  # the dependency graph of an arbitrary forward pass can fail in many ways
            line = str(problem).strip().splitlines()
            raise NotPrunable(problem=f"{type(problem).__name__}: {line[0] if line else ''}") from problem

    def finalize(self, network: Network) -> Network:
        """As `Compression.finalize`: a pruned network is a plain one."""
        return copy.deepcopy(network).cpu().eval()


class _Pruning:
    """One network to prune: its channel groups, their scores, and the MACs of any plan."""

    def __init__(self, prune: Prune, network: Network, context: CompressionContext):
        self.prune, self.network, self.context = prune, network, context
        with torch.no_grad():
            self.example = network.preprocess(context.images[:1])
        self.shapes = output_shapes(copy.deepcopy(network.module), self.example)
        self.counts = macs_by_module(network.module, self.example)
        channels = self._channels()
        scores = self._scores(channels)
        self.only = [index for index, score in enumerate(scores) if score is not None]
        self.scores = [score for score in scores if score is not None]
        if bad := sum(not bool(score.isfinite().all()) for score in self.scores):
            raise NotPrunable(problem=f"the scores of {bad} channel groups are not finite")
        self.groups = [channels.groups[index] for index in self.only]
        self._drop_unprunable()
        if not self.groups:
            norms = " with a batch norm" if prune.importance == "bn" else ""
            raise NotPrunable(problem=f"there is no channel group{norms} that can be made smaller")
        self.attentions = [channels.names[part] for part in channels.attentions]
        self.estimate = MacsEstimate(self.counts, self.groups, self.attentions)

    def plan_by_macs(self, round: int) -> Plan:
        """The plan that keeps this round's share of the MACs."""
        goal = self._origin(round) * self.prune.macs ** (round / self.prune.rounds)
        plan = self._plan_below(goal)
        if (macs := self._count(plan)) > goal * 1.02:
            self._unreachable("macs", macs / self._origin(round), goal / self._origin(round))
        return plan

    def plan_by_latency(self, share: float, round: int) -> Plan:
        """The plan with the most MACs, among those measured, that keeps this round's share of the latency."""
        goal = share ** (1 / self.prune.rounds)
        low, high = 0.0, 1.0
        best: Plan | None = None
        least = math.inf
        for _ in range(MAX_TRIES):
            middle = (low + high) / 2
            plan = self._plan_below(self.counts[""] * middle)
            ratio = time_ratio(self.network.module, self._pruned_module(plan), self.example)
            least = min(least, ratio)
            low, high = (middle, high) if ratio <= goal else (low, middle)
            best = plan if ratio <= goal else best
        if best is None:
            self._unreachable("latency", least, goal)
        assert best is not None
        return best

    def result(self, plan: Plan, round: int) -> Network:
        """The pruned network, built as from a file: structure first, then weights."""
        if plan == tuple(group.size for group in self.groups):
            return self.network
        module = self._pruned_module(plan)
        edit = pruned.difference(self.network.module, module) | {"macs": self._origin(round)}
        network = copy.deepcopy(self.network)
        network.apply_edits([edit])
        network.module.load_state_dict(module.state_dict())
        with torch.no_grad():
            if not torch.equal(network.module(self.example), module(self.example)):
                raise NotPrunable(problem="a submodule has a tensor that is neither a parameter nor a buffer")
        return network

    def _channels(self) -> Channels:
        return Channels(copy.deepcopy(self.network.module), self.example, self.network.head)

    def _scores(self, channels: Channels) -> list[Tensor | None]:
        if self.prune.importance != "taylor":
            return channels.scores(self.prune.importance)
        # The dependency graph belongs to a copy of the module, so the loss is computed with that copy.
        network = copy.deepcopy(self.network)
        network.module = channels.module
        total: list[Tensor | None] = [None] * len(channels.groups)
        for batch in self.context.batches:
            network.zero_grad(set_to_none=True)
            with torch.enable_grad():
                self.context.loss(network, batch).backward()
            scores = channels.scores("taylor")
            total = [new if old is None or new is None else old + new for old, new in zip(total, scores, strict=True)]
        return total

    def _pruned_module(self, plan: Plan) -> nn.Module:
        channels = self._channels()
        channels.prune(plan, self.scores, self.only)
        return channels.module.eval()

    def _count(self, plan: Plan) -> int:
        return macs_by_module(self._pruned_module(plan), self.example)[""]

    def _plan_below(self, goal: float) -> Plan:
        """The largest plan whose MACs are at most `goal`.

        Where the estimate is not exact, the goal is lowered until the counted MACs fit.
        """
        target = goal
        for _ in range(MAX_TRIES):
            plan = closest_plan(
                target, self.estimate, self._planner(), [group.step(self.prune.round_to) for group in self.groups]
            )
            macs = self._count(plan)
            if macs <= goal or macs > self.counts[""]:
                break
            target *= 0.999 * goal / macs
        return plan

    def _planner(self) -> Callable[[float], Plan]:
        if self.prune.everywhere:
            return lambda removed: global_plan(self.groups, self.scores, removed, self.prune.round_to)
        return lambda removed: uniform_plan(self.groups, removed, self.prune.round_to)

    def _drop_unprunable(self) -> None:
        """Drop the groups without whose channels the network fails or gives outputs of other shapes."""
        kept = self._prunable(list(range(len(self.groups))))
        self.only = [self.only[i] for i in kept]
        self.scores, self.groups = [self.scores[i] for i in kept], [self.groups[i] for i in kept]

    def _prunable(self, some: list[int]) -> list[int]:
        """The groups, of some, that can be pruned at once; found by bisection, because nearly always all can."""
        halves = uniform_plan(self.groups, 0.5, self.prune.round_to)
        plan = tuple(halves[i] if i in some else group.size for i, group in enumerate(self.groups))
        if not some or self._keeps_shapes(plan):
            return some
        middle = len(some) // 2
        return self._prunable(some[:middle]) + self._prunable(some[middle:]) if middle else []

    def _keeps_shapes(self, plan: Plan) -> bool:
        try:
            return output_shapes(self._pruned_module(plan), self.example) == self.shapes
        except Exception:  # any error of a forward pass that expects the original sizes
            return False

    def _origin(self, round: int) -> int:
        """MACs of the network before round 1, as that round recorded them."""
        recorded = [edit["macs"] for edit in self.network.edits if edit["kind"] == "pruned" and "macs" in edit]
        return recorded[-1] if recorded and round > 1 else self.counts[""]

    def _unreachable(self, name: str, least: float, goal: float) -> None:
        raise UnreachableShare(name=f"prune {name}", least=least, wanted=goal)
