"""What to_yaml does to the file: comments, mode, links, copies, kills."""

from __future__ import annotations

import os
import random
import selectors
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import workers_config

from ataraxis.config import ConfigError, YamlConfig, storage


@dataclass
class Camera:
    name: str = "left"
    fps: float = 30.0


@dataclass
class Rig(YamlConfig):
    name: str = "rig"
    gain: float = 0.001
    cameras: list[Camera] = field(default_factory=lambda: [Camera(), Camera("right")])
    camera: Camera | None = None
    ports: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 2})
    flags: list[int] = field(default_factory=list)


EDITED = """\
# the rig of room 3

name: 'rig'     # quoted by hand
gain:   1e-3    # literal kept

# both cameras
cameras:
    # the left one
    - fps: 3e+1   # order changed by hand
      name: left
    - {name: right, fps: 30}   # in flow
camera: ~    # none yet
# ports by name
ports:
    # first
    a: 0x1   # hex
    # second
    b: 2
flags: []
# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file as a person left it."""
    file = tmp_path / "rig.yaml"
    file.write_bytes(EDITED.encode())
    return file


def edited(*changes: tuple[str, str]) -> str:
    """Give the text with a few places changed, each of which must be there once."""
    text = EDITED
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def test_saving_unchanged_values_keeps_every_byte(path: Path) -> None:
    Rig.from_yaml(path).to_yaml(path)
    assert path.read_bytes() == EDITED.encode()


CHANGES: list[tuple[str, Any, list[tuple[str, str]]]] = [
    ("scalar", lambda r: setattr(r, "gain", 0.002), [("1e-3 ", "0.002 ")]),
    ("text", lambda r: setattr(r, "name", "no"), [("'rig'", "'no'")]),
    (
        "inside an item",
        lambda r: setattr(r.cameras[0], "fps", 25.0),
        [("3e+1", "25.0")],
    ),
    (
        "inside a flow mapping",
        lambda r: setattr(r.cameras[1], "name", "top"),
        [("{name: right", "{name: top")],
    ),
    (
        "item added",
        lambda r: r.cameras.append(Camera("top", 5.0)),
        [("in flow\n", "in flow\n    - name: top\n      fps: 5.0\n")],
    ),
    (
        "first item removed",
        lambda r: r.cameras.pop(0),
        [
            ("    - fps: 3e+1   # order changed by hand\n", ""),
            ("      name: left\n", ""),
        ],
    ),
    (
        "optional set",
        lambda r: setattr(r, "camera", Camera("new")),
        [
            ("camera: ~    # none", "camera:    # none"),
            ("yet\n", "yet\n  name: new\n  fps: 30.0\n"),
        ],
    ),
    (
        "key added at the end",
        lambda r: r.ports.update(c=3),
        [("    b: 2\n", "    b: 2\n    c: 3\n")],
    ),
    (
        "key added at the front",
        lambda r: setattr(r, "ports", {"z": 0, **r.ports}),
        [("    a: 0x1", "    z: 0\n    a: 0x1")],
    ),
    (
        "key deleted keeps the comment after it",
        lambda r: r.ports.pop("a"),
        [("    a: 0x1   # hex\n", "")],
    ),
    (
        "last key deleted",
        lambda r: r.ports.pop("b"),
        [("    b: 2\n", "")],
    ),
    ("empty list filled", lambda r: r.flags.extend([1, 2]), [("[]", "[1, 2]")]),
    (
        "collection emptied",
        lambda r: r.ports.clear(),
        [
            (
                "ports:\n    # first\n    a: 0x1   # hex\n    # second\n    b: 2",
                "ports: {}",
            )
        ],
    ),
]


