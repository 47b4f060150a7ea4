"""A run for each seed of a recipe, in `seed-N`, with one teacher, and the spread of their figures.

The first run trains the teacher, the others copy its weights. So the seeds of a recipe differ in the student's initial
weights, in the data order and in augmentation, and in nothing else; and the teacher is trained once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stillroom.config.recipe import recorded
from stillroom.config.schema import Recipe
from stillroom.errors import StillroomError
from stillroom.io.errors import RecipeChanged
from stillroom.io.files import write_file
from stillroom.io.run_dir import RunDir, differences
from stillroom.pipeline.errors import OtherKindOfRun
from stillroom.pipeline.finished import FinishedRun
from stillroom.pipeline.resume import RunResult, Shared, earlier_result
from stillroom.report import multi_seed, multi_seed_page
from stillroom.stages.build import teacher_sections

log = logging.getLogger("stillroom")

RunOne = Callable[[Recipe, Path, Shared], RunResult]
"""Runs a recipe of one seed in a folder: `pipeline.run.run` with the processes given."""


def run(recipe: Recipe, folder: Path, run_one: RunOne, *, writes: bool = True) -> list[StillroomError]:
    """Run `recipe` in `folder`; with several seeds, each in a folder of its own there, and then write their spread.

    A seed whose student diverges, or whose file fails verification, does not keep the others from running.

    Args:
        recipe: with all its seeds.
        folder: of the run, or of the runs.
        run_one: runs one of them.
        writes: False in every process but the first.

    Returns:
        what fell short in any of them.

    Raises:
        OtherKindOfRun: SR-C431 the folder holds runs of several seeds and this is one run, or the other way round.
        StillroomError: SR-C410 the folder holds another recipe; whatever stops a run.
    """
    if len(recipe.seeds) == 1:
        if multi_seed.is_multi_seed(folder):
            raise OtherKindOfRun(folder=folder, theirs="runs of several seeds", ours="one run")
        return list(run_one(recipe, folder, Shared()).failures)
    if writes:
        _begin(recipe, folder)
    folders = {seed: folder / f"seed-{seed}" for seed in recipe.seeds}
    sections = teacher_sections(recipe.all_teachers)
    results = {seed: earlier_result(place, sections, seed=seed) for seed, place in folders.items()}
    failures: list[StillroomError] = []
    for seed, place in folders.items():
        others = [result for other, result in results.items() if result and other != seed]
        shared = Shared(
            num_students=len(folders),
            teacher=next((result.teacher for result in others if result.teacher), None),
            choice=next((result.choice for result in others if result.choice), None),
        )
        results[seed] = result = run_one(replace(recipe, seeds=(seed,)), place, shared)
        for failure in result.failures:
            log.warning("seed %d: %s; the other seeds go on", seed, str(failure).partition("\n")[0])
        failures += result.failures
    if writes and multi_seed.read(folder).measured:
        multi_seed_page.write(folder)
    return failures


class MultiSeedRun:
    """What `stillroom.distill` returns for several seeds.

    Args:
        folder: of the runs.

    Raises:
        StillroomError: SR-C460 it holds no runs of several seeds, SR-C432 none of them has come to its figures.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        if not multi_seed.read(self.folder).measured:
            raise multi_seed.no_results(self.folder)

    def __repr__(self) -> str:
        return f"Several({str(self.folder)!r})"

    @cached_property
    def runs(self) -> list[FinishedRun]:
        """The runs that have come to their figures, in the order of the seeds."""
        return [FinishedRun(run.path) for run in multi_seed.read(self.folder).measured.values()]

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure over the seeds: `value` is the mean, beside it `sd`, `least`, `greatest` and all `values`."""
        return multi_seed.read(self.folder).metrics()

    def report(self) -> Path:
        """Write `metrics.json`, `report.html` and `README.md` of all seeds again; the report's path."""
        return multi_seed_page.write(self.folder)


def _begin(recipe: Recipe, folder: Path) -> None:
    """Keep the recipe with all its seeds beside them, unless something else is there. More seeds may come later."""
    if RunDir(folder).started:
        raise OtherKindOfRun(folder=folder, theirs="one run", ours="runs of several seeds")
    path = folder / "recipe.toml"
    if path.exists():
        known = recorded(path.read_text(encoding="utf-8"))
        changes = differences(known | {"seeds": list(recipe.seeds)}, recipe.as_dict())
        if changes:
            raise RecipeChanged(folder=folder, changes="\n".join(f"  {line}" for line in changes))
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, recipe.toml())
