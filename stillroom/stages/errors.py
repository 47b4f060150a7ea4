"""Data, task and cache that don't fit together."""

from __future__ import annotations

from stillroom.errors import DataError, Exit, TeacherError


class TaskDataMismatch(DataError):
    code = "SR-D118"
    what = "the task {task} needs {needs}, and the source has {kind}"
    why = "a loss can't be computed from annotations that are not there"
    effect = "nothing was trained"
    fix = "take another source (`stillroom list sources`) or another task (`stillroom list tasks`)"


class TeacherNotTrained(TeacherError):
    code = "SR-T606"
    what = "there is no teacher yet: {path} is missing"
    why = "this recipe trains its teacher, or fits its head, and that has not been done yet"
    effect = "nothing was computed"
    fix = "`stillroom run` with the same recipe does it, and keeps the answers by itself where that pays"


class UnlimitedViews(TeacherError):
    code = "SR-T607"
    exit = Exit.USAGE
    what = "the augmented views to compute answers for are unlimited: augment.num_views = 0"
    why = "every epoch augments every image anew, so no answer would be used twice"
    effect = "nothing was computed"
    fix = "set augment.num_views to the number of different views of an image, for instance 8 in {epochs} epochs"
