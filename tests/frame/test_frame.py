"""Frames: every value comes back as it was, every wrong byte is refused."""

import contextlib
import dataclasses
import doctest
import json
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import xarray as xr
from golden_frames import CASES, FILE, LABELLED, Pose, frame_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ids import plain
from laws import examples
from places import ROOT

from ataraxis import testing
from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame, DataOverflow, LayoutError
from ataraxis.frame import (
    HEADER_BYTES,
    DType,
    Flag,
    Frame,
    Header,
    Origin,
    crc32,
    frame_size,
    register_data_type,
    restamp,
)
from ataraxis.labels import Labels, dtype_from_json, dtype_to_json

GOLDEN = json.loads(FILE.read_text())


def trip(value, dtype=None, **arguments):
    data = Frame.from_value(value, dtype, **arguments).to_bytes()
    return Frame.from_buffer(data, allow_pickle=arguments.get("allow_pickle", False))


# ------------------------------------------------------------------ golden vectors


def test_golden_vectors_are_of_every_code():
    codes = {bytes.fromhex(data)[4] for data in GOLDEN.values()}
    assert codes == {*DType, 150}
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_golden_vector_is_what_is_written(name):
    assert frame_of(name).to_bytes().hex() == GOLDEN[name]


@pytest.mark.parametrize("name", CASES)
def test_golden_vector_is_read(name):
    value, arguments = CASES[name]
    frame = Frame.from_buffer(bytes.fromhex(GOLDEN[name]), allow_pickle=True)
    if isinstance(value, xr.DataArray):
        xr.testing.assert_identical(frame.value, value)
    else:
        assert testing.equal(frame.value, value)
    expected = {"sequence": 1, "time_ns": 2, "checksum": True, **arguments}
    for field in ("dtype", "allow_pickle"):
        expected.pop(field, None)
    assert {field: getattr(frame, field) for field in expected} == expected


def by_hand(code, payload, *, ndim=0, extents=(0, 0, 0, 0), flags=1, labels=0):
    """Build a frame with struct and zlib alone, as DESIGN section 4 has it."""
    header = b"AXF1" + bytes([code, ndim]) + struct.pack("<H", flags)
    header += struct.pack("<QQq", len(payload), 1, 2)
    header += struct.pack("<IIII", *extents)
    crc = zlib.crc32(payload) if flags & 1 else 0
    header += struct.pack("<III", 0, crc, labels)
    assert len(header) == 60
    return (header + struct.pack("<I", zlib.crc32(header)) + payload).hex()


