"""Segments: their names, what has the same name, no room, damaged headers."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ataraxis import SharedMemoryArray, attach
from ataraxis.errors import LayoutError, SegmentExists, SegmentNotFound
from ataraxis.shm import files
from ataraxis.shm.header import PAGE, SegmentHeader

GOOD_NAMES = ["x", "unique_buffer", "two words", "größe", "鼠", "a.b", "-x", "a" * 200]
BAD_NAMES = [
    "",
    "/",
    "a/b",
    "../x",
    "..",
    ".",
    ".x",
    "a..b",
    "a\0b",
    "\0",
    "\n",
    "a\tb",
]
BAD_NAMES += ["x" * 201, "x" * 300, "ü" * 101, "a\\b", "\ud800"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_name_is_any_plain_file_name(name: str, context: Path) -> None:
    with SharedMemoryArray.create_array(name, np.arange(3)) as array:
        assert array.name == name
        assert [p.name for p in context.iterdir()] == [name]
        assert attach(name)[2] == 2


def test_a_name_may_be_bytes(context: Path) -> None:
    with SharedMemoryArray.create_array(b"abc", np.arange(3)) as array:  # type: ignore[arg-type]
        assert array.name == "abc"
        assert attach("abc")[2] == 2


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_what_cannot_be_a_name_is_refused_and_leaves_nothing(
    name: str, context: Path
) -> None:
    """Flaw 12: "a\\0b" made a segment "a" that was never removed."""
    around = sorted(context.parent.iterdir())
    for use in (
        lambda: SharedMemoryArray.create_array(name, np.zeros(3)),
        lambda: attach(name),
        lambda: SharedMemoryArray.attach(name),
    ):
        with pytest.raises(ValueError, match="name"):
            use()
    assert list(context.iterdir()) == []
    new = set(context.parent.iterdir()) - set(around)
    assert not [p for p in new if p.name in (name, "a", "b", "x")]


@pytest.mark.parametrize("name", [None, 5, 1.5, ["x"], Path("x")])
def test_a_name_that_is_no_text_is_a_type_error(name: object) -> None:
    for use in (
        lambda: SharedMemoryArray.create_array(name, np.zeros(3)),  # type: ignore[arg-type]
        lambda: attach(name),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="name"):
            use()


# ---- something else has the name


@pytest.fixture(params=["empty", "short", "text", "zeros", "npy", "directory", "fifo"])
def foreign(request: pytest.FixtureRequest, context: Path) -> Iterator[Path]:
    path = context / "x"
    if request.param == "directory":
        path.mkdir()
    elif request.param == "fifo":
        os.mkfifo(path, 0o600)
    elif request.param == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(2000))
    else:
        contents = {"empty": b"", "short": b"ATRXSHM\x01", "zeros": bytes(3 * PAGE)}
        path.write_bytes(contents.get(request.param, b"my notes\n" * 1000))
    yield path
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("exist_ok", [False, True])
def test_foreign_things_of_that_name_are_refused_and_left_alone(
    foreign: Path, exist_ok: bool
) -> None:
    before = foreign.lstat()
    with pytest.raises((LayoutError, SegmentExists, PermissionError), match="x"):
        SharedMemoryArray.create_array("x", np.zeros(3), exist_ok=exist_ok)
    for opener in (attach, SharedMemoryArray.attach):
        with pytest.raises((LayoutError, PermissionError), match="x"):
            opener("x")
    after = foreign.lstat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


def test_a_link_is_not_followed(context: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (context / "x").symlink_to(secret)
    (context / "y").symlink_to(context / "nothing")
    for name in ("x", "y"):
        for use in (
            lambda name=name: attach(name),
            lambda name=name: SharedMemoryArray.create_array(
                name, np.zeros(3), exist_ok=True
            ),
        ):
            with pytest.raises((LayoutError, PermissionError)):
                use()
    assert secret.read_text() == "secret"
    (context / "x").unlink()
    (context / "y").unlink()


def test_a_socket_of_that_name_is_refused(context: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(context / "x"))
        with pytest.raises((LayoutError, PermissionError)):
            attach("x")
        (context / "x").unlink()


def test_a_copy_of_a_segment_is_refused_once_it_is_damaged(context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.arange(9)):
        data = (context / "x").read_bytes()
    for cut in (1, PAGE - 1, PAGE, len(data) - 1):
        (context / "y").write_bytes(data[:cut])
        with pytest.raises(LayoutError, match="y"):
            attach("y")
    (context / "y").write_bytes(data + bytes(PAGE))
    with pytest.raises(LayoutError, match="y"):
        attach("y")
    (context / "y").unlink()


def test_a_sparse_file_is_refused(context: Path) -> None:
    """A hole in the file would be a SIGBUS when memory runs out."""
    with SharedMemoryArray.create_array("x", np.zeros(9000)):
        data = (context / "x").read_bytes()
    with (context / "y").open("wb") as file:
        file.write(data[: 5 * PAGE])
        file.truncate(len(data))
    with pytest.raises(LayoutError, match="y"):
        attach("y")
    (context / "y").unlink()


# ---- no room


@pytest.fixture
def small_tmpfs(context: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    path = context / "small"
    path.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        path.rmdir()
        pytest.skip("a tmpfs cannot be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)
    path.rmdir()


def test_twice_the_free_space_is_an_error_and_leaves_nothing(small_tmpfs: Path) -> None:
    free = shutil.disk_usage(small_tmpfs).free
    prototype = np.zeros(2 * free, "u1")
    for _ in range(3):
        with pytest.raises(OSError, match="free"):
            SharedMemoryArray.create_array("x", prototype, context=small_tmpfs)
    assert list(small_tmpfs.iterdir()) == []
    assert shutil.disk_usage(small_tmpfs).free == free
    with SharedMemoryArray.create_array(
        "x", np.ones(free // 2, "u1"), context=small_tmpfs
    ) as array:
        assert array[-1] == 1
        with pytest.raises(OSError, match="free"):
            SharedMemoryArray.create_array("y", prototype, context=small_tmpfs)
        assert [p.name for p in small_tmpfs.iterdir()] == ["x"]
        assert array[...].all()


def test_a_full_tmpfs_refuses_a_replacement_and_keeps_the_old(
    small_tmpfs: Path,
) -> None:
    with SharedMemoryArray.create_array(
        "x", np.ones(3_000_000, "u1"), context=small_tmpfs
    ) as array:
        with pytest.raises(OSError, match="free"):
            SharedMemoryArray.create_array(
                "x", np.zeros(3_000_000, "u1"), exist_ok=True, context=small_tmpfs
            )
        assert attach("x", context=small_tmpfs)[-1] == array[0] == 1


def test_an_absurd_size_is_an_error_and_leaves_nothing(context: Path) -> None:
    prototype = np.broadcast_to(np.zeros(1), (2**50,))
    with pytest.raises((OSError, ValueError)):
        SharedMemoryArray.create_array("x", prototype)
    assert list(context.iterdir()) == []


# ---- any header

FIELDS_END = 0xA4
CRC_AT = 0x3FC


def mutated(page: bytes, size: int, rng: random.Random) -> tuple[bytes, int]:
    """Damage a header: bits, bytes, words, ends; half with a CRC that fits again."""
    data = bytearray(page)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 40))):
        end = rng.choice((FIELDS_END, FIELDS_END, FIELDS_END, CRC_AT + 4))
        where = rng.randrange(end)
        how = rng.randrange(4)
        if how == 0:
            data[where] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[where] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            where &= ~7
            value = rng.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 4096, size))
            data[where : where + 8] = value.to_bytes(8, "little")
        else:
            where &= ~3
            word = int.from_bytes(data[where : where + 4], "little")
            word = (word + rng.choice((-1, 1, 64, 128, 4096))) % 2**32
            data[where : where + 4] = word.to_bytes(4, "little")
    if rng.random() < 0.6:
        data[CRC_AT : CRC_AT + 4] = zlib.crc32(data[:CRC_AT]).to_bytes(4, "little")
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data), rng.choice((size, size, size, 0, size - 1, 2**40))


def fuzz_count() -> int:
    return int(20_000 * float(os.environ.get("ATARAXIS_STRESS", "0.1")))


def harmless(page: bytes, data: bytes, geometry_end: int) -> bool:
    """Whether only what may be anything was changed: uuid, times, user, boot, CRCs.

    One slot of participants more or less may vanish in the padding behind them.
    """

    def essence(h: bytes) -> tuple[bytes, ...]:
        return h[:0x0E], h[0x10:0x28], h[0x68:geometry_end], h[0x80:0xA0]

    return len(data) == PAGE and essence(page) == essence(data)


def test_a_damaged_header_is_a_layout_error_and_nothing_else(context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.arange(9)):
        file = (context / "x").read_bytes()
    page, rng, refused = file[:PAGE], random.Random(1), 0
    for _ in range(fuzz_count()):
        data, size = mutated(page, len(file), rng)
        try:
            header = SegmentHeader.unpack(data, size, "x")
        except LayoutError:
            refused += 1
        else:
            # Lengths of labels and payload within their pages: attaching checks them.
            assert size == len(file)
            assert header.geometry.problem() is None
            changed = [i for i in range(PAGE) if data[i : i + 1] != page[i : i + 1]]
            assert harmless(page, data, 0x70), changed
    assert refused > 0.8 * fuzz_count()


def test_attaching_to_a_damaged_file_is_a_layout_error_and_nothing_else(
    context: Path,
) -> None:
    """The whole way, so that nothing after the header believes it either."""
    labels = {"dims": ("t",), "coords": {"t": range(9)}, "attrs": {"units": "V"}}
    with SharedMemoryArray.create_array("x", np.arange(9), **labels):
        file = (context / "x").read_bytes()
    page, rng, path = file[:PAGE], random.Random(2), context / "x"
    for _ in range(max(fuzz_count() // 4, 100)):
        data, _ = mutated(page, len(file), rng)
        data += page[len(data) :]
        cut = len(file) if rng.random() < 0.9 else rng.randrange(len(file))
        path.write_bytes((data + file[PAGE:])[:cut])
        try:
            array = attach("x")
        except LayoutError:
            pass
        else:
            assert harmless(page, data, 0x80)
            assert array[...].tolist() == [*range(9)]
            array.disconnect()
            del array
        path.unlink()


def relabelled(file: bytes, labels: bytes) -> bytes:
    """The same segment with other labels of the same length, each CRC made to fit."""
    header = SegmentHeader.unpack(file[:PAGE], len(file), "x")
    g = header.geometry
    assert len(labels) <= g.labels_bytes
    labels = labels.ljust(g.labels_bytes)
    data = bytearray(file)
    data[g.labels : g.labels + g.labels_bytes] = labels
    data[0xA0:0xA4] = zlib.crc32(labels).to_bytes(4, "little")
    data[CRC_AT : CRC_AT + 4] = zlib.crc32(data[:CRC_AT]).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "labels",
    [
        b'{"dims":["t"],"dtype":"<i8","shape":[10]}',
        b'{"dims":["t"],"dtype":"<i8","shape":[8]}',
        b'{"dims":["t"],"dtype":"<i8","shape":[10000000]}',
        b'{"dims":["t"],"dtype":"<i8","shape":[1152921504606846976]}',
        b'{"dims":["t"],"dtype":"|O","shape":[9]}',
        b'{"dims":["t"],"dtype":"<i8","shape":[-9]}',
        b'{"dims":[],"dtype":"<i8","shape":[]}',
        b'{"dims":["t"],"dtype":"<i8"}',
        b"[]",
        b"",
        b"\xff\xfe",
        b"[" * 60,
    ],
)
def test_labels_that_do_not_describe_the_payload_are_a_layout_error(
    labels: bytes, context: Path
) -> None:
    with SharedMemoryArray.create_array(
        "x", np.arange(9), attrs={"padding": "x" * 100}
    ):
        file = (context / "x").read_bytes()
    (context / "x").write_bytes(relabelled(file, labels))
    for opener in (attach, SharedMemoryArray.attach):
        with pytest.raises(LayoutError):
            opener("x")
    (context / "x").unlink()
    with pytest.raises(SegmentNotFound):
        attach("x")


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_a_segment_of_another_kind_is_no_array(kind: int, context: Path) -> None:
    from ataraxis.shm.header import Kind, layout_id

    with SharedMemoryArray.create_array("x", np.arange(9)):
        data = bytearray((context / "x").read_bytes())
    data[16:20] = kind.to_bytes(4, "little")
    data[20:24] = layout_id(Kind(kind)).to_bytes(4, "little")
    data[CRC_AT : CRC_AT + 4] = zlib.crc32(data[:CRC_AT]).to_bytes(4, "little")
    (context / "x").write_bytes(data)
    with pytest.raises(LayoutError, match=Kind(kind).name.lower()):
        SharedMemoryArray.attach("x")
    (context / "x").unlink()


def test_a_refused_unlink_has_the_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "unlink", lambda *_: -1000 - errno.EROFS)
    with pytest.raises(OSError, match="'x'") as refused:
        files.take_name(0, 0, "x", 4)
    assert refused.value.errno == errno.EROFS
    assert refused.value.strerror == os.strerror(errno.EROFS)


def test_a_message_names_five_holders_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"p{k} (pid {k})" for k in range(7)]
    monkeypatch.setattr(files, "participants", lambda _, slots: names[:slots])
    assert files.holders(0, 0) == "a process that is attaching"
    assert files.holders(0, 5) == ", ".join(names[:5])
    assert files.holders(0, 7) == ", ".join(names[:5]) + " and 2 more"
