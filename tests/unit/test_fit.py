"""A head fitted on real features: equal to scikit-learn's own answer, and nothing below it moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.training import digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from stillroom.models import create_model
from stillroom.training import linear_probe as module
from stillroom.training.linear_probe import linear_probe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return digits()


def network(classes=10, name="resnet8"):
    torch.manual_seed(0)
    return create_model(name, classes=classes, channels=1, size=8)


def test_random_features_and_a_fitted_head_beat_chance_and_only_the_head_moves(data):
    one = network()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    found = linear_probe(one, data.splits["train"], data.splits["val"], device=CPU)
    assert found > 0.8  # random convolutions see a lot in digits; chance is 0.1
    moved = {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"module.linear.weight", "module.linear.bias"}


def test_the_head_says_what_scikit_learn_says(data, monkeypatch):
    monkeypatch.setattr(module, "STRENGTHS", (0.1,))
    one = network()
    heard = []
    one.heads()[0].register_forward_pre_hook(lambda _, given: heard.append(given[0].detach()))
    images = data.splits["train"].images(np.arange(len(data.splits["train"]))).float() / 255
    with torch.no_grad():
        one.eval()(images)
    x, y = heard[0].numpy(), data.splits["train"].labels
    linear_probe(one, data.splits["train"], data.splits["val"], device=CPU)
    scaler = StandardScaler().fit(x)
    wanted = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(x), y).predict_proba(scaler.transform(x))
    with torch.no_grad():
        said = one(images).pred.softmax(1).numpy()
    assert np.abs(said - wanted).max() < 1e-3


def test_two_classes(data):
    one = network(classes=2)
    pair = {name: _only(split, 2) for name, split in data.splits.items() if name != "test"}
    assert linear_probe(one, pair["train"], pair["val"], device=CPU) > 0.95
    with torch.no_grad():
        said = one.eval()(pair["val"].images(np.arange(len(pair["val"]))).float() / 255).pred.argmax(1).numpy()
    assert (said == pair["val"].labels).mean() > 0.95


def test_both_heads_of_a_distilled_deit(data):
    torch.manual_seed(0)
    one = create_model(
        "timm/deit_tiny_distilled_patch16_224", classes=10, channels=1, size=8, depth=1, embed_dim=24, num_heads=2
    )
    assert one.head == ("head", "head_dist")
    small = {name: _few(split, 120) for name, split in data.splits.items() if name != "test"}
    before = [head.weight.clone() for head in one.heads()]
    linear_probe(one, small["train"], small["val"], device=CPU)
    assert all(not torch.equal(head.weight, old) for head, old in zip(one.heads(), before, strict=True))


class _Part:
    """Some rows of a split, for those who ask a split no more than this."""

    def __init__(self, split, rows):
        self.split, self.rows = split, rows
        self.labels = split.labels[rows]

    def __len__(self):
        return len(self.rows)

    def take(self, rows):
        return self.split.take(self.rows[rows])

    def images(self, rows):
        return self.take(rows)[0]


def _only(split, classes):
    return _Part(split, np.flatnonzero(split.labels < classes))


def _few(split, count):
    return _Part(split, np.arange(min(count, len(split))))
