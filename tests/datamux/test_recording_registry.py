"""Every format that the library names has a contract, or a reason why it cannot."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from ataraxis.datamux import formats
from ataraxis.datamux.sources.mne import READERS
from ataraxis.datamux.sources.neo import FILES_OF, FOLDERS_OF
from ataraxis.testing.recordings import RecordingContract

# Of these no file can be had in a test: neither a program that writes one can be
# installed, nor is the layout published well enough to write one.
WITHOUT = {
    ".pl2": "Plexon's own library, for Windows, is the only reader",
    ".smrx": "sonpy of CED, for Windows, is the only reader",
    ".medd": "its reader needs NumPy before 2, and no package writes one",
}


def registered() -> set[str]:
    return {
        *formats._HOME, *formats._SUFFIXES, *formats._SNIFFED, *READERS, *FILES_OF,
        *FOLDERS_OF, ".nwb.zarr", ".zarr",
    }  # fmt: skip


def contracts() -> set[type[RecordingContract]]:
    """The contract classes of the modules beside this one."""
    modules = []  # which keep their classes
    for path in sorted(Path(__file__).parent.glob("test_recording_*.py")):
        if path == Path(__file__):
            continue
        spec = importlib.util.spec_from_file_location(f"contracts_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except pytest.skip.Exception:
            pytest.skip("a package of a format is missing: its contracts are not known")
        finally:
            del sys.modules[spec.name]
        modules.append(module)
    found, pending = set(), [RecordingContract]
    while pending:
        kinds = pending.pop().__subclasses__()
        pending += kinds
        found |= {kind for kind in kinds if kind.__name__.startswith("Test")}
    return found


def test_every_registered_format_has_a_contract() -> None:
    pytest.importorskip("neo")
    pytest.importorskip("mne")
    covered = {name for kind in contracts() for name in kind.formats}
    assert sorted(registered() - covered - {*WITHOUT}) == []
    assert not covered & {*WITHOUT}, "these have one by now"
    assert {*WITHOUT} <= registered()


def test_a_contract_names_what_it_stands_for() -> None:
    pytest.importorskip("neo")
    for kind in contracts():
        assert kind.formats, kind
        unknown = {*kind.formats} - registered() - {".npy", ".csv"}
        assert not unknown, kind
