"""Access to a server, limits of clients, and the command."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import socket
import subprocess
import sys

import pytest
from deadline import wait_until
from remote_rig import EYES, ServeCommand, connected, folder, served

import ataraxis.datamux as dm
from ataraxis.errors import AccessDenied, BadMessage, RemoteError, SourceNotFound

TOKEN = "t" * 43
WAIT_S = 60.0


def asked(server, request: bytes) -> str:
    """The answer to a plain HTTP request."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as made:
        made.sendall(request)
        return made.recv(4096).decode()


def upgrade(**headers: str) -> bytes:
    """A request for a WebSocket."""
    base = {
        "Host": "127.0.0.1", "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": "A" * 22 + "==", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "ataraxis.1.json",
    }  # fmt: skip
    path = headers.pop("path", "/ws")
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [f"{name}: {value}" for name, value in {**base, **named}.items()]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


def test_the_door_says_why_not(tmp_path):
    with served(tmp_path, token=TOKEN) as server:
        good = f"Bearer {TOKEN}"
        assert " 101 " in asked(server, upgrade(Authorization=good))
        for status, headers in (
            ("401", {}),
            ("401", {"Authorization": "Bearer nonsense"}),
            ("421", {"Authorization": good, "Host": "evil.example"}),
            ("403", {"Authorization": good, "Origin": "https://evil.example"}),
            ("404", {"Authorization": good, "path": "/etc/passwd"}),
            ("400", {"Authorization": good, "Sec_WebSocket_Protocol": "chat"}),
        ):
            assert f" {status} " in asked(server, upgrade(**headers)).split("\r\n")[0]
        for token in (None, "x" * 43):
            with pytest.raises(AccessDenied, match="token"):
                dm.RemoteAPI().connect("127.0.0.1", server.port, token=token)
        with connected(server, token=TOKEN) as api:
            assert api.list_collections() == []


def test_a_server_of_one_codec_says_so(tmp_path):
    with served(tmp_path, codecs="json") as server:
        with pytest.raises(RemoteError, match="this server speaks json"):
            dm.RemoteAPI("websocket", "msgpack").connect("127.0.0.1", server.port)
        with connected(server, "json"):
            pass
    with pytest.raises(SourceNotFound, match="did you mean 'json'"):
        dm.RemoteAPI("websocket", "jsen")
    with pytest.raises(SourceNotFound, match="no rpc 'zenoh'"):
        dm.RemoteAPI("zenoh", "json")


def test_a_server_that_does_not_exist(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=str(port)):
        dm.RemoteAPI().connect("127.0.0.1", port)


def test_clients_and_streams_are_counted(tmp_path):
    limits = dm.Limits(clients=1, streams=2)
    with served(tmp_path, limits=limits) as server:
        with connected(server) as api:
            with pytest.raises(RemoteError, match="the limit: try later"):
                dm.RemoteAPI().connect("127.0.0.1", server.port)
            sinks = [queue.Queue() for _ in range(3)]
            for sink in sinks[:2]:
                ack = api.proxy_live_stream("sim", "sine", {}, sink)
            with pytest.raises(RemoteError, match="the client has 2 streams"):
                api.proxy_live_stream("sim", "sine", {}, sinks[2])
            api.stop_task(ack.randseq)
            wait_until(lambda: server.statistics()["streams"] == 1, WAIT_S)
            api.proxy_live_stream("sim", "sine", {}, sinks[2])
            with pytest.raises(BadMessage, match="block must be at most"):
                api.simulate_stream(
                    dm.Stream("s", frequency=1, fields={"v": dm.Field()}),
                    sink=sinks[0], block=10**9,
                )  # fmt: skip
        wait_until(lambda: server.statistics()["clients"] == 0, WAIT_S)
        with connected(server):
            pass


def test_connections_that_say_nothing_are_counted_and_cut(tmp_path):
    limits = dm.Limits(handshakes=3, handshake_s=0.3)
    with served(tmp_path, limits=limits) as server, contextlib.ExitStack() as stack:
        for _ in range(10):
            made = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
            stack.callback(made.close)
            last = made
        last.settimeout(WAIT_S)
        try:
            assert last.recv(1) == b""
        except ConnectionResetError:
            pass
        # Waiting connections are cut in time, which makes room.
        deadline_api = dm.RemoteAPI()

        def is_in():
            try:
                deadline_api.connect("127.0.0.1", server.port)
            except OSError:
                return False
            return True

        wait_until(is_in, WAIT_S)
        deadline_api.disconnect()


