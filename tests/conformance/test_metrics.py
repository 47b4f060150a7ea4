"""Every file of `metrics/`: a new metric is tested here without anybody adding it."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.answers import CLASSES, count, drawn, rows

from stillroom.cli.listing import listing
from stillroom.config import plugins, recipe
from stillroom.errors import StillroomError
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind, TargetKind

NAMES = plugins.choices("metrics")
N = 12


GALLERY = range(0, 10_000, 2)


def fresh(name: str) -> Metric:
    """Where images are compared with a gallery, those with an even key are it."""
    kind = plugins.pick("metrics", name)
    more = {"gallery_keys": GALLERY} if "gallery_keys" in inspect.signature(kind).parameters else {}
    return kind(classes=CLASSES, **more)


@pytest.fixture(params=NAMES)
def metric(request: Any) -> Metric:
    return fresh(request.param)


def parts(metric: Metric, n: int = N, seed: int = 0, **how: Any) -> tuple[Output, Batch, Output]:
    return drawn(metric.output_kind, n, seed, **how)


def said(metric: Metric) -> dict[str, Any]:
    return {name: figure.as_dict() for name, figure in metric.compute().items()}


def values(metric: Metric) -> list[float]:
    figures = [figure.value for figure in metric.compute().values()]
    return [v for value in figures for v in (value.values() if isinstance(value, dict) else [value])]


def test_the_folder_is_the_registry() -> None:
    assert {"accuracy", "agreement", "recall", "average_precision", "box_agreement"} <= set(NAMES)


def test_it_is_a_metric_and_says_what_it_computes(metric: Metric) -> None:
    assert isinstance(metric, Metric)
    assert metric.classes is CLASSES
    assert metric.output_kind in get_args(OutputKind)
    assert importlib.import_module(type(metric).__module__).__doc__
    assert type(metric).__doc__


def test_nothing_seen_says_nothing(metric: Metric) -> None:
    assert metric.compute() == {}
    assert metric.value() == 0
    assert all(count.sum() == 0 for count in metric.state().values())


def test_figures_can_be_written(metric: Metric) -> None:
    count(metric, parts(metric), torch.arange(N))
    figures = metric.compute()
    assert figures
    for figure in figures.values():
        written = json.loads(json.dumps(figure.as_dict(), allow_nan=False))
        assert written["how"] and written["n"] > 0


def test_the_first_figure_is_the_value(metric: Metric) -> None:
    count(metric, parts(metric), torch.arange(N))
    first = next(iter(metric.compute().values())).value
    assert metric.value() == (first if isinstance(first, float) else 0)


def test_counts_keep_their_names_and_shapes_and_rows_are_added(metric: Metric) -> None:
    before = metric.state()
    assert all(value.dtype == torch.int64 for value in before.values())
    count(metric, parts(metric), torch.arange(N))
    once = metric.state()
    count(metric, parts(metric), torch.arange(N))
    twice = metric.state()
    assert set(twice) == set(once)
    for name in once:
        if name in before:
            assert twice[name].shape == before[name].shape and torch.equal(twice[name], 2 * once[name])
        else:
            assert torch.equal(twice[name], torch.cat((once[name], once[name])))


def test_the_state_is_a_copy(metric: Metric) -> None:
    count(metric, parts(metric), torch.arange(N))
    before = metric.compute()
    for value in metric.state().values():
        value.zero_()
    assert metric.compute() == before


def test_it_leaves_what_it_judges_alone(metric: Metric) -> None:
    given_, kept = parts(metric), parts(metric)
    count(metric, given_, torch.arange(N))
    metric.compute()
    assert torch.equal(given_[0].pred, kept[0].pred) and torch.equal(given_[2].pred, kept[2].pred)
    seen: list[bool] = []
    flat: list[torch.Tensor] = []
    kept[1].map(lambda tensor: flat.append(tensor) or tensor)
    given_[1].map(lambda tensor: seen.append(torch.equal(tensor, flat[len(seen)])) or tensor)
    assert seen and all(seen)


def test_it_is_not_changed_by_what_happens_to_its_input_later(metric: Metric) -> None:
    """Networks and loaders may use their memory again."""
    given_ = parts(metric)
    metric.update(*given_)
    before = said(metric)
    given_[0].pred.zero_()
    given_[2].pred.zero_()
    given_[1].map(lambda tensor: tensor.zero_())
    assert said(metric) == before


def test_no_reference_is_no_error(metric: Metric) -> None:
    output, batch, _ = parts(metric)
    metric.update(output, batch)
    metric.compute()


def test_what_is_not_a_number_is_never_right(metric: Metric) -> None:
    output, batch, _ = parts(metric)
    nothing = Output(pred=torch.full_like(output.pred, float("nan")))
    metric.update(nothing, batch, nothing)
    assert not any(values(metric))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 24), cut=st.integers(0, 24), size=st.integers(1, 9), ties=st.booleans()
)
def test_whole_is_pieces_is_shuffled_is_merged(name: str, seed: int, n: int, cut: int, size: int, ties: bool) -> None:
    """What several processes have seen, in any order and in batches of any size, is what one has seen."""
    answers, everything = drawn(fresh(name).output_kind, n, seed, ties=ties), torch.arange(n)
    whole = said(count(fresh(name), answers, everything))
    shuffled = everything[torch.from_numpy(np.random.default_rng(seed).permutation(n))]
    assert said(count(fresh(name), answers, shuffled, size)) == whole
    here, there = (count(fresh(name), answers, part, size) for part in (shuffled[:cut], shuffled[cut:]))
    merged = fresh(name)
    merged.merge(there.state())
    merged.merge(here.state())
    assert said(merged) == whole


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 24))
def test_shares_lie_between_nothing_and_all_and_within_their_interval(name: str, seed: int, n: int) -> None:
    metric = count(fresh(name), drawn(fresh(name).output_kind, n, seed), torch.arange(n))
    assert all(0 <= value <= 1 for value in values(metric))
    for figure in metric.compute().values():
        if figure.ci95 is not None:
            assert 0 <= figure.ci95[0] <= figure.value <= figure.ci95[1] <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if "agreement" in name or name == "neighbours"])
def test_everybody_agrees_with_himself(name: str) -> None:
    output, batch, _ = drawn(fresh(name).output_kind, 12, 3)
    metric = fresh(name)
    metric.update(output, batch, output)
    figure = metric.compute()["agreement"]
    assert figure.value == 1
    assert figure.extra["max_difference"] == figure.extra["mean_difference"] == 0


def test_rows_of_images_are_cut_together() -> None:
    for answers in get_args(OutputKind):
        whole, chosen = drawn(answers, 5, 1), torch.tensor([4, 0])
        output, batch, _ = rows(whole, chosen)
        assert torch.equal(output.pred, whole[0].pred[[4, 0]]) and torch.equal(batch.keys, whole[1].keys[[4, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_of_some_task_may_name_it(name: str) -> None:
    """`stillroom list metrics` says of which: those that the recipe's check lets it stand in."""
    kind = plugins.pick("metrics", name)
    assert kind.output_kind in get_args(OutputKind) and kind.target_kind in (None, *get_args(TargetKind))
    told = listing("metrics", "metrics")[name]
    fitting, teacher = [], {"network": "resnet8", "weights": "teacher.safetensors"}
    for task in plugins.choices("tasks"):
        given = {"data": "digits", "teacher": teacher, "student": "resnet8", "task": task, "metrics": [name]}
        try:
            fitting += [task] if recipe.check(given).metrics else []
        except StillroomError as problem:
            assert f"metrics[0]: {name!r}" in str(problem)
    assert fitting and told.endswith(f"For {', '.join(fitting)}.")
