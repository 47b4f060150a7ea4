"""What should be equal is equal: resumed and uninterrupted, micro-batches and one batch, twice the same seed."""

from __future__ import annotations

import pytest
import torch
from kit import training
from kit.training import TRAINING, furthest, replace, same

from stillroom.config.schema import Training
from stillroom.errors import StillroomError
from stillroom.io import checkpoint
from stillroom.io.run_dir import read_stream
from stillroom.models import Network, create_model
from stillroom.training.loop import AHEAD, learning_rate
from stillroom.training.loss_weights import Weight
from stillroom.training.state import State
from stillroom.training.step import Diverged

METHODS = {"hinton": {}, "fitnet": {}}


def test_one_seed_one_result():
    (_, a), (_, b) = training.steps(one := training.learner()), training.steps(two := training.learner())
    assert same(one.state_dict(), two.state_dict())
    assert [step.terms for step in a] == [step.terms for step in b]


def test_another_seed_another_result():
    training.steps(one := training.learner(seed=0))
    training.steps(two := training.learner(seed=1))
    assert furthest(one.state_dict(), two.state_dict()) > 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, optimizer, precision):
    config = replace(TRAINING, optimizer=optimizer, precision=precision)
    whole = training.learner(METHODS)
    ended, told = training.steps(whole, config)

    part = training.learner(METHODS)
    state, first = training.steps(part, config, until=5)
    checkpoint.save(tmp_path, state.step, state.parts(), state.scalars())
    again = training.learner(METHODS, seed=3)  # other weights: all must come from the checkpoint
    resumed = State.fresh(again, config, scaled=False)
    resumed.load(*checkpoint.load(checkpoint.list_checkpoints(tmp_path)[-1]))
    resumed, second = training.steps(again, config, state=resumed)

    assert same(whole.state_dict(), again.state_dict())
    assert all(same(ended.parts()[name], resumed.parts()[name]) for name in ("average", "optimizer"))
    assert [step.terms for step in told] == [step.terms for step in first + second]


REMEMBERING = {"crd": {"bank": 64}, "hinton": {"policy": "learned"}, "mgd": {}, "reviewkd": {}, "wkd_logits": {}}


def test_what_methods_remember_is_resumed_too(tmp_path):
    def balanced(seed=0):
        one = training.learner(REMEMBERING, seed=seed)
        one.weighting.balanced = True
        return one

    whole, part, again = balanced(), balanced(), balanced(seed=3)
    _, told = training.steps(whole)
    state, first = training.steps(part, until=5)
    checkpoint.save(tmp_path, state.step, state.parts(), state.scalars())
    resumed = State.fresh(again, TRAINING, scaled=False)
    resumed.load(*checkpoint.load(checkpoint.list_checkpoints(tmp_path)[-1]))
    _, second = training.steps(again, state=resumed)
    assert same(whole.state_dict(), again.state_dict())
    assert [(step.terms, step.weights) for step in told] == [(step.terms, step.weights) for step in first + second]


def test_dropout_is_the_same_after_a_resume():
    def dropping():
        student = create_model("timm/test_vit", classes=10, channels=1, size=8, proj_drop_rate=0.3)
        return training.learner(student=student)

    torch.manual_seed(0)
    first = dropping()
    start = {name: value.clone() for name, value in first.state_dict().items()}
    config = replace(TRAINING, steps=4, batch=8)
    training.steps(first, config)
    second = dropping()
    second.load_state_dict(start)
    state, _ = training.steps(second, config, until=2)
    torch.rand(100)  # whatever happened in between
    training.steps(second, config, state=state)
    assert same(first.state_dict(), second.state_dict())


def test_micro_batches_give_the_gradients_of_the_batch():
    """SGD, so that a wrong scale would show; no batch norm in training mode, whose statistics do depend on the cut."""

    def still():
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        return Network(module, classes=10, channels=1, mean=(0.0,), std=(1.0,))

    whole, cut = training.learner(student=still()), training.learner(student=still())
    cut.load_state_dict(whole.state_dict())
    training.steps(whole, replace(TRAINING, grad_accum_steps=1))
    training.steps(cut, replace(TRAINING, grad_accum_steps=4))
    assert furthest(whole.state_dict(), cut.state_dict()) < 1e-6


def test_the_teacher_is_never_touched():
    asked = training.teacher()
    before = {name: value.clone() for name, value in asked.network.state_dict().items()}
    one = training.learner()
    state = State.fresh(one, TRAINING, scaled=False)
    batches = training.Loader(training.digits().splits["train"], batch=32, seed=0)
    for _ in training.train(one, asked, batches, TRAINING, state, training.Engine(1), steps=3, seed=0):
        assert not asked.network.training
    assert same(before, asked.network.state_dict())
    optimised = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in asked.network.parameters()}
    assert not any("teacher" in name for name in one.state_dict())


