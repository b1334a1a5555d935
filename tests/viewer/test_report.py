"""The report of a session: whole, self-contained, honest about what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ataraxis
from ataraxis import Producer, Session
from ataraxis.cli import main
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter


class Strict(HTMLParser):
    """Collects tags and addresses; every tag that opens must close."""

    VOID = frozenset({"meta", "img", "rect", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "href") or str(value).startswith("data:")
            assert not name.startswith("on")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(path: Path) -> Strict:
    page = Strict()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open in ([], ["html"]), page.open
    assert "script" not in page.tags
    assert not re.search(r"https?://", path.read_text().replace("http-equiv", ""))
    return page


def test_a_session_reports_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(tmp_path / "ctx"))
    (tmp_path / "ctx").mkdir()
    probe = Producer(
        "probe", shape=(100, 4), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 10_000, "units": "uV"}, buffer_count=64,
    )  # fmt: skip
    camera = Producer("camera", shape=(8, 6), dtype="u1", dims=("y", "x"))
    with Session("<day3>", directory=tmp_path, subject="m42") as session:
        session.record("probe")
        session.record("camera")
        for k in range(40):
            probe.send(np.full((100, 4), k, "i2"))
            camera.send(np.full((8, 6), k, "u1"))
        session.event("reward", n=1)
        session.note("<script>alert(1)</script>")
        probe.end()
        camera.end()
    out = ataraxis.report(session.directory)
    assert out == Path(session.directory) / "report.html"
    page = parsed(out)
    text = " ".join(page.text)
    for wanted in (
        "<day3>", "Trusted: nothing is missing", "reward", "m42", "int16 100 × 4",
        "<script>alert(1)</script>", "4 channels, uV",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert page.tags.count("svg") >= 4
    assert "img" in page.tags  # the camera's picture
    probe.close()
    camera.close()
    ran = CliRunner().invoke(main, ["report", str(session.directory), "--verify"])
    assert ran.exit_code == 0, ran.output


def damaged(folder: Path) -> None:
    """Write a stream of which 20 frames are missing."""
    labels = Labels("i2", (50, 3), ("time", "channel"), attrs={"sample_rate_hz": 1000})
    with JournalWriter(folder, "probe") as journal:
        journal.describe(1, "probe", labels)
        number = journal.labels_id(labels)
        for k in [*range(30), *range(50, 80)]:
            block = np.full((50, 3), k, "i2")
            frame = Frame.from_value(block, sequence=k, time_ns=(k + 1) * 50_000_000)
            journal.append(frame.to_bytes(), source=1, labels=number)


def test_missing_frames_are_said_and_left_open(tmp_path: Path) -> None:
    """Not trusted, exit code 1, and no line is drawn over what is not there."""
    damaged(tmp_path / "cut")
    out = ataraxis.report(tmp_path / "cut", tmp_path / "cut.html")
    text = " ".join(parsed(out).text)
    assert "Not to be trusted: 20 frames are missing" in text
    ran = CliRunner().invoke(main, ["report", str(tmp_path / "cut")])
    assert ran.exit_code == 1
    drawn = re.findall(r'oklch[^>]*d="([^"]*)"', out.read_text())
    assert drawn
    whole = ataraxis.overview(tmp_path / "cut", "probe", 100)
    assert not whole["is_there"].all()


def test_what_verify_finds_is_in_the_exit_code(tmp_path: Path) -> None:
    """The session's own verdict is from before a byte was changed."""
    with Session("day", directory=tmp_path) as session, Producer("v", 64) as stream:
        session.record("v")
        for k in range(5):
            stream.send(bytes([k]) * 64)
        stream.end()
    (path,) = Path(session.directory).glob("v.*.axj")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x03" * 64)
    data[at + 5] ^= 1
    path.write_bytes(data)
    for options, code in (([], 0), (["--verify"], 1)):
        ran = CliRunner().invoke(main, ["report", str(session.directory), *options])
        assert ran.exit_code == code, ran.output


def test_a_log_without_a_session_and_an_empty_one(tmp_path: Path) -> None:
    with JournalWriter(tmp_path / "log", "lick") as journal:
        journal.describe(1, "lick", Labels("f4", ()))
    parsed(ataraxis.report(tmp_path / "log"))
    with pytest.raises(FileNotFoundError):
        ataraxis.report(tmp_path / "nothing")
    assert [*tmp_path.glob("*.html")] == []
    ran = CliRunner().invoke(main, ["report", str(tmp_path / "nothing")])
    assert ran.exit_code == 1
    assert "nothing" in ran.output
