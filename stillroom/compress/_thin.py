"""Layers that can be replaced by thin ones: their cost, the ranks they need, and fitting the last thin layer."""

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
"""Ridge of the fit, relative to the mean of the diagonal: how strongly weights are kept near those of the factors."""

Call = tuple[int, int, int]
"""Positions of one call: of its input, of its output, and between an h x 1 and a 1 x w convolution."""


@dataclass(eq=False)
class Site:
    """A layer of a network, and how it would be factorised.

    Attributes:
        name: in the module.
        layer: a plain linear layer, or a plain ungrouped convolution.
        way: of `stillroom.models.surgery.factored`.
        calls: one for each time that the layer runs in a forward pass.
    """

    name: str
    layer: Any
    way: str
    calls: list[Call]
    values: list[Tensor] = field(init=False)
    kept: dict[int, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.values = [] if self.way == "cp" else _factors.singular_values(self.way, self.kernel)

    @property
    def kernel(self) -> Tensor:
        """[O, C, h, w] in float64."""
        weight = self.layer.weight.detach().double()
        return weight if weight.ndim == 4 else weight[:, :, None, None]

    @property
    def macs(self) -> int:
        """Multiply-accumulates (MACs) of the layer for one image."""
        return self.layer.weight.numel() * sum(out for _, out, _ in self.calls)

    def thin_macs(self, ranks: list[int]) -> int:
        """MACs of the thin layers for one image."""
        outputs, inputs, height, width = self.kernel.shape
        first, last, total = ranks[0], ranks[-1], 0
        for before, after, between in self.calls:
            total += {
                "svd": after * first * (inputs * height * width + outputs),
                "tucker": before * inputs * first + after * last * (first * height * width + outputs),
                "cp": first * (before * inputs + between * height + after * (width + outputs)),
                "spatial": first * (between * inputs * height + after * outputs * width),
            }[self.way]
        return total

    def ranks(self, energy: float) -> list[int] | None:
        """The smallest ranks that keep this share of the squared weights; None where they do not lower the MACs."""
        if self.way == "cp":
            return self._cp_rank(energy)
        found = [_factors.min_rank(values, energy) for values in self.values]
        return found if self.thin_macs(found) < self.macs else None

    def limited_ranks(self, rank: int) -> list[int] | None:
        """`rank`, or the largest rank that is useful; None where it does not lower the MACs."""
        found = [min(rank, limit) for limit in factored.max_ranks(self.layer, self.way)]
        return found if self.thin_macs(found) < self.macs else None

    def factors(self, ranks: list[int]) -> list[Tensor]:
        """The weights of the thin layers, [O, C, h, w] each."""
        found: list[Tensor] = getattr(_factors, self.way)(self.kernel, *ranks)
        return found

    def _cp_rank(self, energy: float) -> list[int] | None:
        """By bisection: there is no formula, and the energy rises with the rank."""
        low, high = 0, min(factored.max_ranks(self.layer, "cp")[0], (self.macs - 1) // self.thin_macs([1]))
        if high < 1 or self._cp_energy(high) < energy:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._cp_energy(middle) >= energy else (middle, high)
        return [high]

    def _cp_energy(self, rank: int) -> float:
        if rank not in self.kept:
            lost = (self.kernel - _factors.compose("cp", self.factors([rank]))).square().sum()
            self.kept[rank] = 1 - float(lost / self.kernel.square().sum().clamp_min(1e-300))
        return self.kept[rank]


def find_sites(module: nn.Module, example: Tensor, way: str, least: int, keep: Iterable[str]) -> list[Site]:
    """The layers of a module that can be factorised, in its order.

    Left out are layers of fewer than `least` inputs or outputs, those inside the submodules named in `keep`, layers
    with two names, and layers whose weights are used without calling them.
    """
    heads, names = tuple(keep), Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    found = {
        name: part
        for name, part in module.named_modules()
        if name and factored.can_factorize(part) and min(part.weight.shape[:2]) >= least and names[id(part)] == 1
        if not any(name == head or name.startswith(f"{head}.") for head in heads)
    }
    calls = _calls(module, example, found)
    found = {name: part for name, part in found.items() if calls[name]}
    if not _replaceable(module, example, list(found)):
        found = {name: part for name, part in found.items() if _replaceable(module, example, [name])}
    return [Site(name, part, _way(part, way), calls[name]) for name, part in found.items()]


def fit_last_layer(module: nn.Module, thin: dict[str, nn.Sequential], images: Iterable[Tensor]) -> None:
    """Fit the last of each sequence of thin layers, in place, to the outputs of the original layer on `images`.

    It minimises Σ|W a - y|² + λ|W - W0|², with a the input of the last thin layer, y the original layer's output and W0
    the weights before (with the bias, if there is one): on these images it is never worse than W0.

    Args:
        module: with the original layers.
        thin: the layers that will replace them, by name.
        images: batches, inputs of the module.
    """
    equations = {name: _NormalEquations(parts) for name, parts in thin.items()}

    def collect(name: str) -> Any:
        return lambda layer, inputs, output: equations[name].add(inputs[0], output)

    hooks = [module.get_submodule(name).register_forward_hook(collect(name)) for name in thin]
    try:
        with torch.no_grad():
            for batch in images:
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for one in equations.values():
        one.solve()


class _NormalEquations:
    """The least-squares problem of one layer."""

    def __init__(self, parts: nn.Sequential):
        self.first: Any = parts[:-1]
        self.last: Any = parts[-1]
        self.squares: Any = 0.0
        self.products: Any = 0.0

    def add(self, given: Tensor, output: Tensor) -> None:
        """Add inputs and outputs of the original layer."""
        rows = self._rows(self.first(given)).double()
        is_map = output.ndim == 4 and isinstance(self.last, nn.Conv2d)
        outputs = (output.movedim(1, -1) if is_map else output).double()
        outputs = outputs.reshape(-1, outputs.shape[-1])
        if self.last.bias is not None:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        self.squares = self.squares + rows.T @ rows
        self.products = self.products + rows.T @ outputs

    def solve(self) -> None:
        """Set the last layer's weights and bias, if that lowers the error."""
        if not isinstance(self.squares, Tensor):
            return
        weight, bias = self.last.weight, self.last.bias
        old = weight.detach().double().flatten(1).T
        old = old if bias is None else torch.cat([old, bias.detach().double()[None]])
        ridge = RIDGE * self.squares.diagonal().mean().clamp_min(1e-30)
        ridged = self.squares + ridge * torch.eye(len(old), dtype=old.dtype)
        new = torch.linalg.solve(ridged, self.products + ridge * old)
        if not self._error(new) <= self._error(old):  # negated, so that NaN is refused too
            return
        with torch.no_grad():
            weight.copy_(new[: weight[0].numel()].T.reshape(weight.shape))
            if bias is not None:
                bias.copy_(new[-1])

    def _error(self, weight: Tensor) -> float:
        """Σ|W a - y|² without the term that does not depend on W."""
        return float((weight * (self.squares @ weight)).sum() - 2 * (weight * self.products).sum())

    def _rows(self, x: Tensor) -> Tensor:
        """[positions, inputs of each output] of the last layer."""
        last = self.last
        if isinstance(last, nn.Linear):
            return x.flatten(0, -2)
        mode = "constant" if last.padding_mode == "zeros" else last.padding_mode
        padded = F.pad(x, last._reversed_padding_repeated_twice, mode=mode)
        columns = F.unfold(padded, last.kernel_size, dilation=last.dilation, stride=last.stride)
        return columns.transpose(1, 2).flatten(0, 1)


def _way(layer: nn.Module, way: str) -> str:
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1):
        return "svd"
    return "tucker" if way == "auto" else way


def _calls(module: nn.Module, example: Tensor, layers: dict[str, Any]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {name: [] for name in layers}

    def collect(name: str) -> Any:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(layer, nn.Linear):
                positions = output.numel() // output.shape[-1]
                found[name].append((positions, positions, positions))
            else:
                (height, width), (out_height, out_width) = inputs[0].shape[-2:], output.shape[-2:]
                found[name].append((height * width, out_height * out_width, out_height * width))

        return hook

    hooks = [layer.register_forward_hook(collect(name)) for name, layer in layers.items()]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return found


def _replaceable(module: nn.Module, example: Tensor, names: list[str]) -> bool:
    """Whether the module runs with other modules in these places: some use a layer's weights without calling it."""
    modified = copy.deepcopy(module)
    for name in names:
        modified.set_submodule(name, nn.Sequential(modified.get_submodule(name)))
    try:
        with torch.no_grad():
            modified(example)
    except Exception:  # any error of a forward pass that misses an attribute
        return False
    return True
