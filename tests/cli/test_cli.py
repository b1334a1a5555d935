"""The command line: ls, top, gc, doctor; what they see, without an effect."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import workers_cli as workers
from click.testing import CliRunner
from deadline import wait_until
from places import ROOT
from rich.console import Console

from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray, screen
from ataraxis._kernels import snapshot
from ataraxis.cli import main
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.pipeline.statistics import RunStatistics
from ataraxis.screen import duration, plain, size
from ataraxis.shm import doctor as clinic
from ataraxis.shm.context import Context
from ataraxis.shm.doctor import check_futex, check_locks
from ataraxis.shm.gc import YOUNG_S, collect
from ataraxis.stream import inspector as control
from ataraxis.stream.inspector import Inspector, Meter

spawn = multiprocessing.get_context("spawn")
LAYOUT = (ROOT / "ataraxis" / "_kernels" / "include" / "layout.h").read_text()
SIZES = {"ax_u64": 8, "uint64_t": 8, "ax_u32": 4, "uint32_t": 4, "char": 1}


@contextlib.contextmanager
def running(target: Any, *arguments: Any, stop: Any = None, **more: Any):
    """A worker that is ready; killed at the end if it still runs."""
    ready = spawn.Event()
    before = (ready,) if stop is None else (ready, stop)
    process = spawn.Process(target=target, args=(*arguments, *before), kwargs=more)
    process.start()
    try:
        assert ready.wait(30)
        yield process
        if stop is not None:
            stop.set()
            process.join(30)
            assert process.exitcode in (0, -signal.SIGKILL)  # the test killed it
    finally:
        process.kill()
        process.join()
        process.close()


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def call_json(*arguments: str, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--json", code=code))


def command(*arguments: str) -> list[str]:
    code = "from ataraxis.cli import main; main()"
    return [sys.executable, "-P", "-W", "error", "-c", code, *arguments]


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- what is read is what layout.h draws


def offsets(name: str) -> dict[str, int]:
    """Offsets of a struct as a C compiler lays it out."""
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {name};", LAYOUT)
    assert body
    found, at = {}, 0
    for declared in re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL).split(";"):
        aligned = re.search(r"_Alignas\((\d+)\)", declared)
        text = re.sub(r"_Alignas\(\d+\)", "", declared).strip()
        match = re.fullmatch(r"(\w+) (\w+)(?:\[(\w+)\])?", text)
        if not match or match[1] not in SIZES:
            continue
        count = {"AX_MASK_WORDS": 16, "64": 64, None: 1}[match[3]]
        step = int(aligned[1]) if aligned else SIZES[match[1]]
        at = -(-at // step) * step
        found[match[2]] = at
        at += SIZES[match[1]] * count
    return found


def test_offsets_are_those_of_the_kernels():
    stream, reader = offsets("ax_stream"), offsets("ax_reader")
    assert {k: stream[k] for k in control.STREAM} == control.STREAM
    assert {k: reader[k] for k in control.READER} == control.READER
    assert f"sizeof(ax_stream) == {control.STREAM_BYTES}" in LAYOUT
    assert f"sizeof(ax_reader) == {control.READER_BYTES}" in LAYOUT
    assert f"#define AX_DURABLES {control.DURABLES}" in LAYOUT


@pytest.mark.parametrize("participants", [5, 64, 65, 1024])
def test_an_inspector_reads_what_the_ends_read(participants):
    stream = Producer("s", 64, 6, participants=participants)
    readers = [
        Consumer("s", policy="lossless", label="recorder"),
        Consumer("s", policy="lossy"),
        Consumer("s", policy="latest", label="viewer"),
        Consumer("s", durable="disk"),
    ]
    for k in range(5):
        stream.send(bytes([k]))
    readers[0].receive(), readers[0].receive(), readers[2].receive()
    seen = dataclasses.asdict(Inspector("mx://s").statistics())
    mine = dataclasses.asdict(stream.statistics())
    assert 0 <= seen.pop("age_s") <= mine.pop("age_s")
    assert seen == mine
    assert json.loads(Inspector(b"s").control_snapshot())["sent"] == 5
    for reader in readers:
        reader.close()
    stream.unlink()


def test_an_inspector_names_what_it_cannot_read():
    with pytest.raises(SegmentNotFound, match="no segment is named 's'"):
        Inspector("s")
    with (
        SharedMemoryArray.create_array("s", np.zeros(3)),
        pytest.raises(LayoutError, match="holds a array, not a stream"),
    ):
        Inspector("s")


# ---- ls


def test_ls_tells_of_streams_and_arrays():
    with SharedMemoryArray.create_array("pose", np.zeros((4, 3))) as pose:
        stream = Producer("eye", shape=(2, 3), dtype="u1", buffer_count=5)
        reader = Consumer("eye", policy="latest")
        stream.send(np.zeros((2, 3), "u1"))
        eye, array = call_json("ls")
        assert (eye["name"], eye["kind"], eye["shape"]) == ("eye", "stream", [2, 3])
        assert eye["content"]["buffer_count"] == 5
        assert eye["content"]["sent"] == 1
        assert [r["policy"] for r in eye["content"]["readers"]] == ["latest"]
        assert len(eye["participants"]) == 2
        assert array["content"] is None
        text = call("ls")
        assert "5 slots, 1 frames; 1 latest" in text
        assert "2x3" in text
        reader.close()
        stream.unlink()
        assert "uint8" not in call("ls")
        del pose


def damage(context: Path, name: str, at: int, data: bytes) -> None:
    with open(context / name, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_stream_that_waits_for_its_producer_has_not_ended() -> None:
    Producer("again", 64, 4, resume=True).leave()
    for text in (call("ls"), call("top", "--once", "--interval", "0.01")):
        said = " ".join(text.split())
        assert "ended" not in said
        assert "waits for" in said
    with Producer("again", 64, 4, resume=True) as producer:
        assert "waits for" not in call("ls")
        producer.end()
        assert "ended" in call("ls")
        assert "waits for" not in call("top", "--once", "--interval", "0.01")
        producer.unlink()


def test_ls_lists_damaged_and_foreign_files_with_their_problem(context: Path):
    (context / "note").write_text("no segment")
    (context / "empty").touch()
    (context / "folder").mkdir()
    (context / "link").symlink_to("/etc/passwd")
    os.mkfifo(context / "pipe")
    (context / "esc\x1b[31mred\udcff").write_text("")
    stream = Producer("torn", 64, 4)
    control_at = stream._segment.header.geometry.control
    live = (context / "torn").read_bytes()
    for name, at, data in (
        ("header", 0x40, b"\xff\xff"),
        ("slots", control_at, b"\x07"),
        ("people", control_at + 32, b"\x07"),
        ("stride", control_at + 8, b"\x08"),
    ):
        (context / name).write_bytes(live)
        (context / name).chmod(0o600)
        damage(context, name, at, data)
    with open(context / "sparse", "wb") as file:
        file.write(live[:4096])
        file.truncate(len(live))
    (context / "sparse").chmod(0o600)
    rows = {row["name"]: row for row in call_json("ls")}
    problems = {name: row["problem"] for name, row in rows.items()}
    assert problems.pop("torn") == ""
    assert all(problems.values()), problems
    assert "not a usable" in problems["note"]
    assert "end of the file" in problems["empty"]
    assert "not a segment: not a regular file" in problems["folder"]
    assert "a link, a directory or a device" in problems["link"]
    assert "not a regular file" in problems["pipe"]
    assert "0x3fc" in problems["header"]
    for name in ("slots", "people", "stride"):
        assert "control block does not fit" in problems[name], name
    assert rows["slots"]["bytes"] == len(live)
    text = call("ls")
    assert "\x1b" not in text
    assert "esc\\x1b[31mred\\udcff" in text
    assert call_json("top", "--interval", "0.01")["streams"]
    call("top", "--once", "--interval", "0.01")
    # gc touches none of what it does not know.
    reasons = {left["name"]: left for left in call_json("gc")}
    assert "not touched" in reasons["note"]["reason"]
    assert (context / "note").exists()
    assert (context / "header").exists()
    stream.unlink()
    for path in context.iterdir():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_an_unsafe_or_absent_context_is_told_in_a_line(context: Path):
    for name in ("ls", "top", "gc"):
        text = call(name, "--context", "/nowhere", code=1)
        assert text.startswith("Error: ")
        assert "'/nowhere' is not a directory" in text
    context.chmod(0o777)
    try:
        assert "every user may write there" in call("ls", code=1)
        report = call_json("doctor", code=1)
        assert report[-1]["verdict"] == "fail"
        assert "every user may write there" in report[-1]["found"]
    finally:
        context.chmod(0o700)


# ---- top


def test_top_reads_rates_lags_and_losses_of_others():
    stop, ready = spawn.Event(), spawn.Event()
    reader = spawn.Process(
        target=workers.consume, args=("cam", "latest", "viewer", ready)
    )
    with running(workers.produce, "cam", stop=stop, buffer_count=4):
        slow = Consumer("cam", policy="lossy", label="slow")
        slow.receive(timeout=20).release()
        reader.start()
        assert ready.wait(30)
        wait_until(lambda: Inspector("cam").statistics().sent > slow.received_count + 8)
        reading = call_json("top", "--interval", "0.2")
        (cam,) = reading["streams"]
        assert reading["interval_s"] >= 0.2
        assert 1 < cam["frames_hz"] <= 1100
        assert cam["bytes_hz"] == pytest.approx(8 * cam["frames_hz"])
        assert 0 <= cam["stream"]["age_s"] < 20
        readers = {r["label"]: r for r in cam["stream"]["readers"]}
        assert set(readers) == {"viewer", "slow"}
        assert readers["slow"]["lag"] > 8
        assert readers["slow"]["policy"] == "lossy"
        text = call("top", "--once", "--interval", "0.05")
        assert "cam" in text
        assert "viewer" in text
        assert "1 streams, rates over" in text
        slow.close()
    reader.join(30)
    assert reader.exitcode == 0


def test_top_tells_time_in_backpressure_and_who_causes_it():
    stop = spawn.Event()
    keeper = None
    with running(workers.produce, "cam", stop=stop, buffer_count=4):
        keeper = Consumer("cam", policy="lossless", label="keeper")
        wait_until(lambda: Inspector("cam").statistics().is_stalled)
        (cam,) = call_json("top", "--interval", "0.1")["streams"]
        assert cam["stream"]["is_stalled"]
        assert cam["stream"]["stalled_s"] >= 0.1
        assert cam["stalled_share"] > 0.9
        assert cam["frames_hz"] == 0
        (reader,) = cam["stream"]["readers"]
        assert (reader["label"], reader["is_gating"]) == ("keeper", True)
        assert reader["lag"] >= 4
        assert ", now" in call("top", "--once", "--interval", "0.01")
        keeper.close()


def test_top_shows_the_dead_as_gone_before_a_clean_up():
    ready = spawn.Event()
    stream = Producer("cam", 64, 8)
    process = spawn.Process(target=workers.consume_durable, args=("cam", ready))
    process.start()
    assert ready.wait(30)
    other, other_ready = None, spawn.Event()
    other = spawn.Process(
        target=workers.consume, args=("cam", "lossless", "gone", other_ready)
    )
    other.start()
    assert other_ready.wait(30)
    (cam,) = call_json("top", "--interval", "0.01")["streams"]
    assert {r["label"] for r in cam["stream"]["readers"]} == {"recorder", "gone"}
    for victim in (process, other):
        victim.kill()
        victim.join()
    wait_until(lambda: len(Inspector("cam").statistics().readers) == 1)
    (reader,) = Inspector("cam").statistics().readers
    assert (reader.label, reader.is_detached, reader.is_gating) == (
        "recorder",
        True,
        True,
    )
    assert snapshot.reader_count(stream._segment.participant) == 2  # without a clean-up
    assert "away" in call("ls")
    Consumer("cam", durable="recorder").close()  # gives the name up
    stream.unlink()


def test_looking_has_no_effect(context: Path):
    """No slot, no store, no wake-up: the control block stays as it is, bit for bit."""
    stop, ready = spawn.Event(), spawn.Event()
    sleeper = spawn.Process(
        target=workers.consume, args=("still", "latest", "viewer", ready)
    )
    with running(workers.idle, "still", stop=stop):
        sleeper.start()
        assert ready.wait(30)
        wait_until(lambda: Inspector("still").statistics().readers[0].received == 1)
        wait_until(lambda: blocked(sleeper.pid))

        def everything() -> bytes:
            # But the word that says who sleeps now: a sleeper looks up 20 times a s.
            data = bytearray((context / "still").read_bytes())
            at = control_at(context / "still")
            data[at + 768 + 128 : at + 768 + 256] = bytes(128)
            return bytes(data)

        before, status = everything(), (context / "still").stat()
        switches = voluntary(sleeper.pid)
        began = time.monotonic()
        for _ in range(50):
            call_json("ls")
            Meter().read()
        call_json("top", "--interval", "0.01")
        call("gc")
        call("doctor")
        seconds = time.monotonic() - began
        # An idle wait looks around every 50 ms of its own accord.
        assert voluntary(sleeper.pid) - switches <= 3 + seconds * 60
        assert everything() == before
        assert (context / "still").stat().st_mtime_ns == status.st_mtime_ns
    sleeper.join(30)
    assert sleeper.exitcode == 0


def control_at(path: Path) -> int:
    from ataraxis.shm.header import SegmentHeader

    page = path.read_bytes()
    return SegmentHeader.unpack(page[:4096], len(page), path).geometry.control


def blocked(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def voluntary(pid: int | None) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        found = re.search(
            r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M
        )
        total += int(found[1]) if found else 0
    return total


def test_top_of_a_running_stream_changes_no_count():
    stop = spawn.Event()
    with running(workers.produce, "cam", stop=stop, buffer_count=8):
        reader = Consumer("cam", policy="latest")
        recoveries = reader._segment.participant.recoveries
        for _ in range(5):
            before = reader.statistics()
            done = program("top", "--json", "--interval", "0.05")
            assert done.returncode == 0, done.stderr
            (cam,) = json.loads(done.stdout)["streams"]
            after = reader.statistics()
            assert before.sent < cam["stream"]["sent"] <= after.sent
            assert len(cam["participants"]) == 2
            assert len(before.readers) == len(after.readers) == 1
            assert snapshot.reader_count(reader._segment.participant) == 1
        assert reader._segment.participant.recoveries == recoveries
        reader.close()


def test_top_needs_no_right_to_write(context: Path):
    """Others who may only read see the same: the file is opened read-only."""
    stream = Producer("s", 64, 4)
    opened = []
    hook = SimpleNamespace(on=True)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if hook.on and event == "open" and arguments[0] == "s":
            opened.append(arguments[2])

    sys.addaudithook(audit)
    call_json("ls")
    call_json("top", "--interval", "0.01")
    hook.on = False
    assert opened
    assert all(flags & os.O_ACCMODE == os.O_RDONLY for flags in opened)
    stream.unlink()


def test_a_meter_does_not_mix_streams_of_the_same_name():
    first = Producer("s", 64, 4)
    for _ in range(100):
        first.send(b"x")
    meter = Meter()
    assert meter.read().streams[0].frames_hz is None
    first.unlink()
    second = Producer("s", 64, 4)
    assert meter.read().streams[0].frames_hz is None
    second.send(b"x")
    assert meter.read().streams[0].frames_hz > 0
    second.unlink()
    assert meter.read().streams == ()


def test_top_in_a_pipe_is_plain_and_ends_with_ctrl_c():
    done = program("top", "--once", "--interval", "0.01", FORCE_COLOR="", TERM="xterm")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    process = subprocess.Popen(
        command("top", "--interval", "0.02"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    try:
        assert process.stdout is not None
        for _ in range(12):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert complaints == ""


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_terminal_has_colours_unless_told_not_to(context: Path, no_colour: bool):
    (context / "note").write_text("no segment")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    for name in ("NO_COLOR", "FORCE_COLOR", "CI"):
        environment.pop(name, None)
    if no_colour:
        environment["NO_COLOR"] = "1"
    process = subprocess.Popen(
        command("ls"),
        stdout=theirs,
        env=environment,
        cwd="/",
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    assert process.wait(30) == 0
    assert b"note" in shown
    assert (b"\x1b[31m" in shown) is not no_colour
    (context / "note").unlink()


def test_ls_of_nothing_says_where(context: Path):
    assert call("ls") == f"nothing is shared in {context}\n"
    assert call_json("ls") == []


# ---- gc


def test_gc_removes_what_the_dead_left_and_nothing_else(context: Path):
    with running(workers.hold_array, "left") as victim:
        victim.kill()
        victim.join()
    with running(workers.produce, "dead", stop=spawn.Event()) as victim:
        victim.kill()
        victim.join()
        with SharedMemoryArray.create_array("alive", np.zeros(3)) as alive:
            stream = Producer("busy", 64, 4)
            dry = {left["name"]: left for left in call_json("gc", "--dry-run")}
            assert set(dry) == {"left", "dead"}
            assert set(Context.of(None).names()) == {"left", "dead", "alive", "busy"}
            sizes = {n: (context / n).stat().st_blocks * 512 for n in dry}
            text = call("gc")
            assert f"2 removed, {sum(sizes.values()):,} bytes" in text
            assert {n: left["bytes"] for n, left in dry.items()} == sizes
            assert set(Context.of(None).names()) == {"alive", "busy"}
            assert call_json("gc") == []
            alive[0] = 1
            assert stream.send(b"still here")
            stream.unlink()


def test_gc_leaves_what_is_promised_to_a_durable_reader():
    stream = Producer("kept", 64, 8)
    ready = spawn.Event()
    process = spawn.Process(target=workers.consume_durable, args=("kept", ready))
    process.start()
    assert ready.wait(30)
    process.kill()
    process.join()
    stream.send(b"promised")
    stream.close()
    (left,) = call_json("gc")
    assert (left["is_removed"], left["name"]) == (False, "kept")
    assert "promised" in left["reason"]
    assert "none (kept)" in call("ls")
    report = {check["name"]: check for check in call_json("doctor")}
    assert report["kept segments"]["found"] == "kept"
    reader = Consumer("kept", durable="recorder")
    assert reader.receive().read() == b"promised"
    reader.close()
    collect()
    assert Context.of(None).names() == []


def test_gc_leaves_what_waits_in_a_queue_and_says_how_to_have_it():
    with MemQ("jobs", 16) as queue:
        queue.put("waiting")
    (left,) = call_json("gc")
    assert (left["is_removed"], left["kind"]) == (False, "queue")
    assert "MemQ.attach('jobs')" in left["reason"]
    with MemQ.attach("jobs") as queue:
        assert queue.get() == "waiting"
    assert Context.of(None).names() == []


def test_gc_sweeps_old_temporaries_and_not_young_or_held_ones(context: Path):
    old, young, held = (context / f".tmp-{n}" for n in ("old", "young", "held"))
    for path in (old, young, held):
        path.write_bytes(bytes(8192))
    long_ago = time.time() - 2 * YOUNG_S
    for path in (old, held):
        os.utime(path, (long_ago, long_ago))
    import fcntl
    import struct

    with open(held, "r+b") as file:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, (1 << 62) + 7, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        (left,) = call_json("gc", "--dry-run")
        assert (left["name"], left["kind"]) == (".tmp-old", "temporary")
        assert old.exists()
        call("gc")
        assert not old.exists()
        assert young.exists()
        assert held.exists()
    young.unlink()
    held.unlink()


def test_gc_and_one_who_attaches_never_both_win():
    """A process that attaches while gc runs keeps the name, or does not find it."""
    with running(workers.hold_array, "a") as victim:
        victim.kill()
        victim.join()
    found = SharedMemoryArray.attach("a")
    assert call_json("gc") == []
    assert found[0] == 0
    found.disconnect()
    assert [left["name"] for left in call_json("gc")] == ["a"]


# ---- doctor


def test_doctor_says_ok_here(context: Path):
    report = {check["name"]: check for check in call_json("doctor")}
    for name in ("kernel", "CPUs", "/proc", "context", "file system", "room", "locks"):
        assert report[name]["verdict"] in ("ok", "warn"), report[name]
    assert report["locks"]["verdict"] == "ok"
    assert report["futex"]["verdict"] == "ok"
    assert report["stale segments"]["verdict"] == "ok"
    assert list(context.iterdir()) == []
    assert "what to do" in call("doctor")


def test_doctor_counts_stale_segments():
    with running(workers.hold_array, "left") as victim:
        victim.kill()
        victim.join()
    report = {check["name"]: check for check in call_json("doctor")}
    stale = report["stale segments"]
    assert (stale["verdict"], stale["found"][:2]) == ("warn", "1,")
    assert "ataraxis gc" in stale["advice"]
    call("gc")


@pytest.mark.parametrize(
    ("release", "verdict"),
    [("6.1.0-18-amd64", "ok"), ("3.10.0-1160.el7", "fail"), ("nonsense", "fail")],
)
def test_doctor_knows_kernels(release, verdict):
    assert clinic._kernel(release).verdict == verdict


@pytest.mark.parametrize(
    ("magic", "verdict"),
    [(0x01021994, "ok"), (0xEF53, "warn"), (0x6969, "fail"), (-1, "warn"), (7, "warn")],
)
def test_doctor_knows_file_systems(context: Path, monkeypatch, magic, verdict):
    monkeypatch.setattr(clinic, "statfs_type", lambda path: magic)
    check = clinic._file_system(Context.of(None))
    assert check.verdict == verdict
    assert bool(check.advice) == (verdict != "ok")


def test_statfs_agrees_with_proc():
    mounts = dict(
        line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()
    )
    if mounts.get("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm is not a tmpfs here")
    assert clinic.statfs_type(Path("/dev/shm")) == 0x01021994
    assert clinic.statfs_type(Path("/nowhere")) == -1


@pytest.mark.parametrize(
    ("total", "free", "verdict"),
    [(2**34, 2**33, "ok"), (2**26, 2**26, "warn"), (2**34, 2**20 - 1, "fail")],
)
def test_doctor_looks_for_room(monkeypatch, total, free, verdict):
    room = SimpleNamespace(f_flag=0, f_blocks=total, f_bavail=free, f_frsize=1)
    place = Context.of(None)
    monkeypatch.setattr(clinic.os, "statvfs", lambda path: room)
    assert clinic._room(place).verdict == verdict


def test_a_context_that_is_mounted_read_only_can_be_looked_at(context: Path):
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("no right to mount here")
    stream = Producer("s", 64, 4)
    reader = Consumer("s", policy="latest")
    stream.send(b"x")
    script = (
        f"mount --bind {context} {context} && mount -o remount,ro,bind {context} && "
        'exec "$@"'
    )

    def look(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "sh",
                "-c",
                script,
                "sh",
                *command(*arguments, "--json"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    assert look("ls")[0]["content"]["sent"] == 1
    assert look("top", "--interval", "0.01")["streams"][0]["participants"]
    assert look("gc", "--dry-run") == []
    report = {check["name"]: check for check in look("doctor", code=1)}
    assert "read-only" in report["context"]["found"]
    assert "locks" not in report
    reader.close()
    stream.unlink()


def test_doctor_warns_of_one_cpu(monkeypatch):
    monkeypatch.setattr(clinic.os, "sched_getaffinity", lambda pid: {0})
    assert clinic._cpus().verdict == "warn"


@pytest.mark.parametrize(
    ("text", "user", "verdict"),
    [
        ("", 1000, "warn"),
        ("#RemoveIPC=no\n", 1000, "warn"),
        ("RemoveIPC=no\n", 1000, "ok"),
        ("RemoveIPC = yes\n", 1000, "warn"),
        ("", 0, "ok"),
    ],
)
def test_doctor_reads_logind(tmp_path: Path, text, user, verdict):
    (tmp_path / "logind.conf").write_text("RemoveIPC=yes\n" if text else "")
    (tmp_path / "logind.conf.d").mkdir()
    (tmp_path / "logind.conf.d" / "50.conf").write_text(text)
    place = Context(Path("/dev/shm/ataraxis-1000"))
    check = clinic._remove_ipc(place, user, (str(tmp_path),))
    assert check.verdict == verdict
    elsewhere = clinic._remove_ipc(Context(tmp_path), user, (str(tmp_path),))
    assert elsewhere.verdict == "ok"


def test_self_tests_leave_nothing_and_tell_a_full_disk(context: Path):
    assert check_locks(Context.of(None)) == ""
    assert check_futex(Context.of(None)) == ""
    assert list(context.iterdir()) == []


def test_doctor_exits_with_1_if_something_fails(monkeypatch):
    monkeypatch.setattr(clinic, "check_locks", lambda context: "broken")
    report = {check["name"]: check for check in call_json("doctor", code=1)}
    assert report["locks"]["verdict"] == "fail"
    assert report["locks"]["found"] == "broken"
    call("doctor", code=1)


# ---- words, and the layer


def test_numbers_and_texts_of_unknown_origin():
    assert [size(n) for n in (None, 0, 999, 1000, 6.2e6, 3e12)] == [
        "-", "0 B", "999 B", "1 kB", "6.2 MB", "3 TB",
    ]  # fmt: skip
    assert size(1500, "") == "1.5 k"
    assert [duration(t) for t in (None, 0.0015, 3, 600, 9000)] == [
        "-", "1.5 ms", "3 s", "10 min", "2 h",
    ]  # fmt: skip
    assert plain("a\x1b[2J\n\x9b") == "a\\x1b[2J\\n\\x9b"


def test_the_command_line_stays_thin():
    """No loop over data, no file, no number: it calls the rooms."""
    tree = ast.parse((ROOT / "ataraxis" / "cli" / "__init__.py").read_text())
    assert (
        len((ROOT / "ataraxis" / "cli" / "__init__.py").read_text().splitlines()) < 200
    )
    names = {
        alias.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert names <= {"json", "sys", "time", "click"}


def test_every_command_helps():
    for name in ([], ["ls"], ["top"], ["gc"], ["doctor"], ["context"], ["demo"]):
        assert "Usage:" in call(*name, "--help")


# ---- top in a narrow terminal


@pytest.fixture
def _busy(context: Path):
    """Streams with long names, large numbers, and readers of each kind."""
    with contextlib.ExitStack() as stack:
        probe = stack.enter_context(
            Producer("probe_of_the_left_hemisphere", shape=(300, 64), dtype="i2")
        )
        camera = stack.enter_context(
            Producer("camera", shape=(), on_full="drop_newest", buffer_count=4)
        )
        stack.enter_context(Consumer(camera.name, policy="lossless", label="analysis"))
        stack.enter_context(Consumer(probe.name, policy="lossy", label="view"))
        stack.enter_context(Consumer(probe.name, durable="session-92015dbf4f78"))
        for _ in range(26):
            camera.send(0.0)
        yield
        for stream in (probe, camera):
            stream.unlink()


@pytest.mark.parametrize("wide", [60, 80, 100, 160])
@pytest.mark.usefixtures("_busy")
def test_top_fits_the_terminal_and_cuts_nothing_without_a_mark(
    wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    lines = call("top", "--once", "--interval", "0.01").splitlines()
    assert max(map(len, lines)) <= wide
    text = "\n".join(lines)
    # A name is whole, or has a mark; numbers and words are whole.
    whole, mark = "probe_of_the_left_hemisphere", "…"
    assert whole in text if wide >= 160 else whole in text or mark in text
    for word in ("22 refused", "lossless", "durable", "lossy"):
        assert word in text, word
    assert "session-92015dbf4f78" in text
    # Columns are there, or are named below.
    heads, _, below = text.partition("too narrow for:")
    for head in ("frames/s", "bytes/s", "frames", "age", "slots", "lag", "lapped",
                 "stalled"):  # fmt: skip
        assert head in heads or head in below, head
    assert ("too narrow for" in text) == (wide < 160)


def test_a_table_of_many_columns_fits() -> None:
    runs = [
        RunStatistics(f"spikes_of_probe_{k}", f"detect.{k}", 4_194_304, 10**7, 10**7,
                      0, 0, 0, 0)
        for k in range(3)
    ]  # fmt: skip
    for wide in (80, 100, 160):
        out = Console(width=wide, record=True, file=io.StringIO())
        out.print(screen.pipes(runs, (), 1.0))
        text = out.export_text()
        assert max(map(len, text.splitlines())) <= wide
        assert "10,000,000" in text
        assert "detect.2" in text