@pytest.mark.parametrize(
    ("change", "places"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_only_the_changed_place_of_an_edited_file_changes(
    path: Path, change: Any, places: list[tuple[str, str]]
) -> None:
    rig = Rig.from_yaml(path)
    change(rig)
    rig.to_yaml(path)
    assert path.read_text("utf-8") == edited(*places)
    assert Rig.from_yaml(path) == rig
    assert os.listdir(path.parent) == ["rig.yaml"]


def test_an_equal_item_added_at_the_end_moves_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    Rig().to_yaml(path)
    block = path.read_text("utf-8").replace("flags: []", "flags:\n- 1   # one")
    path.write_text(block, "utf-8")
    rig = Rig.from_yaml(path)
    rig.flags.append(1)
    rig.to_yaml(path)
    assert path.read_text("utf-8").endswith("flags:\n- 1   # one\n- 1\n")


def test_windows_line_ends_and_byte_order_mark_stay(path: Path) -> None:
    windows = b"\xef\xbb\xbf" + EDITED.replace("\n", "\r\n").encode()
    path.write_bytes(windows)
    rig = Rig.from_yaml(path)
    rig.ports["c"] = 3
    rig.to_yaml(path)
    added = windows.replace(b"    b: 2\r\n", b"    b: 2\r\n    c: 3\r\n")
    assert path.read_bytes() == added


def test_anchors_aliases_and_merge_keys_survive_a_save(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    text = (
        "name: &word shared\ngain: 1\ncameras:\n- &first {name: *word, fps: 1.5}\n"
        "- <<: *first\n  name: right\ncamera: *first\nports: {}\nflags: []\n"
    )
    path.write_text(text, "utf-8")
    rig = Rig.from_yaml(path)
    assert rig.cameras == [Camera("shared", 1.5), Camera("right", 1.5)]
    assert rig.camera == Camera("shared", 1.5)
    rig.gain = 2.0
    rig.to_yaml(path)
    assert path.read_text("utf-8") == text.replace("gain: 1\n", "gain: 2.0\n")


@pytest.mark.parametrize(
    "text",
    [
        "name: &word a\ncameras: [{name: *word, fps: 1.0}]\n",
        "cameras: [&c {name: a, fps: 1.0}, *c]\n",
    ],
    ids=["scalar", "mapping"],
)
def test_changing_an_anchored_value_changes_no_alias(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text, "utf-8")
    rig = Rig.from_yaml(path)
    rig.name = "b"
    rig.cameras = [Camera("b"), *rig.cameras[1:]] if "&c" in text else rig.cameras
    rig.to_yaml(path)
    assert Rig.from_yaml(path) == rig
    assert rig.cameras[-1].name == "a"
    assert path.with_name("rig.yaml.bak").read_text("utf-8") == text


def test_help_and_units_are_comments_of_a_new_file(tmp_path: Path) -> None:
    @dataclass
    class Probe(YamlConfig):
        rate: float = field(
            default=1000.0, metadata={"units": "Hz", "help": "samples a second"}
        )
        note: str = field(default="x", metadata={"help": "two\nlines\n\x07"})
        long: int = field(default=1, metadata={"help": "word " * 30})

    path = tmp_path / "probe.yaml"
    Probe().to_yaml(path)
    lines = path.read_text("utf-8").splitlines()
    assert lines[:4] == [
        "rate: 1000.0  # [Hz] samples a second",
        "# two",
        "# lines",
        "note: x",
    ]
    assert all(line.startswith("# word") for line in lines[4:-1])
    assert lines[-1] == "long: 1"
    assert Probe.from_yaml(path) == Probe()


@pytest.mark.parametrize(
    "broken",
    [b"name: [never closed\n", b"a: 1\n---\nb: 2\n", b"\xff\xfe\n", b"- 1\n"],
    ids=["syntax", "two documents", "not utf-8", "a list"],
)
def test_an_old_file_that_no_longer_parses_is_kept_as_bak(
    tmp_path: Path, broken: bytes
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_bytes(broken)
    Rig().to_yaml(path)
    assert Rig.from_yaml(path) == Rig()
    assert (tmp_path / "rig.yaml.bak").read_bytes() == broken


def test_a_second_bak_never_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    for text in ("a: [", "b: [", "a: ["):
        path.write_text(text, "utf-8")
        Rig().to_yaml(path)
    copies = {p.name: p.read_text("utf-8") for p in tmp_path.glob("*.bak*")}
    assert copies == {"rig.yaml.bak": "a: [", "rig.yaml.bak2": "b: ["}


def test_a_file_with_unknown_keys_is_kept_before_they_are_dropped(
    path: Path,
) -> None:
    path.write_text(EDITED + "typo: 1\n", "utf-8")
    Rig().to_yaml(path)
    assert Rig.from_yaml(path) == Rig()
    assert "typo" in path.with_name("rig.yaml.bak").read_text("utf-8")
    assert "# the rig of room 3" in path.read_text("utf-8")


def test_a_value_that_cannot_be_written_leaves_the_file_as_it_was(path: Path) -> None:
    rig = Rig.from_yaml(path)
    rig.flags = [threading.Lock()]  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"flags\[0\]: expected int, found lock"):
        rig.to_yaml(path)
    assert path.read_bytes() == EDITED.encode()
    assert os.listdir(path.parent) == ["rig.yaml"]


def test_a_full_disk_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    rig = Rig.from_yaml(path)
    rig.name = "new"
    with pytest.raises(OSError, match="No space"):
        rig.to_yaml(path)
    assert path.read_bytes() == EDITED.encode()
    assert os.listdir(path.parent) == ["rig.yaml"]


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o664, 0o4755])
def test_mode_bits_are_kept(path: Path, mode: int) -> None:
    path.chmod(mode)
    Rig(name="new").to_yaml(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Rig().to_yaml(tmp_path / "rig.yaml")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "rig.yaml").stat().st_mode) == 0o640


