"""What readers of neo and MNE leave wrong, or refuse, in files that are sound.

Each was found in recordings of the makers' own programs (test_recording_programs.py);
the small ones here have the same, and need no such file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import ataraxis.datamux as dm
from ataraxis.errors import RecordingError

pytest.importorskip("neo.rawio")
import eeg_files
import neo_files

VALUES = np.random.default_rng(3).integers(-9000, 9000, (1024, 3)).astype("i2")
T = np.arange(len(VALUES)) / 1000


def first_signal(path: Path) -> dm.Recording:
    return next(own for own in dm.open_recordings(path).values() if own.stream.rate_hz)


def paused(at: int, pause_s: float, begun: float = 0.0) -> np.ndarray:
    """Times with a pause before sample `at`."""
    return T + begun + np.where(np.arange(len(T)) >= at, pause_s, 0)


# ---- pauses are in the times


def test_pauses_of_alpha_omega(tmp_path: Path) -> None:
    """Neo gives what memory has for the pause, and not the last samples."""
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES, pause=500)
    own = first_signal(tmp_path)
    np.testing.assert_allclose(own.t, paused(300, 0.5, 2.0))
    np.testing.assert_array_equal(own.read().array, VALUES)
    np.testing.assert_array_equal(own.read(250, 420).array, VALUES[250:420])


def test_slower_signals_of_alpha_omega_begin_by_their_own_numbers(
    tmp_path: Path,
) -> None:
    """Neo begins them with the file, whose clock is finer."""
    slow = VALUES[:256, 1]
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES, begun=2003, slow=slow)
    found = dm.open_recordings(tmp_path)
    lfp = found["Local Field Potential"]
    np.testing.assert_allclose(lfp.t, (500 + np.arange(256)) / 250)
    np.testing.assert_array_equal(lfp.read().array[:, 0], slow)
    np.testing.assert_allclose(found["Raw Analog"].t, T + 2.003)


def test_steps_of_alpha_omega_are_of_what_was_amplified(tmp_path: Path) -> None:
    """38 uV behind an amplifier of 20; neo divides 20 by 38."""
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES)
    attrs = first_signal(tmp_path).stream.attrs
    np.testing.assert_allclose(attrs["gain"], [38 / 20] * 3, rtol=1e-12)
    assert attrs["scaled_unit"] == ["uV"] * 3


def test_units_without_spikes_in_a_file_of_alpha_omega(tmp_path: Path) -> None:
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES, spikes=[2100, 2700])
    neo_files.write_mpx(tmp_path / "b.mpx", VALUES, begun=60_000)
    found = dm.open_recordings(tmp_path)
    assert found["spikes"].t.tolist() == [2.1, 2.7]
    assert found["spikes"].read().values["unit"].tolist() == ["SEG 0"] * 2
    assert len(found["spikes:1"]) == 0
    np.testing.assert_allclose(found["Raw Analog:1"].t, T + 60)


def test_signals_that_only_one_file_of_alpha_omega_has(tmp_path: Path) -> None:
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES, slow=VALUES[:256, 1])
    neo_files.write_mpx(tmp_path / "b.mpx", VALUES, begun=60_000)
    found = dm.open_recordings(tmp_path)
    assert len(found["Local Field Potential"]) == 256
    assert len(found["Local Field Potential:1"]) == 0


def test_channels_that_only_one_file_of_alpha_omega_has(tmp_path: Path) -> None:
    """Samples beside those of a channel that is not there are not given: it warns."""
    neo_files.write_mpx(tmp_path / "a.mpx", VALUES)
    neo_files.write_mpx(tmp_path / "b.mpx", VALUES[:, :2], begun=60_000)
    with pytest.warns(RuntimeWarning, match="differ in length: .1024, 1024, 0."):
        found = dm.open_recordings(tmp_path)
    assert len(found["Raw Analog"]) == len(VALUES)
    assert len(found["Raw Analog:1"]) == 0


# ---- TDT


def test_pauses_of_tdt(tmp_path: Path) -> None:
    neo_files.write_tdt(tmp_path / "Block-1", VALUES, pause_s=0.4)
    own = first_signal(tmp_path / "Block-1")
    np.testing.assert_allclose(own.t, paused(320, 0.4), atol=1e-6)
    np.testing.assert_array_equal(own.read().array, VALUES)


def test_a_store_of_tdt_has_no_samples_of_another_ones_file(tmp_path: Path) -> None:
    """Of a block that is read alone, neo takes the only `.sev` of a channel."""
    block = tmp_path / "Block-1"
    neo_files.write_tdt(block, VALUES)
    (block / f"{tmp_path.name}_Block-1_Othr_Ch2.sev").write_bytes(bytes(9000))
    np.testing.assert_array_equal(first_signal(block).read().array, VALUES)


def test_a_cut_store_of_tdt_is_left_out_beside_whole_ones(tmp_path: Path) -> None:
    block = tmp_path / "Block-1"
    neo_files.write_tdt(block, VALUES, stores=["Wave", "Last"])
    (samples,) = block.glob("*.tev")
    samples.write_bytes(samples.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="'Last' is left out: .* cut: its index"):
        found = dm.open_recordings(block)
    np.testing.assert_array_equal(found["Wave"].read().array, VALUES)
    assert "Last" not in found


# ---- SpikeGadgets: packets of more channels than are described


REC = np.random.default_rng(4).integers(-9000, 9000, (300, 8)).astype("i2")
IN_PACKETS = [0, 2, 4, 6, 1, 3, 5, 7]  # four chips of two channels, read in turn


@pytest.mark.parametrize("saved", ["", 'saveDisplayedChanOnly="0"'])
@pytest.mark.parametrize("shown", [[6, 1, 2], [0, 5, 7], [3], [6, 1]])
def test_packets_of_all_channels(tmp_path: Path, saved: str, shown: list[int]) -> None:
    """Neo takes packets for shorter ones, and gives what lies there, or refuses."""
    path = tmp_path / "a.rec"
    neo_files.write_rec(path, REC, shown=shown, saved=saved)
    found = dm.open_recordings(path)
    own = found["trodes"].read()
    assert [*own.values] == [f"trode{n}chan{n}" for n in sorted(shown)]
    for n in shown:
        stored = REC[:, IN_PACKETS.index(n)]
        np.testing.assert_array_equal(own.values[f"trode{n}chan{n}"], stored)
    inputs = found["ECU"].read().values
    np.testing.assert_array_equal(inputs["Ain1"], REC[:, 0] + 1)
    np.testing.assert_array_equal(inputs["Ain0"], REC[:, 0])
    np.testing.assert_allclose(found["trodes"].t, np.arange(300) / 1000)


def test_packets_of_displayed_channels(tmp_path: Path) -> None:
    """Of a file that has only those."""
    path = tmp_path / "a.rec"
    saved = 'saveDisplayedChanOnly="1"'
    neo_files.write_rec(path, REC[:, :3], saved=saved)
    text = path.read_bytes().replace(b'numChannels="3"', b'numChannels="8"')
    path.write_bytes(text)
    own = dm.open_recordings(path)["trodes"]
    np.testing.assert_array_equal(own.read().array, REC[:, :3])


def test_lost_packets_leave_a_pause(tmp_path: Path) -> None:
    numbers = 5000 + np.arange(300) + np.where(np.arange(300) >= 120, 700, 0)
    path = tmp_path / "a.rec"
    neo_files.write_rec(path, REC, numbers=numbers)
    for own in dm.open_recordings(path).values():
        np.testing.assert_allclose(own.t, (numbers - 5000) / 1000)
    neo_files.write_rec(path, REC, numbers=numbers[::-1])
    with pytest.raises(RecordingError, match="time stamps go back after sample 0"):
        dm.open_recordings(path)


def test_packets_without_their_mark_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    neo_files.write_rec(path, REC)
    content = bytearray(path.read_bytes())
    content[-25 * 50] = 0  # the mark of a packet
    path.write_bytes(bytes(content))
    with pytest.raises(RecordingError, match="not packets of 25 bytes"):
        dm.open_recordings(path)


@pytest.mark.parametrize(
    ("own", "numpy", "is_read"),
    [("1.1.2", "1.26.4", True), ("1.1.2", "2.4.0", False), ("2.0.6", "1.26.4", False)],
)
def test_what_med_needs_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, numpy: str, is_read: bool
) -> None:
    """Its package opens the headers in any case, and fails where samples are read."""
    from ataraxis.datamux.sources import neo_mended

    monkeypatch.setattr(neo_mended, "version", lambda name: own)
    monkeypatch.setattr(np, "__version__", numpy)
    if is_read:
        return neo_mended._check_med()
    (tmp_path / "a.medd").mkdir()
    with pytest.raises(RecordingError, match=f"found dhn-med-py {own} and NumPy"):
        dm.open_recordings(tmp_path / "a.medd")
    return None


def test_pauses_of_neuroexplorer(tmp_path: Path) -> None:
    """A variable in three pieces, the first two without a pause between them."""
    path = tmp_path / "a.nex"
    neo_files.write_nex(path, VALUES, [(2000, 0), (2400, 400), (9000, 700)])
    own = first_signal(path)
    np.testing.assert_allclose(own.t, paused(700, 6.3, 2.0))
    np.testing.assert_array_equal(own.read().values["c0"], VALUES[:, 0])
    assert own.locate(6.5) == 700


def test_pauses_of_plexon_and_its_first_stamp(tmp_path: Path) -> None:
    """Neo begins at 0; spikes and events have the file's clock."""
    path = tmp_path / "a.plx"
    neo_files.write_plx(path, VALUES, begun=1200, pause=80_000)
    own = first_signal(path)
    np.testing.assert_allclose(own.t, paused(300, 2.0, 0.03))
    np.testing.assert_array_equal(own.read().array, VALUES)


