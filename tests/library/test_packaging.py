"""The package: one version, the installed files, wheels for each Python."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import programs
import pytest
from places import ROOT

import ataraxis

KERNELS = sorted(path.stem for path in ROOT.glob("ataraxis/_kernels/*.pyx"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = {".py", ".pyi", ".pyx", ".pxd", ".h", ".toml", ".build", ".md", ".ipynb", ""}
IN_WHEEL = {".py", ".pyi", ".so", ".typed"}
PAGES = {".html", ".css", ".js", ".svg"}  # of folders called static
HOOKS = {"rthooks.dat"}  # PyInstaller's table of runtime hooks


def stated_version() -> str:
    build = (ROOT / "meson.build").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ +version: '([^']+)'", build, re.MULTILINE)
    return version


def texts() -> Iterator[Path]:
    """Return the texts for users; the changelog is left out, it names all versions."""
    others = {"CHANGELOG.md", "PKG-INFO"}  # an sdist's PKG-INFO is generated
    yield from (p for p in ROOT.iterdir() if p.is_file() and p.name not in others)
    for folder in (".ci", "ataraxis", "docs", "notebooks"):
        yield from (p for p in (ROOT / folder).rglob("*") if p.is_file())


# ---- the version


def test_the_version_is_that_of_the_build() -> None:
    assert ataraxis.__version__ == metadata.version("ataraxis")
    assert ataraxis.__version__ == stated_version(), "install again: 'pip install .'"


def test_no_second_place_names_the_version() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    # "==1.0" is the version of another package, and "11.0" another version.
    version = re.compile(rf"(?<![\w.=<>~]){re.escape(stated_version())}(?![\w.])")
    naming = [
        path.relative_to(ROOT).as_posix()
        for path in texts()
        if path.suffix in TEXT
        and "_build" not in path.parts
        and version.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert naming == ["meson.build"]


def test_the_version_costs_an_import_nothing() -> None:
    printed = programs.run("""
        import sys
        before = set(sys.modules)
        import ataraxis
        assert "importlib.metadata" not in set(sys.modules) - before
        assert "__version__" in dir(ataraxis)
        print(ataraxis.__version__)
        """)
    assert printed.strip() == ataraxis.__version__


def test_a_source_folder_that_is_not_installed_has_no_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(vars(ataraxis), "__version__", raising=False)
    monkeypatch.setattr(metadata, "version", _not_installed)
    with pytest.raises(AttributeError, match=r"not installed.*pip install \."):
        _ = ataraxis.__version__
    assert not hasattr(ataraxis, "__version__")


def _not_installed(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


# ---- what is installed


def installed() -> set[PurePosixPath]:
    """Files of the installed package, relative to site-packages."""
    files = {PurePosixPath(path) for path in metadata.files("ataraxis") or []}
    if not any(path.parts[0] == "ataraxis" for path in files):
        pytest.skip("an editable install has no files but those of the source folder")
    return files


def test_an_install_holds_python_stubs_and_kernels_and_nothing_else() -> None:
    files = installed()
    # pip compiles what it installs.
    compiled = {p for p in files if p.suffix == ".pyc"}
    sources = {p.parent.parent / f"{p.name.split('.')[0]}.py" for p in compiled}
    assert sources <= files
    for path in files - compiled:
        top = path.parts[0]
        assert top in ("ataraxis", "..") or top.endswith(".dist-info"), path
        is_page = path.suffix in PAGES and path.parent.name == "static"
        is_ours = path.suffix in IN_WHEEL or path.name in HOOKS or is_page
        assert top != "ataraxis" or is_ours, path
        assert path.suffix != ".so" or path.parts[:2] == ("ataraxis", "_kernels"), path
        assert path.suffix != ".typed" or path == PurePosixPath("ataraxis/py.typed")
    # Without tests and build products: a kernel is its .so and its stub.
    assert "tests" not in {part for path in files for part in path.parts}


def test_an_install_is_typed_and_whole() -> None:
    files = installed()
    assert PurePosixPath("ataraxis/py.typed") in files
    house = ROOT / "ataraxis"
    written = {p for p in house.rglob("*") if p.suffix in (".py", ".pyi")}
    assert {PurePosixPath(p.relative_to(ROOT).as_posix()) for p in written} <= files
    kernels = {p.name.split(".")[0] for p in files if p.suffix == ".so"}
    assert kernels >= set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_loads(kernel: str) -> None:
    module = importlib.import_module(f"ataraxis._kernels.{kernel}")
    assert module.__file__ is not None
    assert module.__file__.endswith(".so")


# ---- wheels


def test_there_are_wheels_for_every_python_that_is_promised() -> None:
    name = re.compile(r"Programming Language :: Python :: 3\.(\d+)")
    promised = [
        f"cp3{found[1]}-manylinux_*"
        for found in map(name.fullmatch, PROJECT["project"]["classifiers"])
        if found
    ]
    wheels = PROJECT["tool"]["cibuildwheel"]
    assert wheels["build"] == promised
    assert set(wheels["linux"]["archs"]) == {"x86_64", "aarch64"}
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=3.")
    assert promised[0] == f"cp3{oldest}-manylinux_*"