def test_transforms_are_names(tmp_path):
    folder(tmp_path)

    def doubled(block):
        values = {name: 2 * column for name, column in block.values.items()}
        return dm.Block(block.stream, block.t, values, sequence=block.sequence)

    made = {"doubled": doubled, "bad": lambda block: 3}
    with served(tmp_path, transforms=made) as server, connected(server) as api:
        assert api.transforms == ["bad", "doubled"]
        sink = queue.Queue()
        replay = api.replay_collection_stream
        replay(*EYES, sink, transform="doubled", rate_limit=False).wait(WAIT_S)
        assert [sink.get()["value"]["x"] for _ in range(30)] == [*range(0, 60, 2)]
        end = replay(*EYES, queue.Queue(), transform="bad").wait(WAIT_S)
        assert end.reason == "failed"
        assert "must return blocks, got int" in str(end.error)
        with pytest.raises(SourceNotFound, match="did you mean 'doubled'"):
            replay(*EYES, sink, transform="double")
        with pytest.raises(TypeError, match="functions cannot be sent"):
            api.simulate_stream("eyes", "gaze", None, sink, signals=lambda t: t)
        with pytest.raises(TypeError, match="cannot pace a stream of the server"):
            replay(*EYES, sink, timeline=dm.Timeline())


def test_serving_to_another_room_needs_tls_and_a_token(tmp_path):
    """Only a client that trusts the certificate connects."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl(1) makes the certificate")
    certificate, key, token = (tmp_path / n for n in ("c.pem", "k.pem", "token"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=lab", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", certificate, "-keyout", key],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    folder(tmp_path)
    files = ["--certificate", str(certificate), "--key", str(key)]
    serve = [sys.executable, "-P", "-m", "ataraxis.datamux", "serve", "-p", "0"]
    refused = subprocess.run(
        [*serve, "-H", "0.0.0.0", *files], capture_output=True, text=True, timeout=90
    )
    assert refused.returncode == 1
    assert "without a token" in refused.stderr
    with ServeCommand(
        tmp_path, "-H", "0.0.0.0", *files, "--token-file", str(token)
    ) as server:
        assert server.line.startswith("serving on wss://0.0.0.0:")
        secret = token.read_text().strip()
        options = {"token": secret, "tls": str(certificate)}
        with connected(server.port, "json", **options) as api:
            assert [c.id for c in api.list_collections()] == ["eyes"]
            sink = queue.Queue()
            ack = api.replay_collection_stream(*EYES, sink, rate_limit=False)
            assert ack.wait(WAIT_S) is dm.END_OF_STREAM
        with pytest.raises(OSError, match="certificate"):
            dm.RemoteAPI().connect("127.0.0.1", server.port, token=secret, tls=True)
        with pytest.raises(OSError, match=str(server.port)):
            dm.RemoteAPI().connect("127.0.0.1", server.port, token=secret, tls=False)
        with pytest.raises(AccessDenied):
            dm.RemoteAPI().connect(
                "127.0.0.1", server.port, token="x" * 43, tls=str(certificate)
            )
        taken = subprocess.run(
            [*serve[:-1], str(server.port)], capture_output=True, text=True, timeout=90
        )
        assert taken.returncode == 1
        assert "in use" in taken.stderr
        assert server.end() == 0


def test_a_browser_could_speak_json(tmp_path):
    """Every message is JSON without NaN literals, also of numbers not finite."""
    from ataraxis.datamux.remote.codec import codec_of

    stream = {"name": "s", "frequency": 1000, "fields": {"v": {"dtype": "f32"}}}
    arguments = {"source": stream, "faults": {"nan": 0.5}, "duration": 0.1}
    from websockets.sync.client import connect

    def strict(text):
        raise AssertionError(text)

    with (
        served(tmp_path, is_open=True) as server,
        connect(
            f"ws://127.0.0.1:{server.port}",
            subprotocols=["ataraxis.1.json"],
            proxy=None,
        ) as made,
    ):
        made.send(json.dumps({"op": "hello", "version": 1}))
        made.send(json.dumps({
            "op": "request", "id": 1, "call": "simulate_stream", "stream": 1,
            "arguments": arguments,
        }))  # fmt: skip
        seen = []
        while not seen or seen[-1]["op"] != "end":
            data = made.recv(WAIT_S, decode=False)
            seen.append(json.loads(data, parse_constant=strict))
            codec_of("json").decode(data)
        columns = [m["columns"] for m in seen if m["op"] == "block"]
        values = [v for block in columns for v in block[1]]
        assert "nan" in values
        assert len(values) == 100
