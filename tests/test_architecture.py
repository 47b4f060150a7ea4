"""The house: data flows one way, files are short, and the tree that the README prints is the tree there is."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import tomllib
from pathlib import Path

import pytest

from stillroom.config.plugins import choices
from stillroom.config.schema import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stillroom"

ORDER = [
    "types",
    "errors",
    "config",
    "io",
    "data",
    "distributed",
    "ops",
    "models",
    "metrics",
    "methods",
    "compress",
    "tasks",
    "teachers",
    "evaluation",
    "training",
    "export",
    "benchmark",
    "matching",
    "report",
    "stages",
    "search",
    "pipeline",
    "diagnostics",
    "api",
    "cli",
]
"""From top to bottom an image's way through the system. A module imports only from modules above it."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__main__.py",) and path.parent != PACKAGE)
FILES += sorted(path for path in PACKAGE.glob("*.py") if path.stem not in ("__init__", "__main__"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stillroom":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("stillroom.")}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: imports are absolute")
    return found - {"__version__"}


def test_every_room_is_in_the_order():
    assert {room(path) for path in FILES} == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_above(path):
    own = room(path)
    above = set(ORDER[: ORDER.index(own)]) | {own}
    assert imported_rooms(path) <= above, f"{own} may not import {imported_rooms(path) - above}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    limit = (
        420 if path.stem in ("schema", "recipe") else 260
    )  # a schema and a list of verbs are long lists, not long ideas
    assert len(text.splitlines()) <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 75, (
                f"{path.name}: {node.name} is {node.end_lineno - node.lineno} lines"
            )


def test_the_readme_prints_this_order():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```\nstillroom/\n")[2].partition("```")[0]
    printed = [
        line.split()[0].removesuffix("/").removesuffix(".py")
        for line in tree.splitlines()
        if line[:3] == "  " + line[2:3] and line[2:3] != " "
    ]
    assert [name for name in printed if name not in ("__init__", "recipes")] == ORDER


def test_nothing_imports_a_method_or_a_source_by_name():
    """The folder is the registry: outside it nobody knows which files it holds."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for folder, contract in (("stillroom.methods.", "method"), ("stillroom.data.sources.", "source")):
                    if node.module.startswith(folder) and room(path) not in ("methods",):
                        helper = room(path) == "data" and node.module.startswith(f"{folder}_")
                        errors = node.module == f"{folder}_errors"
                        assert helper or errors or node.module == folder + contract, (
                            f"{path.name} imports {node.module}"
                        )


ALIASES = {"PIL": "pillow", "sklearn": "scikit-learn"}
BROUGHT = {"lightning": "lightning-fabric", "huggingface_hub": "timm", "markupsafe": "jinja2"}
"""Imports of what another dependency brings along, or may be there in its place."""


def test_every_import_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines)
    declared = [*project["dependencies"], *extras]
    names = {re.split(r"[<>=\s]", line)[0] for line in declared}
    imported = set()
    for path in FILES:
        if path.name == "_litert_worker.py":  # run by another environment's Python, which LiteRT's converter is in
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"stillroom"}
    asked = {BROUGHT.get(name) or ALIASES.get(name) or name.replace("_", "-") for name in foreign}
    assert asked <= names, asked - names


def test_the_loop_knows_no_task_and_no_method():
    text = (PACKAGE / "training" / "loop.py").read_text(encoding="utf-8")
    for word in ("hinton", "fitnet", "classification", "kd", "logits"):
        assert word not in text.lower()


TASKS = choices("tasks")
KNOW_TASKS = {"tasks", "metrics", "data", "models"}
"""Rooms that may know which tasks there are."""

DEFAULT = {"schema.py": {"classification"}, "task_description.py": {"classification"}}
"""Files that may name a task all the same: a recipe, or an old run, that says none means this one."""


def test_there_is_more_than_one_task():
    assert {"classification", "segmentation", "detection", "embedding"} <= set(TASKS)


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(p) not in KNOW_TASKS], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nobody_else_names_a_task(path):
    """The loop, teachers, methods, export, benchmark, report and all the rest ask the task they were given."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {
        "stillroom.tasks.task",
        "stillroom.tasks.predictor",
        "stillroom.tasks._unlabelled",
        "stillroom.tasks._with_metrics",
    }  # the contract, and any task without labels
    assert {name for name in modules if name.startswith("stillroom.tasks.")} <= allowed
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not (said - DEFAULT.get(path.name, set())) & set(TASKS)


TAKE_RECIPES = {"config", "pipeline", "diagnostics", "api", "cli"}
"""Rooms that may see a whole recipe. All others take the sections that they need, or plain arguments."""

RECIPE_FIELDS = {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    "path", [p for p in FILES if room(p) not in TAKE_RECIPES], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_recipe_stops_at_the_pipeline(path):
    """Neither an annotation nor an attribute of a recipe stands in a room above the pipeline's."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        assert named != "Recipe", f"line {node.lineno} takes a Recipe"
        if isinstance(node, ast.Attribute) and node.attr in RECIPE_FIELDS:
            assert ast.unparse(node.value).rpartition(".")[2] != "recipe", f"line {node.lineno} reads {node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "stillroom.config.schema":
            assert "Recipe" not in {alias.name for alias in node.names}


READ_RUN_JSON = {"io/run_dir.py", "io/run_end.py", "pipeline/resume.py", "pipeline/finished.py"}
"""Files that read run.json: its writers, resume, and a finished run, whose working directory is noted there."""

AFTER_A_RUN = {"report", "cli", "api"}
"""Rooms that work on finished runs alone."""


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room(p) not in AFTER_A_RUN and str(p.relative_to(PACKAGE)) not in READ_RUN_JSON],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_results_are_returned_and_not_read_back_from_run_json(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr == "info":
            owner = ast.unparse(node.value)
            assert owner.rpartition(".")[2] != "run" and "RunDir(" not in owner, f"line {node.lineno} reads run.json"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith("run.json"):
            assert path.name == "recipe.py", f"line {node.lineno} names run.json"  # there: is it a run's own recipe?
