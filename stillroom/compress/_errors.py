"""Networks that a compression can't make smaller."""

from __future__ import annotations

from stillroom.errors import Exit, ModelError


class CompressionPackageMissing(ModelError):
    code = "SR-M380"
    what = "the compression {name} needs {package}, which is not installed"
    why = "it finds out which channels depend on each other"
    effect = "nothing was trained"
    fix = "pip install 'stillroom[{extra}]'"


class NotPrunable(ModelError):
    code = "SR-M381"
    what = "this network can't be pruned"
    why = "{problem}"
    effect = "it was left as it is"
    fix = "take another student (`stillroom list students`), or another compression: quantize works for nearly all"


class UnreachableShare(ModelError):
    code = "SR-M382"
    exit = Exit.USAGE
    what = "{name}: a share of {wanted:.3f} can't be had, {least:.3f} is the least"
    why = "every layer keeps some of its channels, and some layers can't get smaller at all"
    effect = "the network was left as it is"
    fix = "ask for less, or take a smaller student"


class NothingToFactorize(ModelError):
    code = "SR-M383"
    exit = Exit.USAGE
    what = "no layer gets cheaper by factorising"
    why = "{problem}"
    effect = "the network was left as it is"
    fix = "lower compress.energy, compress.rank or compress.least; small layers gain more from prune"


class NothingToQuantize(ModelError):
    code = "SR-M385"
    what = "quantize: the network has no {what} that can be rounded"
    why = (
        "only layers that multiply what they read by plain weights can be; weight-standardised ones, and those whose "
        "weights other parts use directly, can't"
    )
    effect = "nothing was trained"
    fix = "choose another student, or another compression"


class AllLayersKept(ModelError):
    code = "SR-M386"
    exit = Exit.USAGE
    what = "quantize: keep = {keep} leaves nothing to round"
    why = "the network has {layers} layers that can be rounded, and so many are to stay in floats"
    effect = "nothing was trained"
    fix = "lower keep; one or two layers are usual"
