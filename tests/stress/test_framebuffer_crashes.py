"""A death at every named point of the frame buffer's kernels: nothing to repair.

`POINTS` is its part of the kill table. The names are read from the sources: a point
without a line here, or a line whose point is gone, fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import variants
from programs import Program
from workers_framebuffer import heeded_signals

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
from ataraxis.errors import SegmentNotFound
from ataraxis.framebuffer.ring import name_of


class Line(NamedTuple):
    """The process that dies there, of what, and what that leaves."""

    does: str
    """What comes past the point."""
    keeps_name: bool = False
    """A server's death: whether its name stays, for the next server to take."""


CLIENT = {
    "allocate_moved": Line("client.allocate(100)"),
    "allocate_wrapped": Line("client.allocate(900)"),
    "allocate_stamped": Line("client.allocate(100)"),
    "chunk_half_copied": Line("client.write(0, b'x' * 200)"),
    "chunk_copied": Line("client.write(0, b'x' * 200)"),
}
SERVER = {
    "serve_said": Line("start()"),
    "will_made": Line("start()", keeps_name=True),
    "will_revoked": Line("stop()"),
    "cleanup_served": Line("stop()"),
    "will_read": Line("kill()", keeps_name=True),
    "will_done": Line("kill()"),
}
# Ways past points that others come past, too.
MORE = [
    ("unlink_retired", Line("stop()", keeps_name=True)),
    ("unlink_done", Line("stop()")),
    ("unlink_retired", Line("kill()", keeps_name=True)),
    ("unlink_done", Line("kill()")),
    ("create_published", Line("start()", keeps_name=True)),
]
PRELUDE = """
    import os, signal, sys
    finders = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
    sys.meta_path[:] = finders
    sys.path.insert(0, sys.argv[1])
    from ataraxis import FrameBufferClient, FrameBufferServer
    from ataraxis._kernels import framebuffer
    assert framebuffer.__file__.startswith(sys.argv[1]), framebuffer.__file__
    def doom():
        os.environ["ATARAXIS_CRASH_AT"] = sys.argv[2]
"""


@pytest.fixture(autouse=True)
def _place(arena: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    with heeded_signals():
        yield


def test_every_point_has_a_line() -> None:
    assert variants.framebuffer_points() == {*CLIENT, *SERVER}


def dies(package: Path, point: str, code: str) -> None:
    """Run a program that must be killed at the point."""
    with Program(PRELUDE + code, package, point) as program:
        status, out, complaint = program.finish(60)
    assert status == -9, f"{point} was not reached: {status} {out} {complaint}"


@pytest.mark.parametrize("point", sorted(CLIENT))
def test_death_of_a_client_at(point: str, package: Path, arena: Path) -> None:
    """The others go on; what it may have spoilt is late, what it did not is right."""
    code = f"""
    client = FrameBufferClient("key")
    client.start()
    doom()
    {CLIENT[point].does}
    """
    with FrameBufferServer("key", 1000) as server, FrameBufferClient("key") as client:
        first, second = os.urandom(200), os.urandom(200)
        at = [server.allocate(200), server.allocate(200)]
        sums = [client.write(at[0], first), client.write(at[1], second)]
        before = server.statistics()
        dies(package, point, code)
        after = server.statistics()
        moved = after.handed_out_bytes - before.handed_out_bytes
        if point.startswith("allocate"):
            # Its bytes are allocated and unused; the ring comes round to them.
            assert moved == {"allocate_wrapped": 600 + 900}.get(point, 100)
            assert after.chunks == before.chunks
        else:
            assert moved == 0
        assert 0 <= after.oldest_s < 120
        assert after.is_served
        # What it copied over the first chunk is noticed; nothing else was touched.
        if point.startswith("chunk"):
            with pytest.raises(FrameBufferTimeout):
                client.read(at[0], 200, sums[0])
        else:
            assert client.read(at[0], 200, sums[0]) == first
        assert client.read(at[1], 200, sums[1]) == second
        goes_on(server, client)
    assert not os.listdir(arena)


@pytest.mark.parametrize("point", ["chunk_half_copied", "chunk_copied"])
def test_death_of_a_reader_at(point: str, package: Path, arena: Path) -> None:
    code = """
    client = FrameBufferClient("key")
    client.start()
    checksum = client.write(0, b"y" * 100)
    doom()
    client.read(0, 100, checksum)
    """
    with FrameBufferServer("key", 1000) as server, FrameBufferClient("key") as client:
        checksum = client.write(500, b"z" * 100)
        dies(package, point, code)
        assert client.read(500, 100, checksum) == b"z" * 100
        goes_on(server, client)
    assert not os.listdir(arena)


@pytest.mark.parametrize(
    ("point", "line"), [*SERVER.items(), *MORE], ids=lambda v: getattr(v, "does", v)
)
def test_death_of_a_server_at(
    point: str, line: Line, package: Path, arena: Path
) -> None:
    """Its memory is free, or the next server's; clients follow there."""
    code = f"""
    server = FrameBufferServer("key", 1000)
    def start():
        doom()
        server.start()
    def stop():
        server.start()
        doom()
        server.stop()
    def kill():
        server.start()
        doom()
        os.kill(os.getpid(), signal.SIGTERM)
    {line.does}
    """
    dies(package, point, code)
    assert os.listdir(arena) == ([name_of("key")] if line.keeps_name else [])
    with pytest.raises(SegmentNotFound):
        FrameBufferClient("key").start()
    with FrameBufferServer("key", 2000) as server, FrameBufferClient("key") as client:
        assert len(os.listdir(arena)) == 1
        goes_on(server, client)
    assert not os.listdir(arena)


def test_a_death_while_cleaning_up_after_a_server(package: Path, arena: Path) -> None:
    """The word of the server's slot is cleared once, by any process."""
    code = """
    server = FrameBufferServer("key", 1000)
    server.start()
    print("serving", flush=True)
    input()
    """
    with Program(PRELUDE + code, package, "") as program:
        program.expect("serving")
        client = FrameBufferClient("key")
        client.start()
        os.kill(program.pid, 9)
        program.process.wait(30)
    code = """
    client = FrameBufferClient("key")
    from ataraxis.shm import Segment
    segment = Segment.attach(sys.argv[3])
    doom()
    segment.participant.sweep()
    """
    with Program(PRELUDE + code, package, "cleanup_served", name_of("key")) as program:
        assert program.finish(60)[0] == -9
    assert not client.statistics().is_served
    with FrameBufferServer("key", 2000) as server, FrameBufferClient("key") as other:
        goes_on(server, other)
    client.stop()


def goes_on(server: FrameBufferServer, client: FrameBufferClient) -> None:
    """Twice round the ring: allocating, writing, reading, ages, slots."""
    for _ in range(20):
        offset = server.allocate(100)
        data = os.urandom(100)
        assert client.read(offset, 100, client.write(offset, data)) == data
        assert client.get(client.put(list(data))).tolist() == list(data)
        assert 0 <= server.statistics().oldest_s < 120
    segment = client._segment
    assert segment is not None
    segment.participant.sweep()
