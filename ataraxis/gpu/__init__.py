"""Shared memory and GPUs: page-locked mappings, DLPack, asynchronous copies.

`Consumer.pin`, `Producer.pin` and `SharedMemoryArray.pin` lock a mapping;
``frame.to_torch()`` and its siblings copy from it. No driver or library of GPUs is
imported before one of them is used.
"""

from __future__ import annotations

from ataraxis.gpu.batches import DeviceBatch, batches
from ataraxis.gpu.pins import Pin

__all__ = ["DeviceBatch", "Pin", "batches"]
