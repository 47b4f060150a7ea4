"""`stillroom label`: the teacher is asked before anybody trains, by as many processes and machines as there are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from stillroom.config.schema import Recipe
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.stages import build
from stillroom.stages.errors import TeacherNotTrained, UnlimitedViews
from stillroom.stages.train import Stages
from stillroom.teachers import fill


def fill_cache(recipe: Recipe, folder: Path, *, engine: Engine, signals: Signals, share: float) -> dict[str, Any]:
    """Fill the cache of a recipe's teacher, together with all who do the same, and ask again about a share of it.

    Writes nothing but the cache, so any number of processes may do it at once, and beside a run.

    Raises:
        TeacherNotTrained: SR-T606 the teacher has yet to be trained; others as `filling.opened` and `filling.audit`.
        Stopped: somebody asked for it; what is there stays.
    """
    recipe, data, task = build.build_data_and_task(recipe)
    run = RunDir(folder, writes=False)
    for stage, section in build.teacher_sections(recipe.teacher).items():
        if section.fit != "none" and not run.weights(stage).exists():
            raise TeacherNotTrained(path=run.weights(stage))
    if not recipe.augment.looks:
        raise UnlimitedViews(epochs=max(1, round(recipe.train.epochs)))
    stages = Stages(recipe, data, task, run, engine, signals, lambda *_: None)
    teacher, student = stages.teacher(), stages.untrained()
    asking = stages.asking(teacher, stages.learner(student, teacher))
    cache = fill.open_cache(asking)
    with stages.threads(student, teacher), signals.held():
        started = time.monotonic()
        made = fill.fill(cache, asking, signals)
        seconds = time.monotonic() - started
        worst = fill.audit(cache, asking, share) if share else None
    return {
        "folder": str(cache.folder),
        "answers": len(cache),
        "images": cache.images,
        "looks": cache.views,
        "bytes": cache.bytes,
        "made": made,
        "seconds": round(seconds, 3),
        "form": cache.form.as_dict(),
        "audited": share,
        "worst": worst,
    }
