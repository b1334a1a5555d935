"""Drivers: who locks pages for a GPU. One class for each library that can.

The first that is installed and finds a GPU is used: cuda-bindings, PyTorch, CuPy. None
of them is imported before.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ataraxis.errors import GpuUnavailable

PORTABLE, DEVICE_MAP, READ_ONLY = 1, 2, 8
"""Flags of cuMemHostRegister and of cudaHostRegister, which are the same."""
NO_MEMORY, SYSTEM, NOT_PERMITTED, NOT_SUPPORTED = 2, 304, 800, 801
ALREADY_REGISTERED, NOT_REGISTERED = 712, 713


class DriverError(RuntimeError):
    """A call of the driver failed; `code` is CUDA's number of the error."""

    def __init__(self, call: str, code: int, text: str) -> None:
        super().__init__(f"{call} failed: {text} (CUDA error {code})")
        self.code = code


class PinDriver(Protocol):
    """Locks and unlocks pages of this process for its GPUs, from any thread."""

    name: str

    def register(self, address: int, nbytes: int, flags: int) -> None:
        """Lock the pages; `DriverError` if that fails, and nothing is locked then."""

    def unregister(self, address: int) -> None:
        """Unlock what `register` has locked at the address; `DriverError`."""

    def device_address(self, address: int) -> int:
        """Return where a GPU sees the registered address; `DriverError`."""


class BindingsDriver:
    """cuda-bindings: the driver's own interface, in a GPU's primary context.

    PyTorch, CuPy and JAX use the same context.
    """

    name = "cuda-bindings"

    def __init__(self, driver: Any = None) -> None:
        self._cuda = driver or importlib.import_module("cuda.bindings.driver")
        self._call("cuInit", 0)
        if not self._call("cuDeviceGetCount"):
            raise DriverError("cuDeviceGetCount", 100, "no GPU is visible")
        # The GPU that this thread uses already: a context on another takes memory.
        device = None
        if int(self._call("cuCtxGetCurrent")):
            device = self._call("cuCtxGetDevice")
        if device is None:
            device = self._call("cuDeviceGet", 0)
        # Kept to the end of the process: its end would unlock every page.
        self._context = self._call("cuDevicePrimaryCtxRetain", device)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status):
            _, text = self._cuda.cuGetErrorString(status)
            told = text.decode() if isinstance(text, bytes) else str(text)
            raise DriverError(name, int(status), told)
        return values[0] if values else None

    @contextmanager
    def _current(self) -> Iterator[None]:
        # Threads of ours have no context, and callers may have another one.
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def register(self, address: int, nbytes: int, flags: int) -> None:
        """See `PinDriver`."""
        with self._current():
            self._call("cuMemHostRegister", address, nbytes, flags)

    def unregister(self, address: int) -> None:
        """See `PinDriver`."""
        with self._current():
            self._call("cuMemHostUnregister", address)

    def device_address(self, address: int) -> int:
        """See `PinDriver`."""
        with self._current():
            return int(self._call("cuMemHostGetDevicePointer", address, 0))


class TorchDriver:
    """PyTorch's CUDA runtime."""

    name = "torch"

    def __init__(self, torch: Any = None) -> None:
        torch = torch or importlib.import_module("torch")
        if not torch.cuda.is_available():
            raise DriverError("torch.cuda.is_available", 100, "it returned False")
        torch.cuda.init()
        self._runtime = torch.cuda.cudart()

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._runtime, name)(*arguments)
        if int(status):
            text = str(self._runtime.cudaGetErrorString(status))
            raise DriverError(name, int(status), text)

    def register(self, address: int, nbytes: int, flags: int) -> None:
        """See `PinDriver`."""
        self._call("cudaHostRegister", address, nbytes, flags)

    def unregister(self, address: int) -> None:
        """See `PinDriver`."""
        self._call("cudaHostUnregister", address)

    def device_address(self, address: int) -> int:
        """Return the address itself: PyTorch needs unified addresses."""
        return address


class CupyDriver:
    """CuPy's CUDA runtime."""

    name = "cupy"

    def __init__(self, runtime: Any = None) -> None:
        self._runtime = runtime or importlib.import_module("cupy").cuda.runtime
        if not self._call("getDeviceCount"):
            raise DriverError("getDeviceCount", 100, "no GPU is visible")

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._runtime, name)(*arguments)
        except self._runtime.CUDARuntimeError as error:
            raise DriverError(name, int(error.status), str(error)) from error

    def register(self, address: int, nbytes: int, flags: int) -> None:
        """See `PinDriver`."""
        self._call("hostRegister", address, nbytes, flags)

    def unregister(self, address: int) -> None:
        """See `PinDriver`."""
        self._call("hostUnregister", address)

    def device_address(self, address: int) -> int:
        """Return the address itself: CuPy needs unified addresses."""
        return address


# ---- the one that this process uses

_KINDS: tuple[tuple[str, str, Callable[[], PinDriver]], ...] = (
    ("cuda-bindings", "cuda.bindings", BindingsDriver),
    ("PyTorch", "torch", TorchDriver),
    ("CuPy", "cupy", CupyDriver),
)
_chosen: tuple[int, PinDriver] | None = None
"""The process that has chosen, and what: a forked child chooses for itself."""


def driver_for(what: str) -> PinDriver:
    """Return this process's driver; `GpuUnavailable` if `what` cannot have one."""
    global _chosen
    if _chosen is not None and _chosen[0] == os.getpid():
        return _chosen[1]
    found = []
    for title, module, kind in _KINDS:
        if not _is_installed(module):
            found.append(f"{title} is not installed")
            continue
        try:
            _chosen = os.getpid(), kind()
        except Exception as error:  # each library has its own, for a missing driver too
            reason = " ".join(str(error).split()) or type(error).__name__
            found.append(f"{title}: {reason}")
        else:
            return _chosen[1]
    raise GpuUnavailable(
        f"{what} cannot be page-locked: that needs an NVIDIA GPU, its driver and a "
        f"library that calls it. Found: {'; '.join(found)}. Install the driver "
        "(nvidia-smi shows it), and 'ataraxis[gpu]', PyTorch or CuPy; or leave out "
        "pin(): copies work without, slower"
    )


def _is_installed(module: str) -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(module) is not None
    return False


@contextmanager
def use_driver(driver: PinDriver) -> Iterator[PinDriver]:
    """Use a driver of your own, as that of `ataraxis.testing.gpu`, within a block."""
    global _chosen
    before, _chosen = _chosen, (os.getpid(), driver)
    try:
        yield driver
    finally:
        _chosen = before


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA shows this process, as CUDA_VISIBLE_DEVICES names them.

    Starts no driver: processes that are forked later may use the GPUs.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        # CUDA, too, ends at the first that it does not know.
        found = [name.strip() for name in named.split(",")]
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), found))
    try:
        return [str(k) for k in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []
