"""The socket by which programs ask their agent: bounds, hostile input, life."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until

from ataraxis.cluster.door import (
    LOCK,
    REQUEST_BYTES,
    SOCKET,
    AgentClient,
    AgentDoor,
    AgentLock,
    DoorVisit,
    agent_pid,
    ask_agent,
)
from ataraxis.errors import (
    AccessDenied,
    BadMessage,
    HostUnavailable,
    NotConnectedError,
    RemoteError,
    SegmentExists,
    SourceNotFound,
)
from ataraxis.shm.context import Context

WAIT_S = 20.0


class Served:
    """What a door calls: it answers, raises, or waits."""

    def __init__(self) -> None:
        self.gone: list[int] = []
        self.has_waited = threading.Event()

    def __call__(self, asked: dict[str, Any], visit: DoorVisit) -> Any:
        match asked["do"]:
            case "echo":
                return asked["value"]
            case "refuse":
                raise SourceNotFound("'x' is not here")
            case "late":
                raise TimeoutError("too late")
            case "foreign":
                raise IsADirectoryError("a foreign error")
            case "hold":
                visit.at_end.append(lambda: self.gone.append(visit.pid))
                return visit.pid
            case "wait":
                wait_until(visit.is_gone, WAIT_S, "the program to go")
                self.has_waited.set()
        return {}[asked["do"]]


@pytest.fixture
def served(context: Path) -> Iterator[Served]:
    made = Served()
    door = AgentDoor(Context.of(context), made)
    try:
        yield made
    finally:
        door.close()
        assert not (context / SOCKET).exists()


def test_a_program_asks_and_is_answered(served: Served, context: Path) -> None:
    value = {"text": "ü\n", "numbers": [1, 2.5, None]}
    assert ask_agent("echo", value=value) == value
    with AgentClient() as client:
        assert client.pid == os.getpid()
        assert [client.ask("echo", value=k) for k in range(5)] == list(range(5))
    assert agent_pid() == os.getpid()
    mode = (context / SOCKET).lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_an_error_is_raised_in_the_program(served: Served) -> None:
    with AgentClient() as client:
        with pytest.raises(SourceNotFound, match="'x' is not here"):
            client.ask("refuse")
        with pytest.raises(TimeoutError, match="too late"):
            client.ask("late")
        with pytest.raises(RemoteError, match="IsADirectoryError: a foreign error"):
            client.ask("foreign")
        with pytest.raises(BadMessage, match="KeyError"):
            client.ask("nonsense")
        assert client.ask("echo", value=1) == 1


def test_what_ends_with_a_program_ends(served: Served) -> None:
    client = AgentClient()
    assert client.ask("hold") == os.getpid()
    assert served.gone == []
    client.close()
    wait_until(lambda: served.gone == [os.getpid()], WAIT_S, "the end")


def test_a_wait_ends_with_its_program(served: Served) -> None:
    client = AgentClient()
    with pytest.raises(TimeoutError, match="has not answered 'wait'"):
        client.ask("wait", 0.1)
    client.close()
    assert served.has_waited.wait(WAIT_S)


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"null\n", b"[1]\n", b'{"do": 1}\n', b"{}\n", b"\xff\xfe\n",
        b"GET / HTTP\n", b"[" * 50_000 + b"\n", b'{"do": "echo", "value": NaN}\n',
    ],
)  # fmt: skip
def test_garbage_is_answered_by_an_error(
    served: Served, context: Path, line: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(WAIT_S)
        raw.connect(f"{context}/{SOCKET}")
        raw.sendall(line)
        answer = raw.makefile("rb").readline()
        assert b"Traceback" not in answer
        if b"NaN" not in line:
            assert json.loads(answer)["error"]["type"] == "BadMessage"
        raw.sendall(b'{"do": "echo", "value": 2}\n')
    assert ask_agent("echo", value=1) == 1


def test_a_line_without_end_is_bounded(served: Served, context: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(WAIT_S)
        raw.connect(f"{context}/{SOCKET}")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            raw.sendall(b"x" * 1000 * REQUEST_BYTES)
    assert ask_agent("echo", value=1) == 1
    with pytest.raises(ValueError, match="too many"):
        ask_agent("echo", value="x" * REQUEST_BYTES)


def test_programs_beyond_the_bound_are_refused(served: Served) -> None:
    clients = [AgentClient() for _ in range(257)]
    try:
        with pytest.raises(AccessDenied, match="serves 256 programs already"):
            [client.ask("echo", value=1) for client in clients]
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: _answers(), WAIT_S, "room")


def _answers() -> bool:
    try:
        return ask_agent("echo", value=1) == 1
    except (AccessDenied, NotConnectedError):
        return False


def test_without_an_agent_the_error_says_what_to_do(context: Path) -> None:
    with pytest.raises(HostUnavailable, match="ataraxis agent --hosts FILE"):
        ask_agent("echo")
    assert agent_pid() is None
    # One that was killed has left its socket.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{context}/{SOCKET}")
    with pytest.raises(HostUnavailable, match="no agent runs"):
        ask_agent("echo")
    (context / SOCKET).unlink()
    (context / SOCKET).write_text("a file")
    with pytest.raises(AccessDenied, match="not the socket of an agent"):
        ask_agent("echo")
    (context / SOCKET).unlink()


def test_a_program_notices_the_end_of_the_agent(context: Path) -> None:
    door = AgentDoor(Context.of(context), Served())
    client = AgentClient()
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (client.wait_for_end(), ended.set()))
    thread.start()
    time.sleep(0.05)
    assert not ended.is_set()
    door.close()
    assert ended.wait(WAIT_S)
    thread.join()
    with pytest.raises(NotConnectedError, match="has ended"):
        client.ask("echo", value=1)
    client.close()


def test_a_context_has_one_agent(context: Path) -> None:
    place = Context.of(context)
    lock = AgentLock(place)
    with pytest.raises(
        SegmentExists, match=f"has an agent already, process {os.getpid()}"
    ):
        AgentLock(place)
    lock.release()
    lock.release()
    assert not (context / LOCK).exists()
    (context / LOCK).write_text("4194304\n")  # left by one that was killed
    AgentLock(place).release()


def test_an_agent_takes_one_of_many(context: Path) -> None:
    """Of many that begin at once one is the agent, also while another one ends."""
    place = Context.of(context)
    taken: list[int] = []
    inside = threading.Lock()

    def compete() -> None:
        for _ in range(50):
            try:
                lock = AgentLock(place)
            except SegmentExists:
                continue
            assert inside.acquire(blocking=False)
            taken.append(1)
            inside.release()
            lock.release()

    threads = [threading.Thread(target=compete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken


def test_a_long_path_of_the_context_is_no_limit(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 150)
    long.mkdir(mode=0o700)
    door = AgentDoor(Context.of(long), Served())
    assert ask_agent("echo", context=long, value=1) == 1
    door.close()
