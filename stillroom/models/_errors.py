"""Models that can't be built, and places in them that can't be read."""

from __future__ import annotations

from stillroom.errors import Exit, ModelError, NetworkAccessError


class ClassCountMismatch(ModelError):
    code = "SR-M301"
    what = "{name} has {theirs} outputs, the data {classes} classes; no mapping"
    why = "the weights were trained for other classes, so their answers mean nothing here"
    effect = "nothing was trained"
    fix = (
        'fit a new classifier on your data (finetune = "head"), fine-tune the whole model (finetune = "all"), or '
        "say which output means which class (class_map = [281, 207, ...], one number a class)"
    )


class UnknownModel(ModelError):
    code = "SR-M303"
    what = "no model called {model!r}{near}"
    why = (
        "a model is a built-in name, timm/NAME, torchvision/NAME, huggingface/NAME or package.module:Name; a file "
        ".onnx is the weights of network = 'onnx'"
    )
    effect = "nothing was started"
    fix = "`stillroom list students` names the built-in ones and searches the libraries"


class InvalidModelArguments(ModelError):
    code = "SR-M304"
    what = "{model} can't be built with these arguments"
    why = "{problem}"
    effect = "nothing was started"
    fix = "mend or leave out the arguments beside the network's name: they go to the model as they are"


class WrongOutputShape(ModelError):
    code = "SR-M305"
    what = "{model} does not answer images with one number a class"
    why = "{problem}"
    effect = "nothing was started"
    fix = "change data.size, or name a model that turns images [B, C, H, W] of that size into logits [B, K]"


class UnknownTap(ModelError):
    code = "SR-M306"
    exit = Exit.USAGE
    what = "no part of the network is called {tap!r}{near}"
    why = "a tap is the name of a submodule, as named_modules() gives it"
    effect = "nothing was started"
    fix = "`network.tap_names()` lists the names, in the order of the model; a ViT has head_dist with distilled = true"


class TapNeverRan(ModelError):
    code = "SR-M307"
    what = "the part {tap!r} never ran"
    why = "the network has a part of that name, but images do not pass through it in a forward pass"
    effect = "nothing was learned from it"
    fix = "tap a part that runs: often one inside it, or the one around it"


class PretrainedWeightsNotFound(ModelError):
    code = "SR-M308"
    what = "no trained weights for {model}{near}"
    why = "{problem}"
    effect = "nothing was started"
    fix = "give a file of weights, another tag of the model, or leave weights out to begin from nothing"


class ModelImportFailed(ModelError):
    code = "SR-M309"
    what = "{model} can't be imported"
    why = "{problem}"
    effect = "nothing was started"
    fix = "run from the folder that holds the package, or install it; the form is package.module:Name"


class UnsupportedOutput(ModelError):
    code = "SR-M315"
    what = "{model} can't answer with {output_kind}"
    why = "this family of networks has no head for that"
    effect = "nothing was built"
    fix = "take another network; `timm/NAME` is a backbone for every task"


class NotADenseDetector(ModelError):
    code = "SR-M340"
    what = "{model} is no detector that answers for a fixed set of places"
    why = "networks are compared place by place; a detector of two stages draws new places for every image"
    effect = "nothing was started"
    fix = (
        "take one of one stage: torchvision/fcos_resnet50_fpn, torchvision/retinanet_resnet50_fpn, "
        "torchvision/ssdlite320_mobilenet_v3_large, or any timm/NAME"
    )


class NoFeatureMaps(ModelError):
    code = "SR-M345"
    what = "{model} has no feature maps"
    why = "pixels and boxes are predicted from the feature maps of a network's stages, and timm gives none for this one"
    effect = "nothing was built"
    fix = "take another backbone; nearly all of timm's have feature maps"


class ModelForOtherTask(ModelError):
    code = "SR-M346"
    what = "{model} predicts {theirs}, and {output_kind} are needed"
    why = "it is a finished model of torchvision's for another task"
    effect = "nothing was built"
    fix = "take one of: {near}; or `timm/NAME`, a backbone for every task"


class TransformersMissing(ModelError):
    code = "SR-M350"
    what = "{model} needs a package that is not installed: transformers"
    why = "models of Hugging Face are built by that package, and nothing else here needs it"
    effect = "nothing was started"
    fix = "pip install 'stillroom[hub]'"


class HuggingFaceModelNotFound(ModelError):
    code = "SR-M351"
    what = "no model of Hugging Face at {model}{near}"
    why = "{problem}"
    effect = "nothing was started"
    fix = (
        "name a folder that holds config.json and model.safetensors, a model of the hub (huggingface/OWNER/NAME), or "
        "a kind of model to begin from nothing (huggingface/segformer)"
    )


class UnsupportedHuggingFaceModel(ModelError):
    code = "SR-M352"
    what = "{model} is a {kind}, which can't answer with {output_kind}"
    why = "transformers has no model of that kind for it"
    effect = "nothing was started"
    fix = "take one of these kinds: {kinds}"


class WeightsNotCached(NetworkAccessError):
    code = "SR-N801"
    what = "offline: {file} not in cache"
    why = "{problem}"
    effect = "nothing was started"
    fix = "run once where there is a network, which keeps the weights here, or give a file of weights"
