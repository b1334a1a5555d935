"""Drivers: the calls that each library gets, against fakes and their signatures."""

from __future__ import annotations

import inspect
import os
from types import SimpleNamespace
from typing import Any

import gpu_devices
import pytest

from ataraxis.errors import GpuUnavailable
from ataraxis.gpu import drivers
from ataraxis.gpu.drivers import (
    BindingsDriver,
    CupyDriver,
    DriverError,
    TorchDriver,
    driver_for,
)


class FakeBindings:
    """``cuda.bindings.driver``: functions that return a status, and values."""

    def __init__(self, **fails: int) -> None:
        self.fails, self.calls = fails, []
        self.current = 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            if name == "cuGetErrorString":
                return 0, b"out of memory"
            self.calls.append((name, *arguments))
            status = self.fails.get(name, 0)
            if status:
                return (status, None) if name not in _NO_VALUE else (status,)
            values = {
                "cuDeviceGetCount": (2,), "cuCtxGetCurrent": (self.current,),
                "cuCtxGetDevice": (1,), "cuDeviceGet": (0,), "cuCtxPopCurrent": (5,),
                "cuDevicePrimaryCtxRetain": (f"context of {arguments}",),
                "cuMemHostGetDevicePointer": (4096,),
            }.get(name, ())  # fmt: skip
            return (0, *values)

        return call


_NO_VALUE = {"cuInit", "cuMemHostRegister", "cuMemHostUnregister", "cuCtxPushCurrent"}


def test_bindings_register_in_a_primary_context() -> None:
    cuda = FakeBindings()
    driver = BindingsDriver(cuda)
    assert [name for name, *_ in cuda.calls] == [
        "cuInit", "cuDeviceGetCount", "cuCtxGetCurrent", "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
    ]  # fmt: skip
    cuda.calls.clear()
    driver.register(4096, 8192, 3)
    driver.unregister(4096)
    assert driver.device_address(4096) == 4096
    context = "context of (0,)"
    assert cuda.calls == [
        ("cuCtxPushCurrent", context),
        ("cuMemHostRegister", 4096, 8192, 3),
        ("cuCtxPopCurrent",),
        ("cuCtxPushCurrent", context),
        ("cuMemHostUnregister", 4096),
        ("cuCtxPopCurrent",),
        ("cuCtxPushCurrent", context),
        ("cuMemHostGetDevicePointer", 4096, 0),
        ("cuCtxPopCurrent",),
    ]


def test_bindings_take_the_gpu_that_is_in_use() -> None:
    cuda = FakeBindings()
    cuda.current = 77
    BindingsDriver(cuda)
    assert cuda.calls[-2:] == [("cuCtxGetDevice",), ("cuDevicePrimaryCtxRetain", 1)]


def test_bindings_leave_their_context_after_an_error() -> None:
    cuda = FakeBindings(cuMemHostRegister=2)
    driver = BindingsDriver(cuda)
    with pytest.raises(DriverError, match=r"cuMemHostRegister.*out of memory") as error:
        driver.register(4096, 8192, 3)
    assert error.value.code == 2
    assert cuda.calls[-1] == ("cuCtxPopCurrent",)


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount"])
def test_bindings_without_a_gpu(call: str) -> None:
    with pytest.raises(DriverError, match=f"{call} failed.*100"):
        BindingsDriver(FakeBindings(**{call: 100}))


def test_torch_registers_by_its_runtime() -> None:
    calls: list[Any] = []

    class Runtime:
        cudaGetErrorString = staticmethod(lambda status: "no")

        def cudaHostRegister(self, *arguments: int) -> int:
            calls.append(arguments)
            return 712 if len(calls) > 1 else 0

        def cudaHostUnregister(self, *arguments: int) -> int:
            calls.append(arguments)
            return 0

    cuda = SimpleNamespace(
        is_available=lambda: True, init=lambda: None, cudart=lambda: Runtime()
    )
    driver = TorchDriver(SimpleNamespace(cuda=cuda))
    driver.register(1, 2, 3)
    with pytest.raises(DriverError) as error:
        driver.register(1, 2, 3)
    assert error.value.code == 712
    driver.unregister(1)
    assert calls == [(1, 2, 3), (1, 2, 3), (1,)]
    cuda.is_available = lambda: False
    with pytest.raises(DriverError, match="is_available"):
        TorchDriver(SimpleNamespace(cuda=cuda))


def test_cupy_registers_by_its_runtime() -> None:
    class CUDARuntimeError(RuntimeError):
        status = 713

    def fail(*_: int) -> None:
        raise CUDARuntimeError("cudaErrorHostMemoryNotRegistered")

    calls: list[Any] = []
    runtime = SimpleNamespace(
        getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError,
        hostRegister=lambda *a: calls.append(a), hostUnregister=fail,
    )  # fmt: skip
    driver = CupyDriver(runtime)
    driver.register(1, 2, 3)
    with pytest.raises(DriverError) as error:
        driver.unregister(1)
    assert error.value.code == 713
    assert calls == [(1, 2, 3)]
    runtime.getDeviceCount = lambda: 0
    with pytest.raises(DriverError, match="no GPU"):
        CupyDriver(runtime)


