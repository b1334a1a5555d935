"""What readers of neo 0.14 leave wrong: samples as zeros, files and threads left open.

Plexon: the last block is given as zeros, and blocks of unequal lengths at wrong
places. TDT: samples that a cut file lacks are given as zeros, and a store may get
those of the `.sev` of another one. Spike2: so are those by
which one of several channels is shorter. Each is mended by the reader's own index of
blocks, which it keeps to itself. Alpha Omega: what lies between blocks with a pause is
whatever memory has; its blocks are read one by one too, and a unit without a spike in
a file has none, instead of an error.

Plexon, NeuroExplorer, TDT and Open Ephys binary: samples behind a pause get the times
that they would have without it, and Plexon's begin at 0. They get those of the file,
by `times_of`. Blackrock, Neuralynx and Intan: a recording with pauses is refused;
`parsed` asks for it once more. Alpha Omega: signals of a lower rate begin by their own
numbers, not with the file, and pauses are in the times; a step of its values is the
resolution divided by the amplification, not the reverse.

SpikeGadgets: packets of more channels than are described, and lost packets; see
`spikegadgets`.

MED: `parsed` says at once what its package needs, not when samples are read.

Intan in several files: auxiliary inputs have each value four times, and get a quarter
of the rate at which they are stored, `rate_of`.
"""

from __future__ import annotations

import re
import warnings
import weakref
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.recording import UniformTimes
from ataraxis.datamux.sources.spikegadgets import parsed_rec
from ataraxis.errors import RecordingError

_OPTIONS: dict[str, dict[str, Any]] = {
    "PlexonRawIO": {"progress_bar": False},  # its bar leaves a thread
}
_PAUSED: dict[str, dict[str, Any]] = {
    "BlackrockRawIO": {"gap_tolerance_ms": 0.0},  # of those it takes for gaps
    "NeuralynxRawIO": {"gap_tolerance_ms": 0.0},
    "IntanRawIO": {"ignore_integrity_checks": True},
}
_REFUSED = re.compile(r"gaps? in |not continuous")
_LYNX_HZ = re.compile(rb"-SamplingFrequency\s+([0-9.]+)")
_LYNX_HEADER = 16384
_SEV = re.compile(r"_(.{4})_ch\d+\.sev$", re.IGNORECASE)  # of a store of TDT


def parsed(kind: Any, argument: Mapping[str, str]) -> Any:
    """Return a reader with its header parsed, of a recording with pauses too."""
    name = kind.__name__
    options = _OPTIONS.get(name, {})
    if name == "MedRawIO":
        _check_med()
    if name == "SpikeGadgetsRawIO":
        return parsed_rec(kind, Path(argument["filename"]))
    raw = kind(**argument, **options)
    try:
        raw.parse_header()
    except Exception as error:  # each of neo's readers raises what it likes
        _close(vars(raw))
        if name not in _PAUSED or not _REFUSED.search(str(error)):
            raise
        more = dict(_PAUSED[name])
        if name == "NeuralynxRawIO" and "dirname" in argument:
            more["gap_tolerance_ms"] = _lynx_sample_ms(Path(argument["dirname"]))
        raw = kind(**argument, **options, **more)
        raw.parse_header()
    if name == "AlphaOmegaRawIO":
        gains = raw.header["signal_channels"]["gain"]
        np.divide(1, gains, out=gains, where=gains != 0)
    if name == "TdtRawIO":
        _mend_tdt(raw)
    return raw


def _check_med() -> None:
    """Raise `ImportError` if MED's package is of no use to neo here."""
    try:
        own = version("dhn-med-py")
    except PackageNotFoundError:
        own = "none"
    if own.partition(".")[0] != "1" or int(np.__version__.partition(".")[0]) > 1:
        raise ImportError(
            "it needs dhn-med-py before 2, which needs NumPy before 2: found "
            f"dhn-med-py {own} and NumPy {np.__version__}"
        )


def _lynx_sample_ms(folder: Path) -> float:
    """Return the shortest time between samples of a folder: stamps differ by less."""
    rates = [0.0]
    for path in folder.glob("*.[nN][cC][sS]"):
        with path.open("rb") as file:
            found = _LYNX_HZ.search(file.read(_LYNX_HEADER))
        rates.append(float(found[1]) if found else 0.0)
    return 1e3 / max(rates) if max(rates) else 0.0


def folder_argument(name: str, path: Path) -> Path:
    """Return what a reader of folders takes: of a block of TDT, a file in it."""
    if name == "TdtRawIO":
        return next((own for own in sorted(path.glob("*.[tT][sS][qQ]"))), path)
    return path


