"""Hostile files of every format: real ones that were damaged, and grammars that lie.

Run as a program it reads many of them and says of each what was wrong with it: a crash
ends the program, so that the parent sees it. ``python hostile.py FORMAT SEED COUNT DIR``.
"""
# ruff: noqa: E501

from __future__ import annotations

import ctypes
import functools
import io
import json
import os
import random
import re
import resource
import shutil
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SECRET = "SECRET-OUTSIDE-THE-FOLDER"
FORMATS = (
    "csv", "npy", "npz", "parquet", "h5", "nwb", "wfdb", "xdf", "journal", "npylog",
    "archive", "json", "yaml",
)  # fmt: skip
NEEDS = {
    "parquet": "pyarrow", "h5": "h5py", "nwb": "pynwb", "wfdb": "wfdb", "xdf": "pyxdf",
}  # fmt: skip
CPU_S = 2.0
TIMES, BESIDES = 20, 64 << 20

# ---- damage

_EXTREMES = [
    0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 10**9, 10**12,
]  # fmt: skip
_WORDS = [
    b"", b"0", b"-1", b"1e308", b"nan", b"inf", b"99999999999999999999", b"../x",
    b"/etc/passwd", b"\x00", b'"', b"'", b",", b"\n", b"\r\n", b"{", b"}", b"[", b"]",
    b"~", b"&a", b"*a", b"<<: *a", b"!!python/name:os.system", b"\xff\xfe", b"\xed\xa0",
    b"%s", b"1000000000", b":", b"#", b"- ", b"\t", b"x" * 300,
]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A file with some of its bytes changed, cut, doubled or exchanged."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8, 40))):
        if not made:
            break
        at = rng.randrange(len(made))
        # Heads are where sizes and kinds are.
        at = min(at, rng.randrange(1, 600)) if rng.random() < 0.5 else at
        at = min(at, len(made) - 1)
        kind = rng.randrange(8)
        if kind == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            made[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice(_EXTREMES) & (256**size - 1)
            made[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 3:
            del made[at : at + rng.choice((1, 2, 8, 100))]
        elif kind == 4:
            made[at:at] = bytes(
                rng.randrange(256) for _ in range(rng.choice((1, 4, 64)))
            )
        elif kind == 5:
            piece = made[at : at + rng.choice((4, 64, 512))]
            to = rng.randrange(len(made))
            made[to:to] = piece
        elif kind == 6:
            word = rng.choice(_WORDS)
            numbers = [*re.finditer(rb"\d+", bytes(made))]
            if numbers and rng.random() < 0.5:
                found = rng.choice(numbers)
                made[found.start() : found.end()] = word
            else:
                made[at : at + len(word)] = word
        else:
            del made[at:]
    return bytes(made)


# ---- grammars

Grammar = Callable[[random.Random, Path, Path], bytes | None]


def _number(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 3, 5, 17, 1000, 10**6, 10**9, 2**31, 2**63 - 1))


def csv_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    columns = rng.choice((1, 2, 3, 50, 3000, 20_000))
    names = [rng.choice(("x", "t", "s", f"c{i}", "")) if rng.random() < 0.3 else f"c{i}"
             for i in range(columns)]  # fmt: skip
    names[: min(3, columns)] = ["x", "s", "t"][: min(3, columns)]
    rows = rng.choice((0, 1, 3, 40)) if columns < 1000 else 1
    cell = rng.choice(("1", "1.5", "nan", "", '"a,b"', "x" * rng.choice((1, 50_000))))
    cell = cell if columns < 100 else cell[:4]
    lines = [",".join(names)]
    lines += [",".join([cell if rng.random() < 0.3 else "1"] * columns)
              for _ in range(rows)]  # fmt: skip
    lines += ["1"] * rng.choice((0, 0, 500))
    return "\n".join(lines).encode()


def npy_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    shape = tuple(_number(rng) for _ in range(rng.randrange(4)))
    descr = rng.choice(
        ("<f8", "|u1", "<U9", "|O", "<M8[ns]", ">c16", "|V999999", "|S0")
    )
    header = f"{{'descr': {descr!r}, 'fortran_order': {rng.random() < 0.3}, 'shape': {shape!r}, }}"
    if rng.random() < 0.1:
        header = "{" * rng.choice((5, 5000))
    text = header.encode().ljust(117) + b"\n"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF)
    return head + text + bytes(rng.choice((0, 8, 800)))


