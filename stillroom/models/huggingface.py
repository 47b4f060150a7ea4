"""Models of Hugging Face's transformers: `huggingface/PekingU/rtdetr_r18vd`, `huggingface/FOLDER`, `huggingface/vit`.

Needs the package transformers (`pip install 'stillroom[hub]'`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from stillroom.errors import StillroomError
from stillroom.models._errors import PretrainedWeightsNotFound, TransformersMissing, UnsupportedHuggingFaceModel
from stillroom.models._hub_output import adapt_output, add_classifier, find_heads, find_trunk
from stillroom.models._hub_source import (
    PREFIX,
    HubSource,
    candidate_sizes,
    read_preprocessing,
    resolve_source,
    with_settings,
)
from stillroom.models._probe import argument_errors, download_errors, hub_offline_if_unreachable, resolve_input_size
from stillroom.models._weights_errors import BackboneOnlyWeights
from stillroom.models.network import IMAGENET, Network, NetworkSpec
from stillroom.types import OutputKind

CLASSES = {
    "classes": "AutoModelForImageClassification",
    "pixels": "AutoModelForSemanticSegmentation",
    "boxes": "AutoModelForObjectDetection",
    "vector": "AutoModel",
}
"""What a network says -> transformers' class for it."""

SIDES = {"classes": 224, "pixels": 512, "boxes": 640, "vector": 224}
"""The size that is tried last where neither the model nor its folder names one."""

ELSEWHERE = {"timm_wrapper", "timm_backbone"}
"""Kinds that fetch a further model by a name in their settings: `timm/NAME` builds those."""


class Huggingface:
    """What follows `huggingface/` is a folder with config.json, a model of the hub, or a kind of model.

    A folder is never looked for anywhere else. A kind (`rt_detr`, `segformer`, `dinov2`: transformers' `model_type`)
    has no trained weights. Arguments change the model's settings, a table some of the settings inside it:
    `num_queries = 50`, `backbone_config = {depths = [1, 1, 1, 1]}`. Only safetensors are read, and no code that comes
    with a model runs. Pixels are normalised as preprocessor_config.json says, and as ImageNet's where there is none.
    Trained weights come with their folder (`weights = "pretrained"`), for transformers renames what it reads; a file of
    weights alone has to be one that this program saved.

    A ViT with trained weights sees images of the side that its preprocessor_config.json names, else its settings,
    however small the data's are; `image_size` says another, and many take any multiple of their patches.

    classes, pixels: the logits. A head of another K is new, and so is what the file of weights lacks. A backbone that
        transformers has no classifier for, DINOv3 for one, gets a linear layer on what it says as a vector.
    boxes: detectors in the manner of DETR. Where there is a softmax over K classes and "no object" (DETR, YOLOS, Table
        Transformer), a class's probability p becomes the logit log(p / (1 - p)). No auxiliary or denoising loss is
        charged: only the last layer's answer is seen, so what an RT-DETR chooses its queries by is not trained.
    vector: the model's pooled output, else its first token where it has a summary token, else the mean. The dense layer
        on top of ViT's and DeiT's first token is left out: few files of weights hold it.
    """

    example = "huggingface/textnet"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """As `Family.knows`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """As `Family.names`: of the models only the kinds, for the hub can't be listed here."""
        if not like:
            return [f"{PREFIX}NAME"]
        try:
            from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES as ALIKE

            found = set(ALIKE).union(*(_kinds(answers) for answers in ("classes", "pixels", "boxes"))) - ELSEWHERE
        except ImportError:
            return []
        return [PREFIX + kind for kind in sorted(found) if like in PREFIX + kind]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """As `Family.build`. Further failures: SR-M350 no transformers, SR-M351 no such model, SR-M352 wrong kind."""
        with ExitStack() as stack:
            stack.enter_context(_quiet(name))
            source = resolve_source(name)
            if not source.local:
                stack.enter_context(hub_offline_if_unreachable(True))
            base = _settings(source, spec)
            if base.model_type not in _kinds(spec.output_kind) and not _bare(base, spec):
                kinds = (
                    ", ".join(sorted(_kinds(spec.output_kind)))
                    if spec.output_kind != "vector"
                    else "vit, dinov2, resnet"
                )
                raise UnsupportedHuggingFaceModel(
                    model=name, kind=base.model_type, output_kind=spec.output_kind, kinds=kinds
                )
            side = arguments.pop("image_size", None) if spec.pretrained else None
            with argument_errors(name):
                config = with_settings(base, arguments)
                if spec.classes and spec.output_kind != "vector":
                    config.num_labels = spec.classes
            said = read_preprocessing(source)
            model = _trained(source, config, spec) if spec.pretrained else _new(source, config, spec)
            if _bare(config, spec):
                with argument_errors(name):
                    model = add_classifier(model, spec.classes or config.num_labels)
        return _network(model.train(), source, said, spec, side)


