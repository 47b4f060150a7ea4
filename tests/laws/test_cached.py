"""Cached is live: the same pixels under the same key, and so the same answer, whoever asks and whenever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit import caches, training
from kit.training import TRAINING, replace, same

from stillroom.config.schema import Augment
from stillroom.data.loader import Loader
from stillroom.models import create_model
from stillroom.teachers.frozen import FrozenTeacher

POLICIES = {
    "views": caches.LOOKS,
    "mixed": Augment(shift=0.1, mixup=0.8, cutmix=1.0, num_views=2),
    "still": Augment(shift=0.0),
}


def trained(teacher, augment, *, methods=None, seed=0, precision="float32"):
    """The weights and the losses of a student, taught by `teacher`."""
    one = training.learner(methods, seed=seed)
    config = replace(TRAINING, precision=precision, steps=45 if augment.distinct_views == 1 else 12)
    _, told = training.steps(one, config, teacher=teacher, augment=augment)
    return one.state_dict(), [step.loss for step in told]


@pytest.mark.parametrize(
    ("precision", "policy"),
    [
        *((torch.float32, policy) for policy in POLICIES),
        # Without bfloat16 in the processor it takes ten times as long; the policy is the same code for both.
        (torch.bfloat16, "views"),
        *(pytest.param(torch.bfloat16, policy, marks=pytest.mark.slow) for policy in POLICIES if policy != "views"),
    ],
    ids=str,
)
def test_in_32_bits_the_student_is_the_same_bit_for_bit(tmp_path, policy, precision):
    live = FrozenTeacher(training.teacher().network, precision=precision)
    augment = POLICIES[policy]
    kept = caches.filled(caches.asking(tmp_path, teacher=live, augment=augment, bits=32))
    (ours, losses), (theirs, expected) = trained(kept, augment), trained(live, augment)
    assert same(ours, theirs) and losses == expected


def test_features_are_kept_too(tmp_path):
    methods = {"fitnet": {}, "hinton": {}}
    taps = training.learner(methods).teacher_taps
    kept = caches.filled(caches.asking(tmp_path, taps=taps, bits=32))
    (ours, _), (theirs, _) = (trained(t, caches.LOOKS, methods=methods) for t in (kept, training.teacher()))
    assert taps and same(ours, theirs)


def test_in_16_bits_the_loss_is_within_a_thousandth(tmp_path):
    live = training.teacher()
    live.network.module.get_submodule("linear").weight.data /= 5  # logits as large as a trained network's
    kept = caches.filled(caches.asking(tmp_path, teacher=live))
    (_, losses), (_, expected) = (trained(teacher, caches.LOOKS) for teacher in (kept, live))
    assert losses == pytest.approx(expected, abs=1e-3)


def test_other_seeds_and_other_batches_read_the_same_cache(tmp_path):
    kept, live = caches.filled(caches.asking(tmp_path, bits=32, batch=50)), training.teacher()
    for seed, size in ((3, 16), (8, 70)):
        batches = Loader(training.digits().splits["train"], batch=size, seed=seed, augment=caches.LOOKS)
        for n in (0, 40):
            batch = batches.at(n)
            said, heard = (teacher((batch.images,), batch.keys, ()) for teacher in (kept, live))
            assert torch.equal(said.pred, heard.pred)


def test_a_key_of_other_pixels_has_no_answer(tmp_path):
    kept = caches.filled(caches.asking(tmp_path))
    stranger = Loader(training.digits().splits["train"], batch=8, seed=5, augment=Augment(shift=0.1)).at(0)
    with pytest.raises(ValueError, match="no view that is in the cache"):
        kept((stranger.images,), stranger.keys, ())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_of_many_classes_the_leading_ones_keep_their_probability_and_the_others_theirs_together(tmp_path, temperature):
    torch.manual_seed(0)
    network = create_model("resnet14", classes=1300, channels=1, size=8)
    network.module.get_submodule("linear").weight.data *= 0.3  # in doubt
    live = FrozenTeacher(network)
    asking = caches.asking(tmp_path, teacher=live, temperatures=(temperature,), top_p=0.9)
    kept = caches.filled(asking)
    form = kept.cache.form
    batch = Loader(training.digits().splits["train"], batch=32, seed=5, augment=caches.LOOKS).at(3)
    said, heard = (torch.softmax(t((batch.images,), batch.keys, ()).pred / temperature, 1) for t in (kept, live))
    top = heard.topk(form.leading, 1).indices
    assert 1 < form.leading < 1299
    assert form.covered[form.temperatures.index(1.0)] >= 0.9
    torch.testing.assert_close(said.gather(1, top), heard.gather(1, top), rtol=2e-2, atol=1e-6)
    torch.testing.assert_close(1 - said.gather(1, top).sum(1), 1 - heard.gather(1, top).sum(1), rtol=2e-2, atol=1e-4)


def test_an_answer_that_is_not_finite_is_kept_as_such(tmp_path):
    live = training.teacher()
    forward = live.network.forward

    def broken(images, taps=()):
        said = forward(images, taps)
        said.pred[images.mean((1, 2, 3)) > 0.35] = torch.inf
        return said

    live.network.forward = broken
    kept = caches.filled(caches.asking(tmp_path, teacher=live, bits=32))
    batch = Loader(training.digits().splits["train"], batch=64, seed=5, augment=caches.LOOKS).at(3)
    said, heard = (teacher((batch.images,), batch.keys, ()).pred for teacher in (kept, live))
    ill = ~heard.isfinite().all(1)
    assert 0 < ill.sum() < 64
    assert said[ill].isnan().all() and torch.equal(said[~ill], heard[~ill])
    assert np.isin(kept.cache.read(np.arange(50))["sound"], [0, 1]).all()