def test_plexon_without_a_pause_begins_at_its_first_stamp(tmp_path: Path) -> None:
    path = tmp_path / "a.plx"
    neo_files.write_plx(path, VALUES, begun=1200)
    np.testing.assert_allclose(first_signal(path).t, T + 0.03)


@pytest.mark.parametrize("name", ["sample_numbers.npy", "timestamps.npy"])
def test_pauses_of_open_ephys(tmp_path: Path, name: str) -> None:
    """Since version 0.6, and before."""
    neo_files.write_oebin(tmp_path / "a", VALUES)
    (path,) = (tmp_path / "a").rglob("continuous/*/sample_numbers.npy")
    numbers = np.load(path)
    numbers[500:] += 9000
    if name != path.name:
        path.unlink()
    np.save(path.with_name(name), numbers)
    own = first_signal(tmp_path / "a")
    np.testing.assert_allclose(own.t, numbers / 30_000)
    np.testing.assert_array_equal(own.read().array, VALUES)


def test_events_of_open_ephys_have_durations(tmp_path: Path) -> None:
    neo_files.write_oebin(tmp_path / "a", VALUES)
    events = dm.open_recordings(tmp_path / "a")["TTL"].read()
    assert events.t.tolist() == [7.001]
    np.testing.assert_allclose(events.values["duration"], [0.001])