RECORD_JSON = (
    b'{"dims":["dim_0"],"dtype":{"fields":[["t","<u4",0],'
    b'["xy",{"base":"<f4","shape":[2]},8]],"itemsize":16},"shape":[2]}'
)
RECORD_BYTES = struct.pack("<I4x2fI4x2f", 1, 0.5, -0.5, 2, 1.5, -1.5)
HAND_MADE = {
    "raw": by_hand(0, b"\x00\xffabc"),
    "u8 scalar": by_hand(1, b"\x07"),
    "u8 array": by_hand(1, bytes(range(6)), ndim=2, extents=(2, 3, 0, 0)),
    "u32 scalar": by_hand(3, b"\xff\xff\xff\xff"),
    "str": by_hand(5, "µV \U0001f42d".encode()),
    "json": by_hand(6, '{"b":[1,2.5,null],"a":"µ"}'.encode()),
    "tuple": by_hand(
        8,
        struct.pack("<I", 2)
        + struct.pack("<BQb", 21, 1, 1)
        + struct.pack("<BI", 8, 2)
        + struct.pack("<BQb", 21, 1, 2)
        + struct.pack("<BI", 7, 1)
        + struct.pack("<BQb", 21, 1, 3),
    ),
    "tuple with an array": by_hand(
        8,
        struct.pack("<I", 2)
        + struct.pack("<BBBx", 255, 11, 1)
        + struct.pack("<QQ2h", 4, 2, 1, 2)
        + struct.pack("<Bdd", 18, 0.0, 1.0),
    ),
    "record array": by_hand(
        9,
        struct.pack("<IBxxx", len(RECORD_JSON), 0)
        + RECORD_JSON
        + bytes(-len(RECORD_JSON) % 8)
        + RECORD_BYTES,
        ndim=1,
        extents=(2, 0, 0, 0),
    ),
    "f64": by_hand(16, struct.pack("<d", 0.1), ndim=3, extents=(1, 1, 1, 0)),
    "c128 scalar": by_hand(18, struct.pack("<dd", 1, -2)),
    "bool scalar": by_hand(19, b"\x01"),
    "none": by_hand(20, b""),
    "int": by_hand(21, (-(2**70)).to_bytes(9, "little", signed=True)),
    "custom": by_hand(150, b"\x0bgolden.Pose\x03\x04"),
    "pickled": by_hand(230, pickle.dumps({1, 2}, 5), flags=1 + 4),
    "five dimensions": by_hand(
        1, struct.pack("<8Q", 1, 1, 1, 1, 2, 0, 0, 0) + b"\x00\x01", ndim=5, flags=9
    ),
    "no checksum": by_hand(
        16, struct.pack("<d", 1.5), ndim=1, extents=(1, 0, 0, 0), flags=0, labels=3
    ),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_golden_vector_is_what_the_design_says(name):
    assert GOLDEN[name] == HAND_MADE[name]


def test_every_field_is_where_the_design_says():
    data = bytes.fromhex(GOLDEN["every field"])
    assert data[6:8] == struct.pack("<H", 1 + 2 + 16 + 32 + 64 + 128)
    assert struct.unpack_from("<QQq", data, 8) == (41, 2**64 - 1, -5)
    assert struct.unpack_from("<I", data, 48) == (2**32 - 1,)
    assert struct.unpack_from("<QQ", data, 64) == (2**64 - 1, 9)
    assert struct.unpack_from("<QQII", data, 80) == (1, 2, 3, 4)
    assert data[104:] == b"x"


# ---------------------------------------------------------------------- round trips


@settings(max_examples=examples(300), deadline=None)
@given(testing.values())
@example([])
@example({(1, (2, None)): {}})
@example(10**5000)
@example("\ud800")
def test_value_comes_back_as_it_was(value):
    assert testing.equal(trip(value).value, value)


@settings(max_examples=examples(300), deadline=None)
@given(testing.arrays())
def test_array_comes_back_as_a_read_only_view(array):
    data = Frame.from_value(array).to_bytes()
    frame = Frame.from_buffer(data)
    for back in (frame.value, frame.array):
        assert testing.equal(back, array)
        assert not back.flags.writeable
        assert not back.size or np.shares_memory(back, np.frombuffer(data, "u1"))
    assert len(data) == frame_size(array) == frame.nbytes


@settings(max_examples=examples(100), deadline=None)
@given(testing.labels())
def test_labels_come_back_through_json(labels):
    back = Labels.from_json(labels.to_json())
    assert back == labels
    assert back.dtype == labels.dtype


@settings(max_examples=examples(200), deadline=None)
@given(testing.dtypes())
def test_dtype_comes_back_through_json(dtype):
    back = dtype_from_json(json.loads(json.dumps(dtype_to_json(dtype))))
    assert back == dtype
    assert back.isalignedstruct == dtype.isalignedstruct


def test_data_array_comes_back_identical():
    back = trip(LABELLED)
    xr.testing.assert_identical(back.value, LABELLED)
    xr.testing.assert_identical(back.to_xarray(), LABELLED)
    assert back.labels == Labels.from_xarray(LABELLED)
    assert np.shares_memory(back.value.values, back.array)
    bare = xr.DataArray(np.zeros((2, 2)))
    xr.testing.assert_identical(trip(bare).value, bare)
    xr.testing.assert_identical(trip([bare]).value[0], bare)


@pytest.mark.parametrize("dtype", list(DType)[1:5] + list(DType)[10:20], ids=str)
def test_number_sent_as_a_code_comes_back_as_python_number(dtype):
    value = {"B": True, "F": 1.5, "C": 1.5 + 2j}.get(dtype.name[0], 5)
    frame = trip(value, dtype)
    assert frame.dtype is dtype
    assert testing.equal(frame.value, value)
    assert testing.equal(trip(np.array(value)[()], int(dtype)).value, value)
    assert frame.array.shape == ()
    assert frame.array == value


def test_every_code_has_its_type():
    array = np.arange(3)
    for dtype in DType:
        for value in (b"", 1, 2**70, 0.5, 1j, True, None, "", [], (), {}, array, ""):
            with contextlib.suppress(TypeError, ValueError):
                frame = trip(value, dtype, allow_pickle=True)
                assert frame.dtype == dtype
                assert np.array_equal(frame.value, value)


@pytest.mark.parametrize(
    ("value", "dtype", "kind", "message"),
    [
        (object(), None, TypeError, "register_data_type"),
        ({1}, None, TypeError, "allow_pickle"),
        ([{1}], None, TypeError, "allow_pickle"),
        (True, DType.INT, TypeError, "INT takes an integer"),
        (1.5, DType.U8, TypeError, "takes an integer"),
        (256, DType.U8, ValueError, "wider"),
        (-1, DType.U64, ValueError, "wider"),
        (1e300, DType.F32, ValueError, "wider"),
        (1j, DType.F64, TypeError, "a number"),
        (1, DType.BOOL, TypeError, "a bool"),
        ("1", DType.F64, TypeError, "a number"),
        (1, DType.STR, TypeError, "takes str"),
        ([1], DType.TUPLE, TypeError, "takes tuple"),
        ([1], DType.ND_ARR, TypeError, "takes an ndarray"),
        ((1,), DType.JSON, TypeError, "preserve tuple"),
        ({1: 2}, DType.JSON, TypeError, "use DICT"),
        (float("nan"), DType.JSON, ValueError, "JSON cannot hold nan"),
        (1, DType.PICKLED, TypeError, "both ends"),
        (1, 149, TypeError, "not registered"),
        (1, 150, TypeError, "golden.Pose"),
        (1, 99, ValueError, "99"),
        (np.array([1.5]), DType.F32, TypeError, "without loss"),
        (np.array([object()]), None, TypeError, "convert it"),
        (np.ma.array([1, 2], mask=[0, 1]), None, TypeError, "masked"),
        (np.zeros((1,) * 9), None, ValueError, "at most 8"),
    ],
    ids=plain,
)
def test_value_that_does_not_fit_is_explained(value, dtype, kind, message):
    with pytest.raises(kind, match=message):
        Frame.from_value(value, dtype)


def test_subclass_that_would_not_come_back_is_refused():
    class Count(int):
        pass

    with pytest.raises(TypeError, match="Count"):
        Frame.from_value(Count(3))


def test_value_that_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(ValueError, match="64 levels"):
        Frame.from_value(value)
    nested = {}
    nested["a"] = nested
    with pytest.raises(ValueError, match="64 levels"):
        Frame.from_value(nested, DType.JSON)


def test_nesting_of_64_levels_is_kept_and_of_65_refused():
    value = []
    for _ in range(63):
        value = [value]
    assert trip(value).value == value
    with pytest.raises(ValueError, match="64"):
        Frame.from_value([value])
    hostile = struct.pack("<I", 1) + struct.pack("<BI", 7, 1) * 10_000
    with pytest.raises(CorruptFrame, match="nesting"):
        _ = Frame.from_buffer(bytes.fromhex(by_hand(7, hostile))).value


def test_array_is_copied_once_and_seen_live_until_then():
    array = np.zeros(4)
    frame = Frame.from_value(array)
    assert np.shares_memory(frame.array, array)
    array[0] = 5
    assert trip(array).value[0] == 5
    assert Frame.from_buffer(frame.to_bytes()).value[0] == 5


def test_raw_bytes_are_viewed_as_an_array():
    for value in (b"abc", bytearray(b"abc"), memoryview(b"a.b.c.")[::2]):
        frame = trip(value)
        assert frame.value == b"abc"
        assert frame.array.tolist() == [97, 98, 99]
    matrix = memoryview(np.arange(6, dtype="<i2").reshape(2, 3))
    assert trip(matrix).value == matrix.tobytes()
    assert trip(matrix[:0]).value == b""


def test_payload_without_array_says_so():
    with pytest.raises(TypeError, match="STR, not an array"):
        _ = trip("a").array
    assert trip("a").labels is None


def test_interned_labels_leave_only_the_bytes():
    records = np.zeros(3, [("a", "<i4"), ("b", "<f8")])
    frame = Frame.from_value(records, labels_id=4)
    assert frame.payload_bytes == records.nbytes
    data = frame.to_bytes()
    with pytest.raises(ValueError, match="pass labels="):
        _ = Frame.from_buffer(data).value
    labels = Labels(records.dtype, (3,), ("t",), {"t": [1, 2, 3]})
    back = Frame.from_buffer(data, labels=labels)
    assert testing.equal(back.value, records)
    assert back.to_xarray("r").sel(t=2).name == "r"
    wrong = Labels("u1", (3,))
    with pytest.raises(CorruptFrame, match="array of uint8"):
        _ = Frame.from_buffer(data, labels=wrong).value
    plain = Frame.from_value(LABELLED, labels_id=1)
    assert (plain.dtype, plain.payload_bytes) == (DType.F32, 16)
    scalar = trip(np.float32(2), labels_id=1)
    assert (scalar.dtype, scalar.array.dtype, scalar.value) == (DType.F32, "f4", 2.0)


# --------------------------------------------------------------------------- header


def test_header_is_64_bytes_and_time_is_now():
    before = now_ns()
    frame = Frame.from_value(None)
    assert before <= frame.time_ns <= now_ns()
    assert len(frame.to_bytes()) == HEADER_BYTES == 64
    assert repr(frame) == "<Frame 0 of source 0: NONE, 0 bytes>"


def test_end_of_stream_and_events_are_flags():
    frame = trip(None, end_of_stream=True, session_event=True)
    assert frame.end_of_stream
    assert frame.session_event
    assert not frame.pickled
    assert frame.flags == Flag.CHECKSUM | Flag.END_OF_STREAM | Flag.SESSION_EVENT


@pytest.mark.parametrize(
    ("given_time", "unsigned"),
    [(-(2**63), False), (0, False), (2**63, True), (np.uint64(5), True)],
)
def test_device_stamp_is_signed_unless_it_needs_not(given_time, unsigned):
    frame = trip(b"", device_time=given_time, device_sequence=3)
    assert (frame.device_time, frame.device_sequence) == (given_time, 3)
    assert frame.device_unsigned is unsigned
    assert type(frame.device_time) is int


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence": -1}, "sequence must be"),
        ({"sequence": 2**64}, "sequence"),
        ({"time_ns": 2**63}, "time_ns"),
        ({"source": 2**32}, "source"),
        ({"labels_id": 2**32}, "labels_id"),
        ({"device_time": 2**64}, "device_time"),
        ({"device_time": -(2**63) - 1}, "device_time"),
        ({"device_sequence": 1}, "give both"),
        ({"device_time": 0, "device_sequence": 2**64}, "device_sequence"),
        ({"origin": Origin(2**64, 0)}, "origin.source"),
        ({"origin": Origin(0, 0, 2**32)}, "origin.part"),
        ({"origin": Origin(0, 0, 0, -1)}, "origin.attempt"),
    ],
)
def test_number_that_its_field_does_not_hold_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Frame.from_value(b"", **arguments)


