"""What a server gives: names, never paths; 10,000 generated requests at full figures.

Outside of the folder of data lie secrets of every format, and the kernel tells when one
is opened. Each request that names one has a twin that names a file that is not there:
their answers must be the same.
"""
# ruff: noqa: E501

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import programs
import pytest

import ataraxis.datamux as dm
from ataraxis.datamux.remote.codec import codec_of

NUMBER = 4815162342.5
MARKS = (
    hostile.SECRET.encode(), b"4815162342", struct.pack("<d", NUMBER),
    struct.pack(">d", NUMBER), hostile.SECRET.encode("utf-16-le"),
)  # fmt: skip
THERE, MISSING = "secret", "sekret"
SUFFIXES = (".npz", ".npy", ".csv", ".h5", ".xdf", ".nwb", ".hea", ".dat", ".parquet",
            "", "_log.npz", ".axj", ".json")  # fmt: skip
STREAM = {"name": "x", "frequency": 10, "fields": {"x": {"name": "x", "dtype": "f64"}}}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is another user")


def secrets(folder: Path) -> None:
    """Files that no client may read, of every format available here."""
    folder.mkdir()
    x, t = np.full(30, NUMBER), np.arange(30) / 10
    np.savez(folder / "secret.npz", x=x, t=t)
    np.savez(folder / "secret_log.npz", x=x, t=t)
    np.save(folder / "secret.npy", x)
    (folder / "secret.csv").write_text(f"x,t\n{NUMBER},0\n{hostile.SECRET},1\n")
    (folder / "secret").write_text(hostile.SECRET * 20)
    (folder / "secret.json").write_text(json.dumps({"name": hostile.SECRET}))
    (folder / "secret.dat").write_bytes(x.tobytes())
    (folder / "secret.hea").write_text(
        "secret 1 10 30\nsecret.dat 16 200 11 0 0 0 0 x\n"
    )
    recording = dm.Recording.of(
        dm.Stream("x", fields={"x": dm.Field(dtype="f64")}), {"x": x, "t": t}
    )
    for write, name in ((dm.write_xdf, "xdf"), (dm.write_nwb, "nwb")):
        try:
            write(folder / f"secret.{name}", {"x": recording})
        except ModuleNotFoundError:
            pass
    try:
        import h5py

        with h5py.File(folder / "secret.h5", "w") as file:
            file["x"] = x
    except ModuleNotFoundError:
        pass


def recordings(data: Path, meta: Path, outside: Path) -> list[str]:
    """Collections of every format, good recordings, and links that lead out."""
    meta.mkdir()
    kinds = ["csv", "npy", "npz", "parquet", "h5", "wfdb", "xdf", "nwb", "log"]
    x, t = np.arange(30.0), np.arange(30) / 10
    for kind in kinds:
        folder = data / kind
        folder.mkdir(parents=True)
        described = {
            "name": kind,
            "pattern": f"{kind}://{{r}}",
            "streams": {"x": STREAM},
        }
        (meta / f"{kind}.collection.json").write_text(json.dumps(described))
        for suffix in SUFFIXES:
            for name in (THERE, MISSING):
                (folder / f"abs-{name}{suffix}").symlink_to(outside / f"{name}{suffix}")
                to = f"../../outside/{name}{suffix}"
                (folder / f"rel-{name}{suffix}").symlink_to(to)
        (folder / "out").symlink_to(outside)
        (folder / "root").symlink_to("/")
    (data / "csv" / "good.csv").write_text("x,t\n1,0\n2,1\n")
    np.save(data / "npy" / "good.npy", x)
    np.savez(data / "npz" / "good.npz", x=x, t=t)
    np.savez(data / "good.npz", x=x, t=t)
    for k, names in enumerate((("../../outside/secret.dat", "/etc/passwd"),
                               ("../../outside/sekret.dat", "/etc/passwx"))):  # fmt: skip
        text = "".join(f"{name} 16 200 11 0 0 0 0 x\n" for name in names)
        (data / "wfdb" / f"lies{k}.hea").write_text(f"lies{k} 2 10 30\n{text}")
    for target, name in ((outside / "secret.json", "there"),
                         (outside / "sekret.json", "missing")):  # fmt: skip
        (meta / f"{name}.collection.json").write_text(
            json.dumps({"name": {"@ref": str(target)}, "pattern": "csv://{r}"})
        )
        (meta / f"link-{name}.collection.json").symlink_to(target)
    try:
        import h5py
    except ModuleNotFoundError:
        return kinds
    with h5py.File(data / "h5" / "data.h5", "w") as file:
        for name in (THERE, MISSING):
            file[f"link-{name}"] = h5py.ExternalLink(str(outside / f"{name}.h5"), "/x")
            file[f"soft-{name}"] = h5py.SoftLink(f"/link-{name}")
            file.create_dataset(
                f"raw-{name}", (240,), "u1",
                external=[(str(outside / f"{name}.dat"), 0, 240)],
            )  # fmt: skip
            layout = h5py.VirtualLayout((30,), "f8")
            where = str(outside / f"{name}.h5")
            layout[:] = h5py.VirtualSource(where, "x", (30,))
            file.create_virtual_dataset(f"virtual-{name}", layout)
        file["good"] = x
    (data / "nwb" / "inside.nwb").write_bytes((data / "h5" / "data.h5").read_bytes())
    return kinds


