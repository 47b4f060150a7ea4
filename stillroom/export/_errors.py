"""Exports that fail, and exported files that fail their check."""

from __future__ import annotations

from stillroom.errors import Exit, ExportError, VerificationError


class OutputMismatch(VerificationError):
    code = "SR-X701"
    what = "{problem}   {path}"
    why = "the exported file answers otherwise than the network it was made from"
    effect = "the file is kept under this name, and no figure of it counts as verified"
    fix = (
        "train the student longer (train.epochs), for answers that are close calls flip first; or choose another "
        "student; or export only `bits = 32`; if the difference is acceptable, lower this file's gate in the recipe, "
        "for example `[[export]] agreement = 0.97`"
    )


class ExportPackagesMissing(ExportError):
    code = "SR-X702"
    what = "the runtime {runtime} needs packages that are not installed: {packages}"
    why = "without them the file can neither be written nor run and compared"
    effect = "nothing was exported"
    fix = "{install}, or by themselves: pip install {packages}"


class ExportFailed(ExportError):
    code = "SR-X703"
    what = "export to {runtime} failed   {path}"
    why = "{problem}"
    effect = "no file was written; a file of an earlier export was left as it was"
    fix = "choose a student that the runtime supports (`stillroom list students`), or see the whole message with -v"


class TooFewLinearWeights(ExportError):
    code = "SR-X720"
    what = "4 bits would not make this file smaller   {path}"
    why = "only linear layers are stored in 4 bits, and they hold {share:.0%} of this network's weights"
    effect = "no file was written"
    fix = "export `bits = 8`, or choose a student that is made of linear layers, such as a vision transformer"


class UnsupportedOperator(ExportError):
    code = "SR-X730"
    what = "{runtime} has no operator {operator}   {path}"
    why = "the network needs it, and neither the runtime nor its converter has anything that computes it"
    effect = "no file was written; a file of an earlier export was left as it was"
    fix = "export to another runtime (`stillroom list runtimes`), or choose a student that does without the operator"


class UnsupportedBits(ExportError):
    code = "SR-X731"
    what = "{runtime} can't hold {bits}-bit weights"
    why = "{problem}"
    effect = "no file was written; a file of an earlier export was left as it was"
    fix = "choose another width, bits = {able}, or another runtime for {bits} bits: {others}"


class LiteRTConverterMissing(ExportError):
    code = "SR-X732"
    what = "nothing here converts to LiteRT"
    why = "{problem}; the converter's requirements clash with this program's, so it lives in an environment of its own"
    effect = "nothing was exported"
    fix = (
        "make one and say where it is: python -m venv DIR; DIR/bin/pip install {pins}; export "
        "STILLROOM_LITERT=DIR/bin/python"
    )


class UnknownRuntime(ExportError):
    code = "SR-X733"
    exit = Exit.USAGE
    what = "{problem}"
    why = "a runtime is a name of `stillroom list runtimes`, or package.module:Name of your own"
    effect = "nothing was exported"
    fix = "write one of these names; your own module is looked for in the folder you are in, and on PYTHONPATH"


class PreprocessingMismatch(VerificationError):
    code = "SR-X741"
    what = "wrong preprocessing: {problem}   {path}"
    why = "{cause}"
    effect = "the file is kept under this name, and no figure of it counts as verified"
    fix = (
        "pixels go in as they are, 0..1, and the network normalises for itself: see to it that the file does just "
        "that once (student.mean and student.std, and what your own export code adds); then export again"
    )
