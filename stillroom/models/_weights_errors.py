"""Files of weights that are refused, or don't fit."""

from __future__ import annotations

from stillroom.errors import ModelError, SecurityError


class InvalidWeights(ModelError):
    code = "SR-M310"
    what = "unusable weights   {file}"
    why = "{problem}"
    effect = "nothing was loaded"
    fix = "get the file again, or save the weights as safetensors from where they work"


class WeightsMismatch(ModelError):
    code = "SR-M311"
    what = "{file} does not fit the network"
    why = "{problem}"
    effect = "nothing was loaded"
    fix = "name the network and the arguments that these weights were trained with"


class BackboneOnlyWeights(ModelError):
    code = "SR-M316"
    what = "{file} holds a backbone and no head for {output_kind}"
    why = "what turns its features into answers would be noise"
    effect = "nothing was trained"
    fix = (
        'set finetune = "all" to train the rest here (of a classifier finetune = "head" will do), or give a file of '
        "the whole network"
    )


class SurgeryMismatch(ModelError):
    code = "SR-M317"
    what = "the compressed network in {file} can't be rebuilt here"
    why = "its metadata describe how it was compressed, and that does not fit the network it is loaded into: {problem}"
    effect = "nothing was trained"
    fix = (
        "name the network that the file was made of, with the arguments it was made with; if the file is from a "
        "newer Stillroom, use that one"
    )


class UntrustedPickle(SecurityError):
    code = "SR-S210"
    what = "refused {file}: needs {needs}"
    why = "the file is a pickle that runs code when it is read; weights alone need none"
    effect = "nothing was executed"
    fix = 'convert it to safetensors where you trust it, or, if you know where it comes from, trust = "sha256:{sha256}"'


class TrustedHashMismatch(SecurityError):
    code = "SR-S213"
    what = "refused {file}: it is not the file that was trusted"
    why = "trust says {given}, the file is sha256:{sha256}"
    effect = "nothing was executed"
    fix = "get the file again from where you took the hash, or look at why it changed before you trust the new one"
