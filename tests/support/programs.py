"""Programs in fresh interpreters: warnings are errors, silence is success."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from deadline import wait_until
from places import PATH


def _command(code: str, arguments: tuple[str, ...], warnings: str) -> list[str]:
    # -P: the folder a test runs in must not shadow the installed package.
    return [sys.executable, "-P", *warnings.split(), "-c", code, *arguments]


def _environment() -> dict[str, str]:
    # One BLAS thread, or Python 3.12 warns of every fork.
    return {
        **os.environ,
        "PYTHONPATH": PATH,
        "PYTHONFAULTHANDLER": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def run(
    code: str,
    *arguments: object,
    timeout: float = 60,
    warnings: str = "-W error",
    cwd: Path | None = None,
) -> str:
    """Run a program to its end, which must be a silent success; what it printed."""
    done = subprocess.run(
        _command(textwrap.dedent(code), tuple(map(str, arguments)), warnings),
        env=_environment(),
        cwd=cwd or "/",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout


class Program:
    """A program that runs beside the test; killed at the end of the ``with``."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            _command(textwrap.dedent(code), tuple(map(str, arguments)), "-W error"),
            env=_environment(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def expect(self, line: str) -> None:
        """Wait for the program to print this line."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().strip()
        if found != line:
            assert self.process.stderr is not None
            self.process.kill()
            raise AssertionError(f"expected {line!r}: {self.process.stderr.read()}")

    def tell(self, line: str = "") -> None:
        """Let the program go on from its ``input()``."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_until_asleep(self) -> None:
        """Wait until every thread of the program sleeps, as in a blocking call."""
        wait_until(self._sleeps, what=f"program {self.pid} to sleep")

    def _sleeps(self) -> bool:
        for _ in range(3):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "S":
                    return False
        return True

    def finish(self, timeout: float = 30) -> tuple[int, str, str]:
        """Wait for its end: exit code, what it printed, what it complained of."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def succeed(self, timeout: float = 30) -> str:
        """Wait for its silent success; what it printed."""
        code, out, err = self.finish(timeout)
        assert code == 0, f"exit code {code}\n{err}"
        assert err == ""
        return out