def look_after(raw: Any, path: Path) -> None:
    """Warn of channels that a reader leaves out; close its files with it."""
    weakref.finalize(raw, _close, vars(raw))
    for empty in getattr(raw, "_empty_ncs", ()):
        warnings.warn(f"{empty} has no samples: left out", RuntimeWarning, stacklevel=2)
    if type(raw).__name__ == "Spike2RawIO":
        _warn_of_shorter(raw, path)


def check_signals(raw: Any, number: int, at: Mapping[str, int], where: str) -> None:
    """Raise `RecordingError` if a reader would give zeros for samples of a stream."""
    if type(raw).__name__ != "TdtRawIO":
        return
    for index, buffer in _tdt_chunks(raw, number, at):
        there = 0 if buffer is None else len(buffer)
        needed = int((index["offset"] + (index["size"] - 10) * 4).max(initial=0))
        if needed > there:
            raise RecordingError(
                f"{where}: cut: its index needs {needed} bytes of samples, found "
                f"{there}"
            )


def _tdt_chunks(raw: Any, number: int, at: Mapping[str, int]) -> list[tuple[Any, Any]]:
    """Return of each channel of a stream its rows of the index, and where they lie."""
    own = raw.header["signal_streams"][number]["id"]
    numbers = np.flatnonzero(raw.header["signal_channels"]["stream_id"] == own)
    index = raw._sigs_index[at["seg_index"]]  # noqa: SLF001
    buffers = raw._sigs_data_buf[at["seg_index"]]  # noqa: SLF001
    return [(index[channel], buffers[channel]) for channel in numbers.tolist()]


def _mend_tdt(raw: Any) -> None:
    """Let stores have their own samples, not those of a file of another store."""
    header = raw.header
    names = {head["id"]: head["name"] for head in header["signal_streams"]}
    for segment, buffers in raw._sigs_data_buf.items():  # noqa: SLF001
        for channel, buffer in buffers.items():
            file = getattr(buffer, "filename", None)
            of = _SEV.search(Path(file).name) if file else None
            own = names[header["signal_channels"]["stream_id"][channel]]
            if of is not None and of[1] != own:
                buffers[channel] = raw._tev_datas[segment]  # noqa: SLF001


def _warn_of_shorter(raw: Any, path: Path) -> None:
    for number, head in enumerate(raw.header["signal_streams"]):
        for segment in range(raw.header["nb_segment"][0]):
            sizes = _sizes(raw, number, segment)
            if len({*sizes.values()}) > 1:
                warnings.warn(
                    f"{path}: channels of {head['name']} differ in length: {sizes}; "
                    f"the first {min(sizes.values())} samples of each are read",
                    RuntimeWarning,
                    stacklevel=3,
                )


def _sizes(raw: Any, number: int, segment: int) -> dict[str, int]:
    """Return how many samples each channel of a stream of Spike2 has."""
    blocks = raw._by_seg_data_blocks  # noqa: SLF001
    return {
        str(channel["name"]): int(blocks[int(channel["id"])][segment]["size"].sum())
        for channel in _channels(raw, number)
    }


def _count(raw: Any, number: int, at: Mapping[str, int]) -> int:
    """Return how many samples of a stream every channel has."""
    if type(raw).__name__ == "Spike2RawIO":
        return min(_sizes(raw, number, at["seg_index"]).values())
    return int(raw.get_signal_size(stream_index=number, **at))


def has_durations(raw: Any, number: int, at: Mapping[str, int]) -> bool:
    """Whether events of a channel have durations, whatever kind it is said to be."""
    if raw.header["event_channels"][number]["type"] in ("epoch", b"epoch"):
        return True
    if type(raw).__name__ != "OpenEphysBinaryRawIO":
        return False
    streams = raw._evt_streams[at["block_index"]][at["seg_index"]]  # noqa: SLF001
    return streams[number].get("durations") is not None


def _close(kept: dict[str, Any]) -> None:
    for file in kept.get("_nsx_fids", {}).values():
        file.close()


class _Pieces(NamedTuple):
    """Where a channel's samples are: pieces of `buffers`, in order of time."""

    buffers: list[Any]
    of: NDArray[np.int64]  # number of a block's buffer
    places: NDArray[np.int64]  # in bytes
    counts: NDArray[np.int64]
    numbers: NDArray[np.int64]  # of a block's first sample


def _plx_blocks(raw: Any, number: int) -> list[_Pieces]:
    kept = raw._data_blocks[5]  # noqa: SLF001
    found = []
    for channel in _channels(raw, number)["id"]:
        own = kept[int(channel)]
        of = np.zeros(len(own), np.int64)
        places, counts = own["pos"].astype(np.int64), own["size"].astype(np.int64) // 2
        found.append(_Pieces([raw._memmap], of, places, counts, of))  # noqa: SLF001
    return found