def _settings(source: HubSource, spec: NetworkSpec) -> Any:
    """The model's own settings; of one that reads text too, those of its half for images."""
    from transformers import AutoConfig

    if source.kind:
        if spec.pretrained:
            raise PretrainedWeightsNotFound(
                model=source.name, problem="a kind of model has no weights of its own", near=""
            )
        config = AutoConfig.for_model(source.where)
        if spec.classes is None and spec.output_kind == "classes":
            config.num_labels = 1000  # as every family's classifiers have that are not told otherwise
    else:
        with download_errors(source.name):
            config = AutoConfig.from_pretrained(source.where, local_files_only=source.local, trust_remote_code=False)
    return getattr(config, "vision_config", config) if spec.output_kind == "vector" else config


def _bare(config: Any, spec: NetworkSpec) -> bool:
    """Whether it is a backbone that transformers has no classifier for, as DINOv3, and one is wanted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES as BACKBONES

    kind = config.model_type
    return spec.output_kind == "classes" and kind in set(BACKBONES) - _kinds("classes") - _kinds("boxes") - ELSEWHERE


def _class(config: Any, spec: NetworkSpec) -> Any:
    import transformers

    return getattr(transformers, CLASSES["vector" if _bare(config, spec) else spec.output_kind])


def _new(source: HubSource, config: Any, spec: NetworkSpec) -> Any:
    with argument_errors(source.name):
        return _class(config, spec).from_config(config, dtype=torch.float32)


def _trained(source: HubSource, config: Any, spec: NetworkSpec) -> Any:
    """The model with its weights. What has K rows may be new, and nothing else may be of another shape.

    Where no number of classes is asked for, the trained classifier is wanted, and one that is new is refused: SR-M316.
    """
    with download_errors(source.name):
        model, told = _class(config, spec).from_pretrained(
            source.where,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=source.local,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    wide = (config.num_labels, config.num_labels + 1)
    strange = [
        f"{key} is {tuple(theirs)}, not {tuple(own)}"
        for key, theirs, own in told["mismatched_keys"]
        if own[0] not in wide
    ]
    names = dict(model.named_parameters())
    lacking = [key for key in told["missing_keys"] if key in names]
    if strange or 2 * len(lacking) > len(names):
        problem = strange[0] if strange else f"the file lacks {len(lacking)} of {len(names)} weights: {lacking[0]}, ..."
        raise PretrainedWeightsNotFound(model=source.name, problem=problem, near="")
    headless = _bare(config, spec) or any(len(names[key]) in wide for key in lacking)
    if headless and spec.classes is None and spec.output_kind != "vector":
        raise BackboneOnlyWeights(file=source.name, output_kind=spec.output_kind)
    return model


def _network(model: Any, source: HubSource, said: Mapping[str, Any], spec: NetworkSpec, wanted: int | None) -> Network:
    mean, std = (said.get(f"image_{word}") or own for word, own in zip(("mean", "std"), IMAGENET, strict=True))
    if said.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    config = model.config
    inner = getattr(config, "backbone_config", None)
    classes = 0 if spec.output_kind == "vector" else spec.classes or 0
    network = Network(
        adapt_output(model, spec.output_kind, mirrored=bool(said.get("do_flip_channel_order"))),
        classes=classes,
        channels=getattr(config, "num_channels", None) or getattr(inner, "num_channels", None) or 3,
        **spec.pixels(mean, std),
        output_kind=spec.output_kind,
        trunk=find_trunk(model) if spec.output_kind == "boxes" else (),
    )
    own = [wanted] if wanted else candidate_sizes(config, said, trained=spec.pretrained) or [SIDES[spec.output_kind]]
    fixed = bool(wanted) or (spec.pretrained and spec.output_kind in ("classes", "vector") and _of_tokens(config))
    for place, one in enumerate(own, 1):
        try:
            resolve_input_size(network, source.name, spec.size, own=one, fixed=fixed)
            break
        except StillroomError:
            if place == len(own):
                raise
    network.head = find_heads(model, spec.output_kind, network.classes)
    return network


def _of_tokens(config: Any) -> bool:
    """Whether it cuts images into patches of one size and lets all look at all: few patches are too few to look at."""
    return isinstance(getattr(config, "patch_size", None), int) and hasattr(config, "num_attention_heads")


def _kinds(output_kind: OutputKind) -> set[str]:
    """Values of `model_type` that can say this."""
    from transformers.models.auto import modeling_auto

    tables: dict[str, Mapping[str, Any]] = {
        "classes": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "pixels": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        "boxes": modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        "vector": modeling_auto.MODEL_MAPPING_NAMES,
    }
    return set(tables[output_kind]) - ELSEWHERE


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without its progress bars and its remarks on new heads, which are wanted here. SR-M350 where it is missing."""
    try:
        from transformers.utils import logging as said
    except ImportError as problem:
        raise TransformersMissing(model=name) from problem
    before, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    try:
        said.set_verbosity(logging.CRITICAL)
        said.disable_progress_bar()
        yield
    finally:
        said.set_verbosity(before)
        if bars:
            said.enable_progress_bar()
