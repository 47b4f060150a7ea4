"""One teacher, many students: a run for each seed of a recipe, in `seed-N`, and the spread of their figures.

The first run trains the teacher, the others take it as it is. So a recipe's seeds differ in the student's first
weights, in the order of the images and in how they are augmented, and in nothing else; and the teacher costs once.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stillroom.config.schema import Recipe
from stillroom.errors import Exit, StillroomError
from stillroom.io.errors import RecipeChanged
from stillroom.io.files import write_file
from stillroom.io.run_dir import RunDir, differences
from stillroom.pipeline.errors import OtherKindOfRun
from stillroom.pipeline.finished import FinishedRun
from stillroom.report import seeds, spread

log = logging.getLogger("stillroom")

Do = Callable[..., object]
"""Does a recipe of one seed in a folder: `pipeline.run` with all but `students` and `teacher_of` given."""


def run(recipe: Recipe, folder: Path, do: Do, *, writes: bool = True) -> list[StillroomError]:
    """Do `recipe` in `folder`; where it has several seeds, each in a folder of its own there, and then their spread.

    A seed whose training diverges, or whose file fails its check, does not keep the others from running.

    Args:
        recipe: what to do.
        folder: of the run, or of the runs.
        do: does one of them.
        writes: False in every process but the first.

    Returns:
        What went wrong with seeds while others went on.

    Raises:
        StillroomError: SR-C431 the folder holds runs of several seeds and this is one run, or the other way round;
            SR-C410 it holds another recipe; whatever stops a run for reasons that are not its seed's.
    """
    if len(recipe.seeds) == 1:
        if seeds.there(folder):
            raise OtherKindOfRun(folder=folder, theirs="runs of several seeds", ours="one run")
        do(recipe, folder)
        return []
    if writes:
        _begin(recipe, folder)
    places = {seed: folder / f"seed-{seed}" for seed in recipe.seeds}
    failures = []
    for seed, place in places.items():
        donor = next((other for other in places.values() if other != place and _taught(other)), None)
        try:
            do(replace(recipe, seeds=(seed,)), place, students=len(places), teacher_of=donor)
        except StillroomError as failure:
            if not _own(failure, place):
                raise
            failures.append(failure)
            log.warning("seed %d: %s; the other seeds go on", seed, str(failure).partition("\n")[0])
    if writes and seeds.read(folder).measured:
        spread.write(folder)
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
        if not seeds.read(self.folder).measured:
            raise seeds.unmeasured(self.folder)

    def __repr__(self) -> str:
        return f"Several({str(self.folder)!r})"

    @cached_property
    def runs(self) -> list[FinishedRun]:
        """The runs that have come to their figures, in the order of the seeds."""
        return [FinishedRun(run.path) for run in seeds.read(self.folder).measured.values()]

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure over the seeds: `value` is the mean, beside it `sd`, `least`, `greatest` and all `values`."""
        return seeds.read(self.folder).metrics()

    def report(self) -> Path:
        """Write `metrics.json`, `report.html` and `README.md` of all seeds again; the report's path."""
        return spread.write(self.folder)


def _begin(recipe: Recipe, folder: Path) -> None:
    """Keep the recipe with all its seeds beside them, unless something else is there. More seeds may come later."""
    if (folder / "run.json").exists():
        raise OtherKindOfRun(folder=folder, theirs="one run", ours="runs of several seeds")
    path = folder / "recipe.toml"
    if path.exists():
        known = tomllib.loads(path.read_text(encoding="utf-8"))
        changes = differences(known | {"seeds": list(recipe.seeds)}, recipe.as_dict())
        if changes:
            raise RecipeChanged(folder=folder, changes="\n".join(f"  {line}" for line in changes))
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, recipe.toml())


def _own(failure: StillroomError, place: Path) -> bool:
    """Whether it went wrong with this seed: the student's training diverged, or a file fell short when it was measured.

    Whatever else goes wrong would go wrong with every seed. Asked of the exit code and of files, on which all processes
    of a run agree, whichever of them has failed.
    """
    if failure.exit in (Exit.UNVERIFIED, Exit.TARGET_MISSED):
        return (place / "metrics.json").is_file()
    return failure.exit == Exit.DIVERGED and not _at_teacher(place)


def _taught(place: Path) -> bool:
    """Whether a run has trained all its teachers, or taken them from another."""
    return any(place.glob("teacher*.safetensors")) and not _at_teacher(place)


def _at_teacher(place: Path) -> bool:
    """Whether a run has not come past the training of its teachers."""
    return str(RunDir(place).info.get("stage", "teacher")).startswith("teacher")
