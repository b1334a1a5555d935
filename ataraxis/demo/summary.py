"""Summary: what became of the demo, judged, drawn, replayed, and told."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ataraxis import screen
from ataraxis.demo.plot import draw
from ataraxis.demo.proof import SPEED, Compared, Replayed, compare, play_again
from ataraxis.demo.scene import Scene
from ataraxis.session.verdict import Verdict
from ataraxis.shm.context import Context


class Summary:
    """Shows that nothing is missing, or what is.

    Parameters
    ----------
    out : Console
        Where.
    scene : Scene
        What was recorded.
    path : Path
        Directory of the session.
    verdict : Verdict
        What became of it.
    killed : int
        How often its recorder was killed.
    """

    def __init__(
        self,
        out: Console,
        scene: Scene,
        path: Path,
        verdict: Verdict,
        killed: int,
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
                self._said(s.name),
            )  # fmt: skip
        return table

    def _said(self, stream: str) -> Text:
        """Say how samples compare with what the source made."""
        found = self._compared.get(stream)
        if found is None:
            return Text("-")
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
        try:
            draw(tree, self._scene, plot)
        except ModuleNotFoundError as error:
            self._out.print(f"no plot: {error}", markup=False)
        else:
            self._out.print(f"plot: {plot}", markup=False)

    def _played(self, found: Replayed) -> None:
        told = f"replay: {found.seconds:.3g} s at {SPEED:g}x, {found.frames:,} frames, "
        told += "all as they were" if not found.wrong else f"{found.wrong:,} WRONG"
        told += f", at most {screen.duration(found.late_s)} late"
        if found.spikes is not None:
            is_same = found.spikes == found.spikes_then
            told += f"; spikes found: {found.spikes:,}, "
            told += "as then" if is_same else f"and {found.spikes_then:,} then"
        self._out.print(told)

    @property
    def is_good(self) -> bool:
        """Whether nothing is missing, and everything came back as it was."""
        return (
            self._verdict.is_trusted
            and not any(found and found.wrong for found in self._compared.values())
            and self._replayed is not None
            and self._replayed.is_same
        )

    def conclude(self, seconds: float) -> int:
        """Print the last lines; the exit code."""
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
