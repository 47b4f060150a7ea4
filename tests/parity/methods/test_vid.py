"""VID against scipy's normal distribution. Ahn et al. 2019, section 2."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kit.features import charge, drawn, ready
from scipy.stats import norm

from stillroom.methods.vid import VID, vid_loss


def reference(guess, teacher, variance):
    """-log N(teacher; guess, variance) of every element, less log(2 pi) / 2, averaged."""
    said = norm.logpdf(teacher, loc=guess, scale=np.sqrt(variance)[None, :, None, None])
    return float((-said - math.log(2 * math.pi) / 2).mean())


def test_scipy():
    guess, t, variance = drawn(3, 4, 2, 2), drawn(3, 4, 2, 2, seed=1), drawn(4, seed=2).abs() + 0.1
    expected = reference(guess.numpy(), t.numpy(), variance.numpy())
    assert vid_loss(guess, t, variance).item() == pytest.approx(expected, rel=1e-9)


def test_the_class_with_three_convolutions():
    s, t = [drawn(3, 4, 4, 4), drawn(3, 2, 2, 2)], [drawn(3, 5, 2, 2, seed=1), drawn(3, 6, 2, 2, seed=2)]
    method = ready(VID(variance=2.0), s, t)
    with torch.no_grad():
        method.doubt[0].copy_(drawn(5, seed=3))
    expected = 0.0
    halved = s[0].numpy().reshape(3, 4, 2, 2, 2, 2).mean((3, 5))
    for x, teacher, guess, doubt in zip([halved, s[1].numpy()], t, method.guess, method.doubt, strict=True):
        first, second, third = (guess[i].weight[:, :, 0, 0].detach().numpy() for i in (0, 2, 4))
        x = np.maximum(np.einsum("oc,bchw->bohw", first, x), 0)
        x = np.maximum(np.einsum("oc,bchw->bohw", second, x), 0)
        x = np.einsum("oc,bchw->bohw", third, x)
        expected += reference(x, teacher.numpy(), np.log1p(np.exp(doubt.detach().numpy())) + 1e-5)
    assert charge(method, s, t).item() == pytest.approx(expected, rel=1e-9)
