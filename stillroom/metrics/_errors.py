"""Metrics that can't be computed."""

from __future__ import annotations

from stillroom.errors import DataError, Exit, ExportError, RecipeError


class MetricPackageMissing(ExportError):
    code = "SR-X710"
    exit = Exit.MODEL
    what = "{metric} needs {package}, which is not installed"
    why = "the figure is that package's own, so that it means what it means elsewhere"
    effect = "nothing was evaluated"
    fix = "pip install 'stillroom[{extra}]'"


class FigureNameTaken(ExportError):
    code = "SR-X711"
    exit = Exit.USAGE
    what = "the metric {metric} has a figure called {figure}, which is the name of another one"
    why = "metrics.json would hold one of the two under that name, and pages would print it for the other"
    effect = "the networks are trained and kept; nothing was written to metrics.json"
    fix = "give the figure another name in `compute`, then start the same command again"


class MetricWithoutTargets(DataError):
    code = "SR-D143"
    what = "the metric {metric} compares with {kind}, and no image has any"
    why = "without labels only agreement with the teacher can be measured"
    effect = "nothing was trained"
    fix = "leave it out of `metrics`, or name one that compares with a reference: target_kind = None"


class UnknownMetric(RecipeError):
    code = "SR-C442"
    what = "{name} is not a metric"
    why = "{problem}"
    effect = "nothing was started"
    fix = "`stillroom list metrics` names the built-in ones; one's own is a subclass of stillroom.metrics.metric.Metric"
