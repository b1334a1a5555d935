"""Videos, Harp, pyControl, SLEAP, stores and packed files against their readers."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from places import GOLDEN

import ataraxis.datamux as dm
from ataraxis.datamux.block import Block
from ataraxis.testing.recordings import RecordingContract, Referred

RATE = 250.0


@pytest.fixture(scope="module", autouse=True)
def zarr_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Zarr starts threads once, which stay."""
    try:
        import zarr
    except ImportError:
        return
    zarr.config.set({"threading.max_workers": 1})
    path = tmp_path_factory.mktemp("zarr") / "a"
    zarr.create_array(store=str(path), shape=(4,), dtype="i4", chunks=(1,))[:] = 1


class VideoContract(RecordingContract):
    """Frames of PyAV's writer, in colour, with frames that depend on later ones."""

    stream = "frames"
    samples = 40
    has_empty = False
    codec, pixels, options = "mpeg4", "yuv420p", {"bf": "2"}

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=25, options=self.options)
            stream.width, stream.height, stream.pix_fmt = 32, 16, self.pixels
            for number in range(len(values)):
                image = np.full((16, 32, 3), 6 * number % 251, np.uint8)
                image[:, :8] = number % 2 * 255
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    def values(self, block: Block) -> np.ndarray:
        return np.asarray(block.values["image"])

    def read_reference(self, path: Path) -> Referred:
        import av

        with av.open(str(path)) as container:
            found = [
                (float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24"))
                for frame in container.decode(video=0)
            ]
        t, images = zip(*found, strict=True)
        return Referred(np.stack(images), np.array(t))


class TestMp4(VideoContract):
    formats = ("video", ".mp4")
    suffix = ".mp4"


@pytest.mark.slow
class TestMov(VideoContract):
    formats = ("mov", ".mov")
    suffix = ".mov"


class TestAvi(VideoContract):
    formats = ("avi", ".avi")
    suffix = ".avi"
    codec, pixels, options = "mjpeg", "yuvj420p", {}


class TestHarp(RecordingContract):
    """Registers that harp-python writes."""

    formats = ("harp", ".bin")
    suffix = ".bin"
    stream = "register"
    samples = 200

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        harp = pytest.importorskip("harp")
        pandas = pytest.importorskip("pandas")
        if not len(values):
            path.write_bytes(b"")
            return
        index = pandas.Index(100 + np.arange(len(values)) / 500, name="Time")
        table = pandas.DataFrame(values, index)
        kind = harp.MessageType.EVENT
        harp.to_file(table, path, address=44, message_type=kind)

    def values(self, block: Block) -> np.ndarray:
        names = [name for name in block.values if name != "kind"]
        return np.stack([block.values[name] for name in names], 1)

    def read_reference(self, path: Path) -> Referred:
        import harp

        table = harp.read(path)
        return Referred(table.to_numpy(), table.index.to_numpy())

    def test_no_sample(self, tmp_path: Path) -> None:
        assert len(self.open(self._made(tmp_path, 0))["register"]) == 0


class TestPyControlTable(RecordingContract):
    """Tables as pyControl 2 writes them, read by pandas."""

    formats = ("pycontrol", ".tsv")
    suffix = ".tsv"
    stream = "events"
    is_text = True

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        lines = ["time\ttype\tsubtype\tcontent", "\tinfo\tversion\t2.1"]
        lines += [
            f"{i / 1000:.3f}\tevent\tinput\tpoke_{row[0]}"
            for i, row in enumerate(values)
        ]
        path.write_text("\n".join(lines) + "\n")

    def values(self, block: Block) -> np.ndarray:
        return np.stack([block.values[name] for name in ("kind", "name", "text")], 1)

    def read_reference(self, path: Path) -> Referred:
        pandas = pytest.importorskip("pandas")
        table = pandas.read_csv(path, sep="\t").dropna(subset=["time"])
        columns = table[["type", "content", "subtype"]].to_numpy("U")
        return Referred(columns, table.time.to_numpy("f8"))


class TestPyControlText(TestPyControlTable):
    """Texts as pyControl 1 writes them."""

    formats = ("pycontrol_txt", ".txt")
    suffix = ".txt"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        lines = ["I Experiment name : x", 'S {"wait": 1}', 'E {"poke": 2, "lick": 3}']
        lines += [f"D {i} {1 + abs(int(row[0])) % 3}" for i, row in enumerate(values)]
        path.write_text("\n".join(lines) + "\n")

    def read_reference(self, path: Path) -> Referred:
        names = {"1": ("state", "wait"), "2": ("event", "poke"), "3": ("event", "lick")}
        rows = [line.split() for line in path.read_text().splitlines()]
        found = [
            (int(row[1]) / 1000, *names[row[2]], "") for row in rows if row[0] == "D"
        ]
        t = np.array([row[0] for row in found])
        return Referred(np.array([row[1:] for row in found], "U"), t)


@pytest.mark.slow
class TestSleap(RecordingContract):
    """SLEAP's analysis file, in which frames are last."""

    formats = ("hdf5", ".hdf5")
    suffix = ".hdf5"
    stream = "m1"
    dtype = "f8"
    channels = 4

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        h5py = pytest.importorskip("h5py")
        one = values.T.reshape(2, 2, -1).transpose(1, 0, 2)  # axis, node, frame
        with h5py.File(path, "w") as file:
            file["tracks"] = np.stack([one, one + 1])
            file["node_names"] = [b"nose", b"ear"]
            file["track_names"] = [b"m1", b"m2"]

    def read_reference(self, path: Path) -> Referred:
        import h5py

        with h5py.File(path) as file:
            track = file["tracks"][0]
        values = track.transpose(2, 1, 0).reshape(track.shape[-1], -1)
        return Referred(values, np.arange(len(values), dtype="f8"))


class TestTiffOfColumns(RecordingContract):
    """``.tiff``, BigTIFF: as `TestTiff`, without times."""

    formats = ("tiff", ".tiff")
    suffix = ".tiff"
    stream = "frames"
    dtype = "u2"
    channels = 12
    samples = 100
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        tifffile = pytest.importorskip("tifffile")
        images = values.reshape(-1, 3, 4)
        tifffile.imwrite(path, images, bigtiff=True, photometric="minisblack")

    def values(self, block: Block) -> np.ndarray:
        return np.asarray(next(iter(block.values.values())))

    def read_reference(self, path: Path) -> Referred:
        import tifffile

        images = tifffile.imread(path).reshape(-1, 3, 4)
        return Referred(images, np.arange(len(images), dtype="f8"))


class TestXdfPacked(RecordingContract):
    """``.xdfz``: an XDF file of ours, read by pyxdf."""

    formats = ("xdf", ".xdfz")
    suffix = ".xdfz"
    stream = "probe"
    dtype = "f4"
    has_empty = False
    has_one = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("pyxdf")
        fields = {name: dm.Field(name, dtype="f32") for name in names}
        stream = dm.Stream("probe", frequency=RATE, fields=fields)
        columns = {name: values[:, i] for i, name in enumerate(names)}
        plain = path.with_name("plain.xdf")
        dm.write_xdf(plain, {"probe": dm.Recording.of(stream, columns)})
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    def read_reference(self, path: Path) -> Referred:
        import pyxdf

        (found,), _ = pyxdf.load_xdf(path)
        return Referred(np.asarray(found["time_series"]), found["time_stamps"])


class TestNwbZarr(RecordingContract):
    """A folder of hdmf-zarr whose array zarr writes again."""

    formats = ("nwb_zarr", ".nwb.zarr")
    suffix = ".nwb.zarr"
    stream = "lfp"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        zarr = pytest.importorskip("zarr")
        with zipfile.ZipFile(GOLDEN / "nwb_zarr.zip") as packed:
            packed.extractall(path.parent)
        (path.parent / "x.nwb.zarr").rename(path)
        place = path / "acquisition" / "lfp" / "data"
        attrs = json.loads((place / ".zattrs").read_text())
        made = zarr.create_array(
            store=str(place), shape=values.shape, dtype=values.dtype, zarr_format=2,
            chunks=(max(1, len(values)), values.shape[1]), overwrite=True,
        )  # fmt: skip
        made[...] = values
        made.attrs.update(attrs)

    def file_of_values(self, path: Path) -> Path:
        return path / "acquisition" / "lfp" / "data" / "0.0"

    def read_reference(self, path: Path) -> Referred:
        import zarr

        place = path / "acquisition" / "lfp"
        data = zarr.open_array(str(place / "data"), mode="r", zarr_format=2)
        start = zarr.open_array(str(place / "starting_time"), mode="r", zarr_format=2)
        scale, offset = data.attrs["conversion"], data.attrs["offset"]
        t = np.arange(data.shape[0]) / start.attrs["rate"] + float(
            np.ravel(start[...])[0]
        )
        return Referred(data[...] * scale + offset, t, ("V",) * 3)