def paths(name: str, outside: Path, rng: random.Random) -> str:
    """One of many ways to write where a file outside is."""
    suffix = rng.choice(SUFFIXES)
    file = f"{name}{suffix}"
    base = rng.choice((
        f"{outside}/{file}", f"../outside/{file}", f"../../outside/{file}",
        f"csv/../../outside/{file}", f"npz/out/{file}", f"npz/abs-{file}",
        f"csv/rel-{file}", f"root{outside}/{file}", f"log/root{outside}/{file}",
        f"/proc/self/root{outside}/{file}", f"/proc/self/cwd/../{file}",
        f"file://{outside}/{file}", f"~/../../{outside}/{file}",
        f"//{outside}/{file}", f"./.././outside/{file}", f"abs-{name}", f"rel-{name}",
        f"link-{name}", f"soft-{name}", f"raw-{name}", f"virtual-{name}", f"out/{name}",
    ))  # fmt: skip
    twist = rng.randrange(12)
    if twist == 0:
        base = base.replace("..", "%2e%2e").replace("/", "%2f")
    elif twist == 1:
        base = base.replace("..", "..%00")
    elif twist == 2:
        base = base.replace("/", "\\")
    elif twist == 3:
        base += rng.choice(("\0", "\0.npz", "/", "/.", " ", "\ud800", "\n", ":$DATA"))
    elif twist == 4:
        base = base.replace("/", "//")
    elif twist == 5:
        base = base.replace(".", "\uff0e")
    elif twist == 6:
        base = "x/" * rng.choice((1, 40)) + "../" * rng.choice((1, 40)) + base
    elif twist == 7:
        base = base.upper() if rng.random() < 0.5 else base + "x" * 300
    return base


def request(name: str, kinds: list[str], outside: Path, seed: int) -> dict[str, Any]:
    """A request that names a file of this name, in one of many ways."""
    rng = random.Random(seed)
    path = paths(name, outside, rng)
    kind = rng.choice([*kinds, path, "there" if name == THERE else "missing"])
    attrs: Any = {rng.choice(("r", "path", "annotator", "log_name", "xdf_name")): path}
    attrs.setdefault(
        "r", rng.choice(("good", path, "lies0" if name == THERE else "lies1"))
    )
    if rng.random() < 0.05:
        attrs = rng.choice(({"r": [path]}, {"r": {"a": path}}, {"r": None}, {"r": 7}))
    stream = rng.choice(("x", path, ""))
    call = rng.randrange(8)
    if call < 3:
        return {"call": "replay_collection_stream", "arguments": {
            "collection_id": kind, "stream_id": stream, "attrs": attrs,
            "rate_limit": False}}  # fmt: skip
    if call < 6:
        node = rng.choice(("recording", "recording", "shared", "sim", path))
        more = {**attrs, "path": path, "speed": 1e6}
        return {"call": "proxy_live_stream", "arguments": {
            "node_id": node, "stream_id": stream, "attrs": more}}  # fmt: skip
    if call == 6:
        return {"call": "simulate_stream", "arguments": {
            "source": kind, "stream_id": stream, "attrs": attrs, "guided": True,
            "duration": 0.1, "rate_limit": False}}  # fmt: skip
    return rng.choice((
        {"call": "list_collection_streams", "arguments": {"collection_id": kind}},
        {"call": "list_live_streams", "arguments": {"node_id": path}},
        {"call": path, "arguments": {}},
    ))  # fmt: skip


class Asker:
    """Asks a server, message by message, and keeps every byte of its answers."""

    def __init__(self, socket: Any, codec: str) -> None:
        self._socket, self._codec = socket, codec_of(codec)
        self._is_text = codec == "json"
        self._count = 0

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send(self._codec.encode(message), text=self._is_text)

    async def hello(self) -> None:
        await self._send({"op": "hello", "version": 1})
        await self._socket.recv(decode=False)

    async def ask(self, asked: dict[str, Any]) -> tuple[bytes, str]:
        """The bytes of everything that came, and the answer as text."""
        self._count += 1
        number, raw, answer = self._count, b"", ""
        await self._send({"op": "request", "id": number, "stream": number, **asked})
        is_running = asked["call"] in (
            "replay_collection_stream", "proxy_live_stream", "simulate_stream",
        )  # fmt: skip
        end = None if is_running else ""
        while not answer or end is None:
            data = await asyncio.wait_for(self._socket.recv(decode=False), 60)
            raw += data
            message = self._codec.decode(data)
            if message["op"] == "reply" and message["id"] == number:
                answer = json.dumps(message.get("error") or "done")
                end = "" if "error" in message else end
            elif message["op"] == "end" and message["stream"] == number:
                end = json.dumps([message["reason"], message.get("error")])
        answer += end
        if is_running and "error" not in answer:
            await self._send(
                {"op": "request", "id": 0, "stream": number, "call": "stop"}
            )
        return raw, answer


