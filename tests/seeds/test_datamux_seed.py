"""The seed's local examples as printed; every correction is listed.

tests/seeds/printed/datamux_*.txt are the seed's own words.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from datamux_rig import write_collection, write_csv
from places import PRINTED

SEED = PRINTED
ATTRS = '{"subject": "A", "session": "1", "task": "1"}'
# Errors in print, and values for the reader's own names.
MENDS = [
    (r"import streaminghub_datamux as dm", "import ataraxis.datamux as dm"),
    (r"attrs, sink\)", "attrs=attrs, sink=sink)"),
    (r"python -m streaminghub_datamux", "python -P -m ataraxis.datamux"),
]
IDS = {
    "replay": [(r'collection_id="<id>"', 'collection_id="eyes"')],
    "proxy": [(r'node_id="<id>"', 'node_id="sim"')],
}
STREAM = {"replay": "gaze", "proxy": "sine"}
# Between the printed lines: check the items, and end a live stream.
WATCH = """\
    received.append(item)
    if len(received) == {enough}:
        asyncio.get_running_loop().call_soon(api.stop_task, ack.randseq)
"""


def printed(name: str) -> str:
    return (SEED / f"datamux_{name}.txt").read_text()


def mended(name: str) -> str:
    text = printed(name)
    ids = [*IDS.get(name, []), (r'stream_id="<id>"', f'stream_id="{STREAM[name]}"')]
    for pattern, replacement in MENDS + ids:
        text = re.sub(pattern, replacement, text)
    assert "<id>" not in text
    return text


def program(name: str, enough: int) -> str:
    """The seed's import and Option A, and then one of its two loops."""
    setup = re.sub(*MENDS[0], printed("import"))
    option_a = printed("instantiate").partition("# Option B")[0]
    loop = mended(name).rstrip() + "\n"
    if enough:
        loop = loop.replace(
            "        break\n", "        break\n" + WATCH.format(enough=enough)
        )
    else:
        loop = loop.replace(
            "        break\n", "        break\n    received.append(item)\n"
        )
    return (
        f"import asyncio\n{setup}\n{option_a}\nfrom ataraxis.datamux import util\n"
        "received = []\n\nasync def main():\n    global received, ack, streams, item\n"
        + textwrap.indent(loop, "    ").replace("\n    \n", "\n\n")
        + "\nasyncio.run(main())\n"
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_then_replay_as_printed(home):
    shell = printed("init").strip()
    command = re.sub(*MENDS[2], shell).replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, check=True, timeout=60, capture_output=True)
    assert (home / ".streaminghubrc").is_file()
    folder = write_collection(home / "streaminghub")
    write_csv(folder / "A_1_1.csv", 30)
    space = {}
    exec(program("replay", 0), space)
    assert [stream.attrs["subject"] for stream in space["streams"]] == ["A"]
    values = [item["value"]["x"] for item in space["received"]]
    assert values == [float(i) for i in range(30)]
    np.testing.assert_allclose(
        [item["index"]["t"] for item in space["received"]], np.arange(30) / 100
    )
    assert space["item"] is space["dm"].END_OF_STREAM


def test_proxy_as_printed(home):
    (home / "streaminghub").mkdir()
    space = {}
    exec(program("proxy", 50), space)
    assert {"sine", "events"} <= {stream.id for stream in space["streams"]}
    assert len(space["received"]) >= 50
    assert space["item"].reason == "stopped"
    assert space["ack"].randseq.startswith("d_")


def test_the_same_calls_without_await(home):
    """As StreamingHub's own code has it since 2024: the API is synchronous."""
    (home / "streaminghub").mkdir()
    folder = write_collection(home / "streaminghub")
    write_csv(folder / "A_1_1.csv", 5)
    text = re.sub(r"\bawait (?=api)", "", program("replay", 0))
    assert "await api" not in text
    space = {}
    exec(text, space)
    assert len(space["received"]) == 5
    assert isinstance(space["streams"], list)


def test_what_the_originals_module_offers_is_offered(home):
    import ataraxis.datamux as dm

    for name in ("API", "END_OF_STREAM", "StreamAck", "identity", "envelope", "util",
                 "Enveloper", "gen_randseq", "prefix", "sleep", "Queue", "Flag",
                 "create_flag"):  # fmt: skip
        assert hasattr(dm, name), name
        assert name in dir(dm)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dm.nonsense
    wrap = dm.Enveloper(prefix=b"p", transform=dm.identity, suffix=b"s")
    assert wrap(3) == dm.envelope(3, b"p", b"s") == [b"p", 3, b"s"]
    assert dm.Enveloper()(3) == 3
    assert asyncio.run(_awaited(dm.StreamAck(True, "x"))).randseq == "x"


async def _awaited(ack):
    return await ack


def test_the_originals_queue_gives_none_when_nothing_comes(home):
    import ataraxis.datamux as dm

    sink = dm.Queue(timeout=0.01)
    assert sink.get() is None
    api = dm.API(home, home)
    stream = dm.Stream("x", frequency=10, fields={"v": dm.Field(dtype="i16")})
    recording = dm.Recording.of(stream, {"v": np.arange(3)})
    sink.timeout = 20
    other = dm.Queue(empty=True, timeout=20)
    with pytest.raises(ValueError, match="assign"):
        other.get()
    other.assign(sink)
    api.replay(recording, sink, rate_limit=False)
    items = [other.get() for _ in range(4)]
    assert items[1] == {"index": {"t": 0.1}, "value": {"v": 1}}
    assert items[3] is dm.END_OF_STREAM
    sink.close()
    flag = dm.create_flag()
    assert isinstance(flag, dm.Flag)
    assert not flag.is_set()
