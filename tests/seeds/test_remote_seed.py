"""The seed's remote examples, with every codec; corrections are listed.

Option B as printed, then the two loops as printed; the server is started by the command
as printed, in a process of its own.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap

import pytest
from deadline import wait_until
from remote_rig import CODECS, folder
from test_datamux_seed import MENDS, WATCH, mended, printed

FILL = [
    (r'"<rpc>"', '"websocket"'),
    (r'"<codec>"', "{codec!r}"),
    (r'"<host>"', '"127.0.0.1"'),
    (r"<port>", "{port}"),
]
SERVE = [
    (r'"<host_name>"', "127.0.0.1"),
    (r"<port>", "{port}"),
    (r"<rpc_name>", "websocket"),
    (r"<codec_name>", "{codec}"),
]


@pytest.fixture(params=CODECS)
def codec(request):
    return request.param


@pytest.fixture
def port(tmp_path, monkeypatch, codec):
    """The port of a server that was started as the seed prints it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streaminghub").mkdir()
    folder(tmp_path / "streaminghub")
    command = re.sub(*MENDS[2], printed("serve").strip())
    for pattern, replacement in SERVE:
        command = re.sub(pattern, replacement.format(port=0, codec=codec), command)
    words = shlex.split(command)
    assert words[0] == "python"
    process = subprocess.Popen(
        [sys.executable, *words[1:]], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        yield int(re.search(r":(\d+)$", line.strip())[1])
        process.terminate()
        assert process.wait(90) == 0
    finally:
        process.kill()
        process.communicate()


def program(name: str, codec: str, port: int, enough: int) -> str:
    option_b = printed("instantiate").partition("# Option B")[2].partition("\n")[2]
    for pattern, replacement in FILL:
        filled = replacement.format(codec=codec, port=port)
        option_b = re.sub(pattern, filled, option_b)
    loop = mended(name).rstrip() + "\n"
    more = WATCH.format(enough=enough) if enough else "    received.append(item)\n"
    loop = loop.replace("        break\n", "        break\n" + more)
    return (
        f"import asyncio\n{re.sub(*MENDS[0], printed('import'))}\n"
        "from ataraxis.datamux import util\nreceived = []\n\n"
        "async def main():\n    global received, ack, streams, item, dm\n"
        + textwrap.indent(option_b + "\n" + loop, "    ").replace("\n    \n", "\n\n")
        + "\nasyncio.run(main())\n"
    )


def test_replay_as_printed(port, codec):
    space = {}
    exec(program("replay", codec, port, 0), space)
    assert [stream.attrs["subject"] for stream in space["streams"]] == ["A"]
    values = [item["value"]["x"] for item in space["received"]]
    assert values == [float(i) for i in range(30)]
    assert space["item"] is space["dm"].END_OF_STREAM


def test_proxy_as_printed(port, codec):
    space = {}
    exec(program("proxy", codec, port, 50), space)
    assert {"sine", "events"} <= {stream.id for stream in space["streams"]}
    assert len(space["received"]) >= 50
    assert space["item"].reason == "stopped"
    assert space["ack"].randseq.startswith("d_")


def test_the_same_calls_without_await(port, codec):
    import ataraxis.datamux as dm

    api = dm.RemoteAPI(rpc_name="websocket", codec_name=codec)
    api.connect(server_host="127.0.0.1", server_port=port)
    assert [c.id for c in api.list_collections()] == ["eyes"]
    sink = dm.Queue(timeout=20)
    attrs = {"subject": "A", "session": "1", "task": "1"}
    ack = api.replay_collection_stream("eyes", "gaze", attrs, sink)
    items = []
    while (item := sink.get()) != dm.END_OF_STREAM:
        items.append(item)
    assert len(items) == 30
    assert api.stop_task(ack.randseq).status
    sink.close()


def test_a_client_that_is_forgotten_leaves_nothing(port, codec):
    """The seed never disconnects: the thread ends when the API is garbage."""
    import threading

    import ataraxis.datamux as dm

    api = dm.RemoteAPI("websocket", codec)
    api.connect("127.0.0.1", port)
    assert any(t.name == "ataraxis-remote" for t in threading.enumerate())
    del api
    wait_until(
        lambda: not any(t.name == "ataraxis-remote" for t in threading.enumerate())
    )
