"""Small files of EEG and eye tracking systems, in the layouts that are published."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RATE = 250.0


def write_set(path: Path, names: list[str], values: np.ndarray) -> None:
    """EEGLAB's struct ``EEG``, in one file of MATLAB 5; microvolts."""
    from scipy.io import savemat

    labels = np.zeros((1, len(names)), [("labels", object)])
    labels["labels"][0] = names
    events = np.zeros((1, 2), [(k, object) for k in ("type", "latency", "duration")])
    events["type"][0], events["latency"][0] = ("go", "stop"), (1.0, 6.0)
    events["duration"][0] = (1.0, 1.0)
    eeg = {
        "setname": "made", "nbchan": len(names), "pnts": len(values), "trials": 1,
        "srate": RATE, "xmin": 0.0, "xmax": (len(values) - 1) / RATE,
        "data": values.T.astype("f4"), "chanlocs": labels, "event": events,
        "epoch": np.zeros((0, 0)), "ref": "common", "icawinv": np.zeros((0, 0)),
        "icaweights": np.zeros((0, 0)), "icasphere": np.zeros((0, 0)),
        "icachansind": np.zeros((0, 0)),
    }  # fmt: skip
    savemat(path, {"EEG": eeg}, appendmat=False)


def write_cnt(
    path: Path, names: list[str], values: np.ndarray, width_bytes: int = 2,
    counted: int | None = None,
) -> None:  # fmt: skip
    """Neuroscan's file of samples and an empty table of events.

    Of samples of 32 bits the next header says so. The header counts `counted` samples.
    """
    n, width = values.shape
    head = bytearray(900 + 75 * width)
    head[:12] = b"Version 3.0\0"
    head[225:235], head[235:243] = b"01/02/26\0\0", b"03:04:05"
    struct.pack_into("<H", head, 370, width)
    struct.pack_into("<H", head, 376, int(RATE))
    struct.pack_into("<I", head, 864, n if counted is None else counted)
    table = len(head) + width_bytes * n * width
    if width_bytes == 4:
        struct.pack_into("<i", head, 12, table + 9)
    struct.pack_into("<I", head, 886, table)
    struct.pack_into("<f", head, 890, n / RATE)
    for c, name in enumerate(names):
        place = 900 + 75 * c
        head[place : place + len(name)] = name.encode()
        struct.pack_into("<h", head, place + 47, 0)
        struct.pack_into("<f", head, place + 59, 204.8)
        struct.pack_into("<f", head, place + 71, 0.5)
        struct.pack_into("<ff", head, place + 19, 0.1 * c, 0.2)
    data = values.astype(f"<i{width_bytes}").tobytes() + struct.pack("<BII", 1, 0, 0)
    if width_bytes == 4:
        data += bytes(52) + b"\1"
    path.write_bytes(bytes(head) + data)


def write_gdf(path: Path, names: list[str], values: np.ndarray) -> None:
    """GDF 1.25: records of one sample each of 16 bits, and a table of events."""
    n, width = values.shape
    head = b"GDF 1.25" + b"X X".ljust(80) + b"made".ljust(80) + b"2026010203040500"
    head += struct.pack("<q", 256 + 256 * width) + bytes(24) + bytes(20)
    head += struct.pack("<qIII", n, 1, int(RATE), width)
    assert len(head) == 256
    head += b"".join(name.encode().ljust(16) for name in names)
    head += b"".ljust(80 * width) + b"uV".ljust(8) * width
    head += struct.pack(f"<{width}d", *[-32768.0] * width)
    head += struct.pack(f"<{width}d", *[32767.0] * width)
    head += struct.pack(f"<{width}q", *[-32768] * width)
    head += struct.pack(f"<{width}q", *[32767] * width)
    head += b"".ljust(80 * width)
    head += struct.pack(f"<{width}i", *[1] * width) + struct.pack(
        f"<{width}i", *[3] * width
    )
    head += bytes(32 * width)
    events = (
        bytes([1]) + int(RATE).to_bytes(3, "little") + struct.pack("<IIH", 1, 3, 769)
    )
    path.write_bytes(head + values.astype("<i2").tobytes() + events)


