"""`ataraxis demo`: it tells the truth, and leaves nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from deadline import wait_until
from rich.console import Console

from ataraxis import Producer, Session
from ataraxis.clock import Anchor
from ataraxis.datamux import open_recordings
from ataraxis.demo import report, scene
from ataraxis.demo.report import Compared, Replayed, Summary, compare
from ataraxis.demo.scene import of_recording
from ataraxis.errors import RecordingError
from ataraxis.session.verdict import StreamVerdict, Verdict

SHM = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")


def command(*arguments: object) -> list[str]:
    code = "import sys; from ataraxis.cli import main; main()"
    return [
        sys.executable,
        "-P",
        "-W",
        "error",
        "-c",
        code,
        "demo",
        *map(str, arguments),
    ]


def left(pid: int) -> list[str]:
    """What is left of a demo: its context, and processes that have it."""
    place = f"ataraxis-demo-{pid}"
    found = [str(p) for p in SHM.glob(place)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (
                process / "cmdline"
            ).read_bytes()
        except OSError:
            continue
        if place.encode() in text:
            found.append(f"process {process.name}")
    return found


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs put temporary files: in the end nothing may be there."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    return path


def ran(folder: Path, *arguments: object) -> tuple[int, str]:
    """Exit code and output of a demo, of which nothing is left."""
    process = subprocess.Popen(
        command(*arguments), cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=170)
    finally:
        process.kill()
    assert left(process.pid) == []
    return process.returncode, output


def test_the_demo_records_kills_compares_and_replays(
    tmp_path: Path, temporary: Path
) -> None:
    code, output = ran(tmp_path, "--seconds", 2)
    assert code == 0, output
    for words in (
        "killed by SIGKILL", "is back", "0 frames missing", "all as recorded",
        "nothing is missing", "int16 (time:",
    ):  # fmt: skip
        assert words in output
    assert list(temporary.iterdir()) == []
    kept = {report.PLOT, "ataraxis-demo.svg", "temporary"}
    assert {p.name for p in tmp_path.iterdir()} <= kept


@pytest.mark.slow
def test_the_demo_prints_the_link_of_its_live_page(
    tmp_path: Path, temporary: Path
) -> None:
    pytest.importorskip("websockets", reason="no websockets: there is no page")
    process = subprocess.Popen(
        command("--seconds", 4), cwd=tmp_path, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=without_a_display(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        link = next(line for line in process.stdout if "http://" in line).split()[-1]
        token = parse_qs(urlsplit(link).query)["token"][0]
        with urlopen(link, timeout=20) as page:
            assert page.status == 200
        assert [pid for pid, text in command_lines() if token in text] == []
        output, _ = process.communicate(timeout=170)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "nothing is missing" in output
    assert left(process.pid) == []
    with pytest.raises(OSError, match="refused"):
        urlopen(link, timeout=20)


@pytest.mark.slow
def test_without_the_extra_the_demo_says_what_its_page_needs(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "websockets.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, output = ran(tmp_path, "--seconds", 0.5)
    assert code == 0, output
    assert "no live page: " in output
    assert 'pip install "ataraxis[view]"' in output


def without_a_display() -> dict[str, str]:
    return {
        k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")
    }


def command_lines() -> Iterator[tuple[str, str]]:
    """Process id and command line of every process."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (
                process.name,
                (process / "cmdline").read_bytes().decode(errors="replace"),
            )


def test_a_recording_of_ones_own_is_played_and_the_session_kept(
    tmp_path: Path, temporary: Path
) -> None:
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "mine.npz", v=rng.normal(size=(3000, 4)), rate_hz=1000.0)
    kept = tmp_path / "kept"
    code, output = ran(
        tmp_path, "--seconds", 60, "--real", tmp_path / "mine.npz", "-o", kept
    )
    assert code == 0, output
    # It ends after as long as the recording lasts: the last frame may be under way.
    found = re.search(r"all ([\d,]+) samples", output)
    assert found, output
    assert 2800 <= int(found[1].replace(",", "")) <= 3000
    (recording,) = [
        r for name, r in open_recordings(kept / "demo").items() if name == "mine"
    ]
    assert recording.stream.rate_hz == 1000
    assert list(temporary.iterdir()) == []


