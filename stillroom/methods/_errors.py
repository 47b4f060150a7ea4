"""Features, labels and taps that a method can't use."""

from __future__ import annotations

from stillroom.errors import ModelError


class IncomparableFeatures(ModelError):
    code = "SR-M330"
    what = "features that can't be compared: {student} {s} and {teacher} {t}"
    why = "{why}"
    effect = "nothing was trained"
    fix = "name other taps (student_taps, teacher_taps), or another method; `stillroom check` lists pairs"


class LabelsNotClasses(ModelError):
    code = "SR-M332"
    what = "labels {labels} where a class for each of {rows} predictions is needed"
    why = "a method of this recipe treats the true class apart from the others, and this task's labels are no classes"
    effect = "nothing was trained"
    fix = "take a method that needs no labels, such as hinton or dist"


class NoTapFound(ModelError):
    code = "SR-M333"
    what = "{method} finds nothing to read in the {side}, {network}"
    why = "{why}"
    effect = "nothing was trained"
    fix = (
        "name the taps yourself (student_taps and teacher_taps of the method), or take a method of predictions: "
        "hinton, dist, dkd"
    )


class TapCountMismatch(ModelError):
    code = "SR-M334"
    what = "{method} was given {student} taps of the student and {teacher} of the teacher"
    why = "the i-th of one side is compared with the i-th of the other"
    effect = "nothing was trained"
    fix = "name as many on both sides, or leave one side out to have it found"


class BoxLocationsMismatch(ModelError):
    code = "SR-M336"
    what = "{method} compares place by place, and the student offers boxes at {student} places, the teacher at {theirs}"
    why = "the i-th place of one must lie where the i-th of the other does: the same anchors or points, the same size"
    effect = "nothing was trained"
    fix = 'take pseudo_labels with on = "all", which needs no places in common, or a method of features such as pkd'
