"""`stillroom label`: the teacher cache, filled before any training, by as many processes and machines as there are."""

from __future__ import annotations

import time
from typing import Any

from stillroom.distributed.signals import Signals
from stillroom.io.run_dir import RunDir
from stillroom.stages.errors import TeacherNotTrained, UnlimitedViews
from stillroom.stages.experiment import Experiment
from stillroom.stages.train import load_teacher
from stillroom.teachers import fill


def fill_cache(experiment: Experiment, run: RunDir, *, signals: Signals, share: float) -> dict[str, Any]:
    """Fill the cache of the experiment's teacher, and compare a share of it with fresh outputs.

    Writes nothing but the cache, so any number of processes may run it at once, and beside a training.

    Args:
        experiment: whose teacher, data and augmentation.
        run: where trained teachers are; nothing is written to it.
        signals: may end it.
        share: of the entries to compare, 0..1; 0 compares none.

    Raises:
        TeacherNotTrained, UnlimitedViews: SR-T606, SR-T607. Others as `fill.open_cache` and `fill.audit`.
        Stopped: by a signal; what is filled stays.
    """
    for stage, section in experiment.teachers.items():
        if section.finetune != "none" and not run.weights(stage).exists():
            raise TeacherNotTrained(path=run.weights(stage))
    if not experiment.augment.distinct_views:
        raise UnlimitedViews(epochs=max(1, round(experiment.training.epochs)))
    teacher, student = load_teacher(experiment, run.weights), experiment.initial_student()
    distiller = experiment.distiller(student, experiment.method_setup(student, teacher))
    queries = experiment.queries(teacher, distiller)
    cache = fill.open_cache(queries)
    with experiment.threads(student, teacher), signals.held():
        started = time.monotonic()
        added = fill.fill(cache, queries, signals)
        seconds = time.monotonic() - started
        difference = fill.audit(cache, queries, share) if share else None
    return {
        "folder": str(cache.folder),
        "entries": len(cache),
        "images": cache.images,
        "num_views": cache.views,
        "bytes": cache.bytes,
        "added": added,
        "seconds": round(seconds, 3),
        "form": cache.form.as_dict(),
        "audited": share,
        "max_difference": difference,
    }
