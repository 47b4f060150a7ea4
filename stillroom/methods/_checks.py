"""Checks of constructor arguments: each message has the argument's name, what it must be, and its value."""

from __future__ import annotations

from typing import Any, get_args


def above(least: float, **values: float) -> None:
    """Each value must be greater than `least`. NaN is refused.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not value > least:
            raise ValueError(f"{name} must be above {least}, got {value}")


def at_least(least: float, **values: float) -> None:
    """Each value must be `least` or greater. NaN is refused.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def one_of(literal: Any, **values: str) -> None:
    """Each value must be one of the values of a Literal.

    Raises:
        ValueError: one is not.
    """
    for name, value in values.items():
        if value not in get_args(literal):
            raise ValueError(f"{name} must be one of {', '.join(get_args(literal))}, got {value}")
