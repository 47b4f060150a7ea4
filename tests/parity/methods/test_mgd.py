"""MGD against Yang et al. 2022, section 3, with scipy's correlation as the convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.features import charge, convolved, drawn, ready

from stillroom.methods.mgd import MGD, random_mask


@pytest.mark.parametrize("over", ["channels", "places"])
@pytest.mark.parametrize("width", [3, 4])
def test_reference(over, width):
    """Align where the widths differ, mask, convolve, ReLU, convolve; squares summed, divided by the images."""
    s, t = drawn(2, width, 3, 3), drawn(2, 4, 3, 3, seed=1)
    method = ready(MGD(masked=0.4, over=over), [s], [t])
    torch.manual_seed(5)
    kept = random_mask(t, 0.4, over).numpy()
    assert 0 < kept.mean() < 1
    seen = s.numpy()
    if width != 4:
        seen = convolved(seen, method.align[0])
    first, _, second = method.generate[0]
    generated = convolved(np.maximum(convolved(seen * kept, first), 0), second)
    expected = ((generated - t.numpy()) ** 2).sum() / 2
    torch.manual_seed(5)
    assert charge(method, [s], [t]).item() == pytest.approx(expected, rel=1e-9)
