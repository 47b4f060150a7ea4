"""ONNX files that can't serve as a network."""

from __future__ import annotations

from stillroom.errors import Exit, ExportError, ModelError, SecurityError


class OnnxWithoutFile(ModelError):
    code = "SR-M360"
    exit = Exit.USAGE
    what = "onnx is a network only together with its file"
    why = "an ONNX file holds architecture and weights in one, and without it there is nothing to build"
    effect = "nothing was started"
    fix = 'name the file, as a teacher\'s: network = "onnx" and weights = "teacher.onnx"'


class OnnxNotTrainable(ModelError):
    code = "SR-M361"
    exit = Exit.USAGE
    what = "{path} can't be trained or get a new head"
    why = "what is in an ONNX file runs forwards only"
    effect = "nothing was trained"
    fix = (
        "use it as it is: leave teacher.finetune out, with class_map = [...] where its classes are others; as a "
        "student, or to be fitted, take a network of a library"
    )


class OnnxWithoutFeatures(ModelError):
    code = "SR-M362"
    exit = Exit.USAGE
    what = "no inner features: an ONNX file has no part called {tap!r}"
    why = "the file runs as one piece on its own runtime, and only its answer comes out"
    effect = "nothing was trained"
    fix = "take methods of predictions: hinton, dist, dkd; or the network that the file was made from"


class InvalidOnnxInput(ModelError):
    code = "SR-M363"
    what = "{path} takes no images [B, C, H, W]"
    why = "{problem}"
    effect = "nothing was started"
    fix = "export it with one input of float32 or float16 pixels [B, 1 or 3, H, W] or [B, H, W, 1 or 3], H equal to W"


class NoOnnxOutput(ModelError):
    code = "SR-M364"
    what = "{path} has no output that can be taken for {output_kind}{own}"
    why = "its outputs are {outputs}"
    effect = "nothing was started"
    fix = (
        "classes are [B, K], pixels [B, K, h, w], a vector [B, D]; name the one you mean, teacher.output = NAME, or "
        "export the file with one"
    )


class UncountedOnnxOperator(ModelError):
    code = "SR-M365"
    what = "{path} has an operator whose work can't be counted: {operator}"
    why = "what a student saves is given as a share of the teacher's multiply-accumulates, and an estimate would not do"
    effect = "nothing was started"
    fix = (
        "export it again without fused operators, branches or loops around it: as its library writes it, not optimised"
    )


class ExternalTensorData(SecurityError):
    code = "SR-S212"
    what = "refused {path}: its tensor {tensor} lies in another file, {outside}"
    why = "a model may name any file of this machine that way, and what it holds would become numbers in the answers"
    effect = "the model was not opened"
    fix = "write it as one file: torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(FILE), NEW_FILE)"


class OnnxReaderFailed(SecurityError):
    code = "SR-S214"
    what = "refused {path}: a process of its own could not read it"
    why = "{problem}"
    effect = "the model was not opened"
    fix = "get the file again, or write it anew from where it works; if it is a stranger's, look before you trust it"


class ModelOpenFailed(ExportError):
    code = "SR-X704"
    exit = Exit.MODEL
    what = "{runtime} can't open the model   {path}"
    why = "{problem}"
    effect = "the file was not run"
    fix = "check that the file is whole and was made for this runtime; export it again if in doubt"
