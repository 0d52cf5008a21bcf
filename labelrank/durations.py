"""Durations in words."""


def rough_duration(seconds: float) -> str:
    """Return an estimated duration, no finer than it can be known."""
    if seconds < 8:
        return "a few seconds"
    if seconds < 55:
        return f"{5 * round(seconds / 5)} s"
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:,.0f} h"
