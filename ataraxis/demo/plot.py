"""The plot of the demo, by matplotlib if it is installed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.demo.scene import SPIKES, Scene
from ataraxis.log.optional import need
from ataraxis.session.events import EVENTS, parsed
from ataraxis.session.trials import STAMP, around

KILLED = "recorder_killed"
CHANNELS = 16


def draw(tree: Any, scene: Scene, path: Path) -> None:
    """Draw what was recorded around the moment when the recorder was killed.

    Parameters
    ----------
    tree : xarray.DataTree
        The session.
    scene : Scene
        What was recorded.
    path : Path
        The picture, PNG; replaced if it is there.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed: what to type.
    """
    need("matplotlib", "plot", "the plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = tree[EVENTS]["event"].values.astype(str)
    was_killed = KILLED in names
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    if scene.main is not None and was_killed:
        _traces(axes[0, 0], tree, scene.main)
    if "camera" in tree.children and was_killed:
        picture = around(tree, KILLED, 0.0, 0.05, streams=["camera"])
        pixels: Any = picture["camera"]["camera"].values
        axes[0, 1].imshow(pixels[0, 0], cmap="gray")
        axes[0, 1].set_title("camera, when the recorder was killed")
    _detected(axes[1, 0], tree, names)
    if "telemetry" in tree.children:
        busy = tree["telemetry"]["telemetry"]
        axes[1, 1].plot(np.arange(len(busy)) / 10, busy.values.reshape(len(busy), -1))
        axes[1, 1].set(title="processors", xlabel="s", ylabel="%")
    for axis in axes.flat:
        if not axis.has_data():
            axis.set_visible(False)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path))


def _traces(axis: Any, tree: Any, stream: str) -> None:
    """Draw the channels, one above the other, sample by sample."""
    array = tree[stream][stream]
    rate = array.attrs.get("sample_rate_hz") or array.attrs.get("rate_hz") or 1.0
    count = array.sizes["time"] if array.dims[0] != "time" else 1
    width = math.ceil((0.05 if rate > 5000 else 2.0) * rate / count)
    stamps = array[STAMP].values
    at = int(np.searchsorted(stamps, _when(tree)))
    part = array[max(at - width, 0) : at + width].values
    values: Any = part.reshape(part.shape[0] * count, -1)[:, :CHANNELS]
    values = values - np.nanmedian(values, axis=0)
    step = 6 * float(np.nanstd(values)) or 1.0
    ms = (np.arange(len(values)) - min(at, width) * count) / rate * 1e3
    axis.plot(ms, values + step * np.arange(values.shape[1]), linewidth=0.5)
    axis.axvline(0, color="black", linestyle=":")
    axis.set(title=f"{stream}: not one sample is missing", yticks=[])
    axis.set_xlabel("ms since the recorder was killed")


def _when(tree: Any) -> int:
    """Return when the recorder was killed, monotonic ns."""
    events = tree[EVENTS]
    at = np.flatnonzero(events["event"].values.astype(str) == KILLED)
    return int(events[STAMP].values[at[0]])


def _detected(axis: Any, tree: Any, names: Any) -> None:
    """Draw what the detector found."""
    is_one = names == SPIKES
    if not is_one.any():
        return
    found = [parsed(text)["value"] for text in tree[EVENTS]["data"].values[is_one]]
    axis.plot(found, linewidth=0.7)
    axis.set(title="spikes, found while recording", xlabel="block", ylabel="count")