def _mpx_blocks(raw: Any, number: int, at: Mapping[str, int]) -> list[_Pieces]:
    """Return the blocks of a part; a channel that is not in it has none."""
    own = raw.header["signal_streams"][number]["id"]
    part = raw._segments[at["seg_index"]]["streams"][own]  # noqa: SLF001
    found = []
    for channel in _channels(raw, number)["id"]:
        kept = part[int(channel)]["positions"] if int(channel) in part else {}
        blocks = [(of, *own) for of, name in enumerate(kept) for own in kept[name]]
        rows = np.array(sorted(blocks, key=lambda block: block[1]), np.int64)
        of, numbers, places, counts = rows.reshape(-1, 4).T
        files = [raw._opened_files[name]["mmap"] for name in kept]  # noqa: SLF001
        found.append(_Pieces(files, of, places, counts, numbers))
    return found


def _channels(raw: Any, number: int) -> NDArray[Any]:
    """Return the rows of a stream's channels in the header."""
    own = raw.header["signal_streams"][number]["id"]
    channels = raw.header["signal_channels"]
    found: NDArray[Any] = channels[channels["stream_id"] == own]
    return found


def reader_of_blocks(
    raw: Any, number: int, at: Mapping[str, int]
) -> Callable[[int, int, Any], NDArray[Any]] | None:
    """Return ``rows(start, stop, channels)`` of a reader that has to be mended."""
    if type(raw).__name__ == "PlexonRawIO":
        blocks = _plx_blocks(raw, number)
    elif type(raw).__name__ == "AlphaOmegaRawIO":
        blocks = _mpx_blocks(raw, number, at)
    elif type(raw).__name__ == "SpikeGadgetsRawIO":
        stream = raw.header["signal_streams"][number]["id"]
        of_packets: Callable[[int, int, Any], NDArray[Any]]
        of_packets = raw.ataraxis_packets.rows_of(stream)
        return of_packets
    else:
        return None
    edges = [np.append(0, np.cumsum(own.counts)) for own in blocks]

    def rows(start: int, stop: int, chosen: Any) -> NDArray[Any]:
        numbers = range(len(blocks)) if chosen is None else chosen
        out = np.empty((stop - start, len(numbers)), np.int16)
        for column, channel in enumerate(numbers):
            own, edge = blocks[channel], edges[channel]
            first = int(np.searchsorted(edge, start, "right")) - 1
            last = int(np.searchsorted(edge, stop, "left"))
            for block in range(first, last):
                begin, end = max(start, edge[block]), min(stop, edge[block + 1])
                place = int(own.places[block] + 2 * (begin - edge[block]))
                out[begin - start : end - start, column] = np.frombuffer(
                    own.buffers[own.of[block]], "<i2", end - begin, place
                )
        return out

    return rows


def spike_stamps(raw: Any, unit: int, at: Mapping[str, int]) -> NDArray[Any]:
    """Return the stamps of a unit's spikes, none if the part does not know the unit."""
    if type(raw).__name__ == "AlphaOmegaRawIO":
        own = int(raw.header["spike_channels"]["id"][unit])
        if own not in raw._segments[at["seg_index"]]["spikes"]:  # noqa: SLF001
            return np.zeros(0, np.uint32)
    stamps: NDArray[Any] = raw.get_spike_timestamps(spike_channel_index=unit, **at)
    return stamps


