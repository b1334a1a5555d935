"""Array libraries of GPUs: how each copies host memory to a device, and back.

A copy is put on a stream and returns at once; its `CopyEvent` says when it is over.
Each library is imported when it is first asked for.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import GpuUnavailable
from ataraxis.gpu.watcher import CopyEvent


class ArrayLibrary(Protocol):
    """Copies between host memory and arrays of one library."""

    name: str

    def put(
        self, source: NDArray[Any], device: Any, stream: Any
    ) -> tuple[Any, CopyEvent | None]:
        """Begin to copy into a new array; return both. None: the copy is over."""

    def copy_back(self, source: Any, target: NDArray[Any]) -> CopyEvent | None:
        """Begin to copy an array of a device to host memory; None: it is over."""

    def synchronize(self, device: Any) -> None:
        """Wait for all that was begun on a device."""

    def layout(self, array: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype of an array of the library, as NumPy's."""


class BatchLibrary(ArrayLibrary, Protocol):
    """A library whose arrays can be written in parts, on a stream beside."""

    def empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, stream: Any
    ) -> Any:
        """Return a new array of a device; `TypeError` for a dtype it does not have."""

    def copy(self, source: NDArray[Any], target: Any, stream: Any) -> None:
        """Begin to copy into an array, or into a part of one."""

    def mark(self, target: Any, stream: Any) -> CopyEvent | None:
        """Return the end of what was begun on a stream; None: it is over."""

    def side_stream(self, device: Any) -> Any:
        """Return a stream for copies that overlap with the current stream's work."""

    def lead(self, target: Any, stream: Any) -> None:
        """Have `stream` wait for earlier users of a new array's memory, if needed."""

    def follow(self, target: Any, stream: Any) -> None:
        """Have the current stream wait for copies on `stream`, without waiting here."""


def writable_alias(array: NDArray[Any]) -> NDArray[Any]:
    """Return a writable array of the same memory, for libraries that ask for one.

    It does not keep the memory: the caller does. It is never written.
    """
    if not array.nbytes:
        return np.empty(array.shape, array.dtype)
    memory: Any = (ctypes.c_ubyte * array.nbytes).from_address(array.ctypes.data)
    return np.ndarray(array.shape, array.dtype, memory)


def _refuse(library: str, dtype: np.dtype[Any]) -> TypeError:
    return TypeError(
        f"{library} has no {dtype}: take the fields of the frame's .array that are "
        "plain numbers, or send them as a stream of their own"
    )


