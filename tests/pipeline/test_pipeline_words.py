"""Texts of a pipe: errors that name the cause, tracebacks, reprs, skipped values."""

from __future__ import annotations

import json
import logging
import traceback
import warnings
from pathlib import Path

import numpy as np
import programs
import pytest
import workers_pipe as w
from pipelines import chain

from ataraxis.errors import NotConnectedError, PipeError, ProcessorError
from ataraxis.pipeline import Pipe, Processor


def failure_of(pipe: Pipe, source: object = range(10)) -> PipeError:
    with pytest.raises(PipeError) as caught:
        list(pipe.map(source))
    return caught.value


# ---- errors


def test_the_error_of_a_pipe_names_processor_value_and_exception() -> None:
    text = str(failure_of(chain(Processor("a", func=w.fails_at_five))))
    assert "pipe 'p' failed: processor 'a', worker 0: KeyError" in text
    assert "with value number 5: 5" in text
    assert "workers_pipe.py:" in text
    assert "in fails_at_five" in text


def test_a_value_that_is_an_array_is_named_in_a_line() -> None:
    def bad(block: np.ndarray) -> None:
        raise ValueError("no spikes")

    text = str(failure_of(chain(Processor("a", func=bad)), [np.zeros((100, 32))]))
    assert "ndarray of float64, shape (100, 32)" in text
    assert "\n" not in text


def test_a_function_that_gets_itself_names_the_number() -> None:
    async def bad() -> None:
        me = Processor("a")
        await me.connect()
        while True:
            if await me.get_sync(None) == 5:
                raise ValueError("I hold it")

    text = str(failure_of(chain(Processor("a", func=bad))))
    assert "ValueError: I hold it; with value number 5; at " in text


def test_tracebacks_of_the_main_program_and_of_notebooks_show_source(
    tmp_path: Path,
) -> None:
    script = tmp_path / "experiment.py"
    script.write_text(
        "from ataraxis.pipeline import Pipe, Processor\n"
        "def inner(x):\n"
        "    return 1 / (x - 5)  # the line of the script\n"
        "class Stage:\n"
        "    def process(self, x):\n"
        "        return [inner(k) for k in (x,)]\n"
        "def show(pipe):\n"
        "    try:\n"
        "        list(pipe.map(range(10)))\n"
        "    except Exception as error:\n"
        "        print(error)\n"
        "        print(error.exceptions[0].remote_traceback)\n"
        "if __name__ == '__main__':\n"
        "    pipe = Pipe('p'); pipe.add(Processor('bad', func=Stage)); show(pipe)\n"
    )
    # By a relative path, as a user starts it; the worker may be somewhere else.
    code = f"""
        import os, runpy
        os.chdir({str(tmp_path)!r})
        runpy.run_path("experiment.py", run_name="__main__")
    """
    out = programs.run(code)
    assert "# the line of the script" in out
    assert f'File "{script}", line 3, in inner' in out
    assert f"at {script}:3 in inner" in out

    cell = """
        import linecache
        source = "def bad(x):\\n    return 1 / (x - 5)  # the line of the cell\\n"
        name = "/tmp/ipykernel_1/2.py"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        scope = {"__name__": "__main__"}
        exec(compile(source, name, "exec"), scope)
        from ataraxis.pipeline import Pipe, Processor
        pipe = Pipe("p")
        pipe.add(Processor("bad", func=scope["bad"]))
        copy = Pipe.from_json(pipe.to_json(), allow_pickle=True)
        for each in (pipe, copy):
            try:
                list(each.map(range(10)))
            except Exception as error:
                print(error.exceptions[0].remote_traceback)
    """
    out = programs.run(cell)
    assert out.count("# the line of the cell") == 2
    assert out.count('File "/tmp/ipykernel_1/2.py", line 2, in bad') == 2


def test_a_printed_pipe_error_has_the_workers_traceback() -> None:
    error = failure_of(chain(Processor("a", func=w.fails_at_five)))
    text = "".join(traceback.format_exception(error))
    assert 'raise KeyError("five is not here")' in text


def test_several_errors_are_counted() -> None:
    errors = [ProcessorError(f"processor {k!r}: no") for k in "ab"]
    run = chain(Processor("a", func=w.same)).run([])
    run.wait(60)
    assert "processor 'a': no, and 1 more" in str(run._failure(errors))


# ---- two first processors


def test_two_first_processors_that_look_like_a_chain_warn() -> None:
    pipe = Pipe("p")
    pipe.add(Processor("double", func=w.double))
    pipe.add(Processor("same", func=w.same))
    with pytest.warns(UserWarning, match=r"'double', 'same' are all first processors"):
        assert sorted(pipe.map([1, 2])) == [1, 2, 2, 4]


