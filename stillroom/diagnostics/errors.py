"""A distillation that has no effect."""

from __future__ import annotations

from stillroom.errors import ModelError, TeacherError


class NoGradient(ModelError):
    code = "SR-M331"
    what = "{term} does not train the student: value {value:.4g}, gradient {length:.4g} long"
    why = "on one real batch its gradient on the student is zero or not finite"
    effect = "nothing was trained"
    fix = "look at the taps and the temperature of that method, and at the teacher's weights"


class TeacherNotFrozen(TeacherError):
    code = "SR-T320"
    what = "the teacher is not frozen: {problem}"
    why = "with dropout, or weights or statistics that change, the same image has other targets every time"
    effect = "nothing was trained"
    fix = "give a network whose modules follow eval(); a layer that ignores it has to be replaced"


class UnusedMethodParameters(TeacherError):
    code = "SR-T321"
    what = "{method} has parts that nothing trains: {parts}"
    why = "they are in no optimiser, or the loss does not reach them, so the student would imitate a random projection"
    effect = "nothing was trained"
    fix = "register them as submodules in setup, and use them in project or loss"
