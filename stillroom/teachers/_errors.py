"""Ensembles that can't be averaged, and caches that can't be used."""

from __future__ import annotations

from stillroom.errors import Exit, ModelError, TeacherError


class DetectorEnsemble(ModelError):
    code = "SR-M370"
    exit = Exit.USAGE
    what = "{count} detectors can't be averaged"
    why = "each offers boxes at places of its own, and the mean of two boxes lies around neither object"
    effect = "nothing was trained"
    fix = "take one teacher; run one after the other and compare"


class TeacherOutputsDiffer(ModelError):
    code = "SR-M371"
    what = "the teachers' outputs are of different kinds: {kinds}"
    why = "their answers are averaged number by number"
    effect = "nothing was trained"
    fix = "fit each to the data's classes, or give each its map; of vectors take networks of one width"


class NoSuchTeacher(ModelError):
    code = "SR-M372"
    exit = Exit.USAGE
    what = "the tap {tap!r} names a teacher that does not exist: there are {count}"
    why = "the number before the slash counts the teachers, from 1"
    effect = "nothing was trained"
    fix = "name a part of one of them: 2/layer3 is the second teacher's layer3"


class CacheMismatch(TeacherError):
    code = "SR-T601"
    what = "{folder} holds a teacher's answers to something else:\n{changes}"
    why = "answers of another teacher, or to other pixels, would be learnt as this one's"
    effect = "nothing was read from it, nothing was changed"
    fix = "give cache.path another folder, or the one above it: there every teacher has a cache of its own"


class DamagedCache(TeacherError):
    code = "SR-T602"
    exit = Exit.RESOURCES
    what = "{path} is damaged   {problem}"
    why = "a shard of the teacher's answers was changed, cut or removed after it was written"
    effect = "stopped at the last checkpoint; no wrong answer was learnt"
    fix = "give the same command again: the teacher computes that shard anew"


class CacheVerificationFailed(TeacherError):
    code = "SR-T603"
    exit = Exit.UNVERIFIED
    what = "{folder} does not hold what the teacher computes: of {count} answers one is off by {worst} of the largest"
    why = "the files are undamaged, so the teacher, its library or the machine computes otherwise than it did"
    effect = "nothing was learnt from them"
    fix = "remove the folder and give the same command again, or set cache.use = 'never'"


class CacheTooLarge(TeacherError):
    code = "SR-T604"
    exit = Exit.RESOURCES
    what = "the teacher's answers would take {size}   {each}"
    why = "that is more than cache.max_gb allows, {limit}"
    effect = "nothing was trained, nothing was written"
    fix = (
        "set cache.max_gb={need} to accept it, take fewer augment.num_views or methods with fewer taps, or "
        "cache.use=never"
    )


class NonFiniteTeacherOutputs(TeacherError):
    code = "SR-T605"
    what = "{count} of {total} answers of the teacher are not finite"
    why = "it divides by zero or overflows on these images, or in this precision"
    effect = "they are kept as such; a step that meets one is skipped"
    fix = "try teacher.precision = 'float32'; `stillroom check` shows more"
