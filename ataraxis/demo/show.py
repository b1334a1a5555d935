"""`run`: the demo, from its first process to its summary."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from ataraxis import screen
from ataraxis.demo import scene as scenes
from ataraxis.demo.report import KILLED, Summary
from ataraxis.demo.scene import Scene
from ataraxis.errors import AtaraxisError
from ataraxis.session import Session
from ataraxis.session.rig_run import RigRun
from ataraxis.shm.context import Context

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
        How long to record.
    real : Path, optional
        Record this recording instead of simulated devices.
    output : Path, optional
        Keep session and plot there; else the plot goes to the current directory, and
        the session is removed.
    console : Console, optional
        Where it is shown; the terminal, if not given.

    Returns
    -------
    int
        0 if nothing is missing and everything came back as it was, 1 if not, 130 after
        Ctrl-C. Nothing is left behind in any case.
    """
    out = console or screen.console()
    try:
        with _ended_in_order(), _places(output) as (place, folder):
            return _shown(out, seconds, real, output, place, folder)
    except KeyboardInterrupt:
        out.print("\nended by Ctrl-C; nothing is left behind")
        return INTERRUPTED
    except (AtaraxisError, OSError, ValueError, ModuleNotFoundError) as error:
        out.print(Text(f"the demo cannot go on: {error}", "red"))
        return 1


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does; a second one does not disturb that."""
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
    """Lend a context and a directory; what is in them goes at the end."""
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
    with Session(NAME, directory=folder, subject="nobody", context=place) as session:
        out.print("starting sources, recorder, detector and this table ...")
        rig = session.start(scene.rig)
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
    for name, what in scene.told.items():
        out.print(f"  {name:<10} {screen.plain(what)}")
    if scene.main is not None:
        out.print(f"  {'detector':<10} of spikes, in {scenes.WORKERS} workers")
    out.print(f"  {RECORDER:<10} a process of its own, which will be killed half-way")
    for note in scene.notes:
        out.print(f"  {screen.plain(note)}")


class _Table:
    """What is seen while it records: in a terminal live, else a line now and then."""

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
        """Show it, twice a second."""
        if self._live is None or elapsed - self._shown < _SHOW_S:
            return
        self._shown = elapsed
        bar = ProgressBar(self._seconds, min(elapsed, self._seconds), width=60)
        self._live.update(Group(self._watch.look(), bar), refresh=True)

    def say(self, elapsed: float, text: str) -> None:
        """Print a line above the table."""
        self._out.print(f"{elapsed:5.1f} s: {text}")


def _recorded(out: Console, session: Session, rig: RigRun, seconds: float) -> int:
    """Record, and kill the recorder half-way; how often it was killed."""
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
    """Kill the recorder, and note when."""
    pid: int = session.recorders[RECORDER]
    session.event(KILLED, pid=pid)
    os.kill(pid, signal.SIGKILL)
    return pid


def _is_back(session: Session, victim: int) -> bool:
    if session.recorders[RECORDER] == victim:
        return False
    found = session.statistics()
    return any(found[n].is_recording for n in session.streams if n != "events")
