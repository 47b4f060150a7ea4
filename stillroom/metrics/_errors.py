"""Metrics that can't be computed."""

from __future__ import annotations

from stillroom.errors import Exit, ExportError


class MetricPackageMissing(ExportError):
    code = "SR-X710"
    exit = Exit.MODEL
    what = "{metric} needs {package}, which is not installed"
    why = "the figure is that package's own, so that it means what it means elsewhere"
    effect = "nothing was evaluated"
    fix = "pip install 'stillroom[{extra}]'"
