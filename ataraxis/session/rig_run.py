"""RigRun: a rig that runs within a session."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

from ataraxis.datamux.catalog import Catalog
from ataraxis.datamux.registry import NODE_FILES
from ataraxis.datamux.streaminghub.util import Settings
from ataraxis.errors import AtaraxisError, ConfigError, SourceFailed
from ataraxis.pipeline import Pipe, Processor
from ataraxis.session.alarms import RigAlarm, RigHeartbeat
from ataraxis.session.output_run import OutputProcess
from ataraxis.session.process import AWAY, Program
from ataraxis.session.rig import Rig, RigPipe, RigSource
from ataraxis.shm.context import Context
from ataraxis.shm.thread import Latch
from ataraxis.stream import Consumer
from ataraxis.stream.inspector import Inspector

START_S = 60.0
_LOOK_S = 0.05


class RigHost(Protocol):
    """The session that a rig runs in: it records streams and keeps the log."""

    context: Context

    @property
    def directory(self) -> Path:
        """Directory of the session."""

    def record(
        self,
        *streams: str,
        durability: Literal["os", "disk"] | None = None,
        process: bool = False,
    ) -> None:
        """Record streams; see `Session.record`."""

    def note(self, text: str) -> None:
        """Write a line into the session's log."""

    def event(self, name: str, /, **data: Any) -> int:
        """Record an event; see `Session.event`."""

    def doubt(self, reason: str) -> None:
        """Record a reason not to trust the session."""

    def add_alarms(
        self, alarms: Sequence[RigAlarm], heartbeat: RigHeartbeat | None = None
    ) -> None:
        """Tell a person what goes wrong; see `Session.add_alarms`."""

    def alarm(self, kind: str, stream: str, text: str) -> None:
        """Tell it those who want to be told."""


