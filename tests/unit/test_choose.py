"""`methods = "auto"`: a test a branch."""

from __future__ import annotations

import dataclasses

import pytest

from stillroom.config.plugins import pick
from stillroom.matching.auto import GAP, RULES, Facts, choose
from stillroom.methods.method import Method

PLAIN = Facts(output_kind="classes", student="convolutional", teacher="convolutional", ratio=0.3, labels=True)


@pytest.mark.parametrize(
    ("situation", "changed", "methods"),
    [
        ("standard", {}, ["hinton"]),
        ("strong-teacher", {"ratio": GAP}, ["dist"]),
        ("strong-teacher", {"ratio": 0.5, "teacher": "transformer", "labels": False}, ["dist"]),
        ("vit-to-vit", {"student": "transformer", "teacher": "transformer"}, ["nkd", "vitkd"]),
        ("standard", {"student": "transformer", "teacher": "transformer", "labels": False}, ["hinton"]),
        ("cross-architecture", {"teacher": "transformer"}, ["ofa"]),
        ("cross-architecture", {"student": "transformer", "ratio": 0.01}, ["ofa"]),
        ("pixels", {"output_kind": "pixels", "teacher": "transformer"}, ["hinton", "cwd"]),
        ("two-classes", {"classes": 2, "ratio": 0.01}, ["hinton"]),
        ("standard", {"classes": 3}, ["hinton"]),
        ("boxes", {"output_kind": "boxes", "ratio": 0.01}, ["pkd"]),
        ("vectors", {"output_kind": "vector", "teacher": "transformer"}, ["cosine", "rkd"]),
    ],
)
def test_each_branch(situation, changed, methods):
    choice = choose(dataclasses.replace(PLAIN, **changed))
    assert choice.situation == situation and [method.name for method in choice.methods] == methods
    assert choice.why and "{" not in choice.why


def test_every_rule_can_be_reached_and_names_methods_that_exist():
    assert len({rule.situation for rule in RULES}) == len(RULES) == 8
    for rule in RULES:
        for method in rule.methods:
            assert isinstance(pick("methods", method.name)(**method.arguments), Method)