def times_of(
    raw: Any, number: int, at: Mapping[str, int], where: str
) -> NDArray[np.float64] | UniformTimes:
    """Return the times of signals, s: those of the reader, or those of the file."""
    rate = rate_of(raw, number)
    if type(raw).__name__ == "AlphaOmegaRawIO":
        return _times_of_mpx(_mpx_blocks(raw, number, at), rate, where)
    count = _count(raw, number, at)
    uniform = UniformTimes(
        count, rate, float(raw.get_signal_t_start(stream_index=number, **at))
    )
    kind = type(raw).__name__
    if not count:
        return uniform
    if kind == "OpenEphysBinaryRawIO":
        return _by_numbers(_numbers_beside(raw, number, at), uniform, rate, where)
    if kind == "SpikeGadgetsRawIO":
        numbers = raw.ataraxis_packets.stamps()
        if int(numbers[-1]) - int(numbers[0]) == count - 1:
            return uniform
        since = np.asarray(numbers, np.int64) - int(numbers[0])
        return _by_numbers(since, uniform, rate, where)
    if kind == "IntanRawIO" and raw.discontinuous_timestamps:
        numbers = np.asarray(raw.get_intan_timestamps())
        every = max(1, len(numbers) // count)  # auxiliary inputs have fewer
        numbers = numbers[::every] - int(numbers[0])
        return _by_numbers(numbers, uniform, rate * every, where)
    channel = _channels(raw, number)["id"][0]
    if kind == "PlexonRawIO":
        blocks = raw._data_blocks[5][int(channel)]  # noqa: SLF001
        ticks, counts = blocks["timestamp"], blocks["size"] // 2
        clock = float(raw._global_ssampling_rate)  # noqa: SLF001
    elif kind == "NeuroExplorerRawIO":
        entity = raw._entity_headers[int(channel)]  # noqa: SLF001
        place, pieces = int(entity["offset"]), int(entity["n"])
        words = raw._memmap[place : place + 8 * pieces].view("<i4")  # noqa: SLF001
        ticks, starts = words[:pieces], words[pieces:].astype(np.int64)
        counts = np.diff(np.append(starts, count))
        clock = float(raw.global_header["freq"])
    elif kind == "TdtRawIO":
        ticks = _tdt_chunks(raw, number, at)[0][0]["timestamp"]
        ticks = ticks - ticks[0] + uniform[0]
        counts, clock = np.full(len(ticks), count // len(ticks)), 1.0
    else:
        return uniform
    return _in_pieces(np.asarray(ticks) / clock, np.asarray(counts), rate)


def _times_of_mpx(
    blocks: list[_Pieces], rate: float, where: str
) -> NDArray[np.float64] | UniformTimes:
    sizes = [int(own.counts.sum()) for own in blocks]
    own = blocks[sizes.index(min(sizes))]
    if min(sizes) < max(sizes):
        warnings.warn(
            f"{where}: its channels differ in length: {sizes}; the first {min(sizes)} "
            "samples of each are read",
            RuntimeWarning,
            stacklevel=2,
        )
    if not min(sizes):
        return UniformTimes(0, rate)
    return _in_pieces(own.numbers / rate, own.counts, rate)


def _in_pieces(
    begun: NDArray[np.float64], counts: NDArray[Any], rate: float
) -> NDArray[np.float64] | UniformTimes:
    """Return times by those of pieces; half a sample more than due is a pause."""
    late = np.diff(begun) - counts[:-1] / rate
    first = np.append(0, np.flatnonzero(late >= 0.5 / rate) + 1)
    starts = np.append(0, np.cumsum(counts))
    if len(first) < 2:
        return UniformTimes(int(starts[-1]), rate, float(begun[0]))
    lengths = np.diff(np.append(starts[first], starts[-1]))
    since = np.arange(starts[-1]) - np.repeat(starts[first], lengths)
    times: NDArray[np.float64] = np.repeat(begun[first], lengths) + since / rate
    return times


def _numbers_beside(
    raw: Any, number: int, at: Mapping[str, int]
) -> NDArray[Any] | None:
    """Return the numbers of samples that Open Ephys writes beside them."""
    streams = raw._sig_streams[at["block_index"]][at["seg_index"]]  # noqa: SLF001
    buffer = int(raw.header["signal_streams"][number]["buffer_id"])
    folder = Path(streams[buffer]["raw_filename"]).parent
    names = ("sample_numbers.npy", "timestamps.npy")  # since 0.6, before
    found = next((folder / n for n in names if (folder / n).is_file()), None)
    if found is None:
        return None
    numbers: NDArray[Any] = np.load(found, mmap_mode="r", allow_pickle=False)
    return numbers if numbers.dtype.kind in "iu" and numbers.ndim == 1 else None


def _by_numbers(
    numbers: NDArray[Any] | None, uniform: UniformTimes, clock: float, where: str
) -> NDArray[np.float64] | UniformTimes:
    """Return the times of numbered samples; uniform ones if no number is left out."""
    count = len(uniform)
    if numbers is None or len(numbers) < count:
        return uniform
    every = round(clock / uniform.rate_hz)
    if int(numbers[count - 1]) - int(numbers[0]) == every * (count - 1):
        return uniform
    times: NDArray[np.float64] = np.asarray(numbers[:count], "f8") / clock
    back = np.flatnonzero(np.diff(times) < 0)
    if back.size:
        raise RecordingError(
            f"{where}: the time stamps go back after sample {int(back[0])}: from "
            f"{times[back[0]]:.6f} to {times[back[0] + 1]:.6f} s"
        )
    return times


def rate_of(raw: Any, number: int) -> float:
    """Return the rate at which the signals of a stream are stored."""
    if type(raw).__name__ == "IntanRawIO" and raw.file_format != "header-attached":
        return float(raw._global_info["sampling_rate"])  # noqa: SLF001
    return float(raw.get_signal_sampling_rate(stream_index=number))