class RigRun:
    """The outputs, sources, pipes and viewers of a rig; made by `Session.start`.

    Once `until` is set, `wait` ends, and so does the wait for a source. Raises
    `ConfigError` if the rig contradicts itself, before anything was started;
    `SourceFailed` if a source gave no stream, `OutputError` if an output could not be
    made safe: what was started was ended.
    """

    def __init__(
        self,
        session: RigHost,
        rig: Rig | str | os.PathLike[str],
        until: Latch | None = None,
    ) -> None:
        self._until = until or Latch()
        self._folder: Path | None = None
        if isinstance(rig, Rig):
            self.rig = rig
        else:
            self.rig = Rig.from_yaml(os.fspath(rig))
            self._folder = Path(rig).absolute().parent
            if str(self._folder) not in sys.path:  # for its functions, also in workers
                sys.path.append(str(self._folder))
        wrong = self.rig.problems()
        if wrong:
            raise ConfigError("the rig cannot run: " + "; ".join(wrong))
        functions = {
            name: [(step, _function(step.function)) for step in pipe.steps]
            for name, pipe in self.rig.pipes.items()
        }
        self._session = session
        self._programs: list[Program] = []
        self._outputs: list[OutputProcess] = []
        self._pipes: list[tuple[str, Any, Consumer]] = []
        self._clusters: dict[str, Any] = {}
        self._read: dict[str, tuple[int, int]] = {}
        self._is_over = False
        self.reports: dict[str, dict[str, Any]] = {}
        """Report of each source that has ended, such as `samples`."""
        self.rig.to_yaml(session.directory / "rig.yaml")
        try:
            if self.rig.alarms or self.rig.heartbeat:
                session.add_alarms(self.rig.alarms, self.rig.heartbeat)
            for recorder, names in self.rig.recordings():
                session.record(
                    *names, durability=recorder.durability, process=recorder.process
                )
            self._start_outputs()
            for name in self.rig.sources:
                self._programs.append(self._source(name))
            for name in self.rig.sources:
                self._await(name)
            for name, pipe in self.rig.pipes.items():
                self._start_pipe(name, pipe, functions[name])
            for name in self.rig.sources:
                self._await_readers(name)
            for name, viewer in self.rig.viewers.items():
                context, note = str(session.context.path), session.note
                program = Program(name, viewer.command, context, note, is_viewer=True)
                self._programs.append(program)
        except BaseException:
            self.stop()
            raise

    def _start_outputs(self) -> None:
        """Start them first: the other programs may order."""
        session = self._session
        session.record(*self.rig.outputs)
        for name, output in self.rig.outputs.items():
            made = OutputProcess(
                name, output, session.context, session.note, session.doubt
            )
            self._outputs.append(made)
        for made in self._outputs:
            made.await_ready(self._until)

    def _node(self, source: RigSource) -> str:
        """Return the node of a source; its file is copied into the session."""
        path = Path(source.node)
        if source.node.endswith(NODE_FILES):
            if not path.is_absolute() and self._folder is not None:
                path = self._folder / path
            file: Path | None = path
        else:
            settings = Settings.load()
            file = Catalog(settings).node_file(source.node) if settings else None
        if file is not None and file.is_file():
            shutil.copyfile(file, self._session.directory / file.name)
        return str(path) if file == path else source.node

    def _source(self, name: str) -> Program:
        source, note = self.rig.sources[name], self._session.note
        context = str(self._session.context.path)
        alarm = partial(self._session.alarm, "source_lost", name)
        if source.command:
            return Program(
                name, source.command, context, note, is_ended_by_signal=True,
                on_failure=alarm,
            )  # fmt: skip
        options = {
            "node": self._node(source), "stream": source.stream,
            "attrs": source.attrs, "name": name, "samples": source.samples,
            "buffer_s": source.buffer_s, "patience_s": source.patience_s,
            "timeout_s": START_S, "context": context,
            # So that recorder and pipes get the first frame.
            "readers": self._readers(name),
        }  # fmt: skip
        return Program.of_source(name, options, note, alarm)

    def _await(self, name: str) -> None:
        """Wait until a source has made its stream."""
        program = next(p for p in self._programs if p.name == name)
        deadline = time.monotonic() + START_S
        while True:
            try:
                Inspector(name, self._session.context)
                return
            except FileNotFoundError:
                pass
            code = program.process.poll()
            after = time.monotonic() - (deadline - START_S)
            if code is not None:
                output = program.last_output() or "it printed nothing"
                self._fail(
                    name, f"ended after {after:.1f} s, exit code {code}: {output}"
                )
            if after > START_S:
                self._fail(name, f"gave no stream within {START_S:g} s")
            if self._until.wait(_LOOK_S):
                raise AtaraxisError(f"ended before source {name!r} gave its stream")

    def _readers(self, name: str) -> int:
        """Return how many readers a source waits for before it sends."""
        piped = sum(pipe.stream == name for pipe in self.rig.pipes.values())
        return (name in self.rig.recorded) + piped

    def _await_readers(self, name: str) -> None:
        """Wait until a source has its readers: from then on it runs."""
        deadline = time.monotonic() + START_S
        program = next(p for p in self._programs if p.name == name)
        try:
            look = Inspector(name, self._session.context).statistics
        except FileNotFoundError:
            return  # it has ended already
        while program.process.poll() is None and time.monotonic() < deadline:
            try:
                there = [r for r in look().readers if not r.is_viewer]
                if len(there) >= self._readers(name):
                    return
            except FileNotFoundError:
                return  # it has ended already
            if self._until.wait(_LOOK_S):
                return

    def _fail(self, name: str, why: str) -> NoReturn:
        error = SourceFailed(f"source {name!r} {why}")
        error.source = name
        raise error

    def _start_pipe(self, name: str, rig_pipe: RigPipe, steps: list[Any]) -> None:
        pipe = Pipe(name, context=self._session.context)
        at: Any = pipe
        for step, function in steps:
            at = at.add(
                Processor(
                    step.name,
                    func=function,
                    workers=step.workers,
                    ordered=step.ordered,
                    host=step.host,
                    tag=step.tag,
                )
            )
        cluster = None
        if any(step.host is not None or step.tag is not None for step, _ in steps):
            from ataraxis.cluster.engine import Cluster

            cluster = Cluster(context=self._session.context)
            self._clusters[name] = cluster
        reader = Consumer(
            rig_pipe.stream, context=self._session.context, policy="lossless",
            label=f"pipe {name}", timeout=START_S,
        )  # fmt: skip

        def take(result: Any) -> None:
            if rig_pipe.event is not None:
                self._session.event(rig_pipe.event, value=result)

        run = pipe.run(reader, take, engine=cluster)
        self._pipes.append((name, run, reader))
        self._session.note(f"pipe {name!r} runs")

    # ---- while it runs

    @property
    def programs(self) -> dict[str, int]:
        """Process ids of outputs, sources and viewers."""
        programs = [*(o.program for o in self._outputs), *self._programs]
        return {program.name: program.process.pid for program in programs}

    def look(self) -> bool:
        """Restart what failed; return whether a source still runs."""
        for name in self.rig.sources:
            self._look_for_losses(name)
        runs = [p.look() for p in self._programs if not p.is_viewer]
        for program in self._programs:
            if program.is_viewer:
                program.look()
        return any(runs) or not runs

    def _look_for_losses(self, name: str) -> None:
        """Tell when a source has lost its device, and tries to open it again."""
        program = next(p for p in self._programs if p.name == name)
        if self.rig.sources[name].command or program.is_closed:
            return
        pid, read = self._read.get(name, (0, 0))
        if pid != program.process.pid:
            pid, read = program.process.pid, 0
        output = program.output(read)
        whole = output[: output.rfind(b"\n") + 1]
        self._read[name] = pid, read + len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = f"its device went away: {json.loads(line)[AWAY]}"
                self._session.note(f"{name!r}: {text}")
                self._session.alarm("source_lost", name, text)

    def wait(self, duration: float | None = None) -> None:
        """Wait until every source has ended, for `duration` s, or until Ctrl-C."""
        end = None if duration is None else time.monotonic() + duration
        try:
            while self.look() and (end is None or time.monotonic() < end):
                if self._until.wait(_LOOK_S):
                    self._session.note("ended by a signal")
                    return
        except KeyboardInterrupt:
            self._session.note("ended by Ctrl-C")
        self.stop()

    def stop(self, hurry: Latch | None = None) -> None:
        """Make the outputs safe, end the sources, let the pipes run dry, end the rest.

        Once `hurry` is set, what has not ended is killed.
        """
        if self._is_over:
            return
        # After an interrupt it is called again: each step may be repeated.
        for output in self._outputs:
            output.request_safe()
        sources = [p for p in self._programs if not p.is_viewer]
        for program in sources:
            program.request_end()
        for program in sources:
            if program.is_closed:
                continue
            program.wait(hurry)
            self.reports[program.name] = _report(program)
            program.end()
            if program.failure:
                self._session.doubt(f"source {program.failure}")
            elif program.restarts:
                self._session.doubt(
                    f"source {program.name!r} failed and was started again, "
                    f"{program.restarts} times"
                )
        for name, run, reader in self._pipes:
            self._end_pipe(name, run, reader, hurry)
        while self._clusters:
            self._clusters.popitem()[1].close()
        for program in self._programs:
            if program.is_viewer:
                program.request_end()
                program.wait(hurry)
                program.end()
        for output in self._outputs:
            output.finish(hurry)
        self._is_over = True

    def _end_pipe(
        self, name: str, run: Any, reader: Consumer, hurry: Latch | None
    ) -> None:
        try:
            _wait_for(run, hurry)
        except Exception as error:  # of a user's function
            within = getattr(error, "exceptions", (error,))
            self._session.doubt(f"pipe {name!r}: {'; '.join(map(str, within))}")
            run.terminate()
        reader.close()

    def forget_killed(self) -> None:
        """Remove streams of sources that were killed, if they have no reader."""
        context = self._session.context
        for program in self._programs:
            if not program.was_killed or program.is_viewer:
                continue
            with contextlib.suppress(OSError, AtaraxisError):
                found = Inspector(program.name, context).statistics()
                if not found.producers and all(r.is_viewer for r in found.readers):
                    os.unlink(context.join(program.name))


def _wait_for(run: Any, hurry: Latch | None) -> None:
    """Wait until a pipe has run dry; `TimeoutError` once it takes 60 s, or `hurry`."""
    deadline = time.monotonic() + START_S
    while True:
        left = deadline - time.monotonic()
        try:
            run.wait(left if hurry is None else min(left, _LOOK_S))
            return
        except TimeoutError:
            if run.state != "running":
                raise
            if left <= 0 or (hurry is not None and hurry.is_set()):
                raise TimeoutError("it did not run dry, and was ended") from None


def _report(program: Program) -> dict[str, Any]:
    """Return the last line that a source printed; empty if it is not a report."""
    lines = program.output().splitlines()
    try:
        report: dict[str, Any] = json.loads(lines[-1])
        return report
    except (IndexError, ValueError):
        return {}


def _function(path: str) -> Any:
    """Import ``module:function``."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the rig's function {path!r}: {error}") from error
