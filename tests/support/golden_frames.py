"""The frames of tests/golden/frames.json: one or more of every code.

``python tests/support/golden_frames.py`` writes the file again. Only when the format
changes, which it must not after a release: other machines hold these bytes.
"""

import json

import numpy as np
import xarray as xr
from places import GOLDEN

from ataraxis.frame import DType, Frame, Origin, register_data_type

FILE = GOLDEN / "frames.json"


class Pose:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __eq__(self, other):
        return type(other) is Pose and (self.x, self.y) == (other.x, other.y)

    __hash__ = None


register_data_type(
    150,
    Pose,
    lambda pose: bytes([pose.x, pose.y]),
    lambda data: Pose(data[0], data[1]),
    "golden.Pose",
)

RECORD = np.dtype({
    "names": ["t", "xy"], "formats": ["<u4", ("<f4", (2,))],
    "offsets": [0, 8], "itemsize": 16,
})  # fmt: skip
# Of bytes, since NumPy leaves the gaps of a record as they happen to be.
POSES = np.frombuffer(
    bytes.fromhex("01000000000000000000003f000000bf02000000000000000000c03f0000c0bf"),
    RECORD,
)
LABELLED = xr.Dataset(
    {"v": (("t", "axis"), np.arange(4, dtype="<f4").reshape(2, 2), {"units": "mm"})},
    {"axis": ["x", "y"], "t": np.array([0, 1], "M8[ns]"), "rate": 2.5},
)["v"]

# name -> (value, further arguments of Frame.from_value)
CASES = {
    "raw": (b"\x00\xffabc", {}),
    "raw empty": (b"", {}),
    "u8 scalar": (7, {"dtype": DType.U8}),
    "u8 array": (np.arange(6, dtype="u1").reshape(2, 3), {}),
    "u16": (np.array([1, 65535], "<u2"), {}),
    "u32 scalar": (2**32 - 1, {"dtype": DType.U32}),
    "u32": (np.array([1, 2**32 - 1], "<u4"), {}),
    "u64": (np.array([2**64 - 1], "<u8"), {}),
    "str": ("µV \U0001f42d", {}),
    "json": ({"b": [1, 2.5, None], "a": "µ"}, {"dtype": DType.JSON}),
    "array": ([1, [True, None, [2.5, "a"]], b"\x01"], {}),
    "tuple": ((1, (2, [3])), {}),
    "tuple with an array": ((np.array([1, 2], "<i2"), 1j), {}),
    "record array": (POSES, {}),
    "datetime": (np.array([0, 10**18, -(2**63)], "<M8[ns]"), {}),
    "big-endian": (np.array([[1.5, -2.0]], ">f8"), {}),
    "text array": (np.array(["a", "µµ"], "<U2"), {}),
    "numpy scalar": (np.float32(1.5), {}),
    "0-d array": (np.array(3, "<i8"), {}),
    "xarray": (LABELLED, {}),
    "i8": (np.array([-128, 127], "i1"), {}),
    "i16": (np.array([-2, 3], "<i2"), {}),
    "i32": (np.array([[-2], [3]], "<i4"), {}),
    "i64": (np.array([-(2**63), 2**63 - 1], "<i8"), {}),
    "f16": (np.array([0.5, -65504], "<f2"), {}),
    "f32": (np.array([0.1, np.inf], "<f4"), {}),
    "f64 scalar": (0.1, {}),
    "f64": (np.array([[[0.1]]], "<f8"), {}),
    "c64": (np.array([1 - 2j], "<c8"), {}),
    "c128 scalar": (1 - 2j, {}),
    "c128": (np.array([0.1 - 0.2j], "<c16"), {}),
    "bool scalar": (True, {}),
    "bool": (np.array([True, False]), {}),
    "none": (None, {}),
    "int": (-(2**70), {}),
    "int zero": (0, {}),
    "dict": ({"a": 1, 2: None, (3, "b"): [4.5], None: {}}, {}),
    "custom": (Pose(3, 4), {}),
    "pickled": ({1, 2}, {"allow_pickle": True}),
    "empty array": (np.zeros((0, 3), "<f4"), {}),
    "five dimensions": (np.arange(2, dtype="u1").reshape(1, 1, 1, 1, 2), {}),
    "every field": (
        b"x",
        {
            "sequence": 2**64 - 1, "time_ns": -5, "source": 2**32 - 1,
            "device_time": 2**64 - 1, "device_sequence": 9,
            "origin": Origin(1, 2, 3, 4), "session_event": True,
            "end_of_stream": True,
        },
    ),
    "signed stamp": (b"", {"device_time": -1}),
    "no checksum": (np.array([1.5], "<f8"), {"checksum": False, "labels_id": 3}),
}  # fmt: skip


def frame_of(name):
    value, arguments = CASES[name]
    return Frame.from_value(value, **{"sequence": 1, "time_ns": 2, **arguments})


if __name__ == "__main__":
    vectors = {name: frame_of(name).to_bytes().hex() for name in CASES}
    FILE.write_text(json.dumps(vectors, indent=1) + "\n")
