"""Numbers as text. Pure functions; what is missing or not finite becomes `EMPTY`."""

from __future__ import annotations

import math
from typing import Any

EMPTY = "–"


def number(value: Any) -> float | None:
    """`value` as a finite float, or None: for null, NaN, infinities, booleans and anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an int too large for a float
        return None


def percent(value: Any, digits: int = 1) -> str:
    """A share in 0..1: 0.9812 -> "98.1 %"."""
    share = number(value)
    return EMPTY if share is None else f"{100 * share:.{digits}f} %"


def share(part: Any, whole: Any) -> str:
    """`part` as a share of `whole`, never rounded to 0: "9.7 %", "0.03 %"."""
    ratio = divide(part, whole)
    if ratio is None:
        return EMPTY
    return f"{significant(100 * ratio, 2)} %" if 0 < ratio < 0.1 else percent(ratio)


def interval(ci95: Any) -> str:
    """Both ends of an interval of shares: "95.7–98.7 %"."""
    if not isinstance(ci95, list | tuple) or len(ci95) != 2:
        return ""
    low, high = number(ci95[0]), number(ci95[1])
    return "" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f} %"


def points(difference: Any) -> str:
    """An unsigned difference of two shares in percentage points: "1.3 points"."""
    gap = number(difference)
    if gap is None:
        return EMPTY
    text = f"{100 * abs(gap):.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def p_value(p: float) -> str:
    """A p-value: "p = 0.03", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def signed(difference: Any) -> str:
    """A difference of two shares in percentage points, with its sign: "+1.3", "−0.2"."""
    gap = number(difference)
    return EMPTY if gap is None else f"{100 * gap:+.1f}".replace("-", "−")


def change(value: Any, before: Any) -> str:
    """Relative change from the value before: "−49.8 %", "±0 %"; empty if one of them is missing."""
    ratio = divide(value, before)
    return "" if ratio is None else "±0 %" if ratio == 1 else f"{100 * (ratio - 1):+.1f} %".replace("-", "−")


def count(value: Any) -> str:
    """A count: "940", "27.2 k", "1.24 M"."""
    return _scaled(value, (("", 1.0), (" k", 1e3), (" M", 1e6), (" G", 1e9), (" T", 1e12)))


def size(value: Any) -> str:
    """Bytes, decimal: "39.1 kB", "4.2 MB"."""
    return _scaled(value, ((" B", 1.0), (" kB", 1e3), (" MB", 1e6), (" GB", 1e9), (" TB", 1e12)))


def joules(value: Any) -> str:
    """An energy: "1.52 mJ", "12.0 J"."""
    return _scaled(value, ((" µJ", 1e-6), (" mJ", 1e-3), (" J", 1.0)))


def milliseconds(value: Any) -> str:
    """A latency without its unit, three significant digits: "0.412", "12.4", "1,830"."""
    time = number(value)
    return EMPTY if time is None else significant(time, 3)


def rate(value: Any) -> str:
    """Images per second: "2,410 /s"."""
    speed = number(value)
    return EMPTY if speed is None else f"{significant(speed, 3)} /s"


def times(value: Any) -> str:
    """A factor: "3.4×", "12×"."""
    factor = number(value)
    return EMPTY if factor is None else f"{factor:.0f}×" if factor >= 10 else f"{factor:.1f}×"


def exact(value: Any) -> str:
    """All digits, for the tooltip of a rounded number: "27,213"."""
    amount = number(value)
    if amount is None:
        return "not measured, or not finite"
    return f"{int(amount):,}" if amount == int(amount) else f"{amount:,.6g}"


def whole(value: Any) -> str:
    """A count in full: "1,257"."""
    return EMPTY if number(value) is None else f"{int(value):,}"


def plain(value: Any) -> str:
    """A value on an axis or under the pointer: four significant digits, no trailing zeros."""
    amount = number(value)
    if amount is None:
        return EMPTY
    if amount and not 1e-4 <= abs(amount) < 1e6:
        return f"{amount:.3g}"
    text = f"{amount:,.{max(0, 3 - _exponent(amount))}f}" if amount else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(value: Any) -> str:
    """Seconds in the largest fitting units: "8.4 s", "1 min 32 s", "2 h 5 min"."""
    seconds = number(value)
    if seconds is None:
        return EMPTY
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def divide(part: Any, whole: Any) -> float | None:
    """The quotient if both are finite and `whole` is positive, else None."""
    top, bottom = number(part), number(whole)
    return None if top is None or bottom is None or bottom <= 0 else top / bottom


def significant(value: float, digits: int) -> str:
    """`value` with that many significant digits, never in powers of ten: "0.041", "1,830"."""
    if value == 0:
        return "0"
    exponent = _exponent(value)
    rounded = round(value, digits - 1 - exponent)
    return f"{rounded:,.{max(0, digits - 1 - _exponent(rounded))}f}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _scaled(value: Any, units: tuple[tuple[str, float], ...]) -> str:
    amount = number(value)
    if amount is None:
        return EMPTY
    unit, scale = next(((u, s) for u, s in reversed(units) if abs(amount) >= 0.9995 * s), units[0])
    if scale == 1.0:
        return f"{amount:,.0f}{unit}" if amount == int(amount) else f"{significant(amount, 3)}{unit}"
    return f"{significant(amount / scale, 3)}{unit}"
