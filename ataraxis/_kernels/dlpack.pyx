"""DLPack: state that the memory of an exported array is page-locked.

NumPy builds the capsule, of the versioned kind that has a read-only flag; NumPy cannot say kDLCUDAHost.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, uint32_t, uint64_t

# dlpack.h 1.0, as far as the device. These are fixed by its ABI.
cdef enum:
    CPU = 1
    CUDA_HOST = 3

cdef struct dl_device:
    int32_t device_type
    int32_t device_id

cdef struct dl_versioned:
    uint32_t major
    uint32_t minor
    void *manager
    void (*deleter)(dl_versioned *) noexcept
    uint64_t flags
    void *data
    dl_device device


def mark_pinned(capsule):
    """Change the device of a new versioned capsule from kDLCPU to kDLCUDAHost; return the capsule."""
    cdef dl_versioned *managed = <dl_versioned *>PyCapsule_GetPointer(capsule, "dltensor_versioned")
    if managed.major != 1 or managed.device.device_type != CPU:
        raise BufferError(f"a DLPack capsule of version {managed.major}, device type {managed.device.device_type}: expected 1, kDLCPU")
    managed.device.device_type = CUDA_HOST
    managed.device.device_id = 0
    return capsule


def described(capsule):
    """Return version, flags and device of a versioned capsule: (major, minor, flags, type, id)."""
    cdef dl_versioned *managed = <dl_versioned *>PyCapsule_GetPointer(capsule, "dltensor_versioned")
    return managed.major, managed.minor, managed.flags, managed.device.device_type, managed.device.device_id