def test_large_extents_go_into_the_extension():
    header = Header(dtype=DType.U8, shape=(2**32, 0), payload_bytes=0)
    buffer = bytearray(header.nbytes)
    header.write(buffer)
    assert len(buffer) == 128
    assert Header.read(buffer).shape == (2**32, 0)
    assert Frame.from_buffer(buffer).array.shape == (2**32, 0)


def test_header_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Header(sequence=-1).write(bytearray(64))
    with pytest.raises(ValueError, match="byte 0 or later"):
        Header.read(bytes(64), -1)


def test_peek_says_how_long_the_frame_will_be():
    data = Frame.from_value(np.zeros(100), origin=(1, 2)).to_bytes(seed=9)
    assert Header.peek_nbytes(data[:64], seed=9) == len(data) == 64 + 24 + 800
    with pytest.raises(CorruptFrame, match="header CRC"):
        Header.peek_nbytes(data[:64])


def test_seed_ties_a_frame_to_its_file():
    frame = Frame.from_value("hello")
    mine, other = crc32(b"uuid of this file"), crc32(b"uuid of an older file")
    data = frame.to_bytes(seed=mine)
    assert Frame.from_buffer(data, seed=mine).value == "hello"
    for seed in (0, other):
        with pytest.raises(CorruptFrame, match="header CRC"):
            Frame.from_buffer(data, seed=seed)
    assert data[60:64] == struct.pack("<I", zlib.crc32(data[:60], mine))


