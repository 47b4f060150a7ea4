"""Tensor decomposition: a layer whose weights have nearly low rank is replaced by a sequence of thin layers."""

from __future__ import annotations

import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import nn

from stillroom.compress._errors import NothingToFactorize, UnreachableShare
from stillroom.compress._thin import Site, find_sites, fit_last_layer
from stillroom.compress.compression import CompressionContext
from stillroom.models.flops import macs_by_module
from stillroom.models.network import Network
from stillroom.models.surgery.factored import thin_layers

Ranks = dict[str, list[int]]
Share = Annotated[float, Gt(0), Le(1)]
BATCH = 32
ENERGY = 0.95


class Factorize:
    """Replace layers by low-rank ones, see `stillroom.models.surgery.factored` for their forms and sizes.

    A layer is replaced where that lowers its multiply-accumulates (MACs). Not replaced are grouped convolutions, the
    classifiers, subclasses of the plain layers, and layers whose weights the module uses directly. The decomposition
    minimises the error of the weights in the Frobenius norm; `match` then fits the outputs on images.

    Args:
        way: for convolutions larger than 1 x 1: "svd" of the O x (C h w) matrix, "tucker" (Tucker-2, Kim et al. 2016,
            https://arxiv.org/abs/1511.06530), "cp" (Lebedev et al. 2015, https://arxiv.org/abs/1412.6553; minutes for a
            layer of 512 channels), "spatial" (Jaderberg et al. 2014, https://arxiv.org/abs/1405.3866); "auto" is
            "tucker". Linear layers and 1 x 1 convolutions always use "svd".
        energy: the smallest rank that keeps this share of the sum of squared singular values, in (0, 1]; for "tucker"
            of each of the two unfoldings, for "cp" of the squared weights. With R rounds each keeps energy^(1/R).
        rank: the rank of every layer, limited to what is useful. All of it is done in the first round.
        macs: share of the network's MACs to keep, in (0, 1]; it determines the energy, which is the same for all
            layers. Round r of R keeps macs^(r/R) of the original network's.
        least: layers with fewer inputs or outputs are not replaced.
        match: fit the last thin layer by least squares to the original layer's outputs on the context's images.
        rounds: how often factorising and training are repeated, at least 1.
        interim_teacher: as `Compression.interim_teacher`.

    At most one of `energy`, `rank` and `macs` may be given; the default is an energy of 0.95.

    Raises:
        ValueError: an argument is out of its range, or two of them exclude each other.
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
        interim_teacher: Literal["teacher", "before"] = "before",
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
        if interim_teacher not in ("teacher", "before"):
            raise ValueError(f"interim_teacher is 'teacher' or 'before', not {interim_teacher!r}")
        self.way, self.energy, self.rank, self.macs = way, energy, rank, macs
        self.least, self.match, self.rounds, self.interim_teacher = least, match, rounds, interim_teacher

    def shrink(self, network: Network, context: CompressionContext, round: int) -> Network:
        """As `Compression.shrink`.

        Raises:
            StillroomError: SR-M382 `macs` can't be reached; SR-M383 no layer gets cheaper.
        """
        network = copy.deepcopy(network).cpu().eval()
        with torch.no_grad():
            example = network.preprocess(context.images[:1])
        sites = {site.name: site for site in find_sites(network.module, example, self.way, self.least, network.head)}
        before = macs_by_module(network.module, example)[""]
        origin = (_recorded_macs(network) or before) if round > 1 else before
        ranks = self._ranks(list(sites.values()), before, origin, round)
        if not ranks:
            if round > 1 or self.macs == 1:
                return network
            raise NothingToFactorize(problem=f"{len(sites)} layers were considered")
        layers = {name: {"way": sites[name].way, "ranks": chosen} for name, chosen in ranks.items()}
        parts = {name: _build_thin(sites[name], chosen) for name, chosen in ranks.items()}
        if self.match:
            batches = context.images.split(BATCH)
            fit_last_layer(network.module, parts, (network.preprocess(batch) for batch in batches))
        network.apply_edits([{"kind": "factored", "layers": layers, "macs": origin}])
        for name, thin in parts.items():
            network.module.set_submodule(name, thin)
        return network.eval()

    def finalize(self, network: Network) -> Network:
        """As `Compression.finalize`: a factorised network is a plain one."""
        return copy.deepcopy(network).cpu().eval()

    def _ranks(self, sites: list[Site], before: int, origin: int, round: int) -> Ranks:
        if self.rank is not None:
            return {site.name: ranks for site in sites if (ranks := site.limited_ranks(self.rank))}
        if self.macs is None:
            return _ranks_for((self.energy or ENERGY) ** (1 / self.rounds), sites)
        goal = origin * self.macs ** (round / self.rounds)
        if before <= goal:
            return {}
        return _ranks_below(goal, before, sites, origin)


def _ranks_for(energy: float, sites: list[Site]) -> Ranks:
    return {site.name: ranks for site in sites if (ranks := site.ranks(energy))}


def _ranks_below(goal: float, before: int, sites: list[Site], origin: int) -> Ranks:
    """The ranks of the largest energy, the same for all layers, whose MACs are at most `goal`."""
    by_name = {site.name: site for site in sites}

    def macs(energy: float) -> int:
        return before - sum(
            by_name[name].macs - by_name[name].thin_macs(ranks) for name, ranks in _ranks_for(energy, sites).items()
        )

    low, high = 1e-6, 1.0
    if (least := macs(low)) > goal:
        raise UnreachableShare(name="factorize macs", least=least / origin, wanted=goal / origin)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(middle) <= goal else (low, middle)
    return _ranks_for(low, sites)


def _recorded_macs(network: Network) -> int | None:
    """MACs of the network before round 1, as that round recorded them."""
    recorded = [edit["macs"] for edit in network.edits if edit["kind"] == "factored" and "macs" in edit]
    return recorded[-1] if recorded else None


def _build_thin(site: Site, ranks: list[int]) -> nn.Sequential:
    """The thin layers with their factors as weights, and the layer's bias."""
    parts = thin_layers(site.layer, site.way, ranks)
    layers: list[Any] = list(parts)
    with torch.no_grad():
        for part, factor in zip(layers, site.factors(ranks), strict=True):
            part.weight.copy_(factor.reshape(part.weight.shape))
        if site.layer.bias is not None:
            layers[-1].bias.copy_(site.layer.bias)
    return parts