def test_the_first_that_works_is_used_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def broken() -> Any:
        made.append("broken")
        raise OSError("libcuda.so.1")

    def works() -> Any:
        made.append("works")
        return SimpleNamespace(name="works")

    kinds = (("A", "no_such_module", works), ("B", "os", broken), ("C", "os", works))
    monkeypatch.setattr(drivers, "_KINDS", kinds)
    monkeypatch.setattr(drivers, "_chosen", None)
    assert driver_for("x").name == "works"
    assert driver_for("x").name == "works"
    assert made == ["broken", "works"]
    # A forked child chooses for itself: its parent's context is not its own.
    monkeypatch.setattr(drivers, "_chosen", (os.getpid() + 1, "the parent's"))
    assert driver_for("x").name == "works"
    assert made == ["broken", "works"] * 2


# ---- the real libraries, as far as they can be looked at without a GPU


def test_names_of_cuda_bindings() -> None:
    cuda = pytest.importorskip("cuda.bindings.driver")
    for name, arguments in {
        "cuInit": "unsigned int Flags", "cuDeviceGetCount": "",
        "cuDeviceGet": "int ordinal", "cuCtxGetCurrent": "", "cuCtxGetDevice": "",
        "cuDevicePrimaryCtxRetain": "dev", "cuCtxPushCurrent": "ctx",
        "cuCtxPopCurrent": "", "cuMemHostUnregister": "p",
        "cuMemHostRegister": "p, size_t bytesize, unsigned int Flags",
        "cuMemHostGetDevicePointer": "p, unsigned int Flags",
        "cuGetErrorString": "error: CUresult",
    }.items():  # fmt: skip
        first = getattr(cuda, name).__doc__.splitlines()[0]
        assert first == f"{name}({arguments})"
    assert (cuda.CU_MEMHOSTREGISTER_PORTABLE, cuda.CU_MEMHOSTREGISTER_DEVICEMAP) == (
        drivers.PORTABLE,
        drivers.DEVICE_MAP,
    )
    assert cuda.CU_MEMHOSTREGISTER_READ_ONLY == drivers.READ_ONLY
    for name, number in {
        "OUT_OF_MEMORY": drivers.NO_MEMORY, "OPERATING_SYSTEM": drivers.SYSTEM,
        "NOT_PERMITTED": drivers.NOT_PERMITTED, "NOT_SUPPORTED": drivers.NOT_SUPPORTED,
        "HOST_MEMORY_ALREADY_REGISTERED": drivers.ALREADY_REGISTERED,
        "HOST_MEMORY_NOT_REGISTERED": drivers.NOT_REGISTERED,
    }.items():  # fmt: skip
        assert int(getattr(cuda.CUresult, f"CUDA_ERROR_{name}")) == number


def test_names_of_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    runtime = cupy.cuda.runtime
    assert runtime.hostRegister.__doc__.startswith("hostRegister(intptr_t ptr, size_t")
    assert runtime.hostUnregister.__doc__.startswith("hostUnregister(intptr_t ptr)")
    for name in ("CUDARuntimeError", "getDeviceCount"):
        assert hasattr(runtime, name)
    event = cupy.cuda.Event.__init__.__doc__
    assert "block=False, disable_timing=False" in event
    assert {"done", "record", "synchronize"} <= set(dir(cupy.cuda.Event))
    copy = cupy.cuda.MemoryPointer.copy_from_host_async.__doc__
    assert "copy_from_host_async(self, mem, size_t size, stream=None)" in copy
    assert "c_void_p" in copy
    assert "blocking" in cupy.ndarray.get.__doc__
    assert {"wait_event", "record"} <= set(dir(cupy.cuda.Stream))
    assert cupy.cuda.get_current_stream


def test_names_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    documented = torch.cuda.Event.__doc__
    assert "blocking" in documented
    for name in ("synchronize", "query", "record"):
        assert hasattr(torch.cuda.Event, name)
    for name in ("wait_stream",):
        assert hasattr(torch.cuda.Stream, name)
    for name in ("device", "stream", "current_stream", "cudart", "init", "Stream"):
        assert hasattr(torch.cuda, name)
    assert hasattr(torch.Tensor, "record_stream")
    assert "non_blocking" in torch.Tensor.copy_.__doc__
    source = inspect.getsource(torch.cuda)
    assert ".cudaHostRegister" in source or hasattr(torch.cuda, "cudart")


@pytest.mark.parametrize("module", ["cuda.bindings.driver", "torch", "cupy"])
def test_a_library_without_a_gpu_is_told(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    if gpu_devices.has_gpu():
        pytest.skip("a GPU is there")
    kinds = [kind for kind in drivers._KINDS if module.startswith(kind[1])]
    monkeypatch.setattr(drivers, "_KINDS", tuple(kinds))
    with pytest.raises(GpuUnavailable) as error:
        driver_for("stream 's'")
    assert "stream 's' cannot be page-locked" in str(error.value)
    assert "not installed" not in str(error.value)