def write_nedf(path: Path, names: list[str], values: np.ndarray) -> None:
    """Neuroelectrics' file: XML, then samples of 24 bits and triggers in fives."""
    n, width = values.shape
    montage = "".join(
        f"<Channel{i}>{name}</Channel{i}>" for i, name in enumerate(names, 1)
    )
    xml = (
        "<nedf><NEDFversion>1.4</NEDFversion>"
        "<NumberOfChannelsOfAccelerometer>3</NumberOfChannelsOfAccelerometer>"
        f"<EEGSettings><TotalNumberOfChannels>{width}</TotalNumberOfChannels>"
        f"<EEGSamplingRate>{RATE:g}</EEGSamplingRate><EEGMontage>{montage}</EEGMontage>"
        f"<NumberOfRecordsOfEEG>{n}</NumberOfRecordsOfEEG></EEGSettings>"
        "<StepDetails><StartDate_firstEEGTimestamp>1700000000000"
        "</StartDate_firstEEGTimestamp></StepDetails></nedf>"
    )
    data = b""
    for start in range(0, n, 5):
        data += struct.pack(">3H", 1, 2, 3)
        for row in values[start : start + 5]:
            for value in row.tolist():
                data += (value & 0xFFFFFF).to_bytes(3, "big")
            data += struct.pack(">i", 0)
    path.write_bytes(xml.encode().ljust(10_240, b"\0") + data)


def write_snirf(path: Path, names: list[str], values: np.ndarray) -> None:
    """Light of two wavelengths between a source and a detector."""
    import h5py

    with h5py.File(path, "w") as file:
        file["formatVersion"] = b"1.0"
        file["nirs/data1/dataTimeSeries"] = values
        file["nirs/data1/time"] = np.arange(len(values)) / RATE
        for c in range(values.shape[1]):
            place = f"nirs/data1/measurementList{c + 1}"
            for name, value in (
                ("sourceIndex", c // 2 + 1), ("detectorIndex", 1), ("dataType", 1),
                ("wavelengthIndex", c % 2 + 1), ("dataTypeIndex", 1),
            ):  # fmt: skip
                file[f"{place}/{name}"] = np.int32(value)
        pairs = (values.shape[1] + 1) // 2
        file["nirs/probe/wavelengths"] = np.array([760.0, 850.0])
        file["nirs/probe/sourcePos3D"] = np.arange(3.0 * pairs).reshape(pairs, 3)
        file["nirs/probe/detectorPos3D"] = np.array([[30.0, 0.0, 0.0]])
        file["nirs/probe/sourceLabels"] = np.array(
            [f"S{i + 1}".encode() for i in range(pairs)]
        )
        file["nirs/probe/detectorLabels"] = np.array([b"D1"])
        about = {
            "LengthUnit": b"mm", "TimeUnit": b"s", "SubjectID": b"1",
            "MeasurementDate": b"2026-01-02", "MeasurementTime": b"03:04:05Z",
            "FrequencyUnit": b"Hz",
        }  # fmt: skip
        for name, text in about.items():
            file[f"nirs/metaDataTags/{name}"] = text


def write_asc(path: Path, names: list[str], values: np.ndarray) -> None:
    """EyeLink's text of one eye at 1000 Hz: x, y and pupil."""
    lines = [
        "** CONVERTED FROM x.edf", "** DATE: Tue Jan  6 10:11:12 2026",
        "** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED", "** VERSION: EYELINK II 1",
        "MSG\t1000 DISPLAY_COORDS 0 0 1919 1079", "MSG\t1000 RECCFG CR 1000 2 1 R",
        "MSG\t1000 GAZE_COORDS 0.00 0.00 1919.00 1079.00",
        "START\t1000\tRIGHT\tSAMPLES\tEVENTS", "PRESCALER\t1", "VPRESCALER\t1",
        "PUPIL\tAREA",
        "EVENTS\tGAZE\tRIGHT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2",
        "SAMPLES\tGAZE\tRIGHT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2",
        *(f"{1000 + i}\t{x / 10}\t{y / 10}\t{p / 10}\t..."
          for i, (x, y, p) in enumerate(values.tolist())),
        f"END\t{1000 + len(values)}\tSAMPLES\tEVENTS\tRES\t30.0\t25.0",
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
