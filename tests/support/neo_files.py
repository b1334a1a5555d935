"""Small files of recording systems, in the layouts that their makers publish.

For each test to make what it needs: pauses, cuts, few samples. What neo has as a
table of its reader (the structs of Blackrock, Plexon and NeuroExplorer) is taken from
there.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATE = 1000.0


def filled(kind: Any, /, **values: Any) -> bytes:
    """A struct of zeros and these values."""
    made = np.zeros(1, kind)
    for name, value in values.items():
        made[name] = value
    return made.tobytes()


# ---- WinEDR and WinWCP (Strathclyde): text, then samples


def write_edr(path: Path, values: np.ndarray) -> None:
    n, width = values.shape
    lines = [
        "VER=6.4", f"NC={width}", f"NP={n * width}", "NBH=2048", "AD=10.0",
        "ADCMAX=32767", f"DT={1 / RATE}",
    ]  # fmt: skip
    for c in range(width):
        lines += [f"YN{c}=c{c}", f"YU{c}=mV", f"YCF{c}=0.1", f"YAG{c}=1.0"]
        lines += [f"YZ{c}=0", f"YO{c}={c}"]
    head = ("\r\n".join(lines) + "\r\n").encode()
    path.write_bytes(head.ljust(2048, b"\0") + values.astype("<i2").tobytes())


def write_wcp(path: Path, values: np.ndarray) -> None:
    """One record; samples fill sectors of 512 bytes."""
    n, width = values.shape
    sectors = -(-n * width * 2 // 512)
    lines = [
        "VER=8", f"NC={width}", "NR=1", "NBH=2", "NBA=2", f"NBD={sectors}",
        "ADCMAX=32767", "AD=10.0", f"DT={1 / RATE}",
    ]  # fmt: skip
    for c in range(width):
        lines += [f"YN{c}=c{c}", f"YU{c}=mV", f"YG{c}=0.1", f"YO{c}={c}"]
    head = ("\r\n".join(lines) + "\r\n").encode().ljust(1024, b"\0")
    analysis = struct.pack(
        "<8s4sfff8f", b"ACCEPTED", b"TEST", 1, 0, 1 / RATE, *[5.0] * 8
    )
    data = values.astype("<i2").tobytes()
    path.write_bytes(
        head + analysis.ljust(1024, b"\0") + data.ljust(sectors * 512, b"\0")
    )


# ---- NeuroExplorer


def write_nex(
    path: Path, values: np.ndarray, pieces: Sequence[tuple[int, int]] = ((2000, 0),)
) -> None:
    """One continuous variable a channel, and one event.

    `pieces` are the tick at which each begins, and the number of its first sample.
    """
    from neo.rawio import neuroexplorerrawio as nex

    n, width = values.shape
    start = 544 + 208 * (width + 1)
    heads, data = b"", b""
    for c in range(width):
        heads += filled(
            nex.EntityHeader, type=5, varVersion=102, name=f"c{c}".encode(),
            n=len(pieces), offset=start + len(data), WFrequency=RATE, ADtoMV=0.25,
            NPointsWave=n,
        )  # fmt: skip
        data += np.array(pieces, "<i4").T.tobytes()
        data += values[:, c].astype("<i2").tobytes()
    heads += filled(
        nex.EntityHeader, type=1, name=b"door", n=2, offset=start + len(data)
    )
    data += struct.pack("<ii", 2100, 2500)
    head = filled(
        nex.GlobalHeader, signature=b"NEX1", version=106, freq=1000.0,
        tbeg=0, tend=2000 + n, nvar=width + 1,
    )  # fmt: skip
    path.write_bytes(head.ljust(544, b"\0") + heads + data)


# ---- Plexon


def write_plx(path: Path, values: np.ndarray, begun: int = 0, pause: int = 0) -> None:
    """Blocks of 100 samples of each channel, an event and two spikes of a unit.

    Samples begin at the tick `begun`, and wait for `pause` ticks after the third block.
    """
    from neo.rawio import plexonrawio as plx

    n, width = values.shape
    head = filled(
        plx.GlobalHeader, MagicNumber=0x58454C50, Version=106, ADFrequency=40_000,
        NumDSPChannels=1, NumEventChannels=1, NumSlowChannels=width, NumPointsWave=4,
        Year=2026, Month=1, Day=2, WaveformFreq=40_000, BitsPerSpikeSample=16,
        BitsPerSlowSample=16, SpikeMaxMagnitudeMV=3000, SlowMaxMagnitudeMV=5000,
        SpikePreAmpGain=1000,
    )  # fmt: skip
    head += filled(plx.DspChannelHeader, Name=b"sig001", Channel=1, Gain=10)
    head += filled(plx.EventChannelHeader, Name=b"Event001", Channel=1)
    for c in range(width):
        head += filled(
            plx.SlowChannelHeader, Name=f"WB{c:02d}".encode(), Channel=c, ADFreq=RATE,
            Gain=1, Enabled=1, PreampGain=1000,
        )  # fmt: skip

    def block(
        kind: int, tick: int, channel: int, unit: int, samples: np.ndarray
    ) -> bytes:
        return filled(
            plx.DataBlockHeader, Type=kind, TimeStamp=tick, Channel=channel, Unit=unit,
            NumberOfWaveforms=1 if len(samples) else 0,
            NumberOfWordsInWaveform=len(samples),
        ) + samples.astype("<i2").tobytes()  # fmt: skip

    data = block(4, 400, 1, 0, np.empty(0)) + block(1, 800, 1, 1, np.arange(4))
    for start in range(0, n, 100):
        for c in range(width):
            tick = begun + int(start * 40_000 / RATE) + (pause if start >= 300 else 0)
            data += block(5, tick, c, 0, values[start : start + 100, c])
    path.write_bytes(head + data + block(1, 1200, 1, 1, np.arange(4)))


# ---- Neuralynx


def write_ncs(folder: Path, values: np.ndarray) -> None:
    """A file a channel, in records of 512 samples, the last of them shorter."""
    folder.mkdir(exist_ok=True)
    record = [
        ("t", "<u8"), ("channel", "<u4"), ("rate", "<u4"), ("valid", "<u4"),
        ("samples", "<i2", (512,)),
    ]  # fmt: skip
    for c in range(values.shape[1]):
        lines = [
            "######## Neuralynx Data File Header", "-FileType NCS", "-FileVersion 3.4",
            f'-OriginalFileName "C:\\CSC{c + 1}.ncs"',
            "-TimeCreated 2026/01/02 03:04:05", "-TimeClosed 2026/01/02 03:05:05",
            "-RecordSize 1044",
            '-ApplicationName Cheetah "6.4.1"', f"-AcqEntName CSC{c + 1}",
            "-AcquisitionSystem AcqSystem1 DigitalLynxSX", f"-ADChannel {c}",
            "-HardwareSubSystemName AcqSystem1",
            "-HardwareSubSystemType DigitalLynxSX", f"-SamplingFrequency {RATE:g}",
            "-ADMaxValue 32767", "-ADBitVolts 0.0000000305", "-NumADChannels 1",
            "-InputRange 1000", "-InputInverted False",
        ]  # fmt: skip
        head = ("\r\n".join(lines) + "\r\n").encode().ljust(16384, b"\0")
        starts = range(0, len(values), 512)
        made = np.zeros(len(starts), record)
        for row, start in zip(made, starts, strict=True):
            part = values[start : start + 512, c]
            row["t"] = 5_000_000 + int(start * 1e6 / RATE)
            row["channel"], row["rate"], row["valid"] = c, RATE, len(part)
            row["samples"][: len(part)] = part
        (folder / f"CSC{c + 1}.ncs").write_bytes(head + made.tobytes())


# ---- Open Ephys before version 0.6: a file a channel, big-endian records


def write_continuous(folder: Path, values: np.ndarray) -> None:
    """Records of 1024 samples; what is missing of the last is zeros."""
    folder.mkdir(exist_ok=True)
    for c in range(values.shape[1]):
        lines = [
            "header.format = 'Open Ephys Data Format'", "header.version = 0.4",
            "header.header_bytes = 1024", f"header.channel = 'CH{c + 1}'",
            "header.channelType = 'Continuous'", f"header.sampleRate = {RATE:g}",
            "header.blockLength = 1024", "header.bufferSize = 1024",
            "header.bitVolts = 0.195", "header.date_created = '2-Jan-2026 30405'",
        ]  # fmt: skip
        data = ";\n".join(lines).encode().ljust(1024, b" ")
        for number, start in enumerate(range(0, len(values), 1024)):
            part = values[start : start + 1024, c].astype(">i2").tobytes()
            data += struct.pack("<qHH", number * 1024, 1024, 0)
            data += part.ljust(2048, b"\0") + bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
        (folder / f"100_CH{c + 1}.continuous").write_bytes(data)


# ---- Blackrock


def write_nsx(path: Path, values: np.ndarray) -> None:
    """A file of version 2.3; its suffix gives the rate, of a period of 1/30000 s."""
    from neo.rawio import blackrockrawio as nsx

    kinds = [t["2.3"] for t in (nsx.NSX_BASIC_HEADER_TYPES, nsx.NSX_EXT_HEADER_TYPES)]
    n, width = values.shape
    size = np.dtype(kinds[0]).itemsize + width * np.dtype(kinds[1]).itemsize
    data = filled(
        kinds[0], file_id=b"NEURALCD", ver_major=2, ver_minor=3, bytes_in_headers=size,
        label=b"1 kS/s", period=int(30_000 / RATE), timestamp_resolution=30_000,
        year=2026, month=1, day=2, channel_count=width,
    )  # fmt: skip
    for c in range(width):
        data += filled(
            kinds[1], type=b"CC", electrode_id=c + 1, electrode_label=f"c{c}".encode(),
            min_digital_val=-32764, max_digital_val=32764, min_analog_val=-8191,
            max_analog_val=8191, units=b"uV",
        )  # fmt: skip
    data += filled(nsx.NSX_DATA_HEADER_TYPES["2.3"], header_flag=1, nb_data_points=n)
    path.write_bytes(data + values.astype("<i2").tobytes())


def write_ptp(path: Path, values: np.ndarray, ticks: np.ndarray) -> None:
    """Version 3.0 with a packet a sample, stamped by a clock of 1 ns."""
    from neo.rawio import blackrockrawio as nsx

    kinds = [t["3.0"] for t in (nsx.NSX_BASIC_HEADER_TYPES, nsx.NSX_EXT_HEADER_TYPES)]
    n, width = values.shape
    size = np.dtype(kinds[0]).itemsize + width * np.dtype(kinds[1]).itemsize
    data = filled(
        kinds[0], file_id=b"BRSMPGRP", ver_major=3, ver_minor=0, bytes_in_headers=size,
        label=b"1 kS/s", period=int(30_000 / RATE), timestamp_resolution=10**9,
        year=2026, month=1, day=2, channel_count=width,
    )  # fmt: skip
    for c in range(width):
        data += filled(
            kinds[1], type=b"CC", electrode_id=c + 1, electrode_label=f"c{c}".encode(),
            min_digital_val=-32764, max_digital_val=32764, min_analog_val=-8191,
            max_analog_val=8191, units=b"uV",
        )  # fmt: skip
    packet = [("head", "u1"), ("t", "<u8"), ("n", "<u4"), ("v", "<i2", (width,))]
    packets = np.zeros(n, packet)
    packets["head"], packets["n"] = 1, 1
    packets["t"], packets["v"] = ticks, values
    path.write_bytes(data + packets.tobytes())


# ---- Intan


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-le")
    return struct.pack("<I", len(coded)) + coded


def _intan_channel(name: str, order: int, is_stimulator: bool, kind: int = 0) -> bytes:
    numbers = [
        order,
        order,
        kind,
        1,
        order,
        *([0] if is_stimulator else []),
        0,
        0,
        0,
        0,
        0,
    ]
    head = _text(name) + _text(name)
    return head + struct.pack(f"<{len(numbers)}hff", *numbers, 0.0, 0.0)


def write_rhd(path: Path, values: np.ndarray) -> None:
    """Version 3.0, with its header in the file: blocks of 128 samples."""
    width = values.shape[1]
    head = struct.pack("<Ihhfh6fh2f", 0xC6912702, 3, 0, RATE, 0, *[1.0] * 6, 0,
                       1000, 1000)  # fmt: skip
    head += (
        _text("") * 3 + struct.pack("<hh", 0, 0) + _text("n/a") + struct.pack("<h", 1)
    )
    head += _text("Port A") + _text("A") + struct.pack("<hhh", 1, width, width)
    head += b"".join(_intan_channel(f"A-{c:03d}", c, False) for c in range(width))
    path.write_bytes(head + _intan_blocks(values))


def write_info_rhd(folder: Path, values: np.ndarray, stamps: np.ndarray) -> None:
    """The same with a file per signal: amplifiers, and one auxiliary input."""
    width = values.shape[1]
    folder.mkdir()
    head = struct.pack("<Ihhfh6fh2f", 0xC6912702, 3, 0, RATE, 0, *[1.0] * 6, 0,
                       1000, 1000)  # fmt: skip
    head += (
        _text("") * 3 + struct.pack("<hh", 0, 0) + _text("n/a") + struct.pack("<h", 1)
    )
    head += _text("Port A") + _text("A") + struct.pack("<hhh", 1, width + 1, width)
    head += b"".join(_intan_channel(f"A-{c:03d}", c, False) for c in range(width))
    head += _intan_channel("A-AUX1", width, False, kind=1)
    (folder / "info.rhd").write_bytes(head)
    stamps.astype("<i4").tofile(folder / "time.dat")
    values.astype("<i2").tofile(folder / "amplifier.dat")
    np.repeat(np.arange(-(-len(values) // 4)), 4)[: len(values)].astype("<u2").tofile(
        folder / "auxiliary.dat"
    )


def write_rhs(path: Path, values: np.ndarray, words: np.ndarray | None = None) -> None:
    """A stimulator's file, version 3.0, without its DC amplifiers.

    `words` are those of the stimulation: a step's number, its sign and flags.
    """
    width = values.shape[1]
    head = struct.pack("<Ihhfh8fh2f2h3f", 0xD69127AC, 3, 0, RATE, 0, *[1.0] * 8, 0,
                       1000, 1000, 0, 0, 1e-6, 1e-6, 0)  # fmt: skip
    head += (
        _text("") * 3 + struct.pack("<hh", 0, 0) + _text("n/a") + struct.pack("<h", 1)
    )
    head += _text("Port A") + _text("A") + struct.pack("<hhh", 1, width, width)
    head += b"".join(_intan_channel(f"A-{c:03d}", c, True) for c in range(width))
    path.write_bytes(
        head + _intan_blocks(values, np.zeros_like(values) if words is None else words)
    )


def _intan_blocks(values: np.ndarray, words: np.ndarray | None = None) -> bytes:
    data = b""
    for start in range(0, len(values), 128):
        part = values[start : start + 128]
        assert len(part) == 128, "blocks are whole"
        data += np.arange(start, start + 128, dtype="<i4").tobytes()
        data += (part.T.astype("i4") + 32768).astype("<u2").tobytes()
        if words is not None:
            data += words[start : start + 128].T.astype("<u2").tobytes()
    return data


# ---- Micromed


def write_trc(path: Path, values: np.ndarray) -> None:
    """A header of version 4 with its zones, and 16-bit samples above 32768."""
    width = values.shape[1]
    zones = {
        "ORDER": (640, 512), "LABCOD": (1152, 128 * width), "NOTE": (8192, 40),
        "FLAGS": (8300, 8), "TRONCA": (8400, 8), "IMPED_B": (8500, 8),
        "IMPED_E": (8600, 8), "MONTAGE": (8700, 8), "COMPRESS": (8800, 8),
        "AVERAGE": (8900, 8), "HISTORY": (9000, 8), "DVIDEO": (9100, 8),
        "EVENT A": (9200, 12), "EVENT B": (9300, 12), "TRIGGER": (9400, 12),
    }  # fmt: skip
    head = bytearray(10_240)
    head[:26] = b"* MICROMED  Brain-Quick fi"
    head[32:64] = b"* MICROMED  Brain-Quick file *".ljust(32)
    head[128:134] = bytes([2, 1, 126, 3, 4, 5])
    struct.pack_into("<IHHHH", head, 138, len(head), width, 2 * width, int(RATE), 2)
    head[175] = 4
    for number, (name, (place, length)) in enumerate(zones.items()):
        struct.pack_into(
            "<8sII", head, 176 + 16 * number, name.encode().ljust(8), place, length
        )
    for c in range(width):
        struct.pack_into("<H", head, 640 + 2 * c, c)
        struct.pack_into(
            "<xx6s6siiiiih8xH", head, 1152 + 128 * c, f"c{c}".encode(), b"G2",
            0, 65535, 32768, -3200, 3200, 0, 1,
        )  # fmt: skip
    struct.pack_into("<IHIH", head, 9400, 20, 7, 60, 9)
    stored = (values.astype("i4") + 32768).astype("<u2")
    path.write_bytes(bytes(head) + stored.tobytes())


# ---- SpikeGadgets


def write_rec(
    path: Path,
    values: np.ndarray,
    shown: Sequence[int] | None = None,
    numbers: np.ndarray | None = None,
    saved: str = "",
) -> None:
    """Packets of a byte, two analog inputs, a number and a sample of each channel.

    Chips of two channels; `shown` are the channels that the header describes.
    """
    n, width = values.shape
    trodes = "".join(
        f'<SpikeNTrode id="{c}" spikeScalingToUv="0.195"><SpikeChannel hwChan="{c}"/>'
        "</SpikeNTrode>\n"
        for c in (range(width) if shown is None else shown)
    )
    inputs = "".join(
        f'<Channel id="Ain{c}" dataType="analog" startByte="{2 - 2 * c}"/>'
        for c in range(2)
    )
    head = (
        f'<?xml version="1.0"?>\n<Configuration>\n<GlobalConfiguration {saved}/>\n'
        f'<HardwareConfiguration samplingRate="{RATE:g}" numChannels="{width}">'
        f'<Device name="ECU" numBytes="4">{inputs}</Device></HardwareConfiguration>\n'
        f'<SpikeConfiguration chanPerChip="2">\n{trodes}</SpikeConfiguration>\n'
        "</Configuration>\n"
    )
    kind = [("sync", "u1"), ("a", "<i2", 2), ("t", "<u4"), ("v", "<i2", (width,))]
    packets = np.zeros(n, kind)
    packets["sync"], packets["t"], packets["v"] = 0x55, np.arange(n), values
    packets["a"] = values[:, :1] + [1, 0]  # Ain1 is the first
    if numbers is not None:
        packets["t"] = numbers
    path.write_bytes(head.encode() + packets.tobytes())


# ---- Tucker-Davis Technologies


def write_tdt(
    block: Path,
    values: np.ndarray,
    stores: Sequence[str] = ("Wave",),
    pause_s: float = 0.0,
) -> None:
    """A block (a folder in a tank) of stores, one after another.

    In chunks of 64 samples. A pause is behind the first 320 samples.
    """
    from neo.rawio import tdtrawio as tdt

    block.mkdir(parents=True)
    n, width = values.shape
    stem = block / f"{block.parent.name}_{block.name}"
    texts = []
    for store in stores:
        fields = {
            "StoreName": store, "HeadName": store, "Enabled": 1, "CircType": 0,
            "NumChan": width, "StrobeMode": 0, "TankEvType": tdt.EVTYPE_STREAM,
            "NumPoints": 64, "DataFormat": 2, "SampleFreq": RATE,
        }  # fmt: skip
        texts.append(
            "".join(f"NAME={k};TYPE=S;VALUE={v};\r\n" for k, v in fields.items())
        )
    text = "[STOREHDRITEM]".join([*texts, "[USERNOTEDELIMITER]"])
    stem.with_suffix(".Tbk").write_text(text)
    stem.with_suffix(".Tdx").write_bytes(b"")
    data, rows = b"", [(0, 0, b"", 0, 0, 0.0, 0, 0, 0.0)]
    rows.append((0, tdt.EVTYPE_MARK, b"\x01", 0, 0, 1000.0, 0, 0, 0.0))
    for store in stores:
        for start in range(0, n, 64):
            t = 1000.0 + start / RATE + (pause_s if start >= 320 else 0)
            for c in range(width):
                kind = (10 + 32, tdt.EVTYPE_STREAM, store.encode(), c + 1)
                rows.append((*kind, 0, t, len(data), 2, RATE))
                data += values[start : start + 64, c].astype("<i2").tobytes()
    stop = 1000.0 + n / RATE + pause_s
    rows.append((0, tdt.EVTYPE_MARK, b"\x02", 0, 0, stop, 0, 0, 0.0))
    stem.with_suffix(".tsq").write_bytes(np.array(rows, tdt.tsq_dtype).tobytes())
    stem.with_suffix(".tev").write_bytes(data)


# ---- Alpha Omega


def write_mpx(
    path: Path,
    values: np.ndarray,
    begun: int = 2000,
    pause: int = 0,
    spikes: Sequence[int] = (),
    slow: np.ndarray | None = None,
) -> None:
    """Channels of a rate in blocks of 100 samples, and one of `spikes` if there are.

    A pause, in samples, is behind the first 300. `slow` is of a quarter of the rate
    and begins with the first whole number of its own samples before `begun`.
    """
    from neo.rawio import alphaomegarawio as ao

    n, width = values.shape
    blocks = []

    def block(kind: bytes, body: bytes) -> None:
        blocks.append(ao.HeaderType.pack(3 + len(body), kind) + body)

    def channel(number: int, name: str, mode: int, hz: float, end: bytes) -> None:
        block(
            b"2",
            ao.Type2DataBlock.pack(0, 1, 1, number, 0, 0, 0)
            + ao.SDefAnalog.pack(mode, 38.0, hz / 1000, 100, 0)
            + end
            + name.encode()
            + bytes(2),
        )

    def data(number: int, own: np.ndarray, first: int) -> None:
        body = ao.SDataChannel.pack(b"\1", number) + own.astype("<i2").tobytes()
        block(b"5", body + ao.SDataChannel_sample_id.pack(first))

    stop = begun + pause + n
    head = (0, 1, 1, 2, 3, 0, 4, 5, 2026, 1, begun / RATE, stop / RATE, 0, 4)
    block(b"h", ao.SDataHeader.pack(*head, b"ARS", bytes(4), 0))
    continuous = ao.SDefContinAnalog.pack(0.0, 2000)
    for c in range(width):
        channel(c, f"RAW {c}", 0, RATE, continuous)
    if slow is not None:
        channel(90, "LFP 0", 0, RATE / 4, continuous)
    if spikes:
        channel(99, "SEG 0", 1, RATE, ao.SDefLevelAnalog.pack(0, 0, 0, 0, 0, 2000))
    for start in range(0, n, 100):
        first = begun + start + (pause if start >= 300 else 0)
        for c in range(width):
            data(c, values[start : start + 100, c], first)
    if slow is not None:
        data(90, slow, begun // 4)
    for spike in spikes:
        data(99, values[:8, 0], spike)
    path.write_bytes(b"".join(blocks) + ao.HeaderType.pack(65535, b"\0"))


def write_nev(path: Path) -> None:
    """Version 2.3: two changes of the digital input, two spikes of electrode 1."""
    from neo.rawio import blackrockrawio as nev

    basic = [
        ("id", "S8"), ("major", "u1"), ("minor", "u1"), ("flags", "<u2"),
        ("header", "<u4"), ("packet", "<u4"), ("ticks", "<u4"), ("rate", "<u4"),
        ("date", "<u2", (8,)), ("program", "S32"), ("comment", "S256"), ("more", "<u4"),
    ]  # fmt: skip
    wave = nev.NEV_EXT_HEADER_TYPES_BY_SPEC["2.3"][b"NEUEVWAV"]
    more = filled(
        wave, packet_id=b"NEUEVWAV", electrode_id=1, digitization_factor=250,
        bytes_per_waveform=2, spike_width=48, nb_sorted_units=1,
    )  # fmt: skip
    data = filled(
        basic, id=b"NEURALEV", major=2, minor=3, flags=1,
        header=336 + len(more), packet=104,
        ticks=30_000, rate=30_000, date=[2026, 1, 5, 2, 3, 4, 5, 0], more=1,
    )  # fmt: skip
    assert len(data) == 336
    for tick, electrode, digital in (
        (300, 0, 7),
        (900, 1, 0),
        (1500, 1, 0),
        (6000, 0, 0),
    ):
        more += struct.pack("<IHBBH94x", tick, electrode, 1, 0, digital)
    path.write_bytes(data + more)


# ---- AxoGraph: big-endian; before version 3 floats and fixed titles


def write_axgd(path: Path, values: np.ndarray) -> None:
    n, width = values.shape
    data = struct.pack(">4sHH", b"AxGr", 1, width + 1)
    columns = {"Time (s)": np.arange(n) / RATE}
    columns |= {f"c{c} (mV)": values[:, c] for c in range(width)}
    for title, column in columns.items():
        data += struct.pack(">i80p", n, title.encode()) + column.astype(">f4").tobytes()
    path.write_bytes(data)


def write_axgx(path: Path, values: np.ndarray) -> None:
    """Version 6: a series of times, and columns of scaled shorts."""
    n, width = values.shape

    def titled(kind: int, title: str) -> bytes:
        text = title.encode("utf-16-be")
        return struct.pack(">iii", n, kind, len(text)) + text

    data = struct.pack(">4sii", b"axgx", 6, width + 1)
    data += titled(9, "Time (s)") + struct.pack(">dd", 0.5, 1 / RATE)
    for c in range(width):
        data += titled(10, f"c{c} (mV)") + struct.pack(">dd", 0.25, 1.0)
        data += values[:, c].astype(">i2").tobytes()
    path.write_bytes(data)


# ---- Spike2, 32 bits


def write_smr(path: Path, values: np.ndarray, lacks: int = 0) -> None:
    """Blocks of 502 samples of each channel, in 1024 bytes, linked in a chain.

    The last channel lacks the last `lacks` samples.
    """
    from neo.rawio import spike2rawio as smr

    n, width = values.shape
    block, tick = 502, int(1e6 / RATE)
    starts = range(0, n, block)
    first = -(-(512 + 140 * width) // 512)
    head = filled(
        smr.headerDescription, system_id=9, us_per_time=1, time_per_adc=1,
        channels=width, chan_size=140, dtime_base=1e-6, max_ftime=n * tick,
    ).ljust(512, b"\0")  # fmt: skip
    kind = [*smr.channelHeaderDesciption1, ("scale", "f4"), ("offset", "f4"),
            ("unit", "S6"), ("interleave", "i2")]  # fmt: skip
    data = b""
    for c in range(width):
        places = [first + 2 * (c * len(starts) + i) for i in range(len(starts))]
        head += filled(
            kind, firstblock=places[0], lastblock=places[-1], blocks=len(places),
            title=b"\2c" + str(c).encode(), kind=1, l_chan_dvd=tick, scale=1.0,
            unit=b"\2mV", max_data=block, phy_chan=c, ideal_rate=RATE, comment=b"\0",
        ).ljust(140, b"\0")  # fmt: skip
        for i, start in enumerate(starts):
            stop = min(start + block, n - (lacks if c == width - 1 else 0))
            part = values[start:stop, c].astype("<i2")
            one = filled(
                smr.blockHeaderDesciption, pred_block=places[i - 1] if i else -1,
                succ_block=places[i + 1] if i + 1 < len(places) else -1,
                start_time=start * tick, end_time=(start + len(part) - 1) * tick,
                channel_num=c, items=len(part),
            )  # fmt: skip
            data += (one + part.tobytes()).ljust(1024, b"\0")
    path.write_bytes(head.ljust(512 * first, b"\0") + data)


# ---- Open Ephys, binary


def write_oebin(path: Path, values: np.ndarray) -> None:
    """Version 0.6: one stream of 30 kHz that begins at 7 s, and its events."""
    place = path / "Record Node 101" / "experiment1" / "recording1"
    folder = place / "continuous" / "Rhythm-100.0"
    events = place / "events" / "Rhythm-100.0" / "TTL"
    folder.mkdir(parents=True)
    events.mkdir(parents=True)
    n, width = values.shape
    values.astype("<i2").tofile(folder / "continuous.dat")
    np.save(folder / "timestamps.npy", np.arange(n) / 30_000 + 7)
    np.save(folder / "sample_numbers.npy", np.arange(n, dtype="i8") + 210_000)
    np.save(events / "states.npy", np.array([1, -1], "i2"))
    np.save(events / "timestamps.npy", np.array([7.001, 7.002]))
    np.save(events / "sample_numbers.npy", np.array([210_030, 210_060], "i8"))
    np.save(events / "full_words.npy", np.array([1, 0], "u8"))
    channels = [
        {"channel_name": f"CH{i}", "bit_volts": 0.195, "units": "uV"}
        for i in range(width)
    ]
    source = {
        "sample_rate": 30000, "stream_name": "Rhythm", "source_processor_id": 100,
        "source_processor_name": "Rhythm",
    }  # fmt: skip
    continuous = source | {
        "folder_name": "Rhythm-100.0/", "num_channels": width, "channels": channels,
    }  # fmt: skip
    ttl = source | {
        "folder_name": "Rhythm-100.0/TTL/", "channel_name": "TTL", "type": "int16",
        "description": "", "identifier": "", "initial_state": 0,
    }  # fmt: skip
    described = {"GUI version": "0.6.7", "continuous": [continuous], "events": [ttl],
                 "spikes": []}  # fmt: skip
    (place / "structure.oebin").write_text(json.dumps(described))
    (place.parent.parent / "settings.xml").write_text("<SETTINGS/>")