def test_restamp_changes_only_labels_id_and_header_crc():
    data = Frame.from_value(np.zeros(2), labels_id=1).to_bytes()
    moved = bytearray(b"\xee" * 8 + data)
    restamp(moved, 8, labels_id=77, seed=5)
    assert Frame.from_buffer(moved, 8, seed=5).labels_id == 77
    assert moved[8:64] == data[:56]
    assert moved[72:] == data[64:]


def test_fields_are_replaced_in_a_copy():
    frame = dataclasses.replace(Frame.from_value([1, 2]), sequence=8)
    assert Frame.from_buffer(frame.to_bytes()).sequence == 8
    assert frame.value == [1, 2]


@pytest.mark.parametrize("size", [10, 70_000])
def test_frame_is_written_where_it_is_asked_to_be(size):
    frame = Frame.from_value(np.arange(size, dtype="u1"), device_time=1)
    buffer = bytearray(b"\xee" * (size + 200))
    assert frame.encode_into(buffer, 64) == frame.nbytes == size + 80
    assert buffer[:64] == b"\xee" * 64
    assert buffer[64 + frame.nbytes :] == b"\xee" * 56
    assert testing.equal(Frame.from_buffer(buffer, 64).value, frame.value)
    assert bytes(frame.to_bytes()) == buffer[64 : 64 + frame.nbytes]
    exact = bytearray(frame.nbytes)
    frame.encode_into(exact)
    with pytest.raises(DataOverflow, match="larger slot"):
        frame.encode_into(exact[:-1])
    with pytest.raises(DataOverflow):
        frame.encode_into(exact, 1)


