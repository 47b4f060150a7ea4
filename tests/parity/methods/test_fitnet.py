"""FitNet against Romero et al. 2015, eq. 3, written as loops."""

from __future__ import annotations

import pytest
import torch
from kit.features import charge, drawn, ready

from stillroom.methods.fitnet import FitNet


def test_zero_when_the_regressor_can_invert():
    """For an orthogonal map of the student's feature the least-squares regressor leaves nothing."""
    s = drawn(16, 6, 4, 4)
    q, _ = torch.linalg.qr(drawn(6, 6, seed=1))
    t = torch.einsum("oc,bchw->bohw", q, s)
    method = ready(FitNet(), [s], [t])
    rows = s.permute(0, 2, 3, 1).reshape(-1, 6)
    solved = torch.linalg.lstsq(rows, t.permute(0, 2, 3, 1).reshape(-1, 6)).solution
    with torch.no_grad():
        assert charge(method, [s], [t]) > 0.1
        method.regress[0].weight.copy_(solved.T[:, :, None, None])
        method.regress[0].bias.zero_()
    assert charge(method, [s], [t]).item() <= 1e-5


@pytest.mark.parametrize("tokens", [False, True])
def test_loops(tokens):
    s, t = drawn(2, 3, 2, 2), drawn(2, 5, 2, 2, seed=1)
    given = s.flatten(2).transpose(1, 2) if tokens else s
    method = ready(FitNet(), [given], [t])
    weight, bias = method.regress[0].weight[:, :, 0, 0].tolist(), method.regress[0].bias.tolist()
    total, count = 0.0, 0
    for b in range(2):
        for o in range(5):
            for y in range(2):
                for x in range(2):
                    said = bias[o] + sum(weight[o][c] * s[b, c, y, x].item() for c in range(3))
                    total, count = total + (said - t[b, o, y, x].item()) ** 2, count + 1
    assert charge(method, [given], [t]).item() == pytest.approx(total / count, rel=1e-9)
