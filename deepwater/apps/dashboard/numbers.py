"""Numbers and times as the dashboard writes them: short, of bounded width. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from deepwater.timestamps import format_us

__all__ = ["ago", "clock", "duration", "price", "quantity", "rate", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"


def duration(us: float) -> str:
    """A duration, one unit.

    >>> duration(63), duration(1023), duration(16_384), duration(2_500_000), duration(300e6), duration(8e9)
    ('63 us', '1.0 ms', '16 ms', '2.5 s', '5 min', '2 h')
    """
    for limit, unit_us, unit in ((1e3, 1, "us"), (1e6, 1e3, "ms"), (120e6, 1e6, "s")):
        if us < limit:
            return f"{us / unit_us:.{int(unit_us > 1 and us < 9.95 * unit_us)}f} {unit}"
    seconds = us / 1e6
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:,.0f} d"


def ago(us: int | None) -> str:
    """How long ago, in whole seconds; of a clock that is ahead 0.

    >>> ago(400_000), ago(61_000_000), ago(7_200_000_000), ago(None)
    ('0 s', '61 s', '2 h', '-')
    """
    if us is None:
        return "-"
    return f"{max(0, us) // 1_000_000} s" if us < 120_000_000 else duration(us)


def rate(value: float) -> str:
    """A number a second.

    >>> rate(0), rate(0.4), rate(42.04), rate(12345)
    ('0', '0.4', '42', '12,345')
    """
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def price(value: float) -> str:
    """A price, all the digits that it needs and two at least, to nine significant ones.

    >>> price(65083.5), price(0.1183), price(1920), price(0.00001234), price(float("nan")), price(3.5e-9)
    ('65,083.50', '0.1183', '1,920.00', '0.00001234', 'nan', '3.5e-09')
    """
    if not abs(value) < 1e15 or 0 < abs(value) < 1e-8:  # not finite, or no price that is paid
        return f"{value:.3g}"
    digits = max(2, 9 - len(str(int(abs(value)))))
    text = f"{value:,.{digits}f}"
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def quantity(value: float) -> str:
    """A quantity in at most nine characters.

    >>> quantity(0.25), quantity(12.5), quantity(1234567.8), quantity(1e-8), quantity(2.5e12)
    ('0.250000', '12.50000', '1,234,568', '1.0e-08', '2.5e+12')
    """
    if not -1e7 < value < 1e8 or 0 < abs(value) < 1e-6:
        return f"{value:.1e}"
    whole = len(str(int(value)))
    return f"{value:,.0f}" if whole > 5 else f"{value:,.{max(0, 7 - max(whole, 1))}f}"


def clock(us: int, digits: int = 0) -> str:
    """The time of day, UTC, with so many digits of a second.

    >>> clock(1_786_309_548_123_456), clock(1_786_309_548_123_456, 3)
    ('21:05:48', '21:05:48.123')
    """
    return format_us(us)[11 : 19 + bool(digits) + digits]


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as bars, right-aligned, scaled to the largest of them; nothing is the lowest bar.

    >>> sparkline([0, 1, 2, 4], 6), sparkline([0, 0], 2), sparkline([1, 2, 3], 2)
    ('  ▁▂▄█', '▁▁', '▆█')
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    bars = "".join(_BARS[min(7, int(value / top * 7.999))] if top > 0 else _BARS[0] for value in shown)
    return bars.rjust(width)
