"""The owner of a frame buffer's memory, and what every kind of end does to it.

Decisions 9, 10 and 11; deaths at random are in stress/test_framebuffer_stress.py.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadline import wait_until
from programs import Program, run
from workers_framebuffer import CONTAINED, can_contain, heeded_signals

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
from ataraxis.errors import SegmentExists, SegmentNotFound, StaleSegment
from ataraxis.framebuffer.ring import name_of

SERVE = """
    import os, signal, sys, time
    from ataraxis import FrameBufferClient, FrameBufferServer
    server = FrameBufferServer("key", 1000)
    server.start()
    print("serving", flush=True)
    input()
"""
USE = """
    from ataraxis import FrameBufferClient
    client = FrameBufferClient("key")
    client.start()
    print("attached", client.write(0, b"data").hex(), flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _heeded() -> Iterator[None]:
    with heeded_signals():
        yield


def killed(program: Program, number: int) -> int:
    """Send a signal, wait for the end; the exit code."""
    os.kill(program.pid, number)
    return program.process.wait(30)


# ---- 9: lifecycle


def test_a_second_live_server_is_refused(context: Path) -> None:
    """Decision 9: in this process or another, with clients or without."""
    with FrameBufferServer("key", 10), pytest.raises(SegmentExists, match="served"):
        FrameBufferServer("key", 10).start()
    with Program(SERVE) as program:
        program.expect("serving")
        for _ in range(3):
            with pytest.raises(SegmentExists, match="served already"):
                FrameBufferServer("key", 10).start()
        with FrameBufferClient("key") as client:
            with pytest.raises(SegmentExists):
                FrameBufferServer("key", 10).start()
            assert client.read(0, 1, client.write(0, b"x")) == b"x"
            assert client.statistics().is_served
        program.tell()
        program.succeed()
    with FrameBufferServer("key", 10):
        pass


def test_a_stopped_server_is_alive(context: Path) -> None:
    """Decision 9: SIGSTOP is not a death; liveness asks the kernel, not a clock."""
    with Program(SERVE) as program:
        program.expect("serving")
        os.kill(program.pid, signal.SIGSTOP)
        with pytest.raises(SegmentExists):
            FrameBufferServer("key", 10).start()
        os.kill(program.pid, signal.SIGCONT)
        program.tell()
        program.succeed()


def test_a_killed_server_is_replaced(context: Path) -> None:
    """Decision 9: its memory is freed, also with clients attached, which follow."""
    with Program(SERVE) as program:
        program.expect("serving")
        client = FrameBufferClient("key")
        client.start()
        checksum = client.write(0, b"before")
        killed(program, signal.SIGKILL)
    inode = (context / name_of("key")).stat().st_ino
    assert not client.statistics().is_served
    assert client.read(0, 6, checksum) == b"before"
    assert client.read(9, 3, client.write(9, b"too")) == b"too"
    with pytest.raises(SegmentNotFound, match="no server serves"):
        FrameBufferClient("key").start()
    with FrameBufferServer("key", 2000):
        assert (context / name_of("key")).stat().st_ino != inode
        assert len(list(context.iterdir())) == 1
        with FrameBufferClient("key") as other:
            written = client.write(1500, b"after")
            assert other.read(1500, 5, written) == b"after"
        with pytest.raises(FrameBufferTimeout):
            client.read(0, 6, checksum)
        client.stop()


def test_a_crowded_ring_of_a_killed_server_is_replaced(context: Path) -> None:
    """Decision 9: taking it back needs no participant's slot."""
    code = SERVE.replace("1000)", "1000, participants=2)")
    with Program(code) as program:
        program.expect("serving")
        client = FrameBufferClient("key")
        client.start()
        killed(program, signal.SIGKILL)
    # The dead server's slot goes to a client; that clears the server's slot.
    second = FrameBufferClient("key")
    with pytest.raises(SegmentNotFound):
        second.start()
    third = FrameBufferClient.of_segment(
        __import__("ataraxis").shm.Segment.attach(name_of("key"))
    )
    with FrameBufferServer("key", 10) as server:
        assert server.statistics().is_served
    client.stop()
    third.stop()


def test_waiting_out_a_killed_server(context: Path) -> None:
    """Decision 9: a client with time waits for the next server, not the dead one."""
    with Program(SERVE) as program:
        program.expect("serving")
        killed(program, signal.SIGKILL)
    with pytest.raises(TimeoutError):
        FrameBufferClient("key", timeout=0.1).start()
    waiting = """
        from ataraxis import FrameBufferClient
        print("waiting", flush=True)
        with FrameBufferClient("key", timeout=30) as client:
            print(client.statistics().capacity_bytes, flush=True)
    """
    with Program(waiting) as program:
        program.expect("waiting")
        with FrameBufferServer("key", 77):
            assert program.succeed().strip() == "77"


@pytest.mark.parametrize("end", ["", "client.stop()", "os._exit(0)", "kill"])
def test_clients_never_unlink(context: Path, end: str) -> None:
    """Decision 9: whatever their end, SIGKILL included."""
    with FrameBufferServer("key", 100), FrameBufferClient("key") as mine:
        code = USE + f"    import os\n    {'' if end == 'kill' else end}\n"
        with Program(code) as program:
            program.expect(f"attached {mine.write(0, b'data').hex()}")
            if end == "kill":
                killed(program, signal.SIGKILL)
            else:
                program.tell()
                program.succeed()
        assert (context / name_of("key")).exists()
        with FrameBufferClient("key") as another:
            assert another.read(0, 4, mine.write(0, b"more")) == b"more"


def test_a_server_whose_name_was_taken(context: Path) -> None:
    """Decision 9: unlinking compares inodes: no other name is removed."""
    first = FrameBufferServer("key", 10)
    first.start()
    (context / name_of("key")).unlink()
    with FrameBufferServer("key", 20):
        first.stop()
        assert (context / name_of("key")).exists()
    first.start()
    segment = first._segment
    assert segment is not None
    assert segment.unlink()
    assert first.allocate(1) == 0  # no other server has the key
    with FrameBufferServer("key", 20):
        with pytest.raises(StaleSegment, match="another ring"):
            first.allocate(1)
        first.stop()


# ---- 10: exit paths


@pytest.mark.parametrize(
    "end",
    ["pass", "server.stop()", "del server", "sys.exit(0)", "server = 5"],
)
def test_ordinary_ends_release_the_memory(context: Path, end: str) -> None:
    """Decision 10: with, atexit, the last reference."""
    run(SERVE.replace("input()", end))
    assert not list(context.iterdir())


def test_exceptions_release_the_memory(context: Path) -> None:
    """Decision 10: uncaught ones, and those that leave a ``with``."""
    with pytest.raises(ZeroDivisionError), FrameBufferServer("key", 10):
        raise ZeroDivisionError
    assert not list(context.iterdir())
    code = SERVE.replace("input()", "raise SystemExit(3)")
    with Program(code) as program:
        assert program.finish()[0] == 3
    assert not list(context.iterdir())
    server = FrameBufferServer("key", 10)
    server.start()
    del server
    gc.collect()
    assert not list(context.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_deadly_signals_release_the_memory(
    context: Path, number: signal.Signals
) -> None:
    """Decision 10: and the process dies of the signal, as it would have."""
    with Program(SERVE) as program:
        program.expect("serving")
        assert killed(program, number) == -number
    assert not list(context.iterdir())


def test_signals_kill_at_once(context: Path) -> None:
    """Decision 10: also a program that is deep in C and runs no bytecode."""
    code = SERVE.replace(
        "input()", "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
    )
    with Program(code) as program:
        program.expect("serving")
        os.kill(program.pid, signal.SIGTERM)
        assert program.process.wait(10) == -signal.SIGTERM
    assert not list(context.iterdir())


def test_handlers_of_the_application_stay(context: Path) -> None:
    """Decision 10: set before or after start, they run, and nothing is in their way."""
    code = """
        import os, signal
        from ataraxis import FrameBufferServer
        heard = []
        def handler(number, frame):
            heard.append(number)
        signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        for number in signals:
            signal.signal(number, handler)
        with FrameBufferServer("key", 10) as server:
            for number in signals:
                assert signal.getsignal(number) is handler
                os.kill(os.getpid(), number)
            assert heard == signals, heard
            assert os.path.exists(os.path.join(
                os.environ["ATARAXIS_CONTEXT"], server.name))
        for number in signals:
            assert signal.getsignal(number) is handler
            signal.signal(number, signal.SIG_DFL)
        del heard[:]
        with FrameBufferServer("key", 10) as server:
            for number in signals:
                assert signal.getsignal(number) is signal.SIG_DFL
                assert signal.signal(number, handler) is signal.SIG_DFL
                os.kill(os.getpid(), number)
            assert heard == signals, heard
        with FrameBufferServer("key", 10) as server:
            for number in signals:
                signal.signal(number, signal.SIG_IGN)
                os.kill(os.getpid(), number)
            assert server.allocate(1) == 0
    """
    run(code)
    assert not list(context.iterdir())


def test_ignored_signals_stay_ignored(context: Path) -> None:
    """Decision 10: nohup goes on working."""
    code = SERVE.replace("server.start()", "signal.signal(1, signal.SIG_IGN)\n"
                         "    server.start()\n    os.kill(os.getpid(), 1)")  # fmt: skip
    with Program(code) as program:
        program.expect("serving")
        assert killed(program, signal.SIGTERM) == -signal.SIGTERM
    assert not list(context.iterdir())


def test_nothing_is_watched_without_a_server(context: Path) -> None:
    """No state at import, none after stop: the kernel's own list of caught signals."""
    code = """
        import signal
        def caught():
            with open("/proc/self/status") as status:
                lines = status.read().splitlines()
            (mask,) = [int(l.split()[1], 16) for l in lines if l.startswith("SigCgt")]
            return {n for n in (1, 2, 15) if mask >> n - 1 & 1}
        assert caught() == {2}
        from ataraxis import FrameBufferServer
        first, second = FrameBufferServer("a", 10), FrameBufferServer("b", 10)
        assert caught() == {2}
        with first:
            assert caught() == {1, 2, 15}
            with second:
                pass
            assert caught() == {1, 2, 15}
        assert caught() == {2}
        with first, second:
            assert caught() == {1, 2, 15}
        assert caught() == {2}
        signal.signal(2, signal.SIG_DFL)
        with first:
            assert caught() == {1, 2, 15}
        assert caught() == set()
    """
    run(code)


def test_several_servers_of_one_process(context: Path) -> None:
    """Decision 10: a signal releases all that are served, and nothing else."""
    code = """
        from ataraxis import FrameBufferServer
        servers = [FrameBufferServer(f"key {k}", 100) for k in range(20)]
        for server in servers:
            server.start()
        for server in servers[::2]:
            server.stop()
        for server in servers[::4]:
            server.start()
        print("serving", flush=True)
        input()
    """
    with FrameBufferServer("mine", 10), Program(code) as program:
        program.expect("serving")
        assert len(list(context.iterdir())) == 16
        killed(program, signal.SIGTERM)
        assert [p.name for p in context.iterdir()] == [name_of("mine")]


@pytest.mark.parametrize(
    "end", ["os._exit(0)", "sys.exit(0)", "server.stop(); sys.exit(0)",
            "os.kill(os.getpid(), 15)", "del server; os._exit(0)"],
)  # fmt: skip
def test_a_forked_child_ends_nothing(context: Path, end: str) -> None:
    """Decision 10: whatever end its copy of the server comes to; it may allocate."""
    code = f"""
        import os, signal, sys
        from ataraxis import FrameBufferClient, FrameBufferServer
        server = FrameBufferServer("key", 1000)
        server.start()
        client = FrameBufferClient("key")
        client.start()
        checksum = client.write(server.allocate(4), b"data")
        child = os.fork()
        if child == 0:
            assert server.allocate(4) == 4
            assert client.read(0, 4, checksum) == b"data"
            client.write(4, b"more")
            {end}
        status = os.waitpid(child, 0)[1]
        assert status in (0, 15), status
        assert os.path.exists(os.path.join(
            os.environ["ATARAXIS_CONTEXT"], server.name))
        assert server.allocate(4) == 8
        with FrameBufferClient("key") as another:
            assert another.read(4, 4, another.write(4, b"more")) == b"more"
        print("serving", flush=True)
        input()
    """
    with Program(code) as program:
        program.expect("serving")
        assert killed(program, signal.SIGTERM) == -signal.SIGTERM
    assert not list(context.iterdir())


def test_a_forked_child_follows_its_key(context: Path) -> None:
    """Decision 9: its copies of the handles say what is, or follow, as the parent's."""
    code = """
        import os
        from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
        from ataraxis.errors import SegmentNotFound, StaleSegment
        server, client = FrameBufferServer("key", 1000), FrameBufferClient("key")
        server.start()
        client.start()
        checksum = client.write(0, b"data")
        (read, tell), (heard, say) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.read(read, 1)
            assert client.read(0, 4, checksum) == b"data"
            for call in (lambda: client.write(0, b"x"), lambda: client.put([1])):
                try:
                    call()
                    os._exit(2)
                except SegmentNotFound:
                    pass
            try:
                server.allocate(1)
                os._exit(3)
            except StaleSegment:
                pass
            os.write(say, b"x")
            os.read(read, 1)
            try:
                client.read(0, 4, checksum)
                os._exit(4)
            except FrameBufferTimeout:
                pass
            assert client.read(1500, 1, client.write(1500, b"x")) == b"x"
            assert client.statistics().is_served
            server.stop()
            os._exit(0)
        server.stop()
        os.write(tell, b"x")
        os.read(heard, 1)
        with FrameBufferServer("key", 2000):
            os.write(tell, b"x")
            assert os.waitpid(child, 0)[1] == 0
            assert len(os.listdir(os.environ["ATARAXIS_CONTEXT"])) == 1
    """
    run(code)
    assert not list(context.iterdir())


def test_a_child_of_a_dead_server_does_not_serve(context: Path) -> None:
    """Decision 9: the parent's life does not leak into what it forked."""
    code = SERVE.replace("input()", "child = os.fork()\n    time.sleep(60)")
    with Program(code) as program:
        program.expect("serving")
        task = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        wait_until(lambda: task.read_text().split())
        (child,) = map(int, task.read_text().split())
        killed(program, signal.SIGKILL)
        try:
            with FrameBufferServer("key", 10):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


# ---- 11: memory


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB: filling the machine's own would kill processes."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs of our own for this user (needs CAP_SYS_ADMIN)")
    try:
        yield tmp_path
    finally:
        gc.collect()
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_memory_is_there_before_the_name(context: Path, small: Path) -> None:
    """Decision 11: too large a ring is found out at start; nothing is left."""
    server = FrameBufferServer("key", 4 << 20, context=small)
    for _ in range(2):
        with pytest.raises(OSError, match="free") as caught:
            server.start()
        assert caught.value.errno == errno.ENOSPC
        assert not server.is_started
        assert not list(small.iterdir())
    with FrameBufferServer("key", 2 << 20, context=small):
        status = (small / name_of("key")).stat()
        assert status.st_blocks * 512 >= status.st_size > 2 << 20


def test_taking_back_comes_before_making(context: Path, small: Path) -> None:
    """Decision 11: where only one ring fits, the next server still starts."""
    code = SERVE.replace("1000)", f"2 << 20, context={str(small)!r})")
    with Program(code) as program:
        program.expect("serving")
        killed(program, signal.SIGKILL)
    with FrameBufferServer("key", 2 << 20, context=small) as server:
        assert server.allocate(2 << 20) == 0


# ---- containers


def test_between_namespaces(context: Path) -> None:
    """As two containers are: other PID and IPC namespaces, one directory shared."""
    if not can_contain():
        pytest.skip("no namespaces for this user (needs CAP_SYS_ADMIN)")
    code = (
        "import sys\nfrom ataraxis import *\n".replace(
            "*", "FrameBufferClient, FrameBufferServer"
        )
        + "from ataraxis.errors import SegmentExists\n"
        "with FrameBufferClient('key') as client:\n"
        "    print(client.get(sys.argv[1]).tolist())\n"
        "    print(client.put([7, 8, 9]).to_json())\n"
        "try:\n"
        "    FrameBufferServer('key', 5).start()\n"
        "except SegmentExists:\n"
        "    print('refused')\n"
    )
    with FrameBufferServer("key", 1000), FrameBufferClient("key") as client:
        ticket = client.put([1, 2, 3]).to_json()
        command = [*CONTAINED, sys.executable, "-P", "-c", code, ticket]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        first, second, third = done.stdout.split("\n")[:3]
        assert first == "[1, 2, 3]"
        assert client.get(second).tolist() == [7, 8, 9]
        assert third == "refused"