def test_pauses_of_intan(tmp_path: Path) -> None:
    """Refused by neo: "Timestamps are not continuous"."""
    path = tmp_path / "a.rhd"
    neo_files.write_rhd(path, VALUES)
    change_stamps(path, lambda stamps: stamps + np.where(stamps >= 256, 5000, 0))
    own = first_signal(path)
    np.testing.assert_allclose(own.t, paused(256, 5.0))
    change_stamps(path, lambda stamps: np.where(stamps > 5700, 0, stamps))
    with pytest.raises(RecordingError, match=r"a\.rhd.* time stamps go back after"):
        dm.open_recordings(path)


def change_stamps(path: Path, change: object) -> None:
    """Change the stamps of blocks of 128 samples of three channels."""
    data = bytearray(path.read_bytes())
    block = 128 * (4 + 2 * VALUES.shape[1])
    for place in range(len(data) - block * (len(VALUES) // 128), len(data), block):
        stamps = np.frombuffer(data, "<i4", 128, place)
        data[place : place + 512] = np.asarray(change(stamps), "<i4").tobytes()  # type: ignore[operator]
    path.write_bytes(data)


def test_pauses_of_neuralynx(tmp_path: Path) -> None:
    """Refused by neo: "Detected 1 timestamp gaps"."""
    neo_files.write_ncs(tmp_path / "a", VALUES)
    for path in (tmp_path / "a").glob("*.ncs"):
        record = np.dtype([("t", "<u8"), ("rest", "V1036")])
        data = np.fromfile(path, record, offset=16384)
        data["t"][1:] += 700_000
        path.write_bytes(path.read_bytes()[:16384] + data.tobytes())
    first, second = (
        own for own in dm.open_recordings(tmp_path / "a").values() if own.stream.rate_hz
    )
    np.testing.assert_array_equal(first.read().array, VALUES[:512])
    np.testing.assert_array_equal(second.read().array, VALUES[512:])
    np.testing.assert_allclose(second.t, T[512:] + 0.7, atol=1e-6)


def test_pauses_of_blackrock(tmp_path: Path) -> None:
    """Refused by neo: "Detected 1 timestamp gaps in ns2 file"."""
    path = tmp_path / "a.ns2"
    ticks = (paused(600, 2.5, 1.0) * 1e9).round().astype("u8")
    neo_files.write_ptp(path, VALUES, ticks)
    first, second = dm.open_recordings(path).values()
    np.testing.assert_array_equal(first.read().array, VALUES[:600])
    np.testing.assert_array_equal(second.read().array, VALUES[600:])
    np.testing.assert_allclose(second.first_s - first.first_s, 3.1, rtol=1e-6)


# ---- rates and lengths


def test_auxiliary_inputs_of_intan_in_files_of_their_own(tmp_path: Path) -> None:
    """Each value is there four times, at the amplifiers' rate, not at a quarter."""
    neo_files.write_info_rhd(tmp_path / "a", VALUES, np.arange(len(VALUES)))
    found = dm.open_recordings(tmp_path / "a" / "info.rhd")
    assert [own.stream.rate_hz for own in found.values()] == [1000, 1000]
    for own in found.values():
        np.testing.assert_allclose(own.t, T)
    auxiliary = [*found.values()][1].read().array[:, 0]
    np.testing.assert_array_equal(auxiliary, np.arange(1024) // 4)


def test_a_shorter_channel_of_spike2_gets_no_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.smr"
    neo_files.write_smr(path, VALUES + 10_000, lacks=3)
    with pytest.warns(RuntimeWarning, match=r"differ in length.*first 1021 samples"):
        own = first_signal(path)
    np.testing.assert_array_equal(own.read().array, VALUES[:-3] + 10_000)


# ---- files that were refused

NAMES = ["A", "B", "C"]


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("counted", [0, 5000])
def test_neuroscan_without_a_right_count(
    tmp_path: Path, width: int, counted: int
) -> None:
    """MNE asks how wide samples are; the header after the data tells."""
    mne = pytest.importorskip("mne")
    path = tmp_path / "a.cnt"
    eeg_files.write_cnt(path, NAMES, VALUES, width, counted)
    with pytest.raises(RuntimeError, match="bytes per sample"):
        mne.io.read_raw_cnt(path, verbose="error")
    own = dm.open_recordings(path)["signals"]
    assert len(own) == len(VALUES)
    right = tmp_path / "right.cnt"
    eeg_files.write_cnt(right, NAMES, VALUES, width)
    raw = mne.io.read_raw_cnt(right, data_format=f"int{8 * width}", verbose="error")
    np.testing.assert_array_equal(own.read().array, raw.get_data().T)


def test_the_cnt_of_ant_is_not_read_as_neuroscans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ANT's library an error names it."""
    pytest.importorskip("mne")
    monkeypatch.setitem(sys.modules, "antio", None)
    path = tmp_path / "a.cnt"
    for start in (b"RIFF", b"RF64"):
        path.write_bytes(start + bytes(2000))
        with pytest.raises(RecordingError, match="antio"):
            dm.open_recordings(path)


@pytest.mark.parametrize(
    ("saved", "averaged", "names", "rate"),
    [
        ("1010", 1, ["channel1", "channel3"], 8.0),
        ("0100", 1, ["frames"], 8.0),
        ("0011", 4, ["channel3", "channel4"], 2.0),
    ],
)
def test_scanimage_3(
    tmp_path: Path, saved: str, averaged: int, names: list[str], rate: float
) -> None:
    """Its channels alternate, which nothing else in the file says."""
    tifffile = pytest.importorskip("tifffile")
    images = np.random.default_rng(5).integers(0, 9999, (12, 8, 6)).astype("u2")
    lines = ["state.configPath='C:\\a'", "state.acq.frameRate=8.0",
             f"state.acq.averaging={int(averaged > 1)}",
             f"state.acq.numAvgFramesSave={averaged}"]  # fmt: skip
    lines += [f"state.acq.savingChannel{n}={bit}" for n, bit in enumerate(saved, 1)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for image in images:
            file.write(image, description="\r".join(lines), metadata=None)
    found = dm.open_recordings(tmp_path / "a.tif")
    assert [*found] == names
    for place, own in enumerate(found.values()):
        np.testing.assert_array_equal(
            own.read().values["image"], images[place :: len(names)]
        )
        assert own.stream.rate_hz == rate


SCANIMAGE = "SI.hChannels.channelSave = [1;2]\nSI.hRoiManager.scanFrameRate = 30"


def write_scanimage(path: Path, stamps: list[str], big: bool, order: str) -> np.ndarray:
    """Images of two channels, each with a line for its description."""
    tifffile = pytest.importorskip("tifffile")
    images = (
        np.random.default_rng(6).integers(0, 9999, (len(stamps), 6, 5)).astype("i2")
    )
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as file:
        for image, stamp in zip(images, stamps, strict=True):
            text = f"frameNumbers = 1\nacquisitionNumbers = 1\n{stamp}\nendOf = 0"
            file.write(
                image, description=text, software=SCANIMAGE, metadata=None,
                contiguous=False,
            )  # fmt: skip
    return images


@pytest.mark.parametrize(("big", "order"), [(True, "<"), (True, ">"), (False, "<")])
@pytest.mark.parametrize("name", ["frameTimestamps_sec", "Frame Timestamp(s)"])
def test_times_of_scanimage_are_its_stamps(
    tmp_path: Path, big: bool, order: str, name: str
) -> None:
    """Pauses between volumes and acquisitions are said nowhere else."""
    t = [0.0, 0.0171776, 0.83110185, 0.8482798]
    stamps = [f"{name} = {own:.9f}" for own in t for _ in range(2)]
    images = write_scanimage(tmp_path / "a.tif", stamps, big, order)
    found = dm.open_recordings(tmp_path / "a.tif")
    assert [*found] == ["channel1", "channel2"]
    for place, own in enumerate(found.values()):
        np.testing.assert_allclose(own.t, t, atol=1e-9)
        np.testing.assert_array_equal(own.read().values["image"], images[place::2])
        assert own.stream.rate_hz == 30
        assert own.locate(0.83110185) == 2


def test_scanimage_with_an_image_without_a_stamp(tmp_path: Path) -> None:
    stamps = [f"frameTimestamps_sec = {n}" for n in (0, 0, 2, 2)] + ["", ""]
    write_scanimage(tmp_path / "a.tif", stamps, True, "<")
    own = dm.open_recordings(tmp_path / "a.tif")["channel1"]
    np.testing.assert_allclose(own.t, np.arange(3) / 30)


def test_scanimage_whose_stamps_go_back_is_refused(tmp_path: Path) -> None:
    stamps = [f"frameTimestamps_sec = {n}" for n in (0, 0, 2, 2, 1, 1)]
    write_scanimage(tmp_path / "a.tif", stamps, True, "<")
    with pytest.raises(RecordingError, match=r"go back after frame 1: from 2\.0000"):
        dm.open_recordings(tmp_path / "a.tif")
