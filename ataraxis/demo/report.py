"""Run the demo; compare, draw and replay its recording."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ataraxis import screen
from ataraxis.demo import scene as scenes
from ataraxis.demo.detector import spikes
from ataraxis.demo.scene import SPIKES, Scene
from ataraxis.errors import AtaraxisError
from ataraxis.labels import sample_rate
from ataraxis.log.archive import LogArchive
from ataraxis.log.optional import need
from ataraxis.session import Session
from ataraxis.session.events import EVENTS, parsed
from ataraxis.session.playback import replay
from ataraxis.session.rig_run import RigRun
from ataraxis.session.trials import around
from ataraxis.session.verdict import Verdict
from ataraxis.shm.context import Context
from ataraxis.stream import Consumer
from ataraxis.viewer.view import view

# ---- the plot, if matplotlib is installed

KILLED = "recorder_killed"
CHANNELS = 16


def draw(tree: Any, scene: Scene, path: Path) -> None:
    """Draw the recording around the kill of the recorder, in a PNG file at `path`.

    Raises `ModuleNotFoundError` if matplotlib is not installed.
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
    array = tree[stream][stream]
    width = 0.05 if (sample_rate(array.attrs) or 1.0) > 5000 else 2.0
    when, away = _when(tree), np.timedelta64(round(width * 1e9), "ns")
    part = array.sel(time=slice(when - away, when + away))
    values: Any = part.values.reshape(len(part), -1)[:, :CHANNELS]
    values = values - np.nanmedian(values, axis=0)
    step = 6 * float(np.nanstd(values)) or 1.0
    ms = (part.time.values - when) / np.timedelta64(1, "ms")
    axis.plot(ms, values + step * np.arange(values.shape[1]), linewidth=0.5)
    axis.axvline(0, color="black", linestyle=":")
    axis.set(title=f"{stream}: not one sample is missing", yticks=[])
    axis.set_xlabel("ms since the recorder was killed")


def _when(tree: Any) -> Any:
    """Return when the recorder was killed."""
    events = tree[EVENTS]
    at = np.flatnonzero(events["event"].values.astype(str) == KILLED)
    return events["time"].values[at[0]]


def _detected(axis: Any, tree: Any, names: Any) -> None:
    is_one = names == SPIKES
    if not is_one.any():
        return
    found = [parsed(text)["value"] for text in tree[EVENTS]["data"].values[is_one]]
    axis.plot(found, linewidth=0.7)
    axis.set(title="spikes, found while recording", xlabel="block", ylabel="count")


# ---- comparison of the files with the sources, and replay

BATCH_BYTES = 16 << 20
SPEED = 4.0


@dataclass(frozen=True)
class Compared:
    """Result for one stream."""

    samples: int
    """Samples on disk."""
    wrong: int
    """Samples that differ from the source."""


@dataclass(frozen=True)
class Replayed:
    """Result of the replay of a part of the session."""

    frames: int
    """Frames received."""
    wrong: int
    """Frames that differ from the recording, in data or time."""
    seconds: float
    """Length of the part, s."""
    late_s: float
    """Largest delay of a frame, s."""
    spikes: int | None
    """Spikes that the detector found; None without a detector."""
    spikes_then: int | None
    """Spikes that it found during the recording."""

    @property
    def is_same(self) -> bool:
        """Whether the replay equals the recording."""
        return self.frames > 0 and not self.wrong and self.spikes == self.spikes_then


def compare(path: Path, stream: str, truth: Iterator[NDArray[Any]]) -> Compared:
    """Compare a recorded stream with its source, from the first sample on.

    `truth` is the samples of the source, see `Scene.truth`.
    """
    samples = wrong = 0
    rest: NDArray[Any] | None = None
    with LogArchive(path) as archive:
        for rows in _rows(archive, stream):
            first = next(truth, None) if rest is None else rest
            sample = rows.shape[1:] if first is None else first.shape[1:]
            got = rows.reshape(-1, *sample)
            rest, at = first, 0
            while at < len(got) and rest is not None:
                n = min(len(rest), len(got) - at)
                if not np.array_equal(got[at : at + n], rest[:n], equal_nan=True):
                    wrong += _differing(got[at : at + n], rest[:n])
                at += n
                rest = rest[n:] if n < len(rest) else next(truth, None)
            wrong += len(got) - at
            samples += len(got)
    return Compared(samples, wrong)