def test_frame_is_read_from_any_buffer():
    data = Frame.from_value(b"abc").to_bytes()
    array = np.frombuffer(data, "u1")
    spread = np.repeat(array, 2)[::2]
    for buffer in (data, bytearray(data), memoryview(data), array, spread):
        assert Frame.from_buffer(buffer).value == b"abc"
    padded = np.zeros(72, "u1")
    padded[: len(data)] = array
    assert Frame.from_buffer(padded.view("<i8")).value == b"abc"
    with pytest.raises(CorruptFrame):
        Frame.from_buffer(b"")


def test_checksum_is_crc32_with_and_without_isal(monkeypatch):
    from ataraxis.frame import _header

    data = bytes(range(256)) * 300
    assert crc32(data, 7) == zlib.crc32(data, 7)
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    _header._fastest.cache_clear()
    assert _header._fastest() is zlib.crc32
    assert crc32(data, 7) == zlib.crc32(data, 7)
    _header._fastest.cache_clear()


# --------------------------------------------------------------------- custom types


def test_custom_type_means_the_same_at_both_ends_or_nothing():
    frame = trip([Pose(1, 2), {"p": Pose(3, 4)}])
    assert frame.value == [Pose(1, 2), {"p": Pose(3, 4)}]
    assert trip(Pose(1, 2)).dtype.name == "CUSTOM_150"
    other = by_hand(150, b"\x05other\x03\x04")
    with pytest.raises(CorruptFrame, match=r"other.*golden\.Pose"):
        _ = Frame.from_buffer(bytes.fromhex(other)).value
    unknown = Frame.from_buffer(bytes.fromhex(by_hand(149, b"\x01a")))
    with pytest.raises(CorruptFrame, match="call register_data_type"):
        _ = unknown.value
    short = Frame.from_buffer(bytes.fromhex(by_hand(150, b"\x0bgolden.Pose")))
    with pytest.raises(CorruptFrame, match="IndexError"):
        _ = short.value


def test_registration_that_contradicts_another_is_refused():
    class Other:
        pass

    def register(code, cls, name="n"):
        return register_data_type(code, cls, lambda _: b"", lambda _: Other(), name)

    with pytest.raises(ValueError, match="another code"):
        register(150, Other)
    with pytest.raises(ValueError, match="registered as 150"):
        register(151, Pose)
    for code in (99, 201):
        with pytest.raises(ValueError, match="from 100 to 200"):
            register(code, Other)
    with pytest.raises(ValueError, match="without registration"):
        register(152, dict)
    with pytest.raises(ValueError, match="255"):
        register(152, Other, "n" * 256)
    assert register(152, Other) == register(152, Other) == 152
    assert DType(152) is DType(152)
    with pytest.raises(ValueError, match="250"):
        DType(250)


# --------------------------------------------------------------------------- pickle


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_pickle_is_read_only_where_both_ends_allow_it():
    assert trip({1}, allow_pickle=True).value == {1}
    assert trip([{1}], allow_pickle=True).value == [{1}]
    for value in (Bomb(), [Bomb()], {"a": (Bomb(),)}):
        frame = Frame.from_value(value, allow_pickle=True)
        assert frame.pickled
        back = Frame.from_buffer(frame.to_bytes())
        assert back.pickled
        with pytest.raises(CorruptFrame, match="allow_pickle=True"):
            _ = back.value


def test_pickle_that_its_header_hides_is_never_run():
    data = bytearray(Frame.from_value([Bomb()], allow_pickle=True).to_bytes())
    data[6] &= ~Flag.PICKLED
    data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    with pytest.raises(CorruptFrame, match="a pickle"):
        _ = Frame.from_buffer(data, allow_pickle=True).value
    data = bytes.fromhex(by_hand(230, pickle.dumps(Bomb())))
    with pytest.raises(CorruptFrame, match="pickled flag"):
        Frame.from_buffer(data, allow_pickle=True)
    with pytest.raises(CorruptFrame, match="pickled flag"):
        Frame.from_buffer(bytes.fromhex(by_hand(5, b"", flags=5)))


@pytest.mark.parametrize("at", [0, 64, 256])
def test_the_error_of_a_wrong_flag_names_its_byte(at):
    data = bytes(at) + bytes.fromhex(by_hand(5, b"", flags=5))
    with pytest.raises(CorruptFrame, match=rf"pickled flag at byte {at + 6}:"):
        Frame.from_buffer(data, at)


def test_pickle_that_does_not_load_is_corrupt():
    data = bytes.fromhex(by_hand(230, b"\x80\x05nonsense", flags=5))
    with pytest.raises(CorruptFrame, match="one that loads"):
        _ = Frame.from_buffer(data, allow_pickle=True).value


