"""Tensor decomposition: a layer whose weights have low rank, nearly, becomes a few thin layers in a row."""

from __future__ import annotations

import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from stillroom.compress._errors import NothingToFactorize, UnreachableShare
from stillroom.compress._thin import Site, fit_last, sites
from stillroom.compress.compression import View
from stillroom.models.flops import macs_by_module
from stillroom.models.network import Network
from stillroom.models.surgery.factored import thin_layers

Ranks = dict[str, list[int]]
Share = Annotated[float, Gt(0), Le(1)]
BATCH = 32
ENERGY = 0.95


class Factorize:
    """Replace layers by low-rank ones, see `stillroom.models.surgery.factored` for their forms and sizes.

    A layer is replaced where that lowers its multiply-accumulates. Left alone are grouped convolutions, the
    classifiers, subclasses of the plain layers, and layers whose weights the module reads itself. How well the weights
    are approximated is a Frobenius norm; `match` then looks at what the layer says about images.

    Args:
        way: for convolutions larger than 1 x 1: "svd" of the O x (C h w) matrix, "tucker" (Tucker-2, Kim et al. 2016,
            https://arxiv.org/abs/1511.06530), "cp" (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553; minutes for
            a layer of 512 channels), "spatial" (Jaderberg et al. 2014, https://arxiv.org/abs/1405.3866); "auto" is
            "tucker". Linear layers and 1 x 1 convolutions always get "svd".
        energy: the least rank that keeps this share of the sum of squared singular values, in (0, 1]; for "tucker" of
            each of the two unfoldings, for "cp" of the squared weights. With R rounds each keeps energy^(1/R).
        rank: the same for every layer, where it has as many. The first round does all of it.
        macs: share of the network's multiply-accumulates that stays, in (0, 1]; the energy, the same for all layers,
            follows from it. Round r of R leaves macs^(r/R) of the first network's.
        least: layers with fewer inputs or outputs are left.
        match: fit the last thin layer by least squares to what the layer said on the view's images.
        rounds: times that factorising and training take turns, at least 1.
        between: as `Compression.between`.

    At most one of `energy`, `rank` and `macs` is given; without any, energy is 0.95.

    Raises:
        ValueError: an argument out of its range, or two that exclude each other.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        way: Literal["auto", "svd", "tucker", "cp", "spatial"] = "auto",
        energy: Share | None = None,
        rank: Annotated[int, Ge(1)] | None = None,
        macs: Share | None = None,
        least: Annotated[int, Ge(1)] = 16,
        match: bool = True,
        rounds: Annotated[int, Ge(1)] = 1,
        between: Literal["teacher", "before"] = "before",
    ):
        if way not in ("auto", "svd", "tucker", "cp", "spatial"):
            raise ValueError(f"way is 'auto', 'svd', 'tucker', 'cp' or 'spatial', not {way!r}")
        given = {"energy": energy, "rank": rank, "macs": macs}
        if len(names := [name for name, value in given.items() if value is not None]) > 1:
            raise ValueError(f"{names[0]} and {names[1]} exclude each other: give one of energy, rank and macs")
        for name, share in (("energy", energy), ("macs", macs)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} is above 0 and at most 1, not {share}")
        for name, count in (("rank", rank), ("least", least), ("rounds", rounds)):
            if count is not None and (count != int(count) or count < 1):
                raise ValueError(f"{name} is a whole number, at least 1, not {count}")
        if between not in ("teacher", "before"):
            raise ValueError(f"between is 'teacher' or 'before', not {between!r}")
        self.way, self.energy, self.rank, self.macs = way, energy, rank, macs
        self.least, self.match, self.rounds, self.between = least, match, rounds, between

    def shrink(self, network: Network, view: View, round: int) -> Network:
        """As `Compression.shrink`.

        Raises:
            StillroomError: SR-M382 `macs` can't be had; SR-M383 no layer gets cheaper.
        """
        network = copy.deepcopy(network).cpu().eval()
        with torch.no_grad():
            example = network.preprocess(view.images[:1])
        found = {site.name: site for site in sites(network.module, example, self.way, self.least, network.head)}
        before = macs_by_module(network.module, example)[""]
        origin = (_noted(network) or before) if round > 1 else before
        ranks = self._ranks(list(found.values()), before, origin, round)
        if not ranks:
            if round > 1 or self.macs == 1:
                return network
            raise NothingToFactorize(problem=f"{len(found)} layers were looked at")
        layers = {name: {"way": found[name].way, "ranks": chosen} for name, chosen in ranks.items()}
        parts = {name: _filled(found[name], chosen) for name, chosen in ranks.items()}
        if self.match:
            batches = view.images.split(BATCH)
            fit_last(network.module, parts, (network.preprocess(batch) for batch in batches))
        network.apply_edits([{"kind": "factored", "layers": layers, "macs": origin}])
        for name, made in parts.items():
            network.module.set_submodule(name, made)
        return network.eval()

    def settle(self, network: Network) -> Network:
        """As `Compression.settle`: a factorised network is a plain one."""
        return copy.deepcopy(network).cpu().eval()

    def _ranks(self, found: list[Site], before: int, origin: int, round: int) -> Ranks:
        if self.rank is not None:
            return {site.name: ranks for site in found if (ranks := site.at_most(self.rank))}
        if self.macs is None:
            return _at((self.energy or ENERGY) ** (1 / self.rounds), found)
        goal = origin * self.macs ** (round / self.rounds)
        if before <= goal:
            return {}
        return _within(goal, before, found, origin)


def _at(energy: float, found: list[Site]) -> Ranks:
    return {site.name: ranks for site in found if (ranks := site.ranks(energy))}


def _within(goal: float, before: int, found: list[Site], origin: int) -> Ranks:
    """Ranks of the greatest energy, the same for all layers, whose work is at most `goal`."""
    by_name = {site.name: site for site in found}

    def left(energy: float) -> int:
        return before - sum(by_name[name].own - by_name[name].work(ranks) for name, ranks in _at(energy, found).items())

    little, much = 1e-6, 1.0
    if (least := left(little)) > goal:
        raise UnreachableShare(name="factorize macs", least=least / origin, wanted=goal / origin)
    for _ in range(24):
        middle = (little + much) / 2
        little, much = (middle, much) if left(middle) <= goal else (little, middle)
    return _at(little, found)


def _noted(network: Network) -> int | None:
    """The work of the network that came here in round 1, as that round noted it."""
    noted = [edit["macs"] for edit in network.edits if edit["kind"] == "factored" and "macs" in edit]
    return noted[-1] if noted else None


def _filled(site: Site, ranks: list[int]) -> nn.Sequential:
    """The thin layers with the factors in them, and the layer's bias."""
    parts = thin_layers(site.layer, site.way, ranks)
    layers: list[Any] = list(parts)
    with torch.no_grad():
        for part, factor in zip(layers, site.factors(ranks), strict=True):
            part.weight.copy_(factor.reshape(part.weight.shape))
        if site.layer.bias is not None:
            layers[-1].bias.copy_(site.layer.bias)
    return parts
