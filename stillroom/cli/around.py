"""Commands that need no run: list, new, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from stillroom.cli._group import common, main
from stillroom.cli.errors import RecipeFileExists
from stillroom.config.errors import RecipeNotFound

KINDS = {
    "sources": "data/sources",
    "students": "models",
    "teachers": "models",
    "tasks": "tasks",
    "methods": "methods",
    "runtimes": "export",
    "compress": "compress",
    "metrics": "metrics",
    "recipes": "",
    "profiles": "",
}


@main.command("list")
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("like", default="")
@common
def list_(kind: str, like: str, as_json: bool, **_: Any) -> int:
    """List the names that a recipe may use, with a short description.

    \b
    stillroom list methods
    stillroom list students mobilenet
    stillroom list recipes --json
    """
    from stillroom.cli import console
    from stillroom.cli.listing import listing

    rows = listing(kind, KINDS[kind], like)
    if as_json:
        console.out.print_json(json.dumps(rows))
    else:
        width = max((len(name) for name in rows), default=0)
        for name, text in rows.items():
            console.out.print(f"{name:{width}}  {text}".rstrip(), markup=False)
    return 0


@main.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), default=None, help="The file to write; NAME.toml by default.")
@common
def new(name: str, to: Path | None, **_: Any) -> int:
    """Copy a built-in recipe for editing.

    \b
    stillroom new digits
    stillroom new flowers --to photos.toml
    stillroom new fashion --json
    """
    from stillroom.cli import console
    from stillroom.config import recipe
    from stillroom.config.plugins import near

    path = to or Path(f"{name}.toml")
    if name not in recipe.built_in():
        raise RecipeNotFound(path=name, hint=near(name, recipe.built_in()))
    if path.exists():
        raise RecipeFileExists(path=path)
    path.write_text((recipe.BUILT_IN / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    console.out.print(str(path), markup=False)
    return 0


@main.command()
@common
def doctor(as_json: bool, **_: Any) -> int:
    """Show devices, runtimes and disk space.

    Also what is missing, and how to install it.

    \b
    stillroom doctor
    stillroom doctor --json
    stillroom doctor -v
    """
    from stillroom.cli import console
    from stillroom.cli.doctor import examine

    found = examine()
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        for name, text in found.items():
            console.out.print(f"{name:12} {text}", markup=False)
    return 0
