"""Axes of charts, and how numbers are written: round ticks, units, thousands, percent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sixfold.core.console.console import time_text

Format = Callable[[float], str]  # how a value is written
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Tick:
    """A labelled position, in percent of the axis from its low end."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """From values to places; logarithmic if `log`."""

    low: float  # value at the beginning
    high: float
    ticks: tuple[Tick, ...] = ()
    log: bool = False

    def place(self, values: ArrayLike) -> NDArray[np.float64]:
        """Places in [0, 1]; values outside are put on the border, NaN stays NaN.

        >>> linear(0, 10, plain).place([5.0, 20.0]).tolist()
        [0.5, 1.0]
        """
        array = np.asarray(values, dtype=np.float64)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                array, low, high = np.log(array), math.log(low), math.log(high)
        return np.clip((array - low) / (high - low), 0.0, 1.0)

    def value(self, percent: float) -> float:
        """What lies at a place in percent from the low end."""
        if self.log:
            return self.low * math.exp(percent / 100 * math.log(self.high / self.low))
        return self.low + (self.high - self.low) * percent / 100

    def ticked(self, values: Iterable[float], write: Format) -> Axis:
        """The same axis with its labels at these values."""
        ticks = tuple(Tick(float(100 * self.place(v)), write(v)) for v in values)
        return replace(self, ticks=ticks)


def round_steps(low: float, high: float, count: int, *, least: float = 0.0) -> list[float]:
    """About `count` round values in [low, high], at least `least` apart.

    >>> round_steps(0, 97, 5)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    step = max(step, least)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def linear(
    low: float,
    high: float,
    write: Format,
    *,
    count: int = 5,
    snug: bool = False,
    least: float = 0.0,
) -> Axis:
    """An axis from `low` to `high` with about `count` round ticks, at least `least` apart.

    If `snug` the axis ends exactly at `low` and `high`, not at the next round values.
    """
    if not math.isfinite(high - low):
        low, high = 0.0, 1.0
    low, high = min(low, high), max(low, high)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-290):
        pad = abs(low) * 0.05 or 0.5
        low, high = low - pad, high + pad
    values = round_steps(low, high, count, least=least)
    if not snug and len(values) > 1:
        step = values[1] - values[0]
        low = math.floor(low / step + 1e-9) * step
        high = math.ceil(high / step - 1e-9) * step
        values = round_steps(low, high, count + 1, least=least)
    ticks = tuple(Tick(100 * (v - low) / (high - low), write(v)) for v in values)
    return Axis(low=low, high=high, ticks=ticks)


def logarithmic(low: float, high: float, write: Format) -> Axis:
    """An axis of powers of ten (and of 2 and 5 where these are few); `low` must be positive."""
    low, high = max(low / 1.1, 1e-300), min(high * 1.1, 1e300)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, max(1, (last - first) // 6))
    factors = (1, 2, 5) if last - first < 4 else (1,)
    values = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
    scale = math.log(high / low)
    ticks = tuple(Tick(100 * math.log(v / low) / scale, write(v)) for v in values)
    return Axis(low=low, high=high, ticks=ticks, log=True)


def plain(value: float) -> str:
    """A number with about four significant digits, thousands set apart.

    >>> plain(84362), plain(0.012346), plain(float("nan"))
    ('84,362', '0.01235', '–')
    """
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 1e15 or abs(value) < 1e-5:
        return f"{value:.3g}"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def compact(value: float) -> str:
    """A number as short as a tick's label must be.

    >>> compact(2_500_000), compact(1e12), compact(20_000), compact(0.05)
    ('2.5M', '1e+12', '20,000', '0.05')
    """
    if 1e6 <= abs(value) < 1e9:
        return f"{value / 1e6:.4g}M"
    return f"{value:.3g}" if abs(value) >= 1e9 else plain(value)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in percent.

    >>> percent(0.98061), percent(1.0, 0)
    ('98.1%', '100%')
    """
    return f"{100 * fraction:.{digits}f}%" if math.isfinite(fraction) else MISSING


def points_of(gap: Mapping[str, float]) -> str:
    """A difference of fractions with its interval, in points.

    >>> points_of({"mean": 0.01, "low": -0.002, "high": 0.022})
    '+1.00 (-0.20 to +2.20)'
    """
    mean, low, high = (f"{100 * gap[name]:+.2f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def percent_tick(fraction: float) -> str:
    """A fraction in percent without needless zeros.

    >>> percent_tick(0.2), percent_tick(0.975)
    ('20%', '97.5%')
    """
    return f"{round(100 * fraction, 6):g}%"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0.0123), duration(75.2), duration(7384)
    ('12.3 ms', '1 min 15 s', '2 h 03 min')
    """
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{plain(float(f'{1000 * seconds:.3g}'))} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return time_text(math.floor(seconds))


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds.

    >>> milliseconds(0.01234)
    '12.3'
    """
    value = 1000 * seconds
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def time_axis(high_s: float) -> tuple[Axis, str, float]:
    """An axis from 0 to `high_s` seconds in the unit that suits, its name, and its seconds.

    >>> axis, unit, seconds = time_axis(300.0)
    >>> unit, seconds, [tick.label for tick in axis.ticks]
    ('min', 60.0, ['0', '1', '2', '3', '4', '5'])
    """
    unit, size = ("h", 3600.0) if high_s > 7200 else ("min", 60.0) if high_s > 120 else ("s", 1.0)
    return linear(0.0, high_s / size, compact, snug=True), unit, size
