"""Models of Hugging Face's transformers: `huggingface/PekingU/rtdetr_r18vd`, `huggingface/FOLDER`, `huggingface/vit`.

Needs the package transformers (`pip install 'stillroom[hub]'`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from stillroom.errors import StillroomError
from stillroom.models._errors import UnsupportedHuggingFaceModel
from stillroom.models._family import NetworkSpec
from stillroom.models._hub_model import (
    EXCLUDED,
    model_types,
    needs_classifier,
    new_model,
    pretrained_model,
    quiet,
    read_config,
)
from stillroom.models._hub_output import adapt_output, add_classifier, find_heads, find_trunk
from stillroom.models._hub_source import (
    PREFIX,
    HubSource,
    candidate_sizes,
    read_preprocessing,
    resolve_source,
    with_settings,
)
from stillroom.models._library_errors import argument_errors, hub_offline_if_unreachable
from stillroom.models._probe import resolve_input_size
from stillroom.models.network import IMAGENET, Network

DEFAULT_SIZES = {"classes": 224, "pixels": 512, "boxes": 640, "vector": 224}
"""Input size that is tried if neither the configuration nor the preprocessing contains one."""


class Huggingface:
    """`huggingface/` is followed by a folder with config.json, a model of the hub, or a model type.

    A folder is never looked up anywhere else. A model type (`rt_detr`, `segformer`, `dinov2`) has no pretrained
    weights. Arguments change the model's configuration, tables parts of it: `num_queries = 50`, `backbone_config =
    {depths = [1, 1, 1, 1]}`. Only safetensors are read, and code that comes with a model is never run. Pixels are
    normalised by preprocessor_config.json, or with ImageNet's statistics if there is none. Pretrained weights are
    loaded with their configuration (`weights = "pretrained"`), because transformers renames them on reading; a file of
    weights alone must have been saved by this program.

    A pretrained ViT gets images of the size in its preprocessor_config.json, else in its configuration, whatever the
    size of the data; the argument `image_size` overrides it, and many models accept any multiple of their patch size.

    classes, pixels: the logits. A head for another K is new, as are weights that the file lacks. A backbone without a
        classifier in transformers, such as DINOv3, gets a linear layer on its embedding.
    boxes: DETR-like detectors. Where these have a softmax over K classes and "no object" (DETR, YOLOS, Table
        Transformer), the probability p of a class becomes the logit log(p / (1 - p)). Auxiliary and denoising losses
        are not used: only the last layer's output is trained, so an RT-DETR's query selection is not.
    vector: the model's pooled output, else its class token, else the mean over tokens. The dense pooling layer of ViT
        and DeiT is left out, because few weights files contain it.
    """

    example = "huggingface/textnet"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return name.startswith(PREFIX)

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`; only model types, because the hub can't be listed."""
        if not like:
            return [f"{PREFIX}NAME"]
        try:
            from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES as BACKBONES

            found = set(BACKBONES).union(*(model_types(kind) for kind in ("classes", "pixels", "boxes"))) - EXCLUDED
        except ImportError:
            return []
        return [PREFIX + model_type for model_type in sorted(found) if like in PREFIX + model_type]

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """See `Family.build`. Also SR-M350 transformers is missing, SR-M351 no such model, SR-M352 for another task."""
        with ExitStack() as stack:
            stack.enter_context(quiet(name))
            source = resolve_source(name)
            if not source.local:
                stack.enter_context(hub_offline_if_unreachable(True))
            config = read_config(source, spec)
            _check_output_kind(name, config, spec)
            side = arguments.pop("image_size", None) if spec.pretrained else None
            with argument_errors(name):
                config = with_settings(config, arguments)
                if spec.classes and spec.output_kind != "vector":
                    config.num_labels = spec.classes
            preprocessing = read_preprocessing(source)
            model = (pretrained_model if spec.pretrained else new_model)(source, config, spec)
            if needs_classifier(config, spec):
                with argument_errors(name):
                    model = add_classifier(model, spec.classes or config.num_labels)
        return _network(model.train(), source, preprocessing, spec, side)


def _check_output_kind(name: str, config: Any, spec: NetworkSpec) -> None:
    kinds = model_types(spec.output_kind)
    if config.model_type in kinds or needs_classifier(config, spec):
        return
    listed = ", ".join(sorted(kinds)) if spec.output_kind != "vector" else "vit, dinov2, resnet"
    raise UnsupportedHuggingFaceModel(model=name, kind=config.model_type, output_kind=spec.output_kind, kinds=listed)


def _network(
    model: Any, source: HubSource, preprocessing: Mapping[str, Any], spec: NetworkSpec, image_size: int | None
) -> Network:
    mean, std = (
        preprocessing.get(f"image_{key}") or default for key, default in zip(("mean", "std"), IMAGENET, strict=True)
    )
    if preprocessing.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    config = model.config
    inner = getattr(config, "backbone_config", None)
    network = Network(
        adapt_output(model, spec.output_kind, bgr=bool(preprocessing.get("do_flip_channel_order"))),
        classes=0 if spec.output_kind == "vector" else spec.classes or 0,
        channels=getattr(config, "num_channels", None) or getattr(inner, "num_channels", None) or 3,
        **spec.pixels(mean, std),
        output_kind=spec.output_kind,
        trunk=find_trunk(model) if spec.output_kind == "boxes" else (),
    )
    stated = candidate_sizes(config, preprocessing, pretrained=spec.pretrained)
    own_sizes = [image_size] if image_size else stated or [DEFAULT_SIZES[spec.output_kind]]
    pretrained_vit = spec.pretrained and spec.output_kind in ("classes", "vector") and _is_vit(config)
    for index, own in enumerate(own_sizes, 1):
        try:
            resolve_input_size(network, source.name, spec.size, own=own, fixed=bool(image_size) or pretrained_vit)
            break
        except StillroomError:
            if index == len(own_sizes):
                raise
    network.head = find_heads(model, spec.output_kind, network.classes)
    return network


def _is_vit(config: Any) -> bool:
    """Whether the model uses patches of fixed size and global attention, which perform badly with few patches."""
    return isinstance(getattr(config, "patch_size", None), int) and hasattr(config, "num_attention_heads")
