"""The clock of a replay on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ataraxis.datamux.remote.inlet import Inlet
from ataraxis.datamux.remote.link import Link
from ataraxis.datamux.timeline import Timeline, checked_speed

Steer = Callable[[str, dict[str, Any]], Any]


class RemoteTimeline(Timeline):
    """A `Timeline` whose clock runs on the server; each use asks it.

    Parameters
    ----------
    number : int
        The stream it paces.
    steer : callable
        Asks the server.
    speed, is_paused
        As it was started.
    """

    def __init__(self, number: int, steer: Steer, speed: float, paused: bool) -> None:
        super().__init__(speed)
        self.number = number
        self._steer = steer
        self._is_held = paused

    @property
    def position_s(self) -> float:
        """Source time now, s."""
        return float(self._steer("position", {}))

    @property
    def speed(self) -> float:
        """Seconds of the recording a second; may be set while it runs."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._speed = checked_speed(speed)
        self._steer("set_speed", {"speed": self._speed})

    @property
    def is_paused(self) -> bool:
        """Whether time stands still."""
        return self._is_held

    def pause(self) -> None:
        """Let time stand still."""
        self._is_held = True
        self._steer("pause", {})

    def resume(self) -> None:
        """Let time go on from where it stands."""
        self._is_held = False
        self._steer("resume", {})

    def seek(self, at_s: float) -> None:
        """Go to `at_s` seconds after the recording's first sample."""
        self._steer("seek", {"at_s": float(at_s)})


def steer_of(link: Link, inlet: Inlet) -> Steer:
    """Return what asks the server about a stream: it waits for the answer.

    Inside an event loop it waits only for one that is needed.
    """

    def steer(call: str, arguments: dict[str, Any]) -> Any:
        future = link.request(call, arguments, inlet)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return future.result()
        return future.result() if call == "position" else None

    return steer