def test_intended_first_processors_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meant = Pipe("meant").connect_to(
            Processor("double", func=w.double), Processor("same", func=w.same)
        )
        assert sorted(meant.map([1, 2])) == [1, 2, 2, 4]
        assert sorted(Pipe.from_json(meant.to_json()).map([3])) == [3, 6]
        # A diamond, and two producers, as in uPipe.
        diamond, join = Pipe("diamond"), Processor("join", func=w.same)
        diamond.add(Processor("left", func=w.left)).add(join)
        diamond.add(Processor("right", func=w.right)).add(join)
        assert sorted(diamond.map([1])) == [("l", 1), ("r", 1)]
        producers, end = Pipe("producers"), Processor("end", func=w.same)
        producers.add(Processor("a", func=w.counting)).add(end)
        producers.add(Processor("b", func=w.counting)).add(end)
        with producers.run(sink=(found := [])) as run:
            run.wait(60)
        assert len(found) == 100


# ---- reprs


def test_the_repr_of_a_pipe_describes_its_graph() -> None:
    pipe = Pipe("x")
    assert repr(pipe) == "<Pipe 'x', empty: add(Processor(...)), not started>"
    assert pipe._repr_svg_() is None
    a, b = Processor("a", func=w.same), Processor("b", func=w.same)
    pipe.add(a).add(b)
    assert repr(pipe) == "<Pipe 'x', a -> b, not started>"
    assert pipe._repr_svg_().count("<rect") == 2
    b.add(a)  # a cycle: it cannot run, and a notebook's cell still shows it
    assert repr(pipe) == "<Pipe 'x', 2 processors from a on, not started>"
    assert pipe._repr_svg_() is None
    fan = Pipe("fan")
    fan.add(Processor("c", func=w.same)).connect_to(
        Processor("d", func=w.same), Processor("e", func=w.same)
    )
    assert repr(fan) == "<Pipe 'fan', 3 processors from c on, not started>"


def test_the_repr_of_a_run_counts_its_values() -> None:
    pipe = chain(Processor("a", func=w.same))
    list(pipe.map(range(3)))
    assert repr(pipe) == "<Pipe 'p', a, completed>"
    assert repr(pipe.execution).endswith("completed, 3 values in>")


# ---- skipped values


def test_skipped_values_have_a_placeholder_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    for more in ({}, {"workers": 2, "ordered": True}):
        pipe = chain(
            Processor("a", func=w.fails_at_odd, on_error="skip", **more),
            Processor("b", func=w.double),
            dead_letters=tmp_path / f"letters{len(more)}",
        )
        results = pipe.map(range(6), placeholder="?")
        assert list(results) == [0, "?", 4, "?", 8, "?"]
        assert results.skipped == 3
        letters = sorted(results.dead_letters, key=lambda letter: letter.number)
        assert [(x.value, x.number) for x in letters] == [(1, 1), (3, 3), (5, 5)]
        assert {x.why for x in letters} == {"ValueError: odd"}
        assert "3 skipped, in" in repr(results)


def test_skipped_values_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = chain(
        Processor("a", func=w.fails_at_odd, on_error="skip"),
        dead_letters=tmp_path / "letters",
    )
    results = pipe.map(range(6))
    assert results.skipped == 0
    with pytest.raises(NotConnectedError, match="the first next"):
        _ = results.dead_letters
    with caplog.at_level(logging.WARNING, "ataraxis.pipeline"):
        assert list(results) == [0, 2, 4]
    assert results.skipped == len(results.dead_letters) == 3
    (record,) = caplog.records
    assert "3 of 6 values were skipped" in record.getMessage()
    # Another run with the same directory has separate dead letters.
    again = pipe.map([1])
    assert list(again) == []
    assert len(again.dead_letters) == 1
    assert len(results.dead_letters) == 3


def test_results_that_are_dropped_end_the_pipe() -> None:
    pipe = chain(Processor("a", func=w.same))
    results = pipe.map(range(1000))
    assert "not started" in repr(results)
    assert next(results) == 0
    results.close()
    assert not pipe.running


def test_a_value_that_kills_its_workers_has_a_placeholder_too(tmp_path: Path) -> None:
    stage = Processor("a", func=w.fails_at_five_and_two, on_error="skip", attempts=1)
    results = chain(stage, dead_letters=tmp_path / "letters").map(
        [3, 2, 5, 7], placeholder=None
    )
    assert list(results) == [-0.5, None, None, 0.5]
    assert json.dumps(sorted(x.why.split()[0] for x in results.dead_letters)) == (
        '["ZeroDivisionError:", "it"]'
    )