def npz_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    if rng.random() < 0.02:
        return bomb()
    made = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
        warnings.simplefilter("ignore")
        for k in range(rng.choice((1, 2, 5, 200))):
            name = rng.choice(
                ("t", "x", "s", "rate_hz", f"c{k}", "../x", "/etc/passwd")
            )
            archive.writestr(f"{name}.npy", npy_of(rng, folder, outside))
    return made.getvalue()


@functools.cache
def bomb() -> bytes:
    """An archive of 40 KB that becomes 40 MiB."""
    made = io.BytesIO()
    np.savez_compressed(made, t=np.zeros(40 << 17), x=np.zeros(1))
    return made.getvalue()


def h5_of(rng: random.Random, folder: Path, outside: Path) -> bytes | None:
    import h5py

    path = folder / "made.h5"
    with h5py.File(path, "w", libver=rng.choice(("earliest", "latest"))) as file:
        groups = [file]
        for k in range(rng.choice((1, 3, 8))):
            at = rng.choice(groups)
            name = rng.choice(("r", f"r{k}", "x", "s", "t"))
            if name in at:
                continue
            kind = rng.randrange(10)
            if kind == 0:
                groups.append(at.create_group(name))
            elif kind == 1:
                at[name] = h5py.ExternalLink(str(outside / "secret.h5"), "/r")
            elif kind == 2:
                at[name] = h5py.SoftLink(rng.choice(("/", "/r", "/none", "r/x", "..")))
            elif kind == 3:
                at.create_dataset(
                    name, (25,), "u1", external=[(str(outside / "secret"), 0, 25)]
                )
            elif kind == 4:
                layout = h5py.VirtualLayout((5,), "f8")
                layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "r", (5,))
                at.create_virtual_dataset(name, layout)
            elif kind == 5:
                extent, chunk = rng.choice(((10, 10), (2**33, 2**20), (2**40, 10)))
                at.create_dataset(
                    name, (extent,), "u1", chunks=(chunk,), compression="gzip"
                )
            elif kind == 6:
                at.create_dataset(name, data=["text", "x" * 9999] * 9)
            elif kind == 7 and at is not file:
                at[name] = file["/"]
            else:
                row = np.dtype([("x", "f8"), ("s", "i4"), ("t", "f8")])
                at.create_dataset(name, data=np.zeros(rng.choice((0, 5)), row))
                at[name].attrs["big"] = np.zeros(rng.choice((1, 5000)))
    data = path.read_bytes()
    path.unlink()
    return data


def xdf_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    def chunk(tag: int, content: bytes, length: int | None = None) -> bytes:
        body = struct.pack("<H", tag) + content
        n = len(body) if length is None else length
        size = rng.choice((4, 8)) if n > 255 else rng.choice((1, 4, 8))
        return bytes([size]) + (n & (256**size - 1)).to_bytes(size, "little") + body

    made = b"XDF:" + chunk(
        1, b"<?xml version='1.0'?><info><version>1.0</version></info>"
    )
    for number in range(rng.choice((1, 2, 3))):
        count = rng.choice((1, 2, 8, _number(rng)))
        kind = rng.choice(("float32", "double64", "int8", "string", "int64", "evil"))
        rate = rng.choice(("0", "100", "1e300", "-5", "nan"))
        doctype = rng.choice(("", "", '<!DOCTYPE a [<!ENTITY a "aaaa">]>'))
        deep = rng.choice((0, 0, 3000))
        xml = (
            f"<?xml version='1.0'?>{doctype}<info><name>x{number}</name><type>EEG</type>"
            f"<channel_count>{count}</channel_count><nominal_srate>{rate}"
            f"</nominal_srate><channel_format>{kind}</channel_format>"
            f"<desc>{'<a>' * deep}{'</a>' * deep}</desc></info>"
        )
        made += chunk(2, struct.pack("<I", number) + xml.encode())
        for _ in range(rng.choice((0, 1, 3))):
            samples = rng.choice((0, 1, 4, _number(rng)))
            size = rng.choice((1, 4, 8))
            body = struct.pack("<I", number) + bytes([size])
            body += (samples & (256**size - 1)).to_bytes(size, "little")
            body += bytes(rng.randrange(256) for _ in range(rng.choice((0, 9, 200))))
            made += chunk(3, body, rng.choice((None, None, _number(rng))))
        made += chunk(4, struct.pack("<Idd", number, 1.0, 2.0))
    return made