def test_projectors_are_trained_and_clipped():
    one = training.learner(METHODS)
    before = one.methods["fitnet"].regress[0].weight.detach().clone()
    state, told = training.steps(
        one, replace(TRAINING, max_grad_norm=1e-3, weight_decay=0.0, lr=1.0, warmup_fraction=0.0), until=1
    )
    moved = [p for group in state.optimizer.param_groups for p in group["params"]]
    assert any(p is one.methods["fitnet"].regress[0].weight for p in moved)
    # One Nesterov step of a gradient clipped to 1e-3 moves everything together by at most lr * 1.9 * 1e-3.
    assert 0 < (one.methods["fitnet"].regress[0].weight - before).norm() <= 1.9e-3
    assert told[0].grad_norm > 1e-3


def test_weight_zero_and_one_are_continuous():
    """A term's weight is a factor and nothing else: the total at 0, 1e-9 and 1 lies on one line."""
    one = training.learner()
    terms = {"task/ce": torch.tensor(2.0), "hinton/kl": torch.tensor(5.0)}
    totals = []
    for weight in (0.0, 1e-9, 1.0):
        one.weighting.plans["hinton"] = Weight(weight)
        totals.append(one.total(terms, 0.5).item())
    assert totals[0] == 2.0 and totals[1] == pytest.approx(2.0, abs=1e-6) and totals[2] == 7.0


