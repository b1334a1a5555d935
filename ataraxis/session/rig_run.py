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
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from ataraxis.datamux.catalog import Catalog
from ataraxis.datamux.registry import NODE_FILES
from ataraxis.datamux.streaminghub.util import Settings
from ataraxis.errors import AtaraxisError, ConfigError, SourceFailed
from ataraxis.pipeline import Pipe, Processor
from ataraxis.session.alarms import RigAlarm, RigHeartbeat
from ataraxis.session.output_run import OutputProcess
from ataraxis.session.process import AWAY, Program
from ataraxis.session.rig import Rig, RigPipe, RigSource
from ataraxis.session.stream_recorder import SessionLoss
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.context import Context
from ataraxis.shm.thread import Latch
from ataraxis.stream import Consumer
from ataraxis.stream.inspector import Inspector

if TYPE_CHECKING:  # they import the cluster, which few rigs need
    from ataraxis.session.far_program import FarHost
    from ataraxis.session.far_recorder import FarRecorder
    from ataraxis.session.far_source import FarSource

START_S = 60.0
_LOOK_S = 0.05


class RigHost(Protocol):
    """The session that a rig runs in: it records streams and keeps the log."""

    context: Context
    name: str

    @property
    def subject(self) -> str:
        """Subject of the recording."""

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

    def keep_place(self, streams: Sequence[str], host: str, path: str) -> None:
        """Note which host records streams, and where; see `Session.keep_place`."""

    def add_verdicts(self, verdicts: Sequence[StreamVerdict]) -> None:
        """Add the verdicts of streams that another host has recorded."""

    def lose(self, loss: SessionLoss) -> None:
        """Tell those who want to be told of a loss of a recorder elsewhere."""

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
    `ConfigError` if the rig contradicts itself, `HostUnavailable` if a part of it is
    placed on a host and no agent runs here, before anything was started;
    `SourceFailed` if a source gave no stream, or its host does not run it,
    `OutputError` if an output could not be made safe: what was started was ended.
    With `is_test`, other hosts remove what they have recorded.
    """

    def __init__(
        self,
        session: RigHost,
        rig: Rig | str | os.PathLike[str],
        until: Latch | None = None,
        *,
        is_test: bool = False,
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
        self._is_test = is_test
        kept = self.rig
        if self.rig.hosts:
            from ataraxis.session.far_program import name_of_this_host

            self.rig = self.rig.on(name_of_this_host(session.context))
        self._far_hosts: dict[str, FarHost] = {}
        self._far_recorders: list[FarRecorder] = []
        self._programs: list[Program | FarSource] = []
        self._outputs: list[OutputProcess] = []
        self._pipes: list[tuple[str, Any, Consumer]] = []
        self._clusters: dict[str, Any] = {}
        self._read: dict[str, tuple[int, int]] = {}
        self._is_over = self._is_started = False
        self.reports: dict[str, dict[str, Any]] = {}
        """Report of each source that has ended, such as `samples`."""
        kept.to_yaml(session.directory / "rig.yaml")
        try:
            if self.rig.alarms or self.rig.heartbeat:
                session.add_alarms(self.rig.alarms, self.rig.heartbeat)
            for recorder, names in self.rig.recordings():
                if recorder.host is None:
                    session.record(
                        *names, durability=recorder.durability, process=recorder.process
                    )
                else:
                    self._start_recorder(recorder.host, names, recorder.durability)
            for far in self._far_recorders:
                self._await_recorder(far)
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
            self._is_started = True
        except BaseException:
            self.stop()
            raise

    # ---- what other hosts do

    def _far_host(self, name: str) -> FarHost:
        from ataraxis.session.far_program import FarHost

        if name not in self._far_hosts:
            context, note = self._session.context, self._session.note
            self._far_hosts[name] = FarHost(name, context, note)
        return self._far_hosts[name]

    def _start_recorder(self, host: str, names: list[str], durability: str) -> None:
        from ataraxis.session.far_recorder import FarRecorder

        session, first = self._session, names[0] if len(names) == 1 else ""
        away = [s.away_s for n, s in self.rig.sources.items() if n in names]
        try:
            recorder = FarRecorder(
                self._far_host(host), session.name, session.subject, names, durability,
                max(away, default=RigSource.away_s), on_loss=session.lose,
                on_failure=partial(session.alarm, "recorder_down", first),
                is_test=self._is_test,
            )  # fmt: skip
        except (AtaraxisError, OSError) as error:
            self._fail(names[0], f"cannot be recorded on host {host!r}", error)
        self._far_recorders.append(recorder)

    def _await_recorder(self, recorder: FarRecorder) -> None:
        from ataraxis.session.far_recorder import wait_until_ready

        why = wait_until_ready(recorder, START_S, self._until)
        if why:
            host = recorder.host.host
            self._fail(recorder.streams[0], f"is not recorded: host {host!r} {why}")
        host = recorder.host.host
        self._session.keep_place(recorder.streams, host, recorder.path)

    def _far_source(self, name: str, source: RigSource, host: str) -> FarSource:
        from ataraxis.session.far_source import FarSource

        there = sum(name in recorder.streams for recorder in self._far_recorders)
        options = {
            "node": source.node, "stream": source.stream, "attrs": source.attrs,
            "name": name, "samples": source.samples, "buffer_s": source.buffer_s,
            "patience_s": source.patience_s, "timeout_s": START_S,
            # The mirror, and a recorder there; then it waits for the readers here.
            "readers": there + (source.mirror != "none"), "is_ordered": True,
        }  # fmt: skip
        try:
            return FarSource(
                name, source, self._far_host(host), self._session.context, options,
                partial(self._session.alarm, "source_lost", name),
            )  # fmt: skip
        except (AtaraxisError, OSError) as error:
            self._fail(name, f"cannot run on host {host!r}", error)

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

    def _source(self, name: str) -> Program | FarSource:
        source, note = self.rig.sources[name], self._session.note
        if source.host is not None:
            return self._far_source(name, source, source.host)
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
        while not self._is_here(program):
            code = program.poll()
            after = time.monotonic() - (deadline - START_S)
            if code is not None:
                output = program.last_output() or "it printed nothing"
                self._fail(
                    name, f"ended after {after:.1f} s, exit code {code}: {output}"
                )
            if not isinstance(program, Program) and program.first_failure:
                where = f"on host {program.host.host!r}"
                self._fail(name, f"failed {where}: {program.first_failure}")
            if after > START_S:
                why = "" if isinstance(program, Program) else program.why_not_here()
                told = f": {why}" if why else ""
                self._fail(name, f"gave no stream within {START_S:g} s{told}")
            if self._until.wait(_LOOK_S):
                raise AtaraxisError(f"ended before source {name!r} gave its stream")

    def _is_here(self, program: Program | FarSource) -> bool:
        """Return whether the stream of a source exists."""
        if not isinstance(program, Program):
            try:
                return program.is_here
            except AtaraxisError as error:
                self._fail(program.name, "cannot be read", error)
        try:
            Inspector(program.name, self._session.context)
        except FileNotFoundError:
            return False
        return True

    def _readers(self, name: str) -> int:
        """Return how many readers here a source waits for before it sends."""
        piped = sum(pipe.stream == name for pipe in self.rig.pipes.values())
        return (name in self.rig.recorded_here) + piped

    def _await_readers(self, name: str) -> None:
        """Wait until a source has its readers: from then on it runs."""
        program = next(p for p in self._programs if p.name == name)
        self._await_readers_of(program)
        if not isinstance(program, Program):
            program.go()

    def _await_readers_of(self, program: Program | FarSource) -> None:
        name, deadline = program.name, time.monotonic() + START_S
        if not self._readers(name):
            return
        try:
            look = Inspector(name, self._session.context).statistics
        except FileNotFoundError:
            return  # it has ended already
        while program.poll() is None and time.monotonic() < deadline:
            try:
                there = [r for r in look().readers if not r.is_viewer]
                if len(there) >= self._readers(name):
                    return
            except FileNotFoundError:
                return  # it has ended already
            if self._until.wait(_LOOK_S):
                return

    def _fail(self, name: str, why: str, cause: Exception | None = None) -> NoReturn:
        told = "" if cause is None else f": {cause}"
        error = SourceFailed(f"source {name!r} {why}{told}")
        error.source = name
        raise error from cause

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
        """Process ids of outputs, sources and viewers of this host."""
        programs = [*(o.program for o in self._outputs), *self._programs]
        return {p.name: p.pid for p in programs if isinstance(p, Program)}

    @property
    def elsewhere(self) -> dict[str, tuple[str, int]]:
        """Host and process id there of sources, and of recorders, on other hosts."""
        far = [p for p in self._programs if not isinstance(p, Program)]
        found = {p.name: (p.host.host, p.pid) for p in far}
        for recorder in self._far_recorders:
            program = recorder.program
            found[program.name] = (recorder.host.host, program.pid)
        return found

    @property
    def bytes_elsewhere(self) -> dict[str, int]:
        """Bytes that each host has recorded for the rig, once it has ended."""
        return {r.host.host: r.nbytes for r in self._far_recorders}

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
        if pid != program.pid:
            pid, read = program.pid, 0
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
            if not isinstance(program, Program) and not self._is_started:
                program.give_up()
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
        self._end_recorders(hurry)
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
        for host in self._far_hosts.values():
            host.close()
        self._is_over = True

    def _end_recorders(self, hurry: Latch | None) -> None:
        """End the recorders on other hosts, and take their verdicts."""
        for recorder in self._far_recorders:
            recorder.program.request_end()
        for recorder in self._far_recorders:
            if recorder.program.is_closed:
                continue
            recorder.finish(hurry)
            self._session.add_verdicts(recorder.verdicts())
            for why in recorder.doubts:
                self._session.doubt(f"recorder on host {recorder.host.host!r}: {why}")

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
            if not program.was_killed or not isinstance(program, Program):
                continue
            if program.is_viewer:
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


def _report(program: Program | FarSource) -> dict[str, Any]:
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
