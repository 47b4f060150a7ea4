"""Layers with fewer channels than their family's: which parameters and buffers are smaller, and which numbers say so.

    {"kind": "pruned", "shapes": {"conv1.weight": [12, 3, 3, 3]}, "attributes": {"conv1": {"out_channels": 12}}}

shapes: of parameters and buffers, by their names in the module. attributes: whole numbers, floats or tuples (lists in
JSON) of modules, by the module's name; the module itself is "". Further keys are notes that change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def apply(module: nn.Module, edit: Mapping[str, Any]) -> None:
    """Make the named tensors smaller and set the named attributes; the tensors then hold zeros.

    A parameter that two modules share stays shared. Nothing is changed unless everything fits.

    Raises:
        ValueError: a name that is not there, a tensor that would have other axes or grow, an attribute of another
            type, or one that is no plain number.
    """
    shapes, attributes = edit.get("shapes", {}), edit.get("attributes", {})
    if not isinstance(shapes, Mapping) or not isinstance(attributes, Mapping):
        raise ValueError("`shapes` and `attributes` are tables")
    sizes = {name: _shape(module, name, shape) for name, shape in shapes.items()}
    values = {name: _values(module, name, said) for name, said in attributes.items()}
    made: dict[int, Tensor] = {}
    for name, size in sizes.items():
        _resize(module, name, size, made)
    for name, said in values.items():
        for attribute, value in said.items():
            setattr(module.get_submodule(name), attribute, value)


def difference(before: nn.Module, after: nn.Module) -> dict[str, Any]:
    """The edit that gives `before` the shapes and numbers of `after`, a module of the same parts.

    Raises:
        ValueError: their parts or the names of their tensors differ.
    """
    parts = dict(after.named_modules())
    if parts.keys() != dict(before.named_modules()).keys():
        raise ValueError("the modules have other parts")
    shapes, attributes = dict[str, Any](), dict[str, Any]()
    for name, old in before.named_modules():
        new, prefix = parts[name], f"{name}." if name else ""
        if _tensors(old).keys() != _tensors(new).keys():
            raise ValueError(f"{name or 'the module'} has other tensors")
        for key, tensor in _tensors(old).items():
            if (shape := _tensors(new)[key].shape) != tensor.shape:
                shapes[prefix + key] = list(shape)
        numbers = _numbers(new)
        changed = {key: numbers[key] for key, value in _numbers(old).items() if numbers.get(key, value) != value}
        if changed:
            attributes[name] = {key: list(v) if isinstance(v, tuple) else v for key, v in changed.items()}
    return {"kind": "pruned", "shapes": shapes, "attributes": attributes}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    own = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in own.items() if tensor is not None}


def _numbers(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and _plain(value)}


def _plain(value: Any) -> bool:
    """A whole number, a float, or a tuple of whole numbers."""
    if isinstance(value, tuple):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) in (int, float)


def _shape(module: nn.Module, name: str, shape: Any) -> list[int]:
    owner, _, leaf = name.rpartition(".")
    held = _tensors(_part(module, owner)).get(leaf)
    if held is None:
        raise ValueError(f"there is no tensor {name!r}")
    fits = isinstance(shape, list) and len(shape) == held.ndim and all(type(size) is int for size in shape)
    if not fits or not all(1 <= new <= old for new, old in zip(shape, held.shape, strict=True)):
        raise ValueError(f"{name} is {list(held.shape)}, which can't become {shape!r}")
    return shape


def _values(module: nn.Module, name: str, said: Any) -> dict[str, Any]:
    held = _numbers(_part(module, name))
    if not isinstance(said, Mapping):
        raise ValueError(f"the attributes of {name!r} are no table")
    return {attribute: _value(f"{name}.{attribute}", held.get(attribute), value) for attribute, value in said.items()}


def _value(name: str, held: Any, value: Any) -> Any:
    """The value to set; counts only get smaller, a float is any finite one above 0."""
    if isinstance(held, tuple) and isinstance(value, list) and len(held) == len(value):
        return tuple(_value(name, old, new) for old, new in zip(held, value, strict=True))
    count = type(held) is int and type(value) is int and 1 <= value <= held
    share = type(held) is float and type(value) in (int, float) and value > 0 and math.isfinite(value)
    if not (count or share):
        raise ValueError(f"{name} is {held!r}, which can't become {value!r}")
    return value


def _part(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as problem:
        raise ValueError(f"there is no part {name!r}") from problem


def _resize(module: nn.Module, name: str, size: list[int], made: dict[int, Tensor]) -> None:
    owner, _, leaf = name.rpartition(".")
    part = module.get_submodule(owner)
    held = _tensors(part)[leaf]
    if id(held) not in made:
        smaller = torch.zeros(size, dtype=held.dtype, device=held.device)
        parameter = isinstance(held, nn.Parameter)
        made[id(held)] = nn.Parameter(smaller, requires_grad=held.requires_grad) if parameter else smaller
    holds: Any = part._parameters if leaf in part._parameters else part._buffers
    holds[leaf] = made[id(held)]
