"""What a name of Hugging Face's stands for, and what is written beside the model: its settings, how it wants pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.config.plugins import near
from stillroom.models._errors import HuggingFaceModelNotFound, WeightsNotCached
from stillroom.models._probe import is_offline_error

PREFIX = "huggingface/"

DERIVED = {"stage_names", "out_features", "out_indices"}
"""Settings that follow from the number of layers, and would contradict another number."""


@dataclass(frozen=True)
class HubSource:
    """What a name stands for: `kind` has settings only, `local` is never looked for on the hub."""

    name: str
    where: str
    kind: bool
    local: bool


def resolve_source(name: str) -> HubSource:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    where = name.removeprefix(PREFIX)
    folder = Path(where).expanduser()
    if (folder / "config.json").is_file():
        return HubSource(name, str(folder), False, True)
    if where in CONFIG_MAPPING_NAMES:
        return HubSource(name, where, True, True)
    if folder.is_dir() or where.startswith(("/", ".", "~")) or where.count("/") != 1:
        problem = "the folder holds no config.json" if folder.is_dir() else "there is no such folder and no such kind"
        raise HuggingFaceModelNotFound(model=name, problem=problem, near=near(where, CONFIG_MAPPING_NAMES))
    return HubSource(name, where, False, False)


def with_settings(config: Any, arguments: Mapping[str, Any]) -> Any:
    """Settings with some replaced; a table replaces what it names of the table there."""
    said = config.to_dict()
    known = {*said, *config.attribute_map, "num_labels"}
    for name in arguments:
        if name not in known:
            raise TypeError(f"{config.model_type} has no argument {name!r}{near(name, known)}")
    plain = {name: value for name, value in arguments.items() if name != "num_labels"}
    kept = {name: value for name, value in said.items() if name not in DERIVED}
    result = type(config).from_dict(_merged(kept, plain)) if plain else config
    if "num_labels" in arguments:
        result.num_labels = arguments["num_labels"]
    return result


def _merged(said: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        name: _merged(said[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(said.get(name), Mapping)
    }
    return {**said, **changes, **inner}


def read_preprocessing(source: HubSource) -> dict[str, Any]:
    """What preprocessor_config.json says; nothing where there is none."""
    from transformers import BaseImageProcessor

    if source.kind:
        return {}
    try:
        return BaseImageProcessor.get_image_processor_dict(source.where, local_files_only=source.local)[0]
    except OSError as problem:
        if is_offline_error(problem) and not source.local:
            raise WeightsNotCached(file=f"how {source.name} wants pixels", problem=str(problem)) from problem
        return {}


def candidate_sizes(config: Any, pixels: Mapping[str, Any], *, trained: bool) -> list[int]:
    """H = W that the model was made for, likeliest first: by its settings, and by what its folder says of pixels.

    Trained weights are asked as their folder asks them: a DINOv2 has settings for 518 px and is shown 224.
    """
    found = [_side(pixels.get("crop_size")) or _side(pixels.get("size")), _side(getattr(config, "image_size", None))]
    return [one for one in (found if trained else reversed(found)) if one]


def _side(said: Any) -> int | None:
    found = max(said.values(), default=None) if isinstance(said, Mapping) else said
    found = found[-1] if isinstance(found, (list, tuple)) else found
    return found if isinstance(found, int) else None