# -------------------------------------------------------------------- hostile bytes


def changed(data, at, layout, value):
    """Change a field of a frame and make its header's CRC fit again."""
    data = bytearray(data)
    struct.pack_into(layout, data, at, value)
    data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    return bytes(data)


ARRAY = bytes.fromhex(GOLDEN["u8 array"])
FIVE = bytes.fromhex(GOLDEN["five dimensions"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"AXF1", "header at byte 0: found 4 bytes, expected 64 or more"),
        (b"NOPE" + ARRAY[4:], "magic at byte 0: found b'NOPE', expected b'AXF1'"),
        (ARRAY[:-1], "length at byte 8: found 6, expected at most the 5 here"),
        (ARRAY[:-1] + b"\x00", "checksum at byte 52: found 0x"),
        (ARRAY[:60] + bytes(4) + ARRAY[64:], "header CRC at byte 60: found 0x00000000"),
        (changed(ARRAY, 4, "B", 99), "dtype code at byte 4: found 99"),
        (changed(ARRAY, 4, "B", 201), "dtype code"),
        (changed(ARRAY, 4, "B", 229), "dtype code"),
        (changed(ARRAY, 4, "B", 255), "dtype code"),
        (changed(ARRAY, 4, "B", DType.U16), "payload of U16"),
        (changed(ARRAY, 4, "B", DType.STR), "ndim of STR at byte 5: found 2"),
        (changed(ARRAY, 4, "B", DType.NONE), "ndim of NONE"),
        (changed(ARRAY, 4, "B", 120), "ndim of CUSTOM_120"),
        (changed(ARRAY, 5, "B", 9), "ndim at byte 5: found 9"),
        (changed(ARRAY, 5, "B", 1), "extents at byte 32"),
        (changed(ARRAY, 5, "B", 5), "extents at byte 32"),
        (changed(ARRAY, 6, "<H", 256), "flags at byte 6: found 0x100"),
        (changed(ARRAY, 6, "<H", 1 + 32), "flags at byte 6"),
        (changed(ARRAY, 6, "<H", 0), "checksum at byte 52"),
        (changed(ARRAY, 6, "<H", 1 + 8), "length at byte 8: found 6, expected 64"),
        (changed(ARRAY, 6, "<H", 1 + 16), "length at byte 8: found 6, expected 16"),
        (changed(ARRAY, 6, "<H", 1 + 64), "length at byte 8: found 6, expected 24"),
        (changed(ARRAY, 8, "<Q", 2**64 - 1), "length at byte 8"),
        (changed(ARRAY, 8, "<Q", 5), "payload of U8 (2, 3) at byte 8"),
        (changed(ARRAY, 32, "<I", 3), "payload of U8 (3, 3) at byte 8: found 6"),
        (changed(ARRAY, 44, "<I", 1), "extents at byte 32"),
        (changed(FIVE, 32, "<I", 1), "extents at byte 32"),
        (changed(FIVE, 5, "B", 6), "payload of U8"),
        (changed(FIVE, 5, "B", 4), "extents at byte 64"),
        (changed(FIVE, 64 + 56, "<Q", 1), "extents at byte 64"),
        (changed(FIVE, 64, "<Q", 2**63), "extents at byte 32"),
        (bytes.fromhex(by_hand(20, b"x")), "payload of NONE"),
        (bytes.fromhex(by_hand(16, b"1234567")), "payload of F64"),
    ],
)
def test_wrong_header_is_refused_with_place_found_and_expected(data, message):
    with pytest.raises(CorruptFrame) as caught:
        Frame.from_buffer(data)
    assert message in str(caught.value)
    shifted = bytes(16) + data
    with pytest.raises(CorruptFrame, match="expected"):
        Frame.from_buffer(shifted, 16)


def block(labels, container=0, length=None, zeros=b"\x00\x00\x00", pad=None):
    length = len(labels) if length is None else length
    pad = bytes(-len(labels) % 8) if pad is None else pad
    return struct.pack("<IB", length, container) + zeros + labels + pad


def labels_json(dtype, *shape, **more):
    dims = [f"d{i}" for i in range(len(shape))]
    tree = {"dtype": dtype, "shape": shape, "dims": dims, **more}
    return json.dumps(tree).encode()


def nested(payload, code=7):
    return by_hand(code, struct.pack("<I", 1) + payload)


