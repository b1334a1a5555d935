"""Sources of a rig: what is unknown is refused, what failed says why."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from deadline import wait_until

from ataraxis import Session
from ataraxis.datamux import Field, Stream
from ataraxis.datamux.catalog import Catalog
from ataraxis.datamux.registry import BUILT_IN, Live, check_options
from ataraxis.datamux.sources.serial import Unwrapped, Wire
from ataraxis.datamux.streaminghub.util import Settings
from ataraxis.errors import ConfigError, SourceFailed, SourceNotFound
from ataraxis.session import Rig, check
from ataraxis.session.rig import RigPipe, RigRecorder, RigSource, RigStep

BROKEN = [sys.executable, "-c", "import sys; sys.exit('the laser is off')"]
OWN = """
    import os, signal, time
    import numpy as np
    from ataraxis import Producer

    signal.signal(signal.SIGTERM, lambda *_: exit(0))
    with Producer(os.environ["ATARAXIS_STREAM"], shape=(3,), dtype="i4") as p:
        k = 0
        while True:
            p.send(np.full(3, k, "i4"))
            k += 1
            time.sleep(0.005)
"""


@pytest.mark.parametrize(
    ("attrs", "meant"),
    [
        ({"rate": 60}, "did you mean 'rate_hz'"),
        ({"shape": [4, 4], "colour": "red"}, "unknown attribute 'colour'"),
        ({"chanels": 4}, "did you mean 'channels'"),
    ],
)
def test_unknown_attributes_are_refused_before_anything_starts(
    tmp_path: Path, attrs: dict[str, object], meant: str
) -> None:
    rig = Rig({"cam": RigSource("sim", "camera", attrs)})
    assert meant in rig.problems()[0]
    session = Session("s", directory=tmp_path)
    with pytest.raises(ConfigError, match=meant):
        session.start(rig)
    session.close()
    driver = BUILT_IN["sim"].driver()
    with pytest.raises(ConfigError, match=meant):
        check_options(driver, attrs, "it")


def test_a_source_is_a_node_or_a_command() -> None:
    assert "are missing" in Rig({"a": RigSource()}).problems()[0]
    both = RigSource("sim", "camera", command=["x"])
    assert "not both" in Rig({"a": both}).problems()[0]


def test_the_row_of_the_source_that_failed_says_why(tmp_path: Path) -> None:
    rig = Rig(
        {
            "cam": RigSource("sim", "camera"),
            "laser": RigSource(command=BROKEN),
        },
        recorders=[RigRecorder(process=False)],
    )
    began = time.monotonic()
    found = check(rig, 1.0, directory=tmp_path)
    assert time.monotonic() - began < 40
    rows = {row.stream: row.problem for row in found.streams}
    assert "the laser is off" in rows["laser"]
    assert "exit code 1" in rows["laser"]
    assert "'laser' failed" in rows["cam"]
    assert not found.is_ready


def test_a_process_that_died_is_known_at_once(tmp_path: Path) -> None:
    session = Session("s", directory=tmp_path)
    with pytest.raises(SourceFailed, match="the laser is off") as failed:
        session.start(Rig({"laser": RigSource(command=BROKEN)}, recorders=[]))
    assert failed.value.source == "laser"
    session.close()


def test_a_command_is_a_source_that_is_recorded_and_ended(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    command = [sys.executable, str(tmp_path / "own.py")]
    rig = Rig(
        {"own": RigSource(command=command)}, recorders=[RigRecorder(process=False)]
    )
    with Session("s", directory=tmp_path) as s:
        run = s.start(rig)
        wait_until(lambda: s.statistics()["own"].frames > 20, 30)
        run.stop()
    assert s.verdict["own"].is_trusted, s.verdict
    assert s.verdict["own"].received == s.verdict["own"].expected > 20
    assert s.verdict["own"].late == 0


def test_the_folder_of_the_rig_is_importable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_steps_of_a_test.py").write_text(
        "def mean(frame):\n    return float(frame.mean())\n"
    )
    rig = Rig(
        {"cam": RigSource("sim", "camera", {"rate_hz": 20})},
        recorders=[RigRecorder(process=False)],
        pipes={
            "p": RigPipe("cam", [RigStep("mean", "own_steps_of_a_test:mean")], "mean")
        },
    )
    rig.to_yaml(tmp_path / "rig.yaml")
    with Session("s", directory=tmp_path) as s:
        run = s.start(tmp_path / "rig.yaml")
        wait_until(lambda: s.statistics()["events"].frames > 2, 60)
        run.stop()
    assert s.verdict.is_trusted, s.verdict


def test_the_file_of_a_node_is_copied_into_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "board.node.yaml").write_text(
        "uri: sim://\noutputs:\n  ramp:\n    name: ramp\n    frequency: 50\n"
        "    fields:\n      a:\n        dtype: i16\n"
    )
    rig = Rig(
        {"b": RigSource("board.node.yaml", "ramp")},
        recorders=[RigRecorder(process=False)],
    )
    rig.to_yaml(tmp_path / "rig.yaml")
    with Session("s", directory=tmp_path) as s:
        run = s.start(tmp_path / "rig.yaml")
        wait_until(lambda: s.statistics()["b"].frames > 2, 60)
        run.stop()
    kept = s.directory / "board.node.yaml"
    assert kept.read_text() == (tmp_path / "board.node.yaml").read_text()


# ---- clocks of boards


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_a_clock_of_few_bits_rises_for_ever(dtype: str) -> None:
    span = 1 << (8 * np.dtype(dtype).itemsize)
    step = max(span // 7, 1)
    clock = Unwrapped(np.dtype(dtype))
    times = [k * step for k in range(40)]
    assert [clock.take(t % span, step) for t in times] == times


@pytest.mark.parametrize("last", [10**6, 3 * 10**9, 2**32 - 2 * 10**7])
def test_a_board_that_restarted_is_not_a_wrap(last: int) -> None:
    clock = Unwrapped(np.dtype("u4"))
    assert clock.take(last, 10**6) == last
    assert clock.take(500, 10**6) == 500


@pytest.mark.parametrize("protocol", ["lines", "frames"])
def test_a_board_of_micros_does_not_jump_back(protocol: str) -> None:
    stream = Stream(
        "adc",
        frequency=1000,
        fields={"a": Field("a", dtype="u16")},
        index={"t": Field("t", dtype="u32", unit="us")},
    )
    wire, found = Wire(stream, {"protocol": protocol}), []
    for t in (2**32 - 2000, 2**32 - 1000, 0, 1000):
        data = f"{t},5\n".encode()
        if protocol == "frames":
            data = b"\xaa\x55" + np.array([(t, 5)], "<u4,<u2").tobytes()
        found += [row[0] for row in wire.take(data).rows]
    np.testing.assert_allclose(np.diff(found), 1e-3, rtol=1e-6)


def test_clients_of_a_server_name_nodes_and_give_no_path(tmp_path: Path) -> None:
    path = tmp_path / "cam.node.yaml"
    path.write_text("uri: sim://\n")
    settings = Settings(data_dir=tmp_path, meta_dir=tmp_path / "meta")
    settings.meta_dir.mkdir()
    assert Live(Catalog(settings)).node(str(path)).uri == "sim://"
    for node in (str(path), "sim://", "recording:///etc/passwd"):
        with pytest.raises(SourceNotFound):
            Live(Catalog(settings, is_confined=True)).node(node)
