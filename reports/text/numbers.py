"""Numbers in sentences and tables, with their intervals."""

from __future__ import annotations

import math

from harness.metrics import Scale
from harness.reports.numbers.verdict import TOO_WIDE


def with_interval(mean: float, half_width: float = float("nan"), digits: int = 1) -> str:
    """`61.3`, or `61.3 ± 0.8` where there is an interval, or `-` where there is no score."""
    if math.isnan(mean):
        return "-"
    text = f"{mean:.{digits}f}"
    return text if math.isnan(half_width) else f"{text} ± {half_width:.{digits}f}"


def chosen_by(scale: Scale, mean: float, half_width: float = float("nan")) -> str:
    """A selection score of a report's tables of numbers, as it is read: `61.3 ± 0.8` (percent), or
    `1.234 ± 0.012` for a loss."""
    return with_interval(scale.sign * mean, half_width, scale.digits)


def signed(mean: float, half_width: float = float("nan")) -> str:
    """A difference: `+0.8 ± 0.3`, with two places where one would hide it."""
    if math.isnan(mean):
        return "-"
    return f"{mean:+.2f}" if math.isnan(half_width) else f"{mean:+.2f} ± {half_width:.2f}"


def informative(mean: float, half_width: float) -> str:
    """A difference as `signed`, or `not informative` if its interval is too wide to say a thing.

    A half-width of 0 is that of what chance has no part in, and is not shown.
    """
    if half_width > TOO_WIDE and abs(mean) <= half_width:
        return "not informative"
    return signed(mean, half_width or float("nan"))
