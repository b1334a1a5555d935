"""The code blocks of README.md and docs/ run, as a new user would run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pages import fresh_context, python, python_blocks, run_script
from places import ROOT

PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)


def _readme() -> list[str]:
    blocks = python_blocks(ROOT / "README.md")
    assert not [block.excuse for block in blocks if block.excuse]
    return [block.code for block in blocks]


def test_every_block_of_the_readme_has_its_test():
    camera, trials, pipe, prompt, other, script = _readme()
    assert "Session(" in camera
    assert "around(" in trials
    assert "Pipe(" in pipe
    assert "create_array" in prompt
    assert "attach(" in other
    assert "__main__" in script


def test_readme_camera(tmp_path: Path):
    script = tmp_path / "camera.py"
    script.write_text(_readme()[0])
    with fresh_context() as environment:
        printed = run_script(script, environment)
    assert "the viewer sees 99.0" in printed
    assert "camera: 100 expected, 100 received, 0 missing" in printed
    assert printed.endswith("4950 is 4950\n")


def test_readme_trials(tmp_path: Path):
    script = tmp_path / "trials.py"
    script.write_text(_readme()[1])
    with fresh_context() as environment:
        printed = run_script(script, environment)
        for _ in range(2):  # a machine that stalls a producer for a while has a gap
            if "nan" in printed:
                shutil.rmtree(tmp_path / "m42_day4")
                printed = run_script(script, environment)
        verify = tmp_path / "verify.py"
        verify.write_text("from ataraxis.cli import main; main(['verify', 'm42_day4'])")
        counted = run_script(verify, environment)
    assert printed.startswith("<xarray.DataArray 'probe' (time: ")
    assert "nan" not in printed
    assert "probe: 1000 expected, 1000 received, 0 missing" in counted


def test_readme_pipe_and_log(tmp_path: Path):
    script = tmp_path / "pipe.py"
    script.write_text(_readme()[2])
    with fresh_context() as environment:
        assert run_script(script, environment) == "[1.5, 5.5, 9.5]\n(500, 3)\n"


def test_readme_two_programs(tmp_path: Path):
    *_, prompt, other, _ = _readme()
    (tmp_path / "first.py").write_text(prompt)
    (tmp_path / "second.py").write_text(other + "print('done')\n")
    with fresh_context() as environment:
        options = {"env": environment, "cwd": tmp_path, "text": True}
        second = subprocess.Popen(
            python("-u", "second.py"), stdout=subprocess.PIPE, **options
        )
        # -i: the prompt keeps running; the line that the README shows is typed next.
        first = subprocess.Popen(
            python("-i", "-q", "first.py"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        try:
            assert first.stdin is not None
            # The second may attach before or after the writes of the first block; in
            # both cases it sleeps until the next write.
            while second.poll() is None:
                first.stdin.write("pose[2, 0] = 9.0\nimport time; time.sleep(0.1)\n")
                first.stdin.flush()
                try:
                    second.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
            out, _ = second.communicate(timeout=30)
            shown, stderr = first.communicate(timeout=30)
        finally:
            first.kill()
            second.kill()
    assert second.returncode == 0
    assert out.endswith("writes\ndone\n")
    assert shown.startswith("[1. 0. 2. 0.]\n<xarray.DataArray")
    assert "Error" not in stderr
    assert "Warning" not in stderr


def test_readme_script(tmp_path: Path):
    script = tmp_path / "workers.py"
    script.write_text(_readme()[-1])
    with fresh_context() as environment:
        assert run_script(script, environment) == "2000\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT / "docs")))
def test_every_block_of_a_page_runs_or_says_why_not(page: Path, tmp_path: Path):
    code = [block.code for block in python_blocks(page) if not block.excuse]
    if not code:
        pytest.skip("this page has no Python to run")
    if page.name == "many-machines.md":
        pytest.importorskip("cryptography", reason="its certificates need cryptography")
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(code))
    with fresh_context() as environment:
        run_script(script, environment)
