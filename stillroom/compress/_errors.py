"""Errors of compressions: networks that can't be made smaller."""

from __future__ import annotations

from stillroom.errors import Exit, ModelError


class CompressionPackageMissing(ModelError):
    code = "SR-M380"
    what = "the compression {name} needs {package}, which is not installed"
    why = "it finds the channels that depend on each other"
    effect = "nothing was trained"
    fix = "pip install 'stillroom[{extra}]'"


class NotPrunable(ModelError):
    code = "SR-M381"
    what = "this network can't be pruned"
    why = "{problem}"
    effect = "the network was not changed"
    fix = "take another student (`stillroom list students`), or another compression: quantize works for nearly all"


class UnreachableShare(ModelError):
    code = "SR-M382"
    exit = Exit.USAGE
    what = "{name}: a share of {wanted:.3f} can't be reached; the smallest is {least:.3f}"
    why = "every layer keeps some of its channels, and some layers can't be made smaller"
    effect = "the network was not changed"
    fix = "use a larger share, or a smaller student"


class NothingToFactorize(ModelError):
    code = "SR-M383"
    exit = Exit.USAGE
    what = "factorising makes no layer cheaper"
    why = "{problem}"
    effect = "the network was not changed"
    fix = "lower compress.energy, compress.rank or compress.least; for small layers prune is more effective"


class NothingToQuantize(ModelError):
    code = "SR-M385"
    what = "quantize: the network has no {what} that can be quantised"
    why = (
        "only layers that multiply their input by plain weights can be; weight-standardised ones, and those whose "
        "weights are used without calling them, can't"
    )
    effect = "nothing was trained"
    fix = "choose another student, or another compression"


class AllLayersKept(ModelError):
    code = "SR-M386"
    exit = Exit.USAGE
    what = "quantize: keep = {keep} leaves no layer to quantise"
    why = "the network has {layers} layers that can be quantised, and {keep} are to stay in floats"
    effect = "nothing was trained"
    fix = "lower keep; one or two layers are usual"
