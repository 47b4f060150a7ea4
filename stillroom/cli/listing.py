"""What `stillroom list` prints: names, and the first line of what each one says of itself."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import indent

from stillroom.config import device_profile, recipe
from stillroom.config.plugins import HERE, choices


def listing(kind: str, folder: str, like: str = "") -> dict[str, str]:
    """Name -> one line, for the names that contain `like`."""
    if kind == "recipes":
        rows = {name: _comment(recipe.BUILT_IN / f"{name}.toml") for name in recipe.built_in()}
    elif kind == "profiles":
        rows = device_profile.profile_names()
    elif kind in ("students", "teachers"):
        from stillroom import models

        return dict.fromkeys(models.list_models(like), "")
    else:
        # Read, not imported: nothing heavy is needed to know what a file says of itself.
        rows = {name: _docstring(HERE / folder / f"{name}.py") for name in choices(folder)}
    found = {name: text for name, text in rows.items() if like in name}
    if like in found and kind in ("methods", "compress"):
        return {like: whole(HERE / folder / f"{like}.py")}
    return found


def whole(path: Path) -> str:
    """All that a plug-in's file says of itself: source, formula, arguments, what differs, when to use it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    said = [
        ast.get_docstring(tree),
        *(f"{node.name}\n{indent(ast.get_docstring(node) or '', '    ')}" for node in public),
    ]
    return "\n\n".join(text for text in said if text)


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
