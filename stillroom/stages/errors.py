"""Data, task and teacher that don't fit together."""

from __future__ import annotations

from stillroom.errors import DataError, Exit, TeacherError


class TaskDataMismatch(DataError):
    code = "SR-D118"
    what = "the task {task} needs {needs}, and the source has {kind}"
    why = "a loss can't be computed from annotations that are not there"
    effect = "nothing was trained"
    fix = "take another source (`stillroom list sources`) or another task (`stillroom list tasks`)"


class NoLabelsForTeacher(DataError):
    code = "SR-D140"
    what = "no image has a label, and {section}.fit is {fit!r}"
    why = "without labels a teacher can't be trained on these classes"
    effect = "nothing was trained"
    fix = "set {section}.fit = 'none' and give it trained weights with their classes; or lay images out as CLASS/*.jpg"


class NoLabelsForStudent(DataError):
    code = "SR-D142"
    what = "no image has a label, and {methods}"
    why = "without labels a student learns from its teacher alone"
    effect = "nothing would be trained, so nothing was"
    fix = "name a method that needs no labels: hinton, dist or hard for answers, fitnet or rkd for features"


class TeacherNotTrained(TeacherError):
    code = "SR-T606"
    what = "there is no teacher yet: {path} is missing"
    why = "this recipe trains its teacher, or fits its head, and that has not been done yet"
    effect = "nothing was computed"
    fix = "`stillroom run` with the same recipe does it, and keeps the answers by itself where that pays"


class UnlimitedViews(TeacherError):
    code = "SR-T607"
    exit = Exit.USAGE
    what = "the augmented views to compute answers for are unlimited: augment.views = 0"
    why = "every epoch augments every image anew, so no answer would be used twice"
    effect = "nothing was computed"
    fix = "set augment.views to the number of different views of an image, for instance 8 in {epochs} epochs"