def test_learning_rate_climbs_and_falls_to_zero():
    config = Training(lr=1.0, warmup_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[:10] == sorted(rates[:10]) and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[100] == pytest.approx(0)


def test_the_average_is_the_formula(tmp_path):
    config = replace(TRAINING, ema_decay=0.5)
    one = training.learner()
    state = State.fresh(one, config, scaled=False)
    name = "module.conv1.weight"
    expected = state.average.state_dict()[name].clone()
    batches = training.Loader(training.digits().splits["train"], batch=32, seed=0)
    for step in training.train(one, training.teacher(), batches, config, state, training.Engine(1), steps=6, seed=0):
        n = step.step - 1
        keep = min(0.5, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * one.student.state_dict()[name]
    assert torch.allclose(state.average.state_dict()[name], expected, atol=1e-6)


class Poisoned(training.FrozenTeacher):
    """A teacher that says NaN of some batches."""

    def __init__(self, network, bad):
        super().__init__(network)
        self.bad, self.asked = set(bad), 0

    def __call__(self, views, keys, taps):
        output = super().__call__(views, keys, taps)
        self.asked += 1
        return training.replace(output, pred=output.pred * float("nan")) if self.asked - 1 in self.bad else output


def poisoned_steps(bad, config):
    one = training.learner()
    state = State.fresh(one, config, scaled=False)
    batches = training.Loader(training.digits().splits["train"], batch=32, seed=0)
    said = Poisoned(training.teacher().network, bad)
    for step in training.train(one, said, batches, config, state, training.Engine(1), steps=config.steps, seed=0):
        yield one, state, step


def test_a_step_that_is_not_finite_leaves_no_trace():
    before = None
    for one, state, step in poisoned_steps({2}, TRAINING):  # noqa: B007
        if step.step == 2:
            before = {name: value.clone() for name, value in one.state_dict().items()}
        if step.step == 3:
            assert step.skipped and same(before, one.state_dict())
        assert all(value.isfinite().all() for value in one.state_dict().values())
    assert state.skipped == [2]


def test_too_many_of_them_stop():
    with pytest.raises(Diverged, match="not finite"):
        for _ in poisoned_steps({1, 3, 5, 7}, TRAINING):
            pass


def test_a_stage_goes_back_halves_the_rate_and_passes_over_them(tmp_path, monkeypatch):
    one, asked = training.learner(), Poisoned(training.teacher().network, {1, 3, 5, 7})
    monkeypatch.setattr(training, "teacher", lambda: asked)
    rates = []
    run = training.stage(tmp_path, one, progress=lambda _, step, *__: rates.append((step.step, step.lr)))
    assert [line["step"] for line in read_stream(tmp_path, "steps.jsonl")] == list(range(1, 13))
    assert dict(rates[7:])[1] == pytest.approx(dict(rates[:7])[1] / 2)
    assert any("learning rate times 0.5" in text for text in run.info["warnings"])


def test_a_stage_that_never_recovers_says_so_and_keeps_the_evidence(tmp_path, monkeypatch):
    one, asked = training.learner(), Poisoned(training.teacher().network, range(1000))
    monkeypatch.setattr(training, "teacher", lambda: asked)
    with pytest.raises(StillroomError) as caught:
        training.stage(tmp_path, one, replace(TRAINING, steps=40))
    assert caught.value.code == "SR-E601" and caught.value.exit == 6
    (bundle,) = (tmp_path / "debug").glob("nonfinite-*/step-*")
    parts, facts = checkpoint.load(bundle)
    assert facts["stage"] == "student" and facts["terms"]["hinton/kl"] is None
    assert all(value.isfinite().all() for value in parts["learner"].values())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_first_step_that_is_skipped_is_one_that_never_was(optimizer):
    """Moments, step counters and the average begin with the second step as they would have with the first."""
    config = replace(TRAINING, optimizer=optimizer, warmup_fraction=0.0)
    for one, state, step in poisoned_steps({0}, config):  # noqa: B007
        moments = [value for kept in state.optimizer.state.values() for value in kept.values()]
        if step.step == 1:
            assert step.skipped and not any(value.any() for value in moments)
            assert same(state.average.state_dict(), training.learner().student.state_dict())
        assert all(value.isfinite().all() for value in moments)
    assert {float(kept["step"]) for kept in state.optimizer.state.values() if "step" in kept} <= {11.0}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_is_the_one_that_is_written_in_books(optimizer):
    """Clipped by torch's own function, made by its plainest optimiser."""
    config = replace(TRAINING, optimizer=optimizer, max_grad_norm=0.5, lr=0.01, steps=4)
    one, plain = training.learner(METHODS), training.learner(METHODS).train()
    _, told = training.steps(one, config, augment=training.AUGMENT)
    state = State.fresh(plain, config, scaled=False)
    kinds = {"sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}), "adamw": (torch.optim.AdamW, {})}
    kind, arguments = kinds[optimizer]
    groups = [{key: group[key] for key in ("params", "weight_decay")} for group in state.optimizer.param_groups]
    reference = kind(groups, lr=1.0, foreach=False, **arguments)
    batches = training.Loader(training.digits().splits["train"], batch=32, seed=0, augment=training.AUGMENT)
    asked = training.teacher()
    for n in range(4):
        batch = batches.at(n)
        terms = plain(batch, asked((batch.images,), batch.keys, plain.teacher_taps), n / 4)
        plain.total(terms, n / 4).backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        assert told[n].grad_norm == pytest.approx(norm.item(), rel=1e-3)
        for group in reference.param_groups:
            group["lr"] = learning_rate(n, 4, config)
        reference.step()
        reference.zero_grad()
    assert norm > 0.5 and furthest(one.state_dict(), plain.state_dict()) < 2e-4


# An accelerator is one step ahead of what is known of it; here a processor plays one.


def test_late_steps_are_the_same_steps(monkeypatch):
    _, told = training.steps(one := training.learner())
    monkeypatch.setitem(AHEAD, "cpu", 1)
    state = State.fresh(two := training.learner(), TRAINING, scaled=False)
    batches = training.Loader(training.digits().splits["train"], batch=32, seed=0, augment=training.AUGMENT)
    late, ahead = [], []
    for step in training.train(
        two, training.teacher(), batches, TRAINING, state, training.Engine(1), steps=12, seed=0, due=[5, 6].__contains__
    ):
        late.append(step)
        ahead.append(state.step - step.step)
    assert same(one.state_dict(), two.state_dict())
    timeless = [replace(step, seconds=0.0, wait=0.0) for step in told]
    assert [replace(step, seconds=0.0, wait=0.0) for step in late] == timeless
    assert ahead == [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("bad", [(), {1, 3, 5, 7}, {11}])
def test_a_stage_whose_steps_come_late_is_the_same_stage(tmp_path, monkeypatch, bad):
    found = []
    for ahead in (0, 1):
        monkeypatch.setitem(AHEAD, "cpu", ahead)
        one, asked = training.learner(), Poisoned(training.teacher().network, bad)
        monkeypatch.setattr(training, "teacher", lambda asked=asked: asked)
        run = training.stage(tmp_path / str(ahead), one, replace(TRAINING, checkpoint_seconds=0.0 if bad else 30.0))
        streams = [list(read_stream(run.folder, name)) for name in ("steps.jsonl", "evals.jsonl")]
        for line in streams[0]:
            del line["seconds"], line["wait"]
        found.append((streams, one.state_dict(), run.info["warnings"] if bad else []))
    (streams, weights, warnings), (others, again, said) = found
    assert [line["step"] for line in others[0]] == list(range(1, 13))
    assert streams == others and same(weights, again) and warnings == said


def test_a_checkpoint_knows_the_steps_that_were_skipped_before_it(tmp_path, monkeypatch):
    monkeypatch.setitem(AHEAD, "cpu", 1)
    one, asked, saved = training.learner(), Poisoned(training.teacher().network, {3}), []
    monkeypatch.setattr(training, "teacher", lambda: asked)
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *what: (saved.append((what[1], what[3]["skipped"][:])), save(*what)))
    training.stage(tmp_path, one, replace(TRAINING, checkpoint_seconds=0.0))
    assert saved == [(n, [3] if n >= 4 else []) for n in range(13)]


def test_selection_keeps_the_best_look_and_the_later_of_equals():
    one = training.learner()
    state = State.fresh(one, TRAINING, scaled=False)
    kept = []
    for score in (0.5, 0.7, 0.6, 0.7):
        state.step += 1
        kept.append(state.consider(score))
    assert kept == [True, True, False, True] and state.best_step == 4 and state.best_score == 0.7


def test_a_stage_ends_with_its_best_weights(tmp_path):
    one = training.learner()
    training.stage(tmp_path, one)
    evals = list(read_stream(tmp_path, "evals.jsonl"))
    assert [line["step"] for line in evals] == [4, 8, 12]
    assert max(line["score"] for line in evals) == [line["score"] for line in evals if line["best"]][-1]
