"""What a frame exports: its buffer, its bytes, one number; each holds the slot."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ataraxis import Consumer, Producer
from ataraxis.errors import QueueFull, ReleasedBuffer
from ataraxis.stream import Frame

NUMBERS = [*"?bBhHiIlLqQefdFD", ">i4", ">f8", "M8[ns]", "m8[us]"]
SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0,), (3, 0)]


@contextmanager
def frame_of(value: np.ndarray) -> Iterator[Frame]:
    """Send an array, and yield its frame."""
    stream = Producer("exports", shape=value.shape, dtype=value.dtype, buffer_count=4)
    with stream, Consumer("exports") as reader:
        stream.send(value)
        frame = reader.receive(timeout=5)
        assert frame is not None
        yield frame
        frame.release()


def sample(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return (np.arange(count) - 3).astype("i8").astype(dtype).reshape(shape)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_number_is_exported_as_numpy_exports_it(dtype: str) -> None:
    value = sample(dtype, (3, 4))
    with frame_of(value) as frame:
        assert np.array_equal(np.asarray(frame), value)
        try:
            expected = memoryview(value)
        except (ValueError, BufferError):
            with pytest.raises(BufferError, match=r"use \.array"):
                memoryview(frame)
            return
        found = memoryview(frame)
        assert found.readonly
        assert (found.shape, found.strides) == (expected.shape, expected.strides)
        assert (found.itemsize, found.ndim) == (expected.itemsize, expected.ndim)
        if value.dtype.kind != "c":  # numpy does not read the format of these
            assert np.dtype(found.format) == np.dtype(expected.format)
        assert found.tobytes() == value.tobytes()
        assert found.c_contiguous
        found.release()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_exported(shape: tuple[int, ...]) -> None:
    value = sample("f4", shape)
    with frame_of(value) as frame:
        found = memoryview(frame)
        assert (found.shape, found.nbytes) == (shape, value.nbytes)
        assert found.tolist() == value.tolist()
        assert bytes(frame.buffer) == value.tobytes()
        assert frame.buffer.shape == (value.nbytes,)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("PyBUF_WRITABLE", True), ("PyBUF_FULL", True), ("PyBUF_FULL_RO", False),
        ("PyBUF_SIMPLE", False), ("PyBUF_ND", False), ("PyBUF_STRIDES", False),
        ("PyBUF_C_CONTIGUOUS", False), ("PyBUF_ANY_CONTIGUOUS", False),
        ("PyBUF_FORMAT|PyBUF_ND", False), ("PyBUF_RECORDS", True),
        ("PyBUF_FORMAT|PyBUF_F_CONTIGUOUS", True),
    ],
)  # fmt: skip
def test_what_is_asked_is_given_or_refused(kind: str, refused: bool) -> None:
    """As `PyObject_GetBuffer` asks, which memoryview does not show."""
    flags = {
        "PyBUF_SIMPLE": 0, "PyBUF_WRITABLE": 1, "PyBUF_FORMAT": 4, "PyBUF_ND": 8,
        "PyBUF_STRIDES": 0x18, "PyBUF_C_CONTIGUOUS": 0x38, "PyBUF_F_CONTIGUOUS": 0x58,
        "PyBUF_ANY_CONTIGUOUS": 0x98, "PyBUF_FULL": 0x11D, "PyBUF_FULL_RO": 0x11C,
        "PyBUF_RECORDS": 0x1D,
    }  # fmt: skip
    asked = 0
    for word in kind.split("|"):
        asked |= flags[word]
    value = sample("i8", (3, 4))
    view = (ctypes.c_char * 80)()
    get = ctypes.pythonapi.PyObject_GetBuffer
    get.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    give_back = ctypes.pythonapi.PyBuffer_Release
    give_back.argtypes = [ctypes.c_void_p]
    with frame_of(value) as frame:
        if refused:
            with pytest.raises((BufferError, ValueError)):
                get(frame, ctypes.addressof(view), asked)
            return
        get(frame, ctypes.addressof(view), asked)
        nbytes = ctypes.c_ssize_t.from_buffer(view, 16).value
        address = ctypes.c_void_p.from_buffer(view, 0).value
        assert address is not None
        assert nbytes == value.nbytes
        assert ctypes.string_at(address, nbytes) == value.tobytes()
        give_back(ctypes.addressof(view))


@pytest.mark.parametrize("export", ["memoryview", "buffer", "array", "asarray"])
def test_each_export_holds_the_slot(export: str) -> None:
    exports = {
        "memoryview": memoryview, "buffer": lambda frame: frame.buffer,
        "array": lambda frame: frame.array, "asarray": np.asarray,
    }  # fmt: skip
    with (
        Producer("held", shape=(4,), dtype="i8", buffer_count=2, sync=True) as stream,
        Consumer("held") as reader,
    ):
        stream.send(np.arange(4))
        frame = reader.receive(timeout=5)
        view = exports[export](frame)
        frame.release()
        stream.send(np.zeros(4, "i8"))
        with pytest.raises(QueueFull):
            stream.send(np.zeros(4, "i8"), timeout=0)
        assert bytes(view) == np.arange(4).tobytes()
        del view, frame
        assert stream.send(np.zeros(4, "i8"), timeout=0)
        stream.unlink()


@pytest.mark.parametrize("dtype", NUMBERS[:16])
def test_one_number_is_an_item(dtype: str) -> None:
    value = np.array(1, dtype)
    with frame_of(value) as frame:
        assert frame.item() == value.item()
        assert type(frame.item()) is type(value.item())
        if value.dtype.kind not in "c":
            assert (float(frame), int(frame)) == (1.0, 1)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [("i1", -128), ("u1", 255), ("i8", -(2**63)), ("u8", 2**64 - 1), ("f4", 0.1)],
)
def test_an_item_is_exact(dtype: str, number: float) -> None:
    value = np.array([number], dtype)
    with frame_of(value) as frame:
        assert frame.item() == value.item()


def test_a_frame_of_several_numbers_is_not_an_item() -> None:
    with frame_of(np.arange(3)) as frame:
        with pytest.raises(ValueError, match="size 1"):
            frame.item()
        with pytest.raises(ValueError, match="size 1"):
            float(frame)


def test_a_released_frame_exports_nothing() -> None:
    with frame_of(np.arange(3.0)) as frame:
        frame.release()
        for export in (
            memoryview,
            float,
            bytes,
            lambda f: f.buffer,
            lambda f: f.item(),
        ):
            with pytest.raises(ReleasedBuffer):
                export(frame)
