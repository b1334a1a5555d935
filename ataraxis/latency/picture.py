"""The tails of measured latencies, drawn with matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.latency.bench import LatencyResult
from ataraxis.log.optional import need

TITLES = {
    "ring": "ring to reader",
    "pipe": "pipe and back",
    "serial": "pipe, serial loop and back",
    "lsl": "pipe, LSL loop and back",
}
_POINTS = 400


def check(path: str | os.PathLike[str]) -> None:
    """Raise if a picture could not be drawn at `path`, before anything is measured.

    Raises `ModuleNotFoundError` without matplotlib, and `OSError` or `ValueError` for a
    path that cannot be written.
    """
    need("matplotlib", "plot", "the picture")
    where = Path(path)
    if where.suffix.lower() != ".png":
        raise ValueError(f"the picture {str(where)!r} must end in .png")
    folder = where.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"the picture {str(where)!r}: cannot write into {str(folder)!r}")


def tail(
    latency_ns: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what share of the events took at least how long.

    Parameters
    ----------
    latency_ns : ndarray of int64
        Latencies, ns, in any order.

    Returns
    -------
    latency_ns : ndarray of int64
        At most some hundred of them, ascending; the smallest and the largest are there.
    share : ndarray of float64
        Share of the events that took this long or longer.

    Examples
    --------
    >>> tail(np.array([30, 10, 20, 40]))
    (array([10, 20, 30, 40]), array([1.  , 0.75, 0.5 , 0.25]))
    """
    ordered = np.sort(latency_ns)
    count = len(ordered)
    # Evenly spaced on the logarithmic axis of the share.
    left = np.unique(np.geomspace(1, max(count, 1), _POINTS).round().astype(np.int64))
    left = left[::-1][: count or None] if count else left[:0]
    return ordered[count - left], left / max(count, 1)


def draw(results: Sequence[LatencyResult], path: str | os.PathLike[str]) -> None:
    """Draw the tails of some results into a PNG file.

    Raises as `check`.

    Examples
    --------
    >>> import tempfile
    >>> found = LatencyResult("ring", None, None, 3, np.array([900, 800, 70_000]))
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     draw([found], Path(folder) / "tail.png")
    """
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    colours = {name: f"C{k}" for k, name in enumerate(TITLES)}
    for result in results:
        if not len(result.latency_ns):
            continue
        latency_ns, share = tail(result.latency_ns)
        pinned = "" if result.cpus is None else f", CPUs {_text(result.cpus)}"
        axes.plot(
            latency_ns * 1e-3, share, color=colours[result.path],
            linestyle="-" if result.cpus is None else "--", drawstyle="steps-post",
            label=f"{TITLES[result.path]}{pinned}",
        )  # fmt: skip
    for label, level in (("p50", 0.5), ("p99", 0.01), ("p99.9", 0.001)):
        axes.axhline(level, color="0.8", linewidth=0.7, zorder=0)
        axes.annotate(
            label, (1, level), (3, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize="small",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="latency, us")
    axes.set_ylabel("share of events that took longer")
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path))


def _text(cpus: tuple[int, int]) -> str:
    return f"{cpus[0]} and {cpus[1]}"
