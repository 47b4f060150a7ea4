"""A number with its interval, its sample size and how it was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: 95 % of it lies between -Z95 and Z95."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of a report.

    Attributes:
        value: the number, or a list or dict of numbers; shares are in 0..1, times in milliseconds.
        how: how it was measured, for readers of the report.
        ci95: ends of the 95 % confidence interval of `value`.
        n: number of observations.
        extra: further numbers by name.
    """

    value: float | list[Any] | dict[str, Any] | str | bool
    how: str
    ci95: tuple[float, float] | None = None
    n: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The entry in `metrics.json`, without fields that are None."""
        ci95 = None if self.ci95 is None else list(self.ci95)
        facts = {"value": self.value, "ci95": ci95, "n": self.n, "how": self.how}
        return {name: fact for name, fact in facts.items() if fact is not None} | self.extra


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share.

        (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n),  p = hits / n

    Unlike p ± z√(p(1-p)/n) it stays in 0..1 and has a width above 0 even for p = 0 and p = 1.
    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953

    Raises:
        ValueError: there are no observations, or more hits than observations.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"no share of {hits} hits among {n} observations")
    share, squared = hits / n, Z95**2 / n
    middle = (share + squared / 2) / (1 + squared)
    half = Z95 * sqrt(share * (1 - share) / n + squared / (4 * n)) / (1 + squared)
    # With 0 or n hits one end of the interval equals the share; rounding must not exclude the share.
    return min(max(0.0, middle - half), share), max(min(1.0, middle + half), share)


def proportion(hits: int, n: int, *, how: str) -> Measurement:
    """The share of `hits` among `n`, with its Wilson interval."""
    return Measurement(value=hits / n, ci95=wilson(hits, n), n=n, how=f"{how}; 95 % Wilson interval")
