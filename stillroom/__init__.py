"""Stillroom turns a large vision model and a set of images into a small model, and proves how good it is.

    import stillroom as sr
    run = sr.distill(teacher="resnet20", student="resnet8", data="digits", methods=["hinton"])
    print(run.metrics["student"]["accuracy"], run.metrics["teacher"]["accuracy"])
    run.export("onnx", bits=8); run.report()

What is listed in `__all__` is what a user may import. It is imported when it is first asked for: torch takes its time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "BenchmarkError": "errors",
    "DataError": "errors",
    "DeviceLimitError": "errors",
    "ExportError": "errors",
    "FinishedRun": "pipeline.finished",
    "Method": "methods.method",
    "ModelError": "errors",
    "MultiSeedRun": "pipeline.seeds",
    "Network": "models.network",
    "NetworkAccessError": "errors",
    "Output": "types",
    "Recipe": "config.schema",
    "RecipeError": "errors",
    "ResourceError": "errors",
    "SecurityError": "errors",
    "StillroomError": "errors",
    "TeacherError": "errors",
    "TrainingError": "errors",
    "VerificationError": "errors",
    "distill": "api",
    "open": "api",
    "read_recipe": "api",
}

__all__ = [
    "Batch",
    "BenchmarkError",
    "DataError",
    "DeviceLimitError",
    "ExportError",
    "FinishedRun",
    "Method",
    "ModelError",
    "MultiSeedRun",
    "Network",
    "NetworkAccessError",
    "Output",
    "Recipe",
    "RecipeError",
    "ResourceError",
    "SecurityError",
    "StillroomError",
    "TeacherError",
    "TrainingError",
    "VerificationError",
    "distill",
    "open",
    "read_recipe",
]

if TYPE_CHECKING:
    from stillroom.api import distill, open, read_recipe
    from stillroom.config.schema import Recipe
    from stillroom.errors import (
        BenchmarkError,
        DataError,
        DeviceLimitError,
        ExportError,
        ModelError,
        NetworkAccessError,
        RecipeError,
        ResourceError,
        SecurityError,
        StillroomError,
        TeacherError,
        TrainingError,
        VerificationError,
    )
    from stillroom.methods.method import Method
    from stillroom.models.network import Network
    from stillroom.pipeline.finished import FinishedRun
    from stillroom.pipeline.seeds import MultiSeedRun
    from stillroom.types import Batch, Output


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stillroom' has no attribute {name!r}")
    return getattr(import_module(f"stillroom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
