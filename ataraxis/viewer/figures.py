"""Figures of a report: SVG in the colours of its page, without script or request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.card import plain, span

COLOURS = """
:root{color-scheme:light dark;--t:#1b1b2a;--m:#64648a;--g:#fff;--p:#f4f6f8;--l:#dfe1ea;
--rate:#7fb0e8;--good:#0a7a44;--goodp:#d8f3e2;--bad:#b3261e;--badp:#fbe0dd}
@media screen and (prefers-color-scheme:dark){:root{--t:#e8e8f2;--m:#a0a0c0;--g:#15151f;
--p:#1e1e2b;--l:#33334a;--rate:#4d83c4;--good:#7fe0ab;--goodp:#123822;--bad:#ff9d94;
--badp:#4a1a17}}
@media print{:root{color-scheme:light}}
"""
"""Colours of a page of figures; it is printed in the light ones."""
FIGURES = """
svg text{font:11px system-ui,sans-serif;fill:var(--m)}.rate{fill:var(--rate)}
.event{fill:#d28c3c;fill-opacity:.55}.gap{fill:#d92b2b;fill-opacity:.7}.wait{fill:#e0a100}
.note{fill:#8a5cd6}.point{stroke:var(--t);stroke-width:1.6;fill:none}
"""
WIDE = 1000
_LEFT, _LANE = 120, 34
_BINS = 480
_FEW = 60
"""Fewer frames are drawn one by one."""
_RASTER = 200
Floats = NDArray[np.float64]


class Mark(NamedTuple):
    """A moment or a stretch of a lane."""

    start_s: float
    stop_s: float
    kind: str
    """``event``, ``gap``, ``wait`` or ``note``: its style."""
    text: str


class Lane(NamedTuple):
    """One stream over the whole recording."""

    name: str
    times_s: Floats
    """When its frames came, s since the beginning, in order."""
    marks: Sequence[Mark]


def _svg(wide: float, high: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{plain(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _ticks(length_s: float, count: int = 5) -> list[float]:
    return [length_s * k / (count - 1) for k in range(count)]


def _axis(
    left: float, scale: float, y: float, length_s: float, first_s: float = 0.0
) -> list[str]:
    """Return five times below a figure; the outer ones stay inside."""
    anchors = ("start", "middle", "middle", "middle", "end")
    return [
        _text(left + tick * scale, y, _said(tick + first_s), anchor)
        for tick, anchor in zip(_ticks(length_s), anchors, strict=True)
    ]


def _said(seconds: float) -> str:
    if abs(seconds) < 1e-9:
        return "0 s"
    return span(seconds) if seconds > 0 else f"−{span(-seconds)}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{plain(text, 40)}</text>'
    )


def timeline(
    lanes: Sequence[Lane], length_s: float, events: Sequence[Mark] = ()
) -> str:
    """Return the lanes of streams: how many frames came, and what happened.

    Events are lines over all lanes.
    """
    length_s = max(length_s, 1e-9)
    high = _LANE * len(lanes) + 22
    scale = (WIDE - _LEFT - 10) / length_s
    parts = []
    for row, lane in enumerate(lanes):
        base = _LANE * (row + 1) - 6
        parts.append(_text(_LEFT - 8, base - 8, lane.name, "end"))
        # Of few frames wide bins: else each frame is a spike.
        bins = int(np.clip(len(lane.times_s) / 3, 12, _BINS))
        edges = np.linspace(0, length_s, bins + 1)
        counts, _ = np.histogram(lane.times_s, edges)
        top = max(float(np.quantile(counts, 0.98)) if len(counts) else 0.0, 1.0)
        if len(lane.times_s) < _FEW:
            ticks = "".join(
                f"M{_LEFT + t * scale:.1f} {base}v-{_LANE - 16}h1.6v{_LANE - 16}z"
                for t in lane.times_s
            )
            parts.append(f'<path class="rate" d="{ticks}"/>')
            counts = counts * 0
        up = np.minimum(counts / top, 1.3) * (_LANE - 16)
        x = _LEFT + (edges[:-1] + length_s / bins / 2) * scale
        shape = "".join(f"L{a:.1f} {base - b:.1f}" for a, b in zip(x, up, strict=True))
        parts.append(
            f'<path class="rate" d="M{_LEFT} {base}{shape}L{x[-1]:.1f} {base}z"/>'
        )
        for mark in lane.marks:
            left = _LEFT + min(max(mark.start_s, 0), length_s) * scale
            wide = max((mark.stop_s - mark.start_s) * scale, 1.2)
            tip = f"<title>{plain(mark.text)}</title>"
            parts.append(
                f'<rect class="{mark.kind}" x="{left:.1f}" y="{base - _LANE + 8}" '
                f'width="{wide:.1f}" height="{_LANE - 8}">{tip}</rect>'
            )
    tall = _LANE * len(lanes) - 6
    for mark in events:
        left = _LEFT + min(max(mark.start_s, 0), length_s) * scale
        parts.append(
            f'<rect class="event" x="{left:.1f}" y="2" width="1" '
            f'height="{tall}"><title>{plain(mark.text)}</title></rect>'
        )
    parts += _axis(_LEFT, scale, high - 6, length_s)
    return _svg(WIDE, high, "when frames came, by stream", parts)


def intervals(times_s: Floats) -> str:
    """Return how often each time between frames came, on a logarithmic axis."""
    steps = np.diff(times_s)
    steps = steps[steps > 0]
    if len(steps) < 2:
        return ""
    low = np.floor(np.log10(max(float(steps.min()), 1e-7)))
    high = max(np.ceil(np.log10(max(float(steps.max()), 1e-7))), low + 1)
    counts, _ = np.histogram(np.log10(steps), 80, (low, high))
    tall = np.log1p(counts) / np.log1p(counts.max()) * 30
    wide = 260
    bars = "".join(
        f"M{k * wide / 80:.1f} 34v-{h:.1f}h{wide / 80 - 0.6:.1f}v{h:.1f}z"
        for k, h in enumerate(tall)
        if h > 0
    )
    powers = np.arange(low, high + 1)
    marks = [
        _text((p - low) / (high - low) * wide, 45, span(10.0**p), anchor)
        for p, anchor in zip(
            powers, ("start", *["middle"] * (len(powers) - 2), "end"), strict=True
        )
    ]
    label = f"time between frames: {span(float(np.median(steps)))} in the middle"
    return _svg(wide, 48, label, [f'<path class="rate" d="{bars}"/>', *marks])


def traces(
    low: Floats,
    high: Floats,
    is_there: NDArray[np.bool_],
    names: Sequence[str],
    length_s: float,
    marks: Sequence[Mark] = (),
    first_s: float = 0.0,
) -> str:
    """Return channels below each other; columns that are not there are left open.

    Parameters
    ----------
    low, high : ndarray
        Shape (columns, channels).
    is_there : bool array
        Of each column.
    names : sequence of str
        Of the channels.
    length_s : float
        Of all columns, s.
    marks : sequence of Mark
        Events, s since the first column.
    first_s : float
        Time of the first column on the axis, s.
    """
    columns, channels = low.shape
    step = max(11.0, min(90.0, 420 / max(channels, 1)))
    high_px = step * channels + 26
    x = _LEFT + (np.arange(columns) + 0.5) * (WIDE - _LEFT - 10) / max(columns, 1)
    middle = np.median((low + high)[is_there], 0) / 2 if is_there.any() else low[0]
    reach = _reach(low, high, is_there)
    parts = []
    for channel in range(channels):
        base = step * (channel + 0.7)
        if channel % max(1, channels // 32) == 0:
            parts.append(_text(_LEFT - 8, base + 3, names[channel], "end"))
        hue = 165 + 130 * channel / max(channels - 1, 1)
        path = []
        for start, stop in _stretches(is_there):
            part = slice(start, stop)
            up = base - (high[part, channel] - middle[channel]) / reach * step
            down = base - (low[part, channel] - middle[channel]) / reach * step
            down = np.maximum(down, up + 0.9)
            over = "L".join(
                f"{a:.1f} {b:.1f}" for a, b in zip(x[part], up, strict=True)
            )
            under = "L".join(
                f"{a:.1f} {b:.1f}"
                for a, b in zip(x[part][::-1], down[::-1], strict=True)
            )
            path.append(f"M{over}L{under}z")
        parts.append(f'<path fill="oklch(0.6 0.13 {hue:.0f})" d="{"".join(path)}"/>')
    for mark in marks:
        at = _LEFT + mark.start_s / max(length_s, 1e-9) * (WIDE - _LEFT - 10)
        parts.append(
            f'<rect class="{mark.kind}" x="{at:.1f}" y="0" width="1.4" '
            f'height="{high_px - 20:.0f}"><title>{plain(mark.text)}</title></rect>'
        )
        parts.append(_text(at + 3, 9, mark.text))
    scale = (WIDE - _LEFT - 10) / max(length_s, 1e-9)
    parts += _axis(_LEFT, scale, high_px - 6, length_s, first_s)
    return _svg(WIDE, high_px, f"{channels} channels over {span(length_s)}", parts)


def trials(points: Sequence[Floats], rate_hz: Floats, edges_s: Floats) -> str:
    """Return the points of each trial as a raster, and their mean rate below it.

    Parameters
    ----------
    points : sequence of ndarray
        For each trial, s since its event.
    rate_hz : ndarray
        Mean rate in each bin, shape (bins,), Hz.
    edges_s : ndarray
        Edges of the bins, s since the event, shape (bins + 1,).
    """
    step = max(1, -(-len(points) // _RASTER))
    shown = points[::step]
    row = float(np.clip(300 / max(len(shown), 1), 2, 14))
    floor, tall = row * len(shown) + 4, 70.0
    first, length = float(edges_s[0]), float(edges_s[-1] - edges_s[0])
    scale = (WIDE - _LEFT - 10) / length
    marks = "".join(
        f"M{_LEFT + (t - first) * scale:.1f} {k * row + 0.5:.1f}v{row - 0.8:.1f}"
        for k, trial in enumerate(shown)
        for t in np.asarray(trial).tolist()
    )
    most = float(rate_hz.max(initial=0)) or 1.0
    base = floor + tall + 8
    width = length / max(len(rate_hz), 1) * scale
    bars = "".join(
        f"M{_LEFT + k * width:.1f} {base:.1f}v-{v / most * tall:.1f}h{width - 0.6:.1f}"
        f"v{v / most * tall:.1f}z"
        for k, v in enumerate(rate_hz.tolist())
        if v > 0
    )
    at = _LEFT - first * scale
    said = f"{len(points):,} trials" + (f", each {step}th" if step > 1 else "")
    parts = [
        f'<path class="point" d="{marks}"/>', f'<path class="rate" d="{bars}"/>',
        f'<rect class="event" x="{at:.1f}" y="0" width="1.4" height="{base:.0f}"/>',
        _text(_LEFT - 8, 12, said, "end"), _text(_LEFT - 8, base, "0 Hz", "end"),
        _text(_LEFT - 8, base - tall + 8, f"{most:.3g} Hz", "end"),
        *_axis(_LEFT, scale, base + 14, length, first),
    ]  # fmt: skip
    return _svg(WIDE, base + 20, f"{said}; at most {most:.3g} Hz", parts)


def _reach(low: Floats, high: Floats, is_there: NDArray[np.bool_]) -> float:
    """Return what the distance of two channels stands for: most of most channels."""
    if not is_there.any():
        return 1.0
    spread = np.quantile(high[is_there], 0.95, 0) - np.quantile(low[is_there], 0.05, 0)
    tall = float(np.quantile((high - low)[is_there], 0.98))
    return max(float(np.median(spread)), tall) or 1.0


def _stretches(is_there: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_there, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
