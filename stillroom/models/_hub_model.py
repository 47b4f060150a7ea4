"""Building transformers models: the model types for each output kind, configurations, and pretrained weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stillroom.models._errors import PretrainedWeightsNotFound, TransformersMissing
from stillroom.models._family import NetworkSpec
from stillroom.models._hub_source import HubSource
from stillroom.models._library_errors import argument_errors, download_errors
from stillroom.models._weights_errors import BackboneOnlyWeights
from stillroom.types import OutputKind

CLASSES = {
    "classes": "AutoModelForImageClassification",
    "pixels": "AutoModelForSemanticSegmentation",
    "boxes": "AutoModelForObjectDetection",
    "vector": "AutoModel",
}
"""Output kind -> class of transformers."""

EXCLUDED = {"timm_wrapper", "timm_backbone"}
"""Model types that load a further model by a name in their configuration: `timm/NAME` builds those."""


def model_types(output_kind: OutputKind) -> set[str]:
    """Values of `model_type` that have a model for this output kind."""
    from transformers.models.auto import modeling_auto

    tables: dict[str, Mapping[str, Any]] = {
        "classes": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "pixels": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        "boxes": modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        "vector": modeling_auto.MODEL_MAPPING_NAMES,
    }
    return set(tables[output_kind]) - EXCLUDED


def needs_classifier(config: Any, spec: NetworkSpec) -> bool:
    """Whether a classifier is wanted and the model is a backbone without one in transformers, such as DINOv3."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_MAPPING_NAMES as BACKBONES

    without = set(BACKBONES) - model_types("classes") - model_types("boxes") - EXCLUDED
    return spec.output_kind == "classes" and config.model_type in without


def read_config(source: HubSource, spec: NetworkSpec) -> Any:
    """The model's configuration; for a model of images and text that of its image encoder.

    Raises:
        StillroomError: SR-M308, SR-N801.
    """
    from transformers import AutoConfig

    if source.is_type:
        if spec.pretrained:
            problem = "a model type has no weights of its own"
            raise PretrainedWeightsNotFound(model=source.name, problem=problem, near="")
        config = AutoConfig.for_model(source.location)
        if spec.classes is None and spec.output_kind == "classes":
            config.num_labels = 1000  # the default of all other families
    else:
        with download_errors(source.name):
            config = AutoConfig.from_pretrained(source.location, local_files_only=source.local, trust_remote_code=False)
    return getattr(config, "vision_config", config) if spec.output_kind == "vector" else config


def new_model(source: HubSource, config: Any, spec: NetworkSpec) -> Any:
    """The model with random weights.

    Raises:
        InvalidModelArguments: SR-M304.
    """
    with argument_errors(source.name):
        return _model_class(config, spec).from_config(config, dtype=torch.float32)


def pretrained_model(source: HubSource, config: Any, spec: NetworkSpec) -> Any:
    """The model with pretrained weights. Only layers with K rows may be new; all other shapes must match.

    Raises:
        StillroomError: SR-M308 weights are missing or do not match, SR-M316 the classifier would be new although the
            pretrained one is wanted (`spec.classes` is None), SR-N801.
    """
    with download_errors(source.name):
        model, info = _model_class(config, spec).from_pretrained(
            source.location,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=source.local,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    rows = (config.num_labels, config.num_labels + 1)
    mismatched = [
        f"{key} is {tuple(in_file)}, not {tuple(own)}"
        for key, in_file, own in info["mismatched_keys"]
        if own[0] not in rows
    ]
    parameters = dict(model.named_parameters())
    missing = [key for key in info["missing_keys"] if key in parameters]
    if mismatched or 2 * len(missing) > len(parameters):
        counts = f"{len(missing)} of {len(parameters)} weights"
        problem = mismatched[0] if mismatched else f"the file lacks {counts}: {missing[0]}, ..."
        raise PretrainedWeightsNotFound(model=source.name, problem=problem, near="")
    new_head = needs_classifier(config, spec) or any(len(parameters[key]) in rows for key in missing)
    if new_head and spec.classes is None and spec.output_kind != "vector":
        raise BackboneOnlyWeights(file=source.name, output_kind=spec.output_kind)
    return model


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Without transformers' progress bars and its warnings about new heads, which are intended here.

    Raises:
        TransformersMissing: SR-M350.
    """
    try:
        from transformers.utils import logging as library_logging
    except ImportError as problem:
        raise TransformersMissing(model=name) from problem
    verbosity, progress = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    try:
        library_logging.set_verbosity(logging.CRITICAL)
        library_logging.disable_progress_bar()
        yield
    finally:
        library_logging.set_verbosity(verbosity)
        if progress:
            library_logging.enable_progress_bar()


def _model_class(config: Any, spec: NetworkSpec) -> Any:
    import transformers

    return getattr(transformers, CLASSES["vector" if needs_classifier(config, spec) else spec.output_kind])