def test_what_cannot_be_recorded_is_said(tmp_path: Path, temporary: Path) -> None:
    code, output = ran(tmp_path, "--real", tmp_path / "none.xdf")
    assert code == 1
    assert "cannot go on" in output
    np.savez(tmp_path / "text.npz", v=np.array(["a", "b"]), rate_hz=1.0)
    with pytest.raises(ValueError, match="text"):
        of_recording(tmp_path / "text.npz", 1)
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(RecordingError, match="damaged"):
        of_recording(tmp_path / "broken.npz", 1)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing(
    sent: signal.Signals, tmp_path: Path, temporary: Path
) -> None:
    process = subprocess.Popen(
        command("--seconds", 100), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any("recording" in line for line in process.stdout)
        assert len(left(process.pid)) >= 5  # context, three sources, recorder
        for _ in range(3):  # as the impatient do
            process.send_signal(sent)
            time.sleep(0.01)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == report.INTERRUPTED, output
    assert "temporary files were removed" in output
    assert "Traceback" not in output
    wait_until(lambda: not left(process.pid))
    assert list(temporary.iterdir()) == []


def test_the_arrays_are_shown_too(tmp_path: Path, temporary: Path) -> None:
    code, output = ran(tmp_path, "--arrays")
    assert code == 0, output
    assert "OwnerDied" in output


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "ataraxis\[plot\]"'):
        report.draw(None, None, tmp_path / "x.png")  # type: ignore[arg-type]


# ---- the proof proves


def pieces(*sizes: int) -> Iterator[np.ndarray]:
    at = 0
    for size in sizes:
        yield np.arange(at, at + size, dtype="i4")[:, None]
        at += size


def test_a_difference_is_found_wherever_it_is(tmp_path: Path) -> None:
    with Producer("x", shape=(5, 1), dtype="i4", buffer_count=64) as producer:
        with Session("s", directory=tmp_path) as session:
            session.record("x")
            for k in range(20):
                producer.send(np.arange(5 * k, 5 * k + 5, dtype="i4")[:, None])
        producer.unlink()
    path = tmp_path / "s"
    assert compare(path, "x", pieces(100)) == Compared(100, 0)
    assert compare(path, "x", pieces(7, 1, 80, 50)) == Compared(100, 0)
    assert compare(path, "x", pieces(60)) == Compared(100, 40)
    other = (piece + (piece == 42) for piece in pieces(30, 70))
    assert compare(path, "x", other) == Compared(100, 1)


def test_the_exit_code_says_whether_all_is_well(tmp_path: Path) -> None:
    what = scene.simulated(1, 0.1)
    good = Verdict(True, 1.0, Anchor.take(), [StreamVerdict("probe", 3, 3)])
    bad = Verdict(False, 1.0, Anchor.take(), [StreamVerdict("probe", 3, 2, 1)])
    same = Replayed(3, 0, 1.0, 0.0, 7, 7)
    for verdict, compared, replayed, code in (
        (good, Compared(3, 0), same, 0),
        (bad, Compared(3, 0), same, 1),
        (good, Compared(3, 1), same, 1),
        (good, Compared(3, 0), Replayed(3, 1, 1.0, 0.0, 7, 7), 1),
        (good, Compared(3, 0), Replayed(3, 0, 1.0, 0.0, 6, 7), 1),
        (good, Compared(3, 0), Replayed(0, 0, 1.0, 0.0, 0, 0), 1),
        (good, Compared(3, 0), None, 1),
    ):
        with open(tmp_path / "output", "w") as file:
            summary = Summary(Console(file=file), what, tmp_path, verdict, 1)
            summary._compared, summary._replayed = {"probe": compared}, replayed
            assert summary.conclude(1.0) == code
