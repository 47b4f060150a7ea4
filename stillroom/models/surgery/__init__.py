"""How a network differs from what its family builds: a list of changes of form, each a line of JSON.

A pruned network has other shapes than its family's, a factorised one other parts. A file of weights alone can't say so;
its metadata hold the list, and going through it again on a fresh network gives one that the weights fit.

A change is a file of this folder: `forms/pruned.py` holds `def reform(module, edit)`, which gives the module the form
that the line `{"kind": "pruned", ...}` tells of. What is in the weights afterwards is nobody's business here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

Edit = Mapping[str, Any]
"""A change of form, as JSON holds it; `kind` is the name of the file here that can make it."""

KINDS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def apply(module: nn.Module, edits: Iterable[Edit]) -> None:
    """Give a module, in place, the form that all of `edits` lead to, one after the other.

    Raises:
        ValueError: a change of no known kind, or one that does not fit the module.
    """
    for edit in edits:
        if edit.get("kind") not in KINDS:
            raise ValueError(f"no change of form is called {edit.get('kind')!r}; there are {', '.join(KINDS)}")
        import_module(f"stillroom.models.surgery.{edit['kind']}").apply(module, edit)


def as_json(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Changes as they will be when a file has held them: tuples become lists, keys words."""
    return tuple(json.loads(json.dumps(list(edits))))


def structural(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The changes that make other parts or shapes; a grid makes none."""
    return tuple(edit for edit in edits if edit["kind"] != "grid")


def to_text(edits: Iterable[Edit]) -> str:
    """The list as the metadata of a file hold it."""
    return json.dumps(list(edits), separators=(",", ":"), sort_keys=True)


def from_metadata(said: Mapping[str, str]) -> tuple[Edit, ...]:
    """The list in a file's metadata; empty where the network has its family's own form.

    Raises:
        ValueError: there is something else in its place.
    """
    found = json.loads(said.get("form", "[]"))
    if not isinstance(found, list) or not all(isinstance(edit, dict) for edit in found):
        raise ValueError("`form` is not a list of changes")
    return tuple(found)