def wfdb_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    names = ["a.dat", "a.dat", "b.dat", "../outside/secret", str(outside / "secret"), "~",
             "http://127.0.0.1/x", "a.hea", "none.dat"]  # fmt: skip
    signals = rng.choice((1, 2, 2, _number(rng)))
    if rng.random() < 0.2:
        count = rng.choice((1, 2, 50))
        segments = [f"{rng.choice(('a', '~', 'a_1', '../outside/secret', 'seg'))} "
                    f"{_number(rng)}" for _ in range(count)]  # fmt: skip
        return "\n".join(
            [f"a/{count} {signals} 100 {_number(rng)}", *segments]
        ).encode()
    lines = [
        f"a {signals} {rng.choice((100, 1, 0, -1, 'x'))} {rng.choice((10, 50, _number(rng)))}"
    ]
    for k in range(min(signals, 5)):
        form = rng.choice(("16", "212", "80", "0", "8", "61", "310", "516", "999"))
        form += rng.choice(("", "", "x2", f"x{_number(rng)}", f":{_number(rng)}",
                            f"+{_number(rng)}"))  # fmt: skip
        lines.append(f"{rng.choice(names)} {form} 200 11 1024 0 0 0 s{k}")
    return "\n".join(lines).encode()


def json_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    def value(depth: int) -> Any:
        kind = rng.randrange(9)
        if depth > 5 or kind < 3:
            return rng.choice((1, 1.5, None, True, "x", "../..", 10**30, "f64", [], {}))
        if kind < 5:
            return [value(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 5:
            return {"@ref": rng.choice((
                "c.collection.json", "c.collection.json#/streams", "#/streams/x",
                str(outside / "secret.json"), "../outside/secret.json", "file:///etc/passwd",
            ))}  # fmt: skip
        keys = (
            "name",
            "streams",
            "fields",
            "dtype",
            "shape",
            "frequency",
            "index",
            "x",
        )
        return {rng.choice(keys): value(depth + 1) for _ in range(rng.randrange(4))}

    made: Any = {
        "name": "c", "pattern": rng.choice(("csv://{r}", "csv://../{r}", "csv:///{r}")),
        "streams": {"x": {
            "frequency": rng.choice((1, -1, 1e308, 10**400)),
            "fields": {"v": {"dtype": rng.choice(("f64", "str", "O", 3)),
                             "shape": [_number(rng) for _ in range(rng.randrange(3))]}},
        }},
    }  # fmt: skip
    for _ in range(rng.randrange(3)):
        made[rng.choice(("streams", "name", "y", "pattern"))] = value(0)
    text = json.dumps(made)
    if rng.random() < 0.05:
        text = "[" * 100_000
    if rng.random() < 0.05:
        text = "9" * 50_000
    return text.encode()


def yaml_of(rng: random.Random, folder: Path, outside: Path) -> bytes:
    kind = rng.randrange(7)
    depth, width = rng.choice((3, 8, 30)), rng.choice((2, 9, 40))
    if kind == 0:  # merges
        lines = ["a:", "  m0: &m0 {k0: 1}"]
        for i in range(1, depth):
            refs = ",".join(f"*m{rng.randrange(i)}" for _ in range(width))
            lines.append(f"  m{i}: &m{i} {{<<: [{refs}], k{i}: 1}}")
    elif kind == 1:  # aliases
        lines = ["a:", "  - &x0 [1,1]"]
        for i in range(1, depth):
            lines.append(f"  - &x{i} [{','.join([f'*x{i - 1}'] * width)}]")
    elif kind == 2:  # deep
        n = rng.choice((50, 2000))
        lines = ["a: " + "[" * n + "]" * n]
    elif kind == 3:  # tags
        tag = rng.choice(("!!python/object/apply:os.system ['x']", "!include /etc/passwd",
                          "!!binary xx", "!!set {a}", "!!float abc", "!<x> 1"))  # fmt: skip
        lines = [f"a: {tag}", f"b: {tag}"]
    elif kind == 4:  # keys
        lines = [f"k{i}: 1" for i in range(rng.choice((5, 500)))]
    elif kind == 5:  # numbers
        lines = [
            "a: " + rng.choice(("9" * 5000, "1e99999", "0o7" * 99, "0x" + "f" * 9999))
        ]
    else:
        words = ["a", "b", ":", "-", "{", "}", "[", "]", "&x", "*x", "|", ">", "\n", "  ",
                 "'", '"', "#", "?", "!", "%", "---", "...", "1", "<<"]  # fmt: skip
        lines = [" ".join(rng.choice(words) for _ in range(rng.choice((5, 60))))]
    return "\n".join(lines).encode()


GRAMMARS: dict[str, Grammar] = {
    "csv": csv_of, "npy": npy_of, "npz": npz_of, "h5": h5_of, "xdf": xdf_of,
    "wfdb": wfdb_of, "json": json_of, "yaml": yaml_of, "archive": npz_of,
}  # fmt: skip

# ---- real files


def real(kind: str, folder: Path) -> list[bytes]:
    """Good files of a format, to be damaged."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=60), np.arange(60) / 10
    if kind == "csv":
        rows = "\n".join(
            f"{a},{b:.1f},word{i}" for i, (a, b) in enumerate(zip(x, t, strict=True))
        )
        return [f"x,t,s\n{rows}\n".encode(), b"x,t\n1,2\n"]
    if kind == "npy":
        both = []
        for array in (np.stack([x, x], 1), np.zeros(9, [("x", "f8"), ("s", "i4")])):
            made = io.BytesIO()
            np.save(made, array)
            both.append(made.getvalue())
        return both
    if kind == "npz":
        both = []
        for save in (np.savez, np.savez_compressed):
            made = io.BytesIO()
            save(made, x=x, t=t, s=np.arange(60))
            both.append(made.getvalue())
        return both
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        both = []
        for codec in ("snappy", "none", "gzip"):
            path = folder / "made.parquet"
            table = pyarrow.table(
                {"x": x, "t": t, "s": [f"w{i % 3}" for i in range(60)]}
            )
            pyarrow.parquet.write_table(table, path, compression=codec)
            both.append(path.read_bytes())
            path.unlink()
        return both
    if kind == "h5":
        rng_ = random.Random(5)
        return [d for d in (h5_of(rng_, folder, folder) for _ in range(9)) if d]
    if kind == "nwb":
        import ataraxis.datamux as dm

        stream = dm.Stream("x", fields={"v": dm.Field(dtype="f64")})
        path = folder / "made.nwb"
        dm.write_nwb(path, {"x": dm.Recording.of(stream, {"v": x, "t": t})})
        data = path.read_bytes()
        path.unlink()
        return [data]
    if kind == "xdf":
        import ataraxis.datamux as dm

        both = []
        for values, dtype in ((x, "f64"), (np.array(["a", "bc"] * 30), "str")):
            stream = dm.Stream("x", frequency=10, fields={"v": dm.Field(dtype=dtype)})
            path = folder / "made.xdf"
            dm.write_xdf(path, {"x": dm.Recording.of(stream, {"v": values, "t": t})})
            both.append(path.read_bytes())
            path.unlink()
        return both
    if kind == "wfdb":
        return [
            b"a 2 100 50\na.dat 16 200 11 1024 0 0 0 s0\na.dat 16 200 11 1024 0 0 0 s1\n"
        ]
    if kind in ("journal", "npylog", "archive"):
        return _logs(kind, folder)
    if kind == "json":
        return [json.dumps({
            "name": "c", "pattern": "csv://{r}", "streams": {"x": {
                "name": "x", "frequency": 10, "fields": {"v": {"name": "v", "dtype": "f64"}}}},
        }).encode()]  # fmt: skip
    return [b"a: {x: 1, y: [1, 2.5, 'text']}\nb: &x\n  k: 2026-01-02\n  <<: {z: 1}\n"]


_names: dict[str, str] = {}  # of the files of logs, which say what is in them


def _logs(kind: str, folder: Path) -> list[bytes]:
    from ataraxis import DataLogger, LogPackage, assemble_log_archives

    place = folder / "log"
    place.mkdir(exist_ok=True)
    layout = "journal" if kind == "journal" else "npy"
    logger = DataLogger(place, "made", layout=layout)
    logger.start()
    for k in range(20):
        data = np.arange(8, dtype=np.uint8) + k
        logger.input_queue.put(LogPackage(np.uint8(1), np.uint64(k), data))
    logger.stop()
    found = [p for p in place.rglob("*") if p.is_file()]
    if kind == "archive":
        assemble_log_archives(log_directory=logger.output_directory)
        found = [*place.rglob("*.npz")]
    wanted = {"journal": ".axj", "npylog": ".npy", "archive": ".npz"}[kind]
    first = sorted(p for p in found if p.suffix == wanted)[0]
    _names[kind] = first.name
    data = first.read_bytes()
    shutil.rmtree(place)
    return [data]


# ---- reading one, and looking at what it cost


def reader(kind: str, folder: Path) -> Callable[[bytes], Any]:
    """What writes a file's bytes where they belong, and reads them as a user would."""
    import ataraxis.datamux as dm

    stream = {"name": "x", "frequency": 10, "fields": {
        "x": {"name": "x", "dtype": "f64"}, "s": {"name": "s", "dtype": "str"}}}  # fmt: skip
    data = folder / "c"
    data.mkdir(parents=True, exist_ok=True)

    def by_collection(name: str, pattern: str, suffix: str) -> Callable[[bytes], Any]:
        described = {"name": "c", "pattern": pattern, "streams": {"x": stream}}
        (folder / "c.collection.json").write_text(json.dumps(described))
        api = dm.API(folder, folder)

        def read(content: bytes) -> Any:
            (data / f"{name}{suffix}").write_bytes(content)
            found = api.list_collection_streams("c")
            return found and api.recording("c", "x", found[0].attrs)

        return read

    if kind in ("csv", "npy", "parquet"):
        return by_collection("r", f"{kind}://{{r}}", f".{kind}")
    if kind == "h5":
        return by_collection("data", "h5://{r}", ".h5")
    if kind == "json":
        api = dm.API(folder, folder)

        def read_json(content: bytes) -> Any:
            (folder / "c.collection.json").write_bytes(content)
            return api.list_collection_streams("c")

        return read_json
    if kind == "yaml":
        return _yaml_reader(folder)
    names = {
        "npz": "r.npz", "nwb": "r.nwb", "wfdb": "a.hea", "xdf": "r.xdf",
    }  # fmt: skip
    if kind == "wfdb":
        (data / "a.dat").write_bytes(np.arange(100, dtype="<i2").tobytes())
        (data / "a.atr").write_bytes(bytes(range(40)))

    def read(content: bytes) -> Any:
        target = data / _names.get(kind, names.get(kind, ""))
        target.write_bytes(content)
        return dm.open_recordings(data if kind in ("journal", "npylog") else target)

    return read


def _yaml_reader(folder: Path) -> Callable[[bytes], Any]:
    from dataclasses import make_dataclass

    from ataraxis import YamlConfig

    made = make_dataclass(
        "C", [("a", Any, None), ("b", Any, None)], bases=(YamlConfig,)
    )
    path = folder / "r.yaml"

    def read(content: bytes) -> Any:
        path.write_bytes(content)
        return made.from_yaml(path)

    return read


class Watch:
    """Notices, through the kernel, when anything in a folder is opened."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watched = libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), 0x20 | 0x1
        )
        assert watched >= 0

    def close(self) -> None:
        """Stop."""
        os.close(self._descriptor)

    def has_seen(self) -> bool:
        """Whether anything was, since it was asked last."""
        try:
            return bool(os.read(self._descriptor, 65536))
        except BlockingIOError:
            return False


def _shown(found: Any) -> str:
    """Return the repr of what was read, also of a hex number of thousands of digits."""
    most = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return repr(found)
    finally:
        sys.set_int_max_str_digits(most)


def _peak() -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) << 10


def _now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def contents(
    kind: str, seed: int, count: int, folder: Path, outside: Path
) -> Iterator[bytes]:
    """Files of a format, one after the other; the same for the same seed."""
    rng = random.Random(f"{kind} {seed}")
    seeds = real(kind, folder)
    grammar = GRAMMARS.get(kind)
    yield from seeds
    for _ in range(count):
        if grammar is not None and rng.random() < 0.5:
            data = grammar(rng, folder, outside)
            if data is None:
                continue
            yield damaged(data, rng) if rng.random() < 0.3 else data
        else:
            yield damaged(rng.choice(seeds), rng)


def main() -> None:
    kind, seed, count, folder = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]),
    )
    from ataraxis.errors import AtaraxisError

    warnings.simplefilter("ignore")
    outside, inside = folder / "outside", folder / "inside"
    for made in (outside, inside):
        made.mkdir(exist_ok=True)
    (outside / "secret").write_text(SECRET)
    (outside / "secret.json").write_text(json.dumps({"name": SECRET}))
    if kind in ("h5", "nwb"):
        import h5py

        with h5py.File(outside / "secret.h5", "w") as file:
            file["r"] = np.frombuffer(SECRET.encode(), "u1")
    read = reader(kind, inside)
    watch = Watch(outside)
    worst_s = worst = 0.0
    good = 0
    for k, data in enumerate(contents(kind, seed, count, inside, outside)):
        print("at", k, file=sys.stderr, flush=True)
        watch.has_seen()
        Path("/proc/self/clear_refs").write_text("5")
        before, begin = _now(), time.process_time()
        told = ""
        try:
            found = read(data)
            good += 1
            if SECRET in _shown(found):
                print("SECRET", k, flush=True)
            del found
        except (AtaraxisError, FileNotFoundError) as error:
            told = str(error)
            if SECRET in told:
                print("SECRET in the message", k, flush=True)
        except BaseException as error:
            print("raises", k, type(error).__name__, str(error)[:200], flush=True)
            told = "known"
        spent, used = time.process_time() - begin, _peak() - before
        is_first = not k
        if spent > CPU_S and not is_first:  # libraries are imported for the first one
            print(
                "slow", k, f"{spent:.2f} s of {len(data)} bytes", told[:100], flush=True
            )
        if used > TIMES * len(data) + BESIDES and not is_first:
            print("memory", k, used >> 20, "MiB of", len(data), told[:100], flush=True)
        if watch.has_seen():
            print("outside", k, told[:200], flush=True)
        if not is_first:
            worst_s, worst = max(worst_s, spent), max(worst, used)
        if os.environ.get("HOSTILE_KEEP") == str(k):
            (folder / f"kept-{kind}-{k}").write_bytes(data)
    print(
        f"done {good} read, worst {worst_s:.2f} s, {int(worst) >> 20} MiB", flush=True
    )


if __name__ == "__main__":
    main()
