"""`DType`: what a frame's payload is, one byte in the header.

How a payload of each code is written is in `_values`, `_arrays` and `_tree`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

CUSTOM_START = 100
CUSTOM_END = 200


class DType(IntEnum):
    """The kind of a payload; 1 to 9 and the custom range are uPipe's numbers.

    ``DType(137)`` is a member named ``CUSTOM_137`` whether registered or not.

    ``CUSTOM_TYPE_START`` and ``CUSTOM_TYPE_END`` are the first and the last code for
    types of your own, 100 and 200.

    Examples
    --------
    >>> DType.U32, DType(137), DType(DType.CUSTOM_TYPE_START + 1)
    (<DType.U32: 3>, <DType.CUSTOM_137: 137>, <DType.CUSTOM_101: 101>)
    """

    if TYPE_CHECKING:
        CUSTOM_TYPE_START: ClassVar[DType]
        CUSTOM_TYPE_END: ClassVar[DType]

    RAW = 0
    """Bytes as they are."""
    U8 = 1
    """Unsigned integer of 8 bits, or an array of them."""
    U16 = 2
    """Unsigned integers of 16 bits."""
    U32 = 3
    """Unsigned integers of 32 bits."""
    U64 = 4
    """Unsigned integers of 64 bits."""
    STR = 5
    """Text, UTF-8."""
    JSON = 6
    """JSON text, only when asked for."""
    ARRAY = 7
    """Python list, nested as you like."""
    TUPLE = 8
    """Python tuple, nested as you like."""
    ND_ARR = 9
    """Array whose dtype is in its labels: records, times, text, big-endian, xarray."""
    I8 = 10
    """Signed integers of 8 bits."""
    I16 = 11
    """Signed integers of 16 bits."""
    I32 = 12
    """Signed integers of 32 bits."""
    I64 = 13
    """Signed integers of 64 bits."""
    F16 = 14
    """Floats of 16 bits."""
    F32 = 15
    """Floats of 32 bits."""
    F64 = 16
    """Floats of 64 bits; of no dimension: a Python float."""
    C64 = 17
    """Complex numbers of two 32-bit floats."""
    C128 = 18
    """Complex numbers of two 64-bit floats; of no dimension: a Python complex."""
    BOOL = 19
    """Booleans, one byte each; of no dimension: a Python bool."""
    NONE = 20
    """None."""
    INT = 21
    """Python integer of any size."""
    DICT = 22
    """Python dict with any keys."""
    PICKLED = 230
    """A pickle: only where both ends allow it."""
    UNKNOWN = 230
    """uPipe's name of it."""

    @classmethod
    def _missing_(cls, value: object) -> DType | None:
        """Make a member of each custom code, so that any registered type decodes."""
        if not isinstance(value, int) or not CUSTOM_START <= value <= CUSTOM_END:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"CUSTOM_{value}"
        member._value_ = value
        return cls._value2member_map_.setdefault(value, member)  # type: ignore[return-value]


# Not among the members: a listing of the types has none that is not there.
DType.CUSTOM_TYPE_START = DType(CUSTOM_START)
DType.CUSTOM_TYPE_END = DType(CUSTOM_END)

# Code of a plain element -> its dtype and how struct writes one of it.
PLAIN: dict[DType, tuple[np.dtype[Any], str]] = {
    DType.U8: (np.dtype("u1"), "<B"),
    DType.U16: (np.dtype("<u2"), "<H"),
    DType.U32: (np.dtype("<u4"), "<I"),
    DType.U64: (np.dtype("<u8"), "<Q"),
    DType.I8: (np.dtype("i1"), "<b"),
    DType.I16: (np.dtype("<i2"), "<h"),
    DType.I32: (np.dtype("<i4"), "<i"),
    DType.I64: (np.dtype("<i8"), "<q"),
    DType.F16: (np.dtype("<f2"), "<e"),
    DType.F32: (np.dtype("<f4"), "<f"),
    DType.F64: (np.dtype("<f8"), "<d"),
    DType.C64: (np.dtype("<c8"), "<ff"),
    DType.C128: (np.dtype("<c16"), "<dd"),
    DType.BOOL: (np.dtype("?"), "<?"),
}
CODE_OF = {dtype.str: code for code, (dtype, _) in PLAIN.items()}
KNOWN = frozenset(DType) | frozenset(range(CUSTOM_START, CUSTOM_END + 1))
