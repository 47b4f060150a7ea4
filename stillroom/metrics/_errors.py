"""Errors of metrics that can't be computed."""

from __future__ import annotations

from stillroom.errors import Exit, ExportError


class MetricPackageMissing(ExportError):
    code = "SR-X710"
    exit = Exit.MODEL
    what = "{metric} needs {package}, which is not installed"
    why = "the figure is computed by that package, so that it can be compared with published ones"
    effect = "nothing was evaluated"
    fix = "pip install 'stillroom[{extra}]'"
