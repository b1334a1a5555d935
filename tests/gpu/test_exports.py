"""Frames and arrays speak DLPack: read-only, without a copy, page-locked if asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_rig import fake_driver

from ataraxis import Consumer, Producer, SharedMemoryArray
from ataraxis._kernels.dlpack import described, mark_pinned
from ataraxis.errors import PinError, QueueFull

FRAME = np.arange(12, dtype="f4").reshape(3, 4)
CPU, CUDA_HOST, VERSION = (1, 0), (3, 0), (1, 0)
READ_ONLY = 1  # of DLPACK_FLAG_BITMASK


class Asking:
    """An importer's way to ask: what NumPy hands on, and what it does not."""

    def __init__(self, exporter: Any, **asked: Any) -> None:
        self.exporter, self.asked = exporter, asked

    def __dlpack__(self, **options: Any) -> Any:
        return self.exporter.__dlpack__(**{**options, **self.asked})

    def __dlpack_device__(self) -> Any:
        return self.asked.get("dl_device", self.exporter.__dlpack_device__())


@pytest.fixture
def ends() -> Any:
    with Producer("s", shape=(3, 4), dtype="f4", buffer_count=4) as producer:
        consumer = Consumer("s", policy="lossless")
        yield producer, consumer
        consumer.close()
        producer.unlink()


def test_a_frame_is_imported_without_a_copy(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    found = np.from_dlpack(frame)
    assert frame.__dlpack_device__() == CPU
    assert np.array_equal(found, FRAME)
    assert found.ctypes.data == frame.array.ctypes.data
    assert not found.flags.writeable


def test_the_importer_keeps_the_slot(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    found = np.from_dlpack(frame)
    frame.release()
    del frame
    for k in range(3):
        producer.send(FRAME + k)
    with pytest.raises(QueueFull):
        producer.send(FRAME, timeout=0)
    assert np.array_equal(found, FRAME)
    del found
    assert producer.send(FRAME, timeout=10)


def test_a_capsule_that_was_not_imported_gives_it_back(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    capsule = consumer.receive().__dlpack__(max_version=VERSION)
    for _ in range(3):
        producer.send(FRAME)
    del capsule
    assert producer.send(FRAME, timeout=10)


def test_exports_have_the_read_only_flag(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    major, _, flags, kind, number = described(
        consumer.receive().__dlpack__(max_version=VERSION)
    )
    assert (major, kind, number) == (1, *CPU)
    assert flags & READ_ONLY


def test_page_locked_memory_is_stated_as_such(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    with fake_driver(), consumer.pin():
        frame = consumer.receive()
        capsule = frame.__dlpack__(max_version=VERSION, dl_device=CUDA_HOST)
        _, _, flags, kind, number = described(capsule)
        assert (kind, number) == CUDA_HOST
        assert flags & READ_ONLY
        # NumPy takes it: it is memory of the host.
        found = np.from_dlpack(Asking(frame, dl_device=CUDA_HOST))
        assert np.array_equal(found, FRAME)
        # By default it is not said, since PyTorch refuses it.
        assert described(frame.__dlpack__(max_version=VERSION))[3] == 1


def test_memory_that_is_not_locked_is_not_stated_as_such(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    with pytest.raises(BufferError, match=r"not page-locked: pin\(\)"):
        frame.__dlpack__(max_version=VERSION, dl_device=CUDA_HOST)
    with fake_driver():
        with consumer.pin():
            pass
        with pytest.raises(BufferError, match="not page-locked"):
            frame.__dlpack__(max_version=VERSION, dl_device=CUDA_HOST)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dl_device": (2, 0)}, r"DLPack device \(2, 0\).*to_torch"),
        ({"max_version": None}, r"no versioned DLPack.*copy=True.*to_jax"),
        ({"max_version": (0, 8)}, "no versioned DLPack"),
        ({"stream": 1}, "no stream"),
    ],
)
def test_what_cannot_be_exported_is_told(ends: Any, asked: Any, words: str) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    with pytest.raises(BufferError, match=words):
        consumer.receive().__dlpack__(**{"max_version": VERSION, **asked})


def test_a_copy_can_be_written_and_keeps_no_slot(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    for version in (VERSION, None):
        found = np.from_dlpack(Asking(frame, copy=True, max_version=version))
        assert found.ctypes.data != frame.array.ctypes.data
        assert np.array_equal(found, FRAME)
    with fake_driver(), consumer.pin(), pytest.raises(BufferError, match="a copy"):
        frame.__dlpack__(max_version=VERSION, copy=True, dl_device=CUDA_HOST)


def test_a_released_frame_is_not_exported(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    frame.release()
    with pytest.raises(RuntimeError, match="released"):
        frame.__dlpack__(max_version=VERSION)


def test_records_are_refused() -> None:
    dtype = [("a", "i4"), ("b", "f8")]
    with Producer("s", shape=(2,), dtype=dtype) as producer, Consumer("s") as consumer:
        producer.send(np.zeros(2, dtype))
        with pytest.raises(BufferError):
            np.from_dlpack(consumer.receive())


def test_an_array_is_a_live_view() -> None:
    with SharedMemoryArray.create_array("a", FRAME) as array:
        found = np.from_dlpack(array)
        assert array.__dlpack_device__() == CPU
        assert not found.flags.writeable
        array[1, 1] = 99
        assert found[1, 1] == 99
        copied = np.from_dlpack(Asking(array, copy=True))
        array[1, 1] = 7
        assert copied[1, 1] == 99
        with pytest.raises(BufferError, match="not page-locked"):
            array.__dlpack__(max_version=VERSION, dl_device=CUDA_HOST)
        with fake_driver(), array.pin():
            capsule = array.__dlpack__(max_version=VERSION, dl_device=CUDA_HOST)
            assert described(capsule)[3:] == CUDA_HOST
            del capsule


def test_only_host_memory_is_marked() -> None:
    read_only = FRAME.view()
    read_only.flags.writeable = False
    capsule = mark_pinned(read_only.__dlpack__(max_version=VERSION))
    with pytest.raises(BufferError, match="device type 3"):
        mark_pinned(capsule)
    with pytest.raises(ValueError, match="PyCapsule"):
        mark_pinned(FRAME.__dlpack__())


def test_pytorch_imports_a_frame(ends: Any) -> None:
    torch = pytest.importorskip("torch")
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    found = torch.from_dlpack(frame)
    assert np.array_equal(found.numpy(), FRAME)
    assert found.data_ptr() == frame.array.ctypes.data


def test_a_gpu_reads_a_pinned_frame_where_it_is(ends: Any) -> None:
    producer, consumer = ends
    producer.send(FRAME)
    frame = consumer.receive()
    with pytest.raises(PinError, match=r"not pinned.*pin\(\)"):
        frame.device_view()
    with fake_driver() as driver:
        with consumer.pin():
            view = frame.device_view()
        stated = view.__cuda_array_interface__
        assert stated["data"] == (frame.array.ctypes.data, True)
        assert (stated["shape"], stated["typestr"]) == ((3, 4), "<f4")
        assert driver.registered, "the view keeps the pages locked"
        frame.release()
        del frame
        for _ in range(3):
            producer.send(FRAME)
        with pytest.raises(QueueFull):
            producer.send(FRAME, timeout=0)
        del view
        assert producer.send(FRAME, timeout=10)
