"""Recordings as SpikeGLX writes them: ``.meta`` and ``.bin``, sparse where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

AP_HZ, LF_HZ, NI_HZ = 30_000.0, 2_500.0, 25_000.0


def write_probe(
    folder: Path, run: str, probe: int, kind: str, values: np.ndarray | int, sites: int
) -> Path:
    """Write one band of a Neuropixels 1.0 probe; an int: so many samples of zeros."""
    rate = AP_HZ if kind == "ap" else LF_HZ
    letters = "AP" if kind == "ap" else "LF"
    names = [f"({letters}{i};{i}:{i})" for i in range(sites)]
    names.append(f"(SY0;{sites}:{sites})")
    counts = f"{sites},0,1" if kind == "ap" else f"0,{sites},1"
    table = "".join(f"({i} 0 0 500 250 1)" for i in range(sites))
    stem = f"{run}_g0_t0.imec{probe}.{kind}"
    meta = {
        "typeThis": "imec", "imDatPrb_pn": "NP1000", "imSampRate": rate,
        "nSavedChans": sites + 1, "snsApLfSy": counts, "imAiRangeMax": 0.6,
        "firstSample": 0, "~snsChanMap": f"({sites},{sites},1)" + "".join(names),
        "~imroTbl": f"(0,{sites})" + table,
    }  # fmt: skip
    return _write(folder, stem, meta, values, sites + 1)


def write_board(folder: Path, run: str, values: np.ndarray | int, inputs: int) -> Path:
    """Write the analog inputs of a National Instruments board."""
    names = "".join(f"(XA{i};{i}:{i})" for i in range(inputs))
    meta = {
        "typeThis": "nidq", "niSampRate": NI_HZ, "nSavedChans": inputs,
        "snsMnMaXaDw": f"0,0,{inputs},0", "niMNGain": 200, "niMAGain": 1,
        "niAiRangeMax": 5, "firstSample": 0,
        "~snsChanMap": f"(0,0,1,{inputs},0)" + names,
    }  # fmt: skip
    return _write(folder, f"{run}_g0_t0.nidq", meta, values, inputs)


def _write(
    folder: Path,
    stem: str,
    meta: dict[str, object],
    values: np.ndarray | int,
    width: int,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.bin"
    if isinstance(values, int):
        with path.open("wb") as file:
            file.truncate(values * width * 2)
    else:
        assert values.shape[1] == width
        values.astype("<i2").tofile(path)
    meta = {
        "fileName": f"D:/data/{stem}.bin",
        "fileSizeBytes": path.stat().st_size,
        **meta,
    }
    text = "".join(f"{key}={value}\n" for key, value in meta.items())
    path.with_suffix(".meta").write_text(text)
    return path
