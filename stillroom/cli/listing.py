"""What `stillroom list` prints: names, and the first line of each one's documentation."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import indent
from typing import Any

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
        # Read, not imported: documentation needs no torch.
        rows = {name: _docstring(HERE / folder / f"{name}.py") for name in choices(folder)}
    if kind == "metrics":
        rows = {name: f"{text} For {_tasks(HERE / folder / f'{name}.py')}." for name, text in rows.items()}
    found = {name: text for name, text in rows.items() if like in name}
    if like in found and kind in ("methods", "compress"):
        return {like: whole(HERE / folder / f"{like}.py")}
    return found


def whole(path: Path) -> str:
    """All documentation in a plug-in's file: source, formula, arguments, what differs, when to use it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    texts = [
        ast.get_docstring(tree),
        *(f"{node.name}\n{indent(ast.get_docstring(node) or '', '    ')}" for node in public),
    ]
    return "\n\n".join(text for text in texts if text)


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _tasks(metric: Path) -> str:
    """The tasks whose predictions and labels a metric reads, in words."""
    predictions, kind = _declared(metric, "output_kind", "classes"), _declared(metric, "target_kind", "labels")
    tasks = {name: HERE / "tasks" / f"{name}.py" for name in choices("tasks")}
    fitting = [name for name, path in tasks.items() if _declared(path, "output_kind") == predictions]
    return ", ".join(name for name in fitting if kind in (None, _declared(tasks[name], "target_kind")))


def _declared(path: Path, name: str, default: Any = None) -> Any:
    """The value of a class variable in the last class of a file that sets it, as it is written."""
    found = default
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            found = ast.literal_eval(node.value) if node.value else default
    return found


def _comment(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
