"""One behaviour of drivers and of libraries, over the fakes and over the real ones."""

from __future__ import annotations

from typing import Any

import gpu_devices
import numpy as np
import pytest

from ataraxis.gpu.drivers import BindingsDriver, CupyDriver, TorchDriver
from ataraxis.gpu.libraries import CupyLibrary, JaxLibrary, TorchLibrary
from ataraxis.testing.gpu import (
    FakeLibrary,
    FakePinDriver,
    LibraryContract,
    PinDriverContract,
)


class TestFakeDriver(PinDriverContract):
    def make(self) -> Any:
        return FakePinDriver()


class TestFakeDriverThatKeepsPagesFromChildren(PinDriverContract):
    def make(self) -> Any:
        return FakePinDriver(keeps_from_children=True)


@pytest.mark.gpu
class TestBindingsDriver(PinDriverContract):
    def make(self) -> Any:
        gpu_devices.need("cuda.bindings.driver")
        return BindingsDriver()


@pytest.mark.gpu
class TestTorchDriver(PinDriverContract):
    def make(self) -> Any:
        gpu_devices.need("torch")
        return TorchDriver()


@pytest.mark.gpu
class TestCupyDriver(PinDriverContract):
    def make(self) -> Any:
        gpu_devices.need("cupy")
        return CupyDriver()


class TestFakeLibrary(LibraryContract):
    @pytest.fixture(autouse=True)
    def library(self) -> Any:
        with FakeLibrary() as self.made:
            yield

    def make(self) -> Any:
        return self.made

    def to_numpy(self, array: Any) -> Any:
        return array.memory


class TestTorchOnTheProcessor(LibraryContract):
    def make(self) -> Any:
        return TorchLibrary(pytest.importorskip("torch"))

    def to_numpy(self, array: Any) -> Any:
        return array.cpu().numpy()


class TestJaxOnTheProcessor(LibraryContract):
    dtypes = ("u1", "i2", "u4", "f2", "f4", "c8", "?")  # JAX needs an option for more

    def make(self) -> Any:
        return JaxLibrary(gpu_devices.jax_of_the_processor())

    def to_numpy(self, array: Any) -> Any:
        return np.asarray(array)

    def test_a_dtype_that_would_change_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"float32 of float64.*jax_enable_x64"):
            self.make().put(np.zeros(3), "cpu", None)


@pytest.mark.gpu
class TestTorchOnTheGpu(LibraryContract):
    device = "cuda:0"

    def make(self) -> Any:
        gpu_devices.need("torch")
        return TorchLibrary()

    def to_numpy(self, array: Any) -> Any:
        return array.cpu().numpy()


@pytest.mark.gpu
class TestCupyOnTheGpu(LibraryContract):
    device = 0

    def make(self) -> Any:
        gpu_devices.need("cupy")
        return CupyLibrary()

    def to_numpy(self, array: Any) -> Any:
        return array.get()