def test_symbolic_links_are_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "rig.yml"
    link.symlink_to(path)
    Rig(name="linked").to_yaml(link)
    assert link.is_symlink()
    assert not path.is_symlink()
    assert Rig.from_yaml(path).name == "linked"
    assert os.listdir(link.parent) == ["rig.yml"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "target.yaml")
    Rig().to_yaml(link)
    assert link.is_symlink()
    assert Rig.from_yaml(tmp_path / "target.yaml") == Rig()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    Rig().to_yaml(tmp_path / "a" / "b" / "rig.yaml")
    assert Rig.from_yaml(tmp_path / "a" / "b" / "rig.yaml") == Rig()


def test_a_leftover_is_swept_but_a_live_writer_is_not(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    dead = path.with_name(".rig.yaml.0123456789abcdef.ataraxis-part")
    live = path.with_name(".rig.yaml.fedcba9876543210.ataraxis-part")
    other = path.with_name(".rig.yaml.mine.ataraxis-part")
    for file in (dead, live, other):
        file.write_bytes(b"half")
    with live.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        Rig(name="new").to_yaml(path)
    assert not dead.exists()
    assert live.exists()
    assert other.exists()


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for _ in range(10):
                workers_config.plan(name).to_yaml(path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    loaded = workers_config.Plan.from_yaml(path)
    assert loaded == workers_config.plan(loaded.name)
    assert os.listdir(tmp_path) == ["plan.yaml"]


def child_environment() -> dict[str, str]:
    """Give a child the import path of this process."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _wait_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait until the writer has written once, 60 s at most."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(60), "the writer did not start"
    assert process.stdout.readline() == b"ready\n"


@pytest.mark.stress
@pytest.mark.parametrize("batch", range(10))
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_file(
    tmp_path: Path, batch: int
) -> None:
    # Ten batches: 200 kills in all at a stress of 1.
    kills = max(1, round(20 * float(os.environ.get("ATARAXIS_STRESS", "0.1"))))
    path = tmp_path / "plan.yaml"
    delays = random.Random(batch)
    left_behind = 0
    command = [sys.executable, workers_config.__file__, str(path)]
    for _ in range(kills):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=child_environment()
        ) as process:
            try:
                _wait_ready(process)
                # Where in a write the kill falls is left to chance on purpose.
                threading.Event().wait(delays.uniform(0, 0.15))
            finally:
                process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        loaded = workers_config.Plan.from_yaml(path)
        assert loaded == workers_config.plan(loaded.name)
        names = sorted(os.listdir(tmp_path))
        assert not [name for name in names if ".bak" in name]
        left_behind += len(names) - 1
    # One writer can leave one hidden file, and the next removes it.
    assert len(os.listdir(tmp_path)) <= 2
    workers_config.plan("a").to_yaml(path)
    assert os.listdir(tmp_path) == ["plan.yaml"]
    sys.stdout.write(f"{kills} kills, {left_behind} left a hidden file\n")


@pytest.mark.stress
@pytest.mark.parametrize(
    "call", ["os.write", "os.fsync", "os.replace", "os.fchmod"], ids=lambda c: c
)
def test_a_kill_at_each_system_call_leaves_a_whole_file(
    tmp_path: Path, call: str
) -> None:
    path = tmp_path / "plan.yaml"
    workers_config.plan("a").to_yaml(path)
    program = (
        "import os, sys, signal, workers_config\n"
        f"def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{call} = die\n"
        "workers_config.plan('b').to_yaml(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    ended = subprocess.run(command, env=child_environment(), timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert workers_config.Plan.from_yaml(path) == workers_config.plan("a")
    assert len(os.listdir(tmp_path)) == 2
    storage.sweep(path)
    assert os.listdir(tmp_path) == ["plan.yaml"]