def _rows(archive: LogArchive, stream: str) -> Iterator[NDArray[Any]]:
    """Yield the frames of a stream, some megabytes at a time."""
    found = archive.select(stream)
    size = int(found.nbytes.max(initial=1))
    step = max(BATCH_BYTES // size, 1)
    for at in range(0, len(found), step):
        yield archive.read(numbers=found.numbers[at : at + step]).data


def _differing(a: NDArray[Any], b: NDArray[Any]) -> int:
    is_same = (a == b) | ((a != a) & (b != b))
    return int(np.count_nonzero(~is_same.reshape(len(a), -1).all(axis=1)))


def play_again(
    path: Path, scene: Scene, context: Context, duration_s: float
) -> Replayed:
    """Replay the middle of a session at 4x, and run the detector on it again."""
    name = scene.main or next(iter(scene.rig.sources))
    with LogArchive(path) as archive:
        times = archive.select(name).time
        # The stream may be much shorter than the session.
        lasted_s = int(np.ptp(times)) * 1e-9 if len(times) else 0.0
        duration_s = min(duration_s, lasted_s)
        part = min(2.0, duration_s / 2)
        start = (duration_s - part) / 2
        if len(times) < _FEW:
            start, part = 0.0, duration_s + 1e-3
        begin = int(times[:1].sum()) + round(start * 1e9)
        span = np.flatnonzero((times >= begin) & (times < begin + round(part * 1e9)))
        numbers = archive.select(name).numbers[span]
        block = archive.read(numbers=numbers) if len(numbers) else None
        counts = _counts(archive) if scene.main else []
    frames = wrong = found = 0
    with replay(
        path, speed=SPEED, context=context, streams=[name], start=start,
        stop=start + part, buffer_count=len(span) + 8,
    ) as again:  # fmt: skip
        reader = Consumer(name, context=context, policy="lossless")
        for frame in reader:
            with frame:
                is_same = block is not None and frames < len(block) and (
                    frame.time_ns == block.time[frames]
                    and frame.array.tobytes() == block.data[frames].tobytes()
                )  # fmt: skip
                wrong += not is_same
                found += spikes(frame.array) if scene.main else 0
            frames += 1
        late = again.lateness()[name].max_s
        reader.close()
    wrong += len(span) - frames if frames < len(span) else 0
    then = sum(counts[k] for k in span if k < len(counts)) if scene.main else None
    return Replayed(frames, wrong, part, late, found if scene.main else None, then)


def _counts(archive: LogArchive) -> list[int]:
    found = archive.read(EVENTS).data
    rows = found[found["event"] == SPIKES]
    return [int(parsed(data)["value"]) for data in rows["data"]]


_FEW = 20
"""With fewer frames, all of them are replayed."""

# ---- the report


class Summary:
    """Shows that nothing is missing, or what is."""

    def __init__(
        self, out: Console, scene: Scene, path: Path, verdict: Verdict, killed: int
    ) -> None:
        self._out, self._scene, self._path = out, scene, path
        self._verdict, self._killed = verdict, killed
        self._compared: dict[str, Compared | None] = {}
        self._replayed: Replayed | None = None
        self._size = sum(f.stat().st_size for f in path.iterdir() if f.is_file())

    def show(self, context: Context, plot: Path) -> None:
        """Compare, open, draw and replay."""
        for name in self._scene.rig.sources:
            truth = self._scene.truth(name)
            found = None if truth is None else compare(self._path, name, truth)
            self._compared[name] = found
        self._out.print(self._table())
        for note in self._verdict.notes:
            if not self._verdict.is_trusted:
                self._out.print(screen.plain(note))
        with xr.open_datatree(self._path, engine="ataraxis") as tree:
            self._opened(tree)
            self._drawn(tree, plot)
        self._replayed = play_again(
            self._path, self._scene, context, self._verdict.duration_s
        )
        self._played(self._replayed)

    def _table(self) -> Table:
        table = Table(title="frames, counted byte by byte", title_justify="left")
        heads = ("stream", "made", "on disk", "missing", "most behind", "as made")
        for head in heads:
            table.add_column(head, justify="left" if head == heads[0] else "right")
        for s in self._verdict.streams:
            good = "green" if s.is_trusted else "red"
            table.add_row(
                screen.plain(s.name), f"{s.expected:,}", f"{s.received:,}",
                Text(f"{s.missing:,}", good), screen.duration(s.longest_lag_s),
                self._comparison(s.name),
            )  # fmt: skip
        return table

    def _comparison(self, stream: str) -> Text:
        """Return how the samples compare with the source."""
        found = self._compared.get(stream)
        if found is None:
            return Text("-")
        if not found.samples:
            return Text("none came", "red")
        if found.wrong:
            return Text(f"{found.wrong:,} of {found.samples:,} WRONG", "red")
        return Text(f"all {found.samples:,} samples", "green")

    def _opened(self, tree: xr.DataTree) -> None:
        self._out.print('xr.open_datatree(session, engine="ataraxis"):')
        for name in self._scene.rig.sources:
            array = tree[name][name]
            sizes = ", ".join(f"{dim}: {n:,}" for dim, n in array.sizes.items())
            self._out.print(f"  {name:<10} {array.dtype} ({sizes})")

    def _drawn(self, tree: xr.DataTree, plot: Path) -> None:
        """Draw the session, which needs no library, and the kill by matplotlib."""
        from ataraxis.viewer.plot import plot as draw_session

        picture = draw_session(self._path, plot.with_suffix(".svg"))
        self._out.print(f"picture: {picture}", markup=False, soft_wrap=True)
        try:
            draw(tree, self._scene, plot)
        except ModuleNotFoundError:
            return  # the picture is there
        self._out.print(f"plot: {plot}", markup=False)

    def _played(self, found: Replayed) -> None:
        text = f"replay: {found.seconds:.3g} s at {SPEED:g}x, {found.frames:,} frames, "
        text += "all as recorded" if not found.wrong else f"{found.wrong:,} WRONG"
        text += f", at most {screen.duration(found.late_s)} late"
        if found.spikes is not None:
            is_same = found.spikes == found.spikes_then
            text += f"; spikes found: {found.spikes:,}, "
            text += "as before" if is_same else f"and {found.spikes_then:,} before"
        self._out.print(text)

    @property
    def is_good(self) -> bool:
        """Whether nothing is missing, and the replay equals the recording."""
        return (
            self._verdict.is_trusted
            and not any(
                found and (found.wrong or not found.samples)
                for found in self._compared.values()
            )
            and self._replayed is not None
            and self._replayed.is_same
        )

    def conclude(self, seconds: float) -> int:
        """Print the last lines; return the exit code."""
        frames = sum(s.received for s in self._verdict.streams)
        missing = sum(s.missing for s in self._verdict.streams)
        text = (
            f"{frames:,} frames, {screen.size(self._size)}, "
            f"{'one recorder killed, ' if self._killed else ''}"
            f"{missing:,} frames missing; {seconds:.0f} s in all"
        )
        good = Text("nothing is missing: ", "bold green")
        bad = Text("NOT AS IT SHOULD BE: ", "bold red")
        self._out.print(good if self.is_good else bad, end="")
        self._out.print(text)
        return int(not self.is_good)


# ---- `run`: the demo, from its first process to its summary

NAME = "demo"
PLOT = "ataraxis-demo.png"
RECORDER = "recorder"
INTERRUPTED = 130
_ROOM = 100 << 20
_LOOK_S = 0.05
_SHOW_S = 0.5
_BACK_S = 20.0


def run(
    seconds: float = 10.0,
    real: Path | None = None,
    output: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo.

    Parameters
    ----------
    seconds : float
        Duration of the recording, s.
    real : Path, optional
        Recording to play instead of simulated devices.
    output : Path, optional
        Where session and plot are kept; by default the plot is written to the current
        directory, and the session is removed.
    console : Console, optional
        Where it is shown; by default the terminal.

    Returns
    -------
    int
        0 if nothing is missing and the replay equals the recording, 1 if not, 130 after
        Ctrl-C. Temporary files are removed in any case.
    """
    out = console or screen.console()
    try:
        with _ended_in_order(), _places(output) as (place, folder):
            return _shown(out, seconds, real, output, place, folder)
    except KeyboardInterrupt:
        out.print("\nended by Ctrl-C; temporary files were removed")
        return INTERRUPTED
    except (AtaraxisError, OSError, ValueError, ModuleNotFoundError) as error:
        out.print(Text(f"the demo cannot go on: {error}", "red"))
        return 1


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does; further signals are ignored."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def end(*_: Any) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, end) for number in signals}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _places(output: Path | None) -> Iterator[tuple[Context, Path]]:
    temporary = tempfile.gettempdir()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    shm = next(
        p for p in ("/dev/shm", temporary)
        if p == temporary or (os.access(p, os.W_OK) and _free(p) > _ROOM)
    )  # fmt: skip
    place = Context.create(Path(shm) / f"ataraxis-demo-{os.getpid()}")
    try:
        folder = output or Path(tempfile.mkdtemp(prefix="ataraxis-demo-"))
        try:
            yield place, folder
        finally:
            if output is None:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(place.path, ignore_errors=True)


def _free(path: str | Path) -> int:
    return shutil.disk_usage(path).free


def _shown(
    out: Console,
    seconds: float,
    real: Path | None,
    output: Path | None,
    place: Context,
    folder: Path,
) -> int:
    began = time.monotonic()
    buffer_s = 2.0 if _free(place.path) > 4 * _ROOM else 0.4
    scene = scenes.simulated(seconds, buffer_s)
    if real is not None:
        scene = scenes.of_recording(real, seconds)
        seconds = scene.seconds
    needed = scene.bytes_s * seconds * 1.2
    if _free(folder) < needed:
        raise OSError(
            f"{screen.size(needed)} are needed in {folder} and "
            f"{screen.size(_free(folder))} are free: use --output or fewer --seconds"
        )
    _introduce(out, scene, seconds, place)
    with Session(NAME, directory=folder, context=place) as session:
        out.print("starting sources, recorder, detector and this table ...")
        rig = session.start(scene.rig)
        with _page(out, place):
            killed = _recorded(out, session, rig, seconds)
    assert session.verdict is not None
    plot = (output or Path.cwd()) / PLOT
    if not os.access(plot.parent, os.W_OK):
        plot = Path(tempfile.gettempdir()) / PLOT
    summary = Summary(out, scene, session.directory, session.verdict, killed)
    summary.show(place, plot)
    if output is not None:
        out.print(f"the session is in {session.directory}", markup=False)
    return summary.conclude(time.monotonic() - began)


def _introduce(out: Console, scene: Scene, seconds: float, place: Context) -> None:
    out.print(Text("ataraxis demo", "bold"), end=": ")
    out.print(f"a rig for {seconds:g} s, in real processes, through {place.path}")
    for name, what in scene.descriptions.items():
        out.print(f"  {name:<10} {screen.plain(what)}")
    if scene.main is not None:
        out.print(f"  {'detector':<10} of spikes, in {scenes.WORKERS} workers")
    out.print(f"  {RECORDER:<10} a separate process, which will be killed half-way")
    for note in scene.notes:
        out.print(f"  {screen.plain(note)}")


@contextlib.contextmanager
def _page(out: Console, place: Context) -> Iterator[None]:
    """Serve a live page of the streams, and print its link; without the extra, say so.

    No browser is started, and nothing waits for one: the demo is the same without it.
    """
    with contextlib.ExitStack() as stack:
        try:
            link = stack.enter_context(view(context=place)).url
        except (AtaraxisError, OSError, RuntimeError, ModuleNotFoundError) as error:
            out.print(f"no live page: {error}", markup=False)
        else:
            out.print(f"look at it until it ends: {link}", markup=False, soft_wrap=True)
        yield


class _Table:
    """Progress of the recording: a live table in a terminal, else some lines."""

    def __init__(self, out: Console, context: Context, seconds: float) -> None:
        self._out, self._seconds = out, seconds
        self._watch = screen.Watch(context, _SHOW_S)
        self._shown = 0.0
        self._live = (
            Live(console=out, auto_refresh=False, transient=True)
            if out.is_terminal else None
        )  # fmt: skip

    def __enter__(self) -> _Table:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, elapsed: float) -> None:
        """Update the table, twice a second."""
        if self._live is None or elapsed - self._shown < _SHOW_S:
            return
        self._shown = elapsed
        bar = ProgressBar(self._seconds, min(elapsed, self._seconds), width=60)
        self._live.update(Group(self._watch.look(), bar), refresh=True)

    def say(self, elapsed: float, text: str) -> None:
        """Print a line above the table."""
        self._out.print(f"{elapsed:5.1f} s: {text}")


def _recorded(out: Console, session: Session, rig: RigRun, seconds: float) -> int:
    """Record, and kill the recorder half-way; return how often it was killed."""
    victim, is_back = 0, False
    began = time.monotonic()
    with _Table(out, session.context, seconds) as table:
        table.say(0.0, "recording")
        while True:
            elapsed = time.monotonic() - began
            if not victim and elapsed > seconds / 2:
                victim = _killed(session)
                table.say(elapsed, f"{RECORDER} (pid {victim}) killed by SIGKILL")
            elif victim and not is_back and _is_back(session, victim):
                is_back = True
                pid = session.recorders[RECORDER]
                table.say(elapsed, f"{RECORDER} is back (pid {pid}), where it was")
            is_waiting = victim and not is_back and elapsed < seconds + _BACK_S
            is_over = not rig.look() or elapsed > seconds
            table.show(elapsed)
            if is_over and not is_waiting:
                break
            time.sleep(_LOOK_S)
        table.say(elapsed, "over")
    rig.stop()
    return int(victim > 0)


def _killed(session: Session) -> int:
    pid: int = session.recorders[RECORDER]
    session.event(KILLED, pid=pid)
    os.kill(pid, signal.SIGKILL)
    return pid


def _is_back(session: Session, victim: int) -> bool:
    if session.recorders[RECORDER] == victim:
        return False
    found = session.statistics()
    return any(found[n].is_recording for n in session.streams if n != "events")
