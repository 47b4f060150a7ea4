"""Resolving the name of a Hugging Face model, and reading its configuration and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.config.plugins import near
from stillroom.models._errors import HuggingFaceModelNotFound, WeightsNotCached
from stillroom.models._library_errors import is_offline_error

PREFIX = "huggingface/"

DERIVED = {"stage_names", "out_features", "out_indices"}
"""Settings that follow from the number of layers and would contradict a changed number."""


@dataclass(frozen=True)
class HubSource:
    """The model that a name stands for.

    Attributes:
        name: as in the recipe.
        location: a folder, a model of the hub, or a model type.
        is_type: it is a model type, which has a default configuration and no weights.
        local: it is never looked up on the hub.
    """

    name: str
    location: str
    is_type: bool
    local: bool


def resolve_source(name: str) -> HubSource:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    location = name.removeprefix(PREFIX)
    folder = Path(location).expanduser()
    if (folder / "config.json").is_file():
        return HubSource(name, str(folder), is_type=False, local=True)
    if location in CONFIG_MAPPING_NAMES:
        return HubSource(name, location, is_type=True, local=True)
    if folder.is_dir() or location.startswith(("/", ".", "~")) or location.count("/") != 1:
        problem = (
            "the folder has no config.json" if folder.is_dir() else "there is no such folder and no such model type"
        )
        raise HuggingFaceModelNotFound(model=name, problem=problem, near=near(location, CONFIG_MAPPING_NAMES))
    return HubSource(name, location, is_type=False, local=False)


def with_settings(config: Any, arguments: Mapping[str, Any]) -> Any:
    """The configuration with some settings replaced; nested tables are merged."""
    settings = config.to_dict()
    allowed = {*settings, *config.attribute_map, "num_labels"}
    for name in arguments:
        if name not in allowed:
            raise TypeError(f"{config.model_type} has no argument {name!r}{near(name, allowed)}")
    changes = {name: value for name, value in arguments.items() if name != "num_labels"}
    kept = {name: value for name, value in settings.items() if name not in DERIVED}
    result = type(config).from_dict(_merged(kept, changes)) if changes else config
    if "num_labels" in arguments:
        result.num_labels = arguments["num_labels"]
    return result


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        name: _merged(settings[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)
    }
    return {**settings, **changes, **nested}


def read_preprocessing(source: HubSource) -> dict[str, Any]:
    """The content of preprocessor_config.json; empty if there is none."""
    from transformers import BaseImageProcessor

    if source.is_type:
        return {}
    try:
        return BaseImageProcessor.get_image_processor_dict(source.location, local_files_only=source.local)[0]
    except OSError as problem:
        if is_offline_error(problem) and not source.local:
            raise WeightsNotCached(file=f"the preprocessing of {source.name}", problem=str(problem)) from problem
        return {}


def candidate_sizes(config: Any, preprocessing: Mapping[str, Any], *, pretrained: bool) -> list[int]:
    """H = W from the model's preprocessing and from its configuration, the more likely one first.

    For pretrained weights this is the preprocessing: a DINOv2 is configured for 518 px but used at 224 px.
    """
    preprocessed = _side(preprocessing.get("crop_size")) or _side(preprocessing.get("size"))
    found = [preprocessed, _side(getattr(config, "image_size", None))]
    return [side for side in (found if pretrained else reversed(found)) if side]


def _side(value: Any) -> int | None:
    found = max(value.values(), default=None) if isinstance(value, Mapping) else value
    found = found[-1] if isinstance(found, (list, tuple)) else found
    return found if isinstance(found, int) else None