U2 = labels_json("<U1", 1)
ONE = {"ndim": 1, "extents": (1, 0, 0, 0)}
COLLIDING = {"__ataraxis__": {"dims": ["d0"], "dtype": "<i8", "values": [1]}}
HOSTILE = {
    "no text": by_hand(5, b"\xff"),
    "no integer": by_hand(21, b""),
    "no bool": by_hand(19, b"\x02"),
    "no bools": by_hand(19, b"\x02", **ONE),
    "json: cut": by_hand(6, b"{"),
    "json: no text": by_hand(6, b"\xff"),
    "json: nan": by_hand(6, b"[NaN]"),
    "json: infinite": by_hand(6, b"1e999"),
    "json: key twice": by_hand(6, b'{"a":1,"a":1}'),
    "json: deep": by_hand(6, b"[" * 100_000),
    "json: nested": by_hand(6, b"[" * 99 + b"]" * 99),
    "json: long integer": by_hand(6, b"1" * 5000),
    "tree: no count": by_hand(7, b"\x00"),
    "tree: huge count": by_hand(7, b"\xff\xff\xff\xff"),
    "tree: one missing": by_hand(7, struct.pack("<IB", 2, 20)),
    "tree: rest": by_hand(7, struct.pack("<IBB", 1, 20, 20)),
    "tree: unknown code": nested(b"\x63"),
    "tree: json": nested(b"\x06"),
    "tree: no bool": nested(b"\x13\x02"),
    "tree: no text": nested(struct.pack("<BQB", 5, 1, 0xFF)),
    "tree: no integer": nested(struct.pack("<BQ", 21, 0)),
    "tree: huge text": nested(struct.pack("<BQ", 5, 2**64 - 1)),
    "tree: key twice": by_hand(22, struct.pack("<I4B", 2, 20, 20, 20, 20)),
    "tree: integer of 12,000 digits as key twice": by_hand(
        22,
        struct.pack("<I", 2)
        + (struct.pack("<BQ", 21, 5000) + b"1" * 5000 + b"\x14") * 2,
    ),
    "tree: list as key": by_hand(22, struct.pack("<IBIB", 1, 7, 0, 20)),
    "tree: array as key": by_hand(
        22, struct.pack("<I3BxQQBB", 1, 255, 1, 1, 1, 1, 5, 20)
    ),
    "embedded: str": nested(struct.pack("<3BxQ", 255, 5, 0, 0)),
    "embedded: list": nested(struct.pack("<3BxQ", 255, 7, 0, 0)),
    "embedded: nested 255": nested(struct.pack("<3BxQ", 255, 255, 0, 0)),
    "embedded: ndim": nested(struct.pack("<3BxQ8Q", 255, 1, 9, *[0] * 9)),
    "embedded: ndim of custom": nested(struct.pack("<3BxQQ", 255, 150, 1, 0, 0)),
    "embedded: padding": nested(struct.pack("<4BQQB", 255, 1, 1, 9, 1, 1, 5)),
    "embedded: size": nested(struct.pack("<3BxQQB", 255, 1, 1, 1, 2, 5)),
    "embedded: scalar size": nested(struct.pack("<3BxQB", 255, 16, 0, 1, 5)),
    "embedded: huge": nested(struct.pack("<3BxQQQ", 255, 1, 2, 0, 0, 2**63)),
    "embedded: huge length": nested(struct.pack("<3BxQQ", 255, 1, 1, 2**63, 2**63)),
    "labels: none": by_hand(9, b"", **ONE),
    "labels: cut": by_hand(9, block(U2, length=2**31), **ONE),
    "labels: not ours": by_hand(9, block(b"null"), **ONE),
    "labels: object": by_hand(9, block(labels_json("|O", 1)) + bytes(8), **ONE),
    "labels: other shape": by_hand(9, block(labels_json("|u1", 2)) + b"12", **ONE),
    "labels: other shape, as many bytes": by_hand(
        9, block(labels_json("|u1", 1, 1)) + b"1", **ONE
    ),
    "labels: short": by_hand(9, block(labels_json("<f8", 1)) + bytes(7), **ONE),
    "labels: zeros": by_hand(9, block(U2, zeros=b"\0\0\1") + bytes(4), **ONE),
    "labels: container": by_hand(9, block(U2, 3) + bytes(4), **ONE),
    "labels: 1-d scalar": by_hand(9, block(U2, 1) + bytes(4), **ONE),
    "labels: padding": by_hand(9, block(U2[:-1] + b" }", pad=b"x" * 8), **ONE),
    "labels: no characters": by_hand(9, block(U2) + b"\xff" * 4, **ONE),
    "labels: no characters in a field": by_hand(
        9,
        block(labels_json({"fields": [["a", "<U1", 1]], "itemsize": 6}, 1))
        + b"\xff" * 6,
        **ONE,
    ),
    "labels: no character": by_hand(9, block(labels_json("<U1"), 1) + b"\xff" * 4),
    "labels: not xarray's": by_hand(
        9, block(labels_json("|u1", 1, coords=COLLIDING), 2) + b"1", **ONE
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_payload_that_we_never_write_is_refused(name):
    frame = Frame.from_buffer(bytes.fromhex(HOSTILE[name]), allow_pickle=True)
    with pytest.raises(CorruptFrame, match=r"payload of frame 1 of .*expected"):
        _ = frame.value


def test_arrays_of_no_bytes_take_no_memory():
    for dtype, shape in (("|S0", (2**40,)), ("|V0", (2**61,)), ("<f8", (0, 2**58))):
        payload = block(labels_json(dtype, *shape))
        extents = struct.pack("<8Q", *shape, *[0] * (8 - len(shape)))
        data = by_hand(9, extents + payload, ndim=len(shape), flags=9)
        array = Frame.from_buffer(bytes.fromhex(data)).value
        assert array.shape == shape
        assert array.dtype == dtype
    too_large = by_hand(16, struct.pack("<8Q", 0, 2**60, *[0] * 6), ndim=2, flags=9)
    with pytest.raises(CorruptFrame):
        _ = Frame.from_buffer(bytes.fromhex(too_large)).array


def look(data, **arguments):
    """Do all that a reader does; anything but CorruptFrame ends the test."""
    with contextlib.suppress(CorruptFrame):
        frame = Frame.from_buffer(data, **arguments)
        with contextlib.suppress(CorruptFrame):
            repr(frame.value)
        with contextlib.suppress(CorruptFrame, TypeError):
            repr(frame.array)
        with contextlib.suppress(CorruptFrame):
            repr(frame.labels)
        assert len(frame.to_bytes()) == frame.nbytes


# Interned labels are the reader's own business, so that case is not among these.
SEEDS = [bytes.fromhex(data) for name, data in GOLDEN.items() if name != "no checksum"]


@settings(max_examples=examples(400), deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.integers(0, 2000),
    st.booleans(),
)
def test_mutated_frame_is_refused_or_read(seed, edits, length, mend):
    data = bytearray(seed)
    for at, byte in edits:
        data[at % len(data)] = byte
    data = data[: length if length else len(data)]
    if mend and len(data) >= 64:
        # The reader's second line: all checksums fit, and still nothing is trusted.
        data[8:16] = struct.pack("<Q", len(data) - 64)
        data[52:56] = struct.pack("<I", zlib.crc32(data[64:]) if data[6] & 1 else 0)
        data[56:60] = bytes(4)
        data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    look(bytes(data))
    if not mend and bytes(data) != seed:
        with pytest.raises(CorruptFrame):
            Frame.from_buffer(bytes(data))


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200), st.sampled_from([*DType, 150]), st.integers(0, 1))
def test_any_payload_is_refused_or_read(payload, code, ndim):
    flags = 5 if code == DType.PICKLED else 1
    data = by_hand(code, payload, ndim=ndim, extents=(ndim * 3, 0, 0, 0), flags=flags)
    look(bytes.fromhex(data))


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    look(data)
    look(b"AXF1" + data)


