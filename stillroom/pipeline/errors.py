"""Runs that can't be started, resumed or opened."""

from __future__ import annotations

from stillroom.errors import DataError, ModelError, RecipeError, ResourceError


class ImagesChanged(RecipeError):
    code = "SR-C411"
    what = "the images have changed since {folder} was started ({old} then, {new} now)"
    why = "the fingerprint over names, labels, splits and contents is another"
    effect = "nothing was changed"
    fix = "put the images back to resume, or give the new ones a folder of their own: name=..."


class OtherKindOfRun(RecipeError):
    code = "SR-C431"
    what = "{folder} holds {theirs}, and this would be {ours}"
    why = "the figures and the report of one would take the place of the other's"
    effect = "nothing was changed"
    fix = "give this one a folder of its own: name=... or --folder"


class MultiSeedFolder(RecipeError):
    code = "SR-C433"
    what = "{folder} holds runs of several seeds"
    why = "this command works on one run"
    effect = "nothing was done"
    fix = "name one of them: {first}"


class NoLabelsForTeacher(DataError):
    code = "SR-D140"
    what = "no image has a label, and {section}.finetune is {finetune!r}"
    why = "without labels a teacher can't be trained on these classes"
    effect = "nothing was trained"
    fix = (
        "set {section}.finetune = 'none' and give it trained weights with their classes; or lay images out as "
        "CLASS/*.jpg"
    )


class NoLabelsForStudent(DataError):
    code = "SR-D142"
    what = "no image has a label, and {methods}"
    why = "without labels a student learns from its teacher alone"
    effect = "nothing would be trained, so nothing was"
    fix = "name a method that needs no labels: hinton, dist or hard for answers, fitnet or rkd for features"


class RunNotFinished(RecipeError):
    code = "SR-C462"
    what = "not finished   {folder}"
    why = "its status is {status!r}, and it has no student.safetensors yet"
    effect = "nothing was changed"
    fix = "give the run's own command again: it goes on where it stopped"


class NotInRun(RecipeError):
    code = "SR-C463"
    what = "no {kind} {name!r} in {folder}"
    why = "{kind}s are {known}"
    effect = "nothing was done"
    fix = "name one of those"


class EvaluationClassesMismatch(ModelError):
    code = "SR-M312"
    what = "the images at {path} are of {theirs} classes, or of other names, and the run has {classes}"
    why = "a label would mean one thing to the networks and another to the images"
    effect = "nothing was evaluated"
    fix = "give images in the same class folders as those that the run was trained on"


class OutOfMemory(ResourceError):
    code = "SR-R503"
    what = "out of memory"
    why = "{problem}"
    effect = "this step was not made; the last good checkpoint is intact"
    fix = (
        "train.grad_accum_steps=2 (or more) cuts each batch into parts with the same gradients; data.memory_gb and "
        "train.batch lower what is held at once"
    )
