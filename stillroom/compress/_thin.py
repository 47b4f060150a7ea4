"""Layers that can be replaced by thin ones: what each costs, which ranks it needs, and fitting its last part."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.compress import _factors
from stillroom.models.surgery import factored

RIDGE = 1e-4
"""Of the mean of the diagonal: how strongly a fitted weight is drawn to the one that the factors give."""

Call = tuple[int, int, int]
"""Places at which a layer looks in one pass: of its input, of its output, and between an h x 1 and a 1 x w part."""


@dataclass(eq=False)
class Site:
    """A layer that runs, and how it would be factorised.

    Attributes:
        name: in the module.
        layer: plain linear, or a plain ungrouped convolution.
        way: of `stillroom.models.surgery.factored`.
        calls: one for each time that it runs in a pass.
    """

    name: str
    layer: Any
    way: str
    calls: list[Call]
    values: list[Tensor] = field(init=False)
    kept: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.values = [] if self.way == "cp" else _factors.values_of(self.way, self.kernel)

    @property
    def kernel(self) -> Tensor:
        """[O, C, h, w] in float64."""
        weight = self.layer.weight.detach().double()
        return weight if weight.ndim == 4 else weight[:, :, None, None]

    @property
    def own(self) -> int:
        """Multiply-accumulates of the layer as it is, for one image."""
        return self.layer.weight.numel() * sum(out for _, out, _ in self.calls)

    def work(self, ranks: list[int]) -> int:
        """Multiply-accumulates of the thin layers, for one image."""
        outside, inside, high, wide = self.kernel.shape
        first, last, total = ranks[0], ranks[-1], 0
        for given, made, between in self.calls:
            total += {
                "svd": made * first * (inside * high * wide + outside),
                "tucker": given * inside * first + made * last * (first * high * wide + outside),
                "cp": first * (given * inside + between * high + made * (wide + outside)),
                "spatial": first * (between * inside * high + made * outside * wide),
            }[self.way]
        return total

    def ranks(self, energy: float) -> list[int] | None:
        """The least ranks that keep this share of the squared weights; None where that is no gain in work."""
        if self.way == "cp":
            return self._cp_rank(energy)
        found = [_factors.least(values, energy) for values in self.values]
        return found if self.work(found) < self.own else None

    def at_most(self, rank: int) -> list[int] | None:
        """That rank, or the greatest that says something; None where that is no gain in work."""
        found = [min(rank, limit) for limit in factored.max_ranks(self.layer, self.way)]
        return found if self.work(found) < self.own else None

    def factors(self, ranks: list[int]) -> list[Tensor]:
        """The weights of the thin layers, as [O, C, h, w] each."""
        found: list[Tensor] = getattr(_factors, self.way)(self.kernel, *ranks)
        return found

    def _cp_rank(self, energy: float) -> list[int] | None:
        """By halving: no formula gives it, and more outer products keep more."""
        low, high = 0, min(factored.max_ranks(self.layer, "cp")[0], (self.own - 1) // self.work([1]))
        if high < 1 or self._cp_keeps(high) < energy:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._cp_keeps(middle) >= energy else (middle, high)
        return [high]

    def _cp_keeps(self, rank: int) -> float:
        if rank not in self.kept:
            lost = (self.kernel - _factors.together("cp", self.factors([rank]))).square().sum()
            self.kept[rank] = 1 - float(lost / self.kernel.square().sum().clamp_min(1e-300))
        return self.kept[rank]


def sites(module: nn.Module, example: Tensor, way: str, least: int, keep: Iterable[str]) -> list[Site]:
    """The layers of a module that could be thin, in its order.

    Left out are those of fewer than `least` channels on a side, what lies in the parts called `keep`, layers with two
    names, and layers whose weights others read without running them.
    """
    heads, places = tuple(keep), Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    found = {
        name: part
        for name, part in module.named_modules()
        if name and factored.can_factorize(part) and min(part.weight.shape[:2]) >= least and places[id(part)] == 1
        if not any(name == head or name.startswith(f"{head}.") for head in heads)
    }
    calls = _calls(module, example, found)
    found = {name: part for name, part in found.items() if calls[name]}
    if not _replaceable(module, example, list(found)):
        found = {name: part for name, part in found.items() if _replaceable(module, example, [name])}
    return [Site(name, part, _way(part, way), calls[name]) for name, part in found.items()]


def fit_last(module: nn.Module, thin: dict[str, nn.Sequential], images: Iterable[Tensor]) -> None:
    """Refit the last of each row of thin layers, in place, so that it says on `images` what the layer said.

    Σ|W a - y|² + λ|W - W0|² is least, with what the last layer reads as a, what the whole layer said as y, and its
    weights before as W0 (with its bias where it has one): on these images never worse than W0.

    Args:
        module: with the layers as they were.
        thin: the layers that take their places, by name.
        images: batches as the module takes them.
    """
    sums = {name: _Sums(parts) for name, parts in thin.items()}

    def listen(name: str) -> Any:
        return lambda layer, given, said: sums[name].add(given[0], said)

    hooks = [module.get_submodule(name).register_forward_hook(listen(name)) for name in thin]
    try:
        with torch.no_grad():
            for batch in images:
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for found in sums.values():
        found.solve()


class _Sums:
    """The normal equations of one layer."""

    def __init__(self, parts: nn.Sequential):
        self.first: Any = parts[:-1]
        self.last: Any = parts[-1]
        self.squares: Any = 0.0
        self.products: Any = 0.0

    def add(self, given: Tensor, said: Tensor) -> None:
        """Count in what the layer read, and said."""
        rows = self._rows(self.first(given)).double()
        answers = (said.movedim(1, -1) if said.ndim == 4 and isinstance(self.last, nn.Conv2d) else said).double()
        answers = answers.reshape(-1, answers.shape[-1])
        if self.last.bias is not None:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        self.squares = self.squares + rows.T @ rows
        self.products = self.products + rows.T @ answers

    def solve(self) -> None:
        """Set the last layer's weights and bias, if that is better on what was counted."""
        if not isinstance(self.squares, Tensor):
            return
        weight, bias = self.last.weight, self.last.bias
        old = weight.detach().double().flatten(1).T
        old = old if bias is None else torch.cat([old, bias.detach().double()[None]])
        ridge = RIDGE * self.squares.diagonal().mean().clamp_min(1e-30)
        ridged = self.squares + ridge * torch.eye(len(old), dtype=old.dtype)
        new = torch.linalg.solve(ridged, self.products + ridge * old)
        if not self._error(new) <= self._error(old):  # also where a sum is not finite
            return
        with torch.no_grad():
            weight.copy_(new[: weight[0].numel()].T.reshape(weight.shape))
            if bias is not None:
                bias.copy_(new[-1])

    def _error(self, held: Tensor) -> float:
        """Σ|W a - y|² without the part that no W changes."""
        return float((held * (self.squares @ held)).sum() - 2 * (held * self.products).sum())

    def _rows(self, read: Tensor) -> Tensor:
        """[places, values that each output there is made of]."""
        last = self.last
        if isinstance(last, nn.Linear):
            return read.flatten(0, -2)
        mode = "constant" if last.padding_mode == "zeros" else last.padding_mode
        padded = F.pad(read, last._reversed_padding_repeated_twice, mode=mode)
        columns = F.unfold(padded, last.kernel_size, dilation=last.dilation, stride=last.stride)
        return columns.transpose(1, 2).flatten(0, 1)


def _way(layer: nn.Module, way: str) -> str:
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1):
        return "svd"
    return "tucker" if way == "auto" else way


def _calls(module: nn.Module, example: Tensor, layers: dict[str, Any]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {name: [] for name in layers}

    def listen(name: str) -> Any:
        def hear(layer: Any, given: tuple[Tensor, ...], said: Tensor) -> None:
            if isinstance(layer, nn.Linear):
                places = said.numel() // said.shape[-1]
                found[name].append((places, places, places))
            else:
                (high, wide), (down, across) = given[0].shape[-2:], said.shape[-2:]
                found[name].append((high * wide, down * across, down * wide))

        return hear

    hooks = [layer.register_forward_hook(listen(name)) for name, layer in layers.items()]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return found


def _replaceable(module: nn.Module, example: Tensor, names: list[str]) -> bool:
    """Whether the module runs with other modules in these places: some read a layer's weights instead of running it."""
    tried = copy.deepcopy(module)
    for name in names:
        tried.set_submodule(name, nn.Sequential(tried.get_submodule(name)))
    try:
        with torch.no_grad():
            tried(example)
    except Exception:  # whatever a forward pass raises that misses an attribute
        return False
    return True