class TorchLibrary:
    """PyTorch."""

    name = "torch"

    def __init__(self, torch: Any = None) -> None:
        self._torch = torch or importlib.import_module("torch")

    def _device(self, device: Any) -> Any:
        torch = self._torch
        found = torch.device("cuda" if device is None else device)
        if found.type == "cuda" and not torch.cuda.is_available():
            raise GpuUnavailable(
                f"PyTorch {torch.__version__} has no device {str(device)!r}: "
                "torch.cuda.is_available() is False. Install NVIDIA's driver and a "
                'PyTorch for CUDA, or copy to device="cpu"'
            )
        return found

    def _host(self, array: NDArray[Any]) -> Any:
        try:
            return self._torch.from_numpy(writable_alias(array))
        except (TypeError, ValueError) as error:
            raise _refuse("PyTorch", array.dtype) from error

    def empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, stream: Any
    ) -> Any:
        """See `ArrayLibrary`."""
        torch, found = self._torch, self._device(device)
        kind = self._host(np.empty(0, dtype)).dtype
        if found.type != "cuda":
            return torch.empty(shape, dtype=kind, device=found)
        with torch.cuda.device(found), torch.cuda.stream(stream):
            return torch.empty(shape, dtype=kind, device=found)

    def put(
        self, source: NDArray[Any], device: Any, stream: Any
    ) -> tuple[Any, CopyEvent | None]:
        """See `ArrayLibrary`."""
        made = self.empty(source.shape, source.dtype, device, stream)
        self.copy(source, made, stream)
        return made, self.mark(made, stream)

    def copy(self, source: NDArray[Any], target: Any, stream: Any) -> None:
        """See `BatchLibrary`."""
        torch, host = self._torch, self._host(source)
        if target.device.type != "cuda":
            target.copy_(host)
            return
        with torch.cuda.device(target.device), torch.cuda.stream(stream):
            target.copy_(host, non_blocking=True)

    def mark(self, target: Any, stream: Any) -> CopyEvent | None:
        """See `BatchLibrary`."""
        torch = self._torch
        if target.device.type != "cuda":
            return None
        with torch.cuda.device(target.device), torch.cuda.stream(stream):
            # blocking: the watcher sleeps instead of spinning.
            event = torch.cuda.Event(blocking=True)
            event.record()
        return CopyEvent(event.synchronize, event.query)

    def copy_back(self, source: Any, target: NDArray[Any]) -> CopyEvent | None:
        """See `ArrayLibrary`."""
        torch = self._torch
        host = torch.from_numpy(target)
        if source.device.type != "cuda":
            host.copy_(source)
            return None
        with torch.cuda.device(source.device):
            host.copy_(source.detach(), non_blocking=True)
        return self.mark(source, None)

    def side_stream(self, device: Any) -> Any:
        """See `BatchLibrary`."""
        found = self._device(device)
        return self._torch.cuda.Stream(found) if found.type == "cuda" else None

    def lead(self, target: Any, stream: Any) -> None:
        """Do nothing: PyTorch gives memory out again when its streams are done."""

    def follow(self, target: Any, stream: Any) -> None:
        """See `BatchLibrary`."""
        if stream is None:
            return
        current = self._torch.cuda.current_stream(target.device)
        current.wait_stream(stream)
        # Its memory is not reused before the current stream is done with it.
        target.record_stream(current)

    def synchronize(self, device: Any) -> None:
        """See `ArrayLibrary`."""
        found = self._device(device)
        if found.type == "cuda":
            self._torch.cuda.synchronize(found)

    def layout(self, array: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `ArrayLibrary`."""
        dtype = self._torch.empty(0, dtype=array.dtype).numpy().dtype
        return tuple(array.shape), dtype


class CupyLibrary:
    """CuPy."""

    name = "cupy"

    def __init__(self, cupy: Any = None) -> None:
        self._cupy = cupy or importlib.import_module("cupy")

    def _device(self, device: Any) -> Any:
        try:
            if device is None:
                return self._cupy.cuda.Device()
            number = str(device).rpartition(":")[2]
            return self._cupy.cuda.Device(int(number) if number.isdigit() else 0)
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            raise GpuUnavailable(
                f"CuPy {self._cupy.__version__} has no device {device!r}: {error}. "
                "Install NVIDIA's driver, and the CuPy of its version of CUDA"
            ) from error

    def _stream(self, stream: Any) -> Any:
        return self._cupy.cuda.get_current_stream() if stream is None else stream

    def empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, stream: Any
    ) -> Any:
        """See `ArrayLibrary`."""
        if dtype.kind not in "biufc" or not dtype.isnative:
            raise _refuse("CuPy", dtype)
        runtime = self._cupy.cuda.runtime
        try:
            with self._device(device), self._stream(stream):
                return self._cupy.empty(shape, dtype)
        except runtime.CUDARuntimeError as error:
            raise GpuUnavailable(
                f"CuPy {self._cupy.__version__} has no device {device!r}: {error}. "
                "Install NVIDIA's driver, and the CuPy of its version of CUDA"
            ) from error

    def put(
        self, source: NDArray[Any], device: Any, stream: Any
    ) -> tuple[Any, CopyEvent | None]:
        """See `ArrayLibrary`."""
        made = self.empty(source.shape, source.dtype, device, stream)
        self.copy(source, made, stream)
        return made, self.mark(made, stream)

    def copy(self, source: NDArray[Any], target: Any, stream: Any) -> None:
        """See `BatchLibrary`."""
        if not source.nbytes:
            return
        with target.device:
            place = ctypes.c_void_p(source.ctypes.data)
            on = self._stream(stream)
            target.data.copy_from_host_async(place, source.nbytes, on)

    def mark(self, target: Any, stream: Any) -> CopyEvent | None:
        """See `BatchLibrary`."""
        with target.device:
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record(self._stream(stream))
        return CopyEvent(event.synchronize, lambda: bool(event.done))

    def copy_back(self, source: Any, target: NDArray[Any]) -> CopyEvent | None:
        """See `ArrayLibrary`."""
        with source.device:
            source.get(stream=self._stream(None), out=target, blocking=False)
        return self.mark(source, None)

    def side_stream(self, device: Any) -> Any:
        """See `BatchLibrary`."""
        with self._device(device):
            return self._cupy.cuda.Stream(non_blocking=True)

    def lead(self, target: Any, stream: Any) -> None:
        """See `BatchLibrary`: CuPy's pool gives memory out again at once."""
        with target.device:
            stream.wait_event(self._stream(None).record())

    def follow(self, target: Any, stream: Any) -> None:
        """See `BatchLibrary`."""
        with target.device:
            self._stream(None).wait_event(stream.record())

    def synchronize(self, device: Any) -> None:
        """See `ArrayLibrary`."""
        self._device(device).synchronize()

    def layout(self, array: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `ArrayLibrary`."""
        return tuple(array.shape), np.dtype(array.dtype)


class JaxLibrary:
    """JAX, whose arrays cannot be written: a copy makes one.

    On a CPU, JAX takes memory over instead of copying it, also with
    ``may_alias=False``; it then gets a copy of ours.
    """

    name = "jax"

    def __init__(self, jax: Any = None) -> None:
        self._jax = jax or importlib.import_module("jax")

    def _device(self, device: Any) -> Any:
        jax = self._jax
        if device is not None and not isinstance(device, str):
            return device
        platform, _, number = (device or "").partition(":")
        try:
            return jax.devices(platform or None)[int(number or 0)]
        except (RuntimeError, IndexError, ValueError) as error:
            raise GpuUnavailable(
                f"JAX {jax.__version__} has no device {device!r}: {error}. It has "
                f"{', '.join(map(str, jax.devices()))}"
            ) from error

    def put(
        self, source: NDArray[Any], device: Any, stream: Any
    ) -> tuple[Any, CopyEvent | None]:
        """See `ArrayLibrary`; JAX has streams of its own."""
        jax, place = self._jax, self._device(device)
        if jax.dtypes.canonicalize_dtype(source.dtype) != source.dtype:
            raise TypeError(
                f"JAX would make {jax.dtypes.canonicalize_dtype(source.dtype)} of "
                f"{source.dtype}: jax.config.update('jax_enable_x64', True) keeps it"
            )
        if place.platform == "cpu":
            return jax.device_put(source.copy(), place), None
        made = jax.device_put(source, place)
        return made, CopyEvent(made.block_until_ready, made.is_ready)

    def copy_back(self, source: Any, target: NDArray[Any]) -> CopyEvent | None:
        """See `ArrayLibrary`; it waits."""
        np.copyto(target, np.asarray(source))
        return None

    def synchronize(self, device: Any) -> None:
        """Do nothing: JAX keeps what it still reads."""

    def layout(self, array: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See `ArrayLibrary`."""
        return tuple(array.shape), np.dtype(array.dtype)


_KINDS = {"torch": TorchLibrary, "cupy": CupyLibrary, "jax": JaxLibrary}
_TITLES = {"torch": "PyTorch", "cupy": "CuPy", "jax": "JAX"}
_MODULES = {"torch": "torch", "cupy": "cupy", "jax": "jax", "jaxlib": "jax"}


_made: dict[str, Any] = {}


def library(name: str) -> Any:
    """Return the library of that name; `GpuUnavailable` if it is not installed."""
    if name in _made:
        return _made[name]
    if name not in _KINDS:
        raise ValueError(f"library must be one of {', '.join(_KINDS)}, got {name!r}")
    try:
        return _made.setdefault(name, _KINDS[name]())
    except ImportError as error:
        raise GpuUnavailable(
            f"{_TITLES[name]} cannot be imported: {error}. Install it: 'pip install "
            f"{name}', for CUDA as its pages say"
        ) from error


@contextmanager
def use_library(name: str, made: Any) -> Iterator[Any]:
    """Use another object for the library of a name within a block, as for a test."""
    before = _made.get(name)
    _made[name] = made
    try:
        yield made
    finally:
        del _made[name]
        if before is not None:
            _made[name] = before


_CUDA_DEVICES = (2, 13)  # kDLCUDA, kDLCUDAManaged


def library_of(value: Any) -> Any:
    """Return the library of an array that lies on a GPU; None for any other value."""
    if isinstance(value, np.ndarray | np.generic):
        return None
    with suppress(Exception):  # another library's error: the value is not ours to judge
        if value.__dlpack_device__()[0] in _CUDA_DEVICES:
            name = type(value).__module__.partition(".")[0]
            return library(_MODULES.get(name, name))
    return None
