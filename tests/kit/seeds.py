"""A folder of several seeds, made of one run and figures that are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from kit.page import change

ROLES = ("teacher", "baseline", "student")


def make_seeds(run: Path, folder: Path, accuracy: dict[int, tuple[float, float, float]]) -> Path:
    """`folder/seed-N` for each N: a copy of `run` with these accuracies of teacher, untaught and taught student."""
    folder.mkdir()
    recipe = (run / "recipe.toml").read_text().replace("seeds = [0]", f'name = "photos"\nseeds = {list(accuracy)}')
    (folder / "recipe.toml").write_text(recipe)
    first = next(iter(accuracy))
    for seed, values in accuracy.items():
        place = Path(shutil.copytree(run, folder / f"seed-{seed}", ignore=shutil.ignore_patterns("report.html")))
        figures = dict(zip(ROLES, values, strict=True))
        change(place / "metrics.json", lambda found, figures=figures: _lay(found, figures))
        info = json.loads((place / "run.json").read_text()) | {"seeds": [seed], "students": len(accuracy)}
        if seed != first:
            info["teacher_of_seed"] = first
            info["stages"].pop("teacher", None)
        (place / "run.json").write_text(json.dumps(info))
    return folder


def _lay(found: dict, figures: dict[str, float]) -> None:
    for role, value in figures.items():
        found[role]["accuracy"]["value"] = value
    for row in found["exports"]:
        row["accuracy"]["value"] = figures["student"]
