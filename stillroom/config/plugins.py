"""The folder is the registry: `methods/rkd.py` holding `class RKD` makes `rkd` a valid name everywhere.

No decorator, table or import side effect. `package.module:Name` names one's own code, on the user's own word.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from stillroom.config.errors import ImportedNameFailed, UnknownName

HERE = Path(__file__).parents[1]

CONTRACTS = {
    "data/sources": "source",
    "models": "network",
    "tasks": "task",
    "methods": "method",
    "metrics": "metric",
    "compress": "compression",
    "export": "runtime",
}
"""Plug-in folder -> the file in it that holds the contract, and so is no plug-in itself."""

SHARED = {"models": {"flops"}, "tasks": {"predictor"}, "metrics": {"measurement"}, "export": {"artifact"}}
"""Plug-in folder -> further files in it that are no plug-ins: other rooms import them."""

LISTED_AS = {"data/sources": "sources", "models": "students", "export": "runtimes"}
"""Plug-in folder -> its word for `stillroom list`, where that is not the folder's name."""


def choices(folder: str) -> list[str]:
    """Names one may write for `folder`: its files, less the contract and those that start with an underscore."""
    files = (HERE / folder).glob("*.py")
    others = {CONTRACTS[folder]} | SHARED.get(folder, set())
    return sorted(f.stem for f in files if not f.stem.startswith("_") and f.stem not in others)


def pick(folder: str, name: str) -> Any:
    """The class or function that a name stands for, wherever the name comes from: recipe, command line or Python.

    Args:
        folder: a key of `CONTRACTS`.
        name: a file of that folder, or `package.module:Name` for one's own code.

    Raises:
        UnknownName: SR-C405 there is none; the nearest is suggested.
        ImportedNameFailed: SR-C406 one's own code can't be imported.
    """
    if ":" in name:
        return _own(name)
    found, wanted = module(folder, name), name.replace("_", "")
    return next(value for key, value in vars(found).items() if key.lower().replace("_", "") == wanted)


def module(folder: str, name: str) -> ModuleType:
    """The file behind the name of a plug-in that comes with the program, imported.

    Raises:
        UnknownName: SR-C405 there is none.
    """
    if name not in (known := choices(folder)):
        listed = LISTED_AS.get(folder, folder)
        raise UnknownName(kind=CONTRACTS[folder], name=name, near=near(name, known), listed=listed)
    return import_module(f"stillroom.{folder.replace('/', '.')}.{name}")


def _own(name: str) -> Any:
    path, _, attribute = name.partition(":")
    try:
        return getattr(import_module(path), attribute)
    except Exception as problem:  # whatever the author's own code raises while it is imported
        kind = "" if isinstance(problem, ImportError | AttributeError) else f"{type(problem).__name__}: "
        raise ImportedNameFailed(name=name, problem=f"{kind}{problem}") from problem


def near(word: str, words: Iterable[str]) -> str:
    """The end of an error message: the nearest of `words`, or all of them when none is near and they are few."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""
