"""Errors of methods: features, labels and taps that can't be used."""

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
    why = "a method of this recipe needs the true class of each prediction, and this task's labels are not classes"
    effect = "nothing was trained"
    fix = "take a method that needs no labels, such as hinton or dist"


class NoTapFound(ModelError):
    code = "SR-M333"
    what = "{method} found no feature to read in the {side}, {network}"
    why = "{why}"
    effect = "nothing was trained"
    fix = (
        "name the taps (student_taps and teacher_taps of the method), or take a method that compares predictions: "
        "hinton, dist, dkd"
    )


class TapCountMismatch(ModelError):
    code = "SR-M334"
    what = "{method} was given {student} taps of the student and {teacher} of the teacher"
    why = "the i-th of one side is compared with the i-th of the other"
    effect = "nothing was trained"
    fix = "name equally many on both sides, or none on one side, where they are then found"


class BoxLocationsMismatch(ModelError):
    code = "SR-M336"
    what = "{method} compares boxes by location, and the student has {student} box locations, the teacher {theirs}"
    why = "the i-th location of both must be the same: the same anchors or points, and the same image size"
    effect = "nothing was trained"
    fix = 'take pseudo_labels with on = "all", which needs no common locations, or a method of features such as pkd'


class StandardisedTwoClasses(ModelError):
    code = "SR-M339"
    what = "standardised logits of two classes teach nothing"
    why = "whatever the network says, they are -0.7 and 0.7: only which class is larger is left, without a gradient"
    effect = "nothing was trained"
    fix = "leave out standardised, or set methods = 'auto', which takes plain probabilities for two classes"