def same(text: str) -> str:
    """An answer without what differs between twins by what was asked.

    A hint is made of names that the server has, and of how like them the asked one is.
    """
    text = re.sub(r"; did you mean '[^']*'\?", "", text)
    text = text.lower().replace("sek", "sec")  # also where it was cut
    return re.sub("lies[01]", "lies", re.sub("there|missing", "which", text))


@pytest.mark.filterwarnings("ignore")
def test_no_request_reads_or_finds_a_file_outside(tmp_path, figure):
    from websockets.asyncio.client import connect

    outside, data, meta = (tmp_path / n for n in ("outside", "data", "meta"))
    secrets(outside)
    data.mkdir()
    kinds = recordings(data, meta, outside)
    count, wrong, served = int(figure(10_000, 200)), [], 0
    limits = dm.Limits(requests_hz=1e6, messages_hz=1e6, samples_hz=1e12, bytes_s=1e15)

    async def run(server: Any) -> int:
        served = 0
        for codec in ("json", "msgpack", "frame"):
            async with connect(
                f"ws://127.0.0.1:{server.port}/ws", proxy=None, max_size=None,
                subprotocols=[f"ataraxis.1.{codec}"],
                additional_headers={"Authorization": f"Bearer {server.token}"},
            ) as made:  # fmt: skip
                asker = Asker(made, codec)
                await asker.hello()
                good = {"call": "proxy_live_stream", "arguments": {
                    "node_id": "recording", "stream_id": "good",
                    "attrs": {"path": "good.npz", "speed": 1e6}}}  # fmt: skip
                assert "completed" in (await asker.ask(good))[1]
                for seed in range(count // 6):
                    twins = []
                    for name in (THERE, MISSING):
                        asked = request(name, kinds, outside, seed)
                        if codec == "msgpack":
                            asked = json.loads(
                                json.dumps(asked).replace("\\ud800", "?")
                            )
                        raw, answer = await asker.ask(asked)
                        served += 1
                        twins.append(answer)
                        found = [m for m in MARKS if m in raw and m.decode(
                            "latin-1") not in json.dumps(asked)]  # fmt: skip
                        if found:
                            wrong.append(("secret", seed, asked, answer[:300]))
                        if watch.has_seen():
                            wrong.append(("opened", seed, asked, answer[:300]))
                    if same(twins[0]) != same(twins[1]):
                        wrong.append(("tells", seed, asked, *(t[:400] for t in twins)))
        return served

    with dm.Server(dm.API(data, meta), limits=limits) as server:
        watch = hostile.Watch(outside)
        served = asyncio.run(run(server))
    watch.close()
    print("requests:", served, "wrong:", len(wrong))
    for found in wrong[:5]:
        print(found)
    assert wrong[:5] == []


HTTP = r"""
    import random, socket, sys
    port, count, seed = map(int, sys.argv[1:4])
    rng = random.Random(seed)
    heard = {}
    for k in range(count):
        path = rng.choice(["/ws", "/", "/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd",
            "/ws/../secret", "/ws?token=x", "http://127.0.0.1/etc/passwd", "*", "/" + "a" * 5000])
        token = rng.choice(["", "Bearer ", "Bearer " + "x" * 43, "Basic eDp4", "bearer x",
            "Bearer \xff", "Bearer null", "Bearer " + "\0" * 30])
        protocol = rng.choice(["ataraxis.1.json", "ataraxis.1.frame", "ataraxis.1.msgpack", "chat"])
        host = rng.choice(["127.0.0.1", "localhost", "evil.example", "127.0.0.1:1"])
        text = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n"
            + (f"Authorization: {token}\r\n" if token else "") + "\r\n")
        with socket.create_connection(("127.0.0.1", port), 30) as made:
            made.sendall(text.encode("latin-1"))
            answer = b""
            try:
                while more := made.recv(65536):
                    answer += more
            except ConnectionResetError:
                pass
        status = answer[:12].decode("latin-1")
        heard[status] = heard.get(status, 0) + 1
        if b"SECRET" in answer or b" 101 " in answer[:20] or b"root:" in answer:
            print("LET IN", path, token)
    print(sum(heard.values()), heard)
    """


def test_without_a_token_nothing_is_answered(tmp_path, figure):
    secrets(tmp_path / "outside")
    count = int(figure(10_000, 100))
    with dm.Server(dm.API(tmp_path, tmp_path)) as server:
        watch = hostile.Watch(tmp_path / "outside")
        report = programs.run(HTTP, server.port, count, 1, timeout=500)
        assert not watch.has_seen()
    watch.close()
    print(report)
    assert "LET IN" not in report
    assert report.startswith(f"{count} ")


AS_STRANGER = """
    import os, socket, sys
    context, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    import ataraxis.datamux as dm
    from ataraxis.errors import AccessDenied
    with dm.Server() as loads, dm.RemoteAPI("websocket", "json") as api:
        api.connect("127.0.0.1", loads.port)  # loads modules that this user may not read
    unix = socket.socket(socket.AF_UNIX)
    os.setgroups([]); os.setresgid(54322, 54322, 54322); os.setresuid(54322, 54322, 54322)
    for use in (
        lambda: open(f"{context}/.serve-{port}.token").read(),
        lambda: os.listdir(context),
        lambda: unix.connect(f"{context}/.serve.sock"),
    ):
        try:
            use()
        except PermissionError:
            continue
        print("LET IN", use)
    unix.close()
    os.environ["ATARAXIS_CONTEXT"] = path
    try:
        dm.RemoteAPI("websocket", "json").connect("127.0.0.1", port)
    except AccessDenied as error:
        print("denied:", error)
    """


@needs_root
def test_another_user_of_this_machine_is_a_stranger(tmp_path, context, figure):
    """Neither its loopback, nor the token's file, nor the Unix socket let it in."""
    theirs = context / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 54322, 54322)
    context.chmod(0o711)
    mine = context / "mine"
    mine.mkdir(mode=0o700)
    secrets(tmp_path / "outside")
    code = textwrap.dedent(AS_STRANGER)
    http = "os.setgroups([]); os.setresgid(54322, 54322, 54322); os.setresuid(54322, 54322, 54322)"
    env = {**os.environ, "ATARAXIS_CONTEXT": str(mine)}
    serve = [sys.executable, "-P", "-m", "ataraxis.datamux", "serve", "-p", "0",
             "--data-dir", str(tmp_path), "--meta-dir", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(serve, env=env, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline().rsplit(":", 1)[1])
            assert (mine / f".serve-{port}.token").stat().st_mode & 0o777 == 0o600
            report = programs.run(code, mine, port, theirs)
            count = int(figure(10_000, 100))
            stranger = (
                "import encodings.idna, os, random, socket, sys\n"
                + http
                + "\n"
                + textwrap.dedent(HTTP)
            )
            heard = programs.run(stranger, port, count, 2, timeout=500)
        finally:
            server.terminate()
            server.wait(30)
    print(report, heard)
    assert "LET IN" not in report + heard
    assert "a token is needed" in report
    assert not any(path.name.startswith(".serve") for path in mine.iterdir())
    mine.rmdir()
    theirs.rmdir()


@needs_root
def test_a_unix_socket_knows_its_peer(tmp_path, context):
    """Without a token; the kernel says who it is, whatever the socket's mode."""
    context.chmod(0o711)
    where = context / "door.sock"
    with dm.Server(dm.API(tmp_path, tmp_path), host=f"unix:{where}"):
        assert where.stat().st_mode & 0o777 == 0o600
        with dm.RemoteAPI("websocket", "json") as api:
            api.connect(f"unix:{where}")
            assert "sim" in [node.id for node in api.list_live_nodes()]
        where.chmod(0o777)  # as a careless administrator might
        report = programs.run(
            """
            import os, socket, sys
            os.setgroups([]); os.setresgid(54322, 54322, 54322)
            os.setresuid(54322, 54322, 54322)
            with socket.socket(socket.AF_UNIX) as made:
                made.settimeout(20)
                made.connect(sys.argv[1])
                try:
                    made.sendall(b"GET /ws HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
                    print(made.recv(99))
                except OSError as error:
                    print(type(error).__name__)
            """,
            where,
        )
        assert report.strip() in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert not where.exists()


def test_a_dead_servers_socket_is_replaced_and_a_live_ones_is_not(tmp_path, context):
    where = context / "door.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(where))
    dead.close()
    with dm.Server(dm.API(tmp_path, tmp_path), host=f"unix:{where}"):
        with dm.RemoteAPI() as api:
            api.connect(f"unix:{where}")
        other = dm.Server(dm.API(tmp_path, tmp_path), host=f"unix:{where}")
        with pytest.raises(OSError, match="in use"):
            other.start()
    assert not where.exists()