@settings(max_examples=examples(300), deadline=None)
@given(testing.labels(), st.lists(st.tuples(st.integers(0), st.binary(max_size=3))))
def test_mutated_labels_are_refused_or_read(labels, edits):
    data = bytearray(labels.to_json())
    for at, piece in edits:
        at %= len(data) + 1
        data[at : at + 1] = piece
    with contextlib.suppress(LayoutError):
        Labels.from_json(bytes(data)).to_json()


def test_every_truncation_and_every_flipped_bit_is_refused():
    for seed in SEEDS:
        for length in range(len(seed)):
            with pytest.raises(CorruptFrame):
                Frame.from_buffer(seed[:length])
        for at in range(min(len(seed), 160)):
            data = bytearray(seed)
            data[at] ^= 1 << at % 8
            with pytest.raises(CorruptFrame):
                Frame.from_buffer(data)


def test_unverified_frame_skips_the_checksum_but_not_the_header():
    data = bytearray(Frame.from_value(np.zeros(3, "u1")).to_bytes())
    data[-1] = 7
    assert Frame.from_buffer(data, verify=False).array[-1] == 7
    data[20] ^= 1
    with pytest.raises(CorruptFrame, match="header CRC"):
        Frame.from_buffer(data, verify=False)


def test_page_about_the_frame_says_what_happens():
    page = ROOT / "docs" / "explanation" / "frame.md"
    assert doctest.testfile(str(page), module_relative=False) == (0, 7)


def test_importing_the_frame_loads_nothing_but_numpy():
    code = (
        "import sys, ataraxis.frame, ataraxis.clock, ataraxis.labels\n"
        "slow = {'xarray', 'pandas', 'isal', 'pickle5', 'hypothesis', 'asyncio'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
