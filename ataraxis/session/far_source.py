"""`FarSource`: a source of a rig on another host, and its mirror here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from ataraxis.cluster.door import ask_agent
from ataraxis.cluster.mirror import drop_mirror
from ataraxis.cluster.programs import COMMAND, GO, SOURCE
from ataraxis.cluster.status import ENDED, LOST, MirrorStatistics, mirrors_here
from ataraxis.errors import AccessDenied, AtaraxisError
from ataraxis.session.far_program import FarHost, FarProgram
from ataraxis.session.process import PATIENCE_S
from ataraxis.session.rig import RigSource, module_of
from ataraxis.shm.context import Context
from ataraxis.shm.thread import Latch

_LOOK_S = 0.1


class RigMirror:
    """The mirror of a rig's source; the agent here keeps it until `finish`.

    So frames that are on their way arrive also if the session is killed.

    Parameters
    ----------
    name, host, stream, policy : str
        As of `Mirror`.
    context : Context
        The context here.
    """

    def __init__(
        self, name: str, host: str, stream: str, policy: str, context: Context
    ) -> None:
        self.name, self.host, self._context = name, host, context
        self._stream, self._policy = stream, policy

    def begin(self) -> None:
        """Ask the agent here for it.

        Raises
        ------
        HostUnavailable
            No agent runs here.
        SegmentExists
            A stream here has the name.
        """
        name, context = self.name, self._context
        before = self.statistics()
        if before is not None and before.state in (ENDED, LOST):
            # Left by a session that was killed: it would give that one's frames.
            drop_mirror(name, context=context)
        ask_agent(
            "mirror", context=context, stream=self._stream, host=self.host, name=name,
            policy=self._policy, hold=True, on_spool_full="wait", acknowledge="ring",
            detached=True,
        )  # fmt: skip

    def statistics(self) -> MirrorStatistics | None:
        """Return its numbers; None: the agent here is away."""
        with contextlib.suppress(AtaraxisError, OSError):
            for found in mirrors_here(self._context):
                if found.name == self.name:
                    return found
        return None

    def finish(self, stream_id: str | None, hurry: Latch | None = None) -> str:
        """Wait until the stream is here whole, and end the mirror.

        Parameters
        ----------
        stream_id : str or None
            Id of the last stream of the name that there is or was; '': of the one that
            is here; None: it goes on there, and only what is here counts.
        hurry : Latch, optional
            Once it is set, it does not wait.

        Returns
        -------
        str
            Why frames may be missing; '' if none is. The mirror then stays.
        """
        frames, moved = -1, time.monotonic()
        while stream_id is not None:
            found = self.statistics()
            if found is not None:
                is_last = stream_id in ("", found.ended_id)
                if found.state == ENDED and is_last:
                    break
                if found.state == LOST:
                    self.drop()
                    return f"{self.host}:{found.stream} was lost: {found.problem}"
                if found.frames != frames:
                    frames, moved = found.frames, time.monotonic()
            is_hurried = hurry is not None and hurry.is_set()
            if is_hurried or time.monotonic() - moved > PATIENCE_S:
                return self._late(found)
            time.sleep(_LOOK_S)
        self.drop()
        return ""

    def drop(self) -> None:
        """End the mirror; what is here stays for its readers."""
        with contextlib.suppress(AtaraxisError, OSError):
            drop_mirror(self.name, context=self._context)

    def _late(self, found: MirrorStatistics | None) -> str:
        behind, why = "frames", "the agent here does not answer"
        if found is not None:
            behind = f"{found.behind_frames} frames or more"
            why = found.problem or found.state
        return (
            f"{behind} of {self.name!r} are still on host {self.host!r} ({why}). Its "
            f"mirror stays: when the host is back, 'ataraxis record {self.name}' "
            f"writes them, and 'ataraxis mirror --end {self.host}:{self.name}' gives "
            "them up"
        )


class FarSource:
    """A source on another host: its program there, if the rig starts it; its mirror.

    `RigRun` looks at it as at a `Program`.

    Parameters
    ----------
    name : str
        Name of the source, and of its stream here.
    source : RigSource
        With a `host`.
    host : FarHost
        That host.
    context : Context
        The context here.
    options : dict
        Of the program of a node, as of `ataraxis.session.process.run`.
    on_failure : callable
        Called with a line when its program has failed.

    Raises
    ------
    AtaraxisError
        The host cannot be reached, or refuses it; or a stream here has the name.
    """

    is_viewer = False

    def __init__(
        self,
        name: str,
        source: RigSource,
        host: FarHost,
        context: Context,
        options: dict[str, Any],
        on_failure: Callable[[str], object],
    ) -> None:
        self.name, self.source, self.host = name, source, host
        self.failure = ""
        """Why frames may be missing; empty: none is."""
        self.is_closed = self.is_given_up = False
        self._context = context
        self.program: FarProgram | None = None
        self.mirror: RigMirror | None = None
        if source.command:
            module, arguments = module_of(source.command)
            options = {"name": name, "module": module, "arguments": arguments}
        if source.is_started:
            options["is_mirrored"] = source.mirror == "lossless"
            self.program = FarProgram(
                name, host, COMMAND if source.command else SOURCE, options,
                source.away_s, stream=name, on_failure=on_failure,
            )  # fmt: skip
        else:
            self._begin_mirror(source.stream)

    def _begin_mirror(self, stream: str) -> None:
        if self.source.mirror != "none":
            self.mirror = RigMirror(
                self.name, self.host.host, stream, self.source.mirror, self._context
            )
            self.mirror.begin()

    @property
    def is_here(self) -> bool:
        """Whether its stream is here; or there, if it is not mirrored.

        Raises `AccessDenied` if the other host does not let this one read.
        """
        if self.program is not None:
            # Not before: a stream of the name that ended earlier may be there.
            before = self.program.found.get("stream_id", "")
            if self.program.stream_id in ("", before):
                return False
            if self.mirror is None:
                self._begin_mirror(self.name)
        if self.mirror is None:
            return True
        found = self.mirror.statistics()
        if found is None:
            return False
        if AccessDenied.__name__ in found.problem:
            raise AccessDenied(found.problem)
        return found.is_here or (found.state == ENDED and found.frames > 0)

    @property
    def first_failure(self) -> str:
        """What the first failure of its program was."""
        return "" if self.program is None else self.program.first_failure

    def why_not_here(self) -> str:
        """Return why its stream is not here."""
        found = None if self.mirror is None else self.mirror.statistics()
        problem = self.host.problem or ("" if found is None else found.problem)
        if self.program is None:
            problem = problem or "start its program there"
        return (
            f"host {self.host.host!r} has no such stream"
            + (f": {problem}" if problem else "")
            + f". 'ataraxis doctor {self.host.host}' checks the way there"
        )

    # ---- as a `Program`

    @property
    def pid(self) -> int:
        """Process id on its host; 0: not known, or it was not started by the rig."""
        return 0 if self.program is None else self.program.pid

    @property
    def restarts(self) -> int:
        """How many times its program was started again."""
        return 0 if self.program is None else self.program.restarts

    @property
    def was_killed(self) -> bool:
        """Whether its program had to be killed."""
        return self.program is not None and self.program.was_killed

    def poll(self) -> int | None:
        """Return the exit code of its program, once that has ended; None: it runs."""
        if self.program is not None:
            return self.program.poll()
        return None if self.look() else 0

    def look(self) -> bool:
        """Return whether it runs, or will."""
        if self.program is not None:
            return self.program.look()
        found = None if self.mirror is None else self.mirror.statistics()
        return found is None or found.state not in (ENDED, LOST)

    def output(self, start: int = 0) -> bytes:
        """Return the lines of JSON that its program has printed, from `start` on."""
        return b"" if self.program is None else self.program.output(start)

    def last_output(self) -> str:
        """Return the last lines that its program printed."""
        return "" if self.program is None else self.program.last_output()

    def give_up(self) -> None:
        """Wait for no frames at the end: the rig was not started."""
        self.is_given_up = True

    def go(self) -> None:
        """Let it send: its readers are here."""
        if self.program is not None:
            self.program.order(GO)

    def request_end(self) -> None:
        """Ask it to end; does not wait."""
        if self.program is not None:
            self.program.request_end()

    def wait(self, hurry: Latch | None = None) -> int:
        """Wait until its program has ended, and all that it sent is here."""
        code, stream_id = 0, None
        if self.program is not None:
            code = self.program.wait(hurry)
            stream_id = self.program.stream_id
            self.failure = self.failure or self.program.failure
        elif self.mirror is not None and not self.look():
            stream_id = ""
        mirror, self.mirror = self.mirror, None
        if mirror is not None and self.is_given_up:
            mirror.drop()
        elif mirror is not None:
            if self.program is not None and self.program.failure and self.host.problem:
                hurry = Latch()  # it was waited for already
                hurry.set()
            late = mirror.finish(stream_id, hurry)
            self.failure = "; ".join(filter(None, (self.failure, late)))
        return code

    def end(self) -> None:
        """Wait as `wait` does, and forget its program there."""
        if self.is_closed:
            return
        self.wait()
        if self.program is not None:
            self.program.end()
        self.is_closed = True
