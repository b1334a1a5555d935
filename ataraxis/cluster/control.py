"""Control channels: questions to another host's agent, and its clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ataraxis.clock import Offset, now_ns
from ataraxis.errors import AtaraxisError, BadMessage, HostUnavailable, RemoteError
from ataraxis.link.carrier import Carrier, Channel, ChannelClosed
from ataraxis.link.clocks import ClockPublisher, HostClock
from ataraxis.link.conversation import Conversation
from ataraxis.link.hosts import Hosts
from ataraxis.link.messages import Ask, Hello, LinkMessage, Reply
from ataraxis.link.session import Backoff, LinkSession
from ataraxis.shm.context import Context
from ataraxis.shm.thread import Thread

CONTROL = "control"
"""Name of the channel."""
DIAL_S = 3.0
"""Longest time of one attempt to reach a host, s."""
STAY = "stay"
"""What a host that is kept is told; see `HostContact.keep`."""
STAY_S = 2.0
"""How often it is told, s."""
_PUBLISH_S = 1.0
_LINGER_S, _CALL_S = 30.0, 5.0
_SELDOM_S = 5.0
_MOST_WAITING = 64

Report = Callable[[str], None]
Answer = Callable[[str, str, dict[str, Any]], dict[str, Any]]
"""Answers a question: host that asks, what, arguments."""


class _Question:
    """A question that waits for its answer."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.reply: Reply | None = None


class HostContact:
    """The control channel to another host, dialled again while it is needed.

    It is needed by mirrors (`hold`, `let_go`) and for some time after a question. While
    it lives, it measures the clock of the other host, which is published as the stream
    ``clock.HOST`` while a mirror needs it.

    Parameters
    ----------
    me : Hello
        What this agent says of itself.
    carrier : Carrier
        Dials.
    hosts : Hosts
        Has the address.
    host : str
        Name of the other host.
    context : Context
        Where its clock is published.
    report : callable
        Called with a line of text when the host comes, goes, or its clock jumps.
    on_open : callable
        Called in a thread of its own each time the host was reached.
    """

    def __init__(
        self,
        me: Hello,
        carrier: Carrier,
        hosts: Hosts,
        host: str,
        context: Context,
        report: Report,
        on_open: Callable[[HostContact], object],
    ) -> None:
        self.host, self.address = host, hosts.address_of(host)
        self._me, self._carrier, self._report = me, carrier, report
        self._on_open = on_open
        self._talk: Conversation | None = None
        self._holds = 0
        self._is_kept = False
        self._until = 0.0
        self._number = 0
        self._questions: dict[int, _Question] = {}
        self._gate = threading.Lock()
        self._wake = threading.Event()
        self._is_closed = False
        self._clock = HostClock(host)
        self._publisher = ClockPublisher(context, host)
        self.state = "idle"
        """'idle', 'connected', 'suspect' or 'away'."""
        self.since = time.monotonic()
        """When this state began, monotonic s."""
        self.problem = ""
        """Why it was not reached; '' if it was."""
        self._thread = Thread(self._run, f"ataraxis-control-{host}")
        self._thread.start()

    # ---- for other threads

    def hold(self) -> None:
        """Keep the channel until `let_go`."""
        with self._gate:
            self._holds += 1
        self._wake.set()

    def let_go(self) -> None:
        """Take back one `hold`."""
        with self._gate:
            self._holds -= 1
        self._wake.set()

    def keep(self) -> None:
        """Keep the channel until `close`, and tell the other agent so all the time.

        For an agent that runs for this one alone, and ends when it is not told.
        """
        self._is_kept = True
        self._wake.set()

    def call(self) -> None:
        """Reach the host now, for some time; a host that is away is tried seldom."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + _CALL_S
            self._wake.set()

    def ask(self, what: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Ask the other agent, and return its answer.

        Raises
        ------
        HostUnavailable
            It was not reached, or has not answered, within `timeout`, s.
        RemoteError
            It answered with an error.
        """
        deadline = time.monotonic() + timeout
        self._until = max(self._until, deadline + _LINGER_S)
        talk = self._reached(deadline)
        if talk is None:
            raise HostUnavailable(
                f"host {self.host!r} at {self.address} was not reached within "
                f"{timeout:g} s: {self.problem or 'no answer'}"
            )
        question = _Question()
        with self._gate:
            if len(self._questions) >= _MOST_WAITING:
                raise HostUnavailable(
                    f"{_MOST_WAITING} questions wait for host {self.host!r}"
                )
            self._number += 1
            number = self._number
            self._questions[number] = question
        try:
            talk.send(Ask(number, what, arguments))
            question.is_over.wait(max(deadline - time.monotonic(), 0))
        except (ChannelClosed, TimeoutError) as error:
            raise HostUnavailable(f"host {self.host!r}: {error}") from None
        finally:
            with self._gate:
                self._questions.pop(number, None)
        reply = question.reply
        if reply is None:
            raise HostUnavailable(
                f"host {self.host!r} at {self.address} has not answered {what!r} "
                f"within {timeout:g} s: {self.problem or 'it may be busy'}"
            )
        if reply.error:
            raise RemoteError(f"host {self.host!r}: {reply.error}")
        return reply.result

    def _reached(self, deadline: float) -> Conversation | None:
        """Wait for the channel; it is dialled often meanwhile."""
        self.hold()
        try:
            while self._talk is None and not self._is_closed:
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.02)
            return self._talk
        finally:
            self.let_go()

    def offset(self) -> Offset | None:
        """Return how far its clock is ahead; None if it was not measured."""
        with self._gate:
            return self._clock.offset(now_ns())

    @property
    def round_trip_ns(self) -> int | None:
        """Least round trip to it of late, ns; None if it was not measured."""
        with self._gate:
            return self._clock.round_trip_ns

    @property
    def is_connected(self) -> bool:
        """Whether the channel lives."""
        return self._talk is not None

    @property
    def is_needed(self) -> bool:
        """Whether the channel should live."""
        return not self._is_closed and (
            self._is_kept or self._holds > 0 or time.monotonic() < self._until
        )

    def close(self) -> None:
        """End the channel and its thread, and remove the stream of the clock."""
        self._is_closed = True
        self._wake.set()
        if (talk := self._talk) is not None:
            talk.close()
        self._thread.join(DIAL_S + 2)
        self._publisher.close()

    # ---- the thread

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_closed:
            if not self.is_needed:
                self._publisher.close()
                self._enter("idle", "")
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self._talk_once(backoff)
            except (AtaraxisError, OSError, ValueError) as error:
                self._enter("away", str(error))
            if self.is_needed:
                now = time.monotonic()
                pause = backoff.failed(now) - now
                if not self._holds:
                    pause = _SELDOM_S
                self._wake.clear()
                self._wake.wait(pause)

    def _talk_once(self, backoff: Backoff) -> None:
        channel = self._carrier.dial(self.address, self.host, CONTROL, DIAL_S)
        session = LinkSession(self._me, self.host, time.monotonic(), is_timing=True)
        talk = Conversation(channel, session)
        try:
            for message in talk.greet(DIAL_S):
                self._take(message)
            backoff.succeeded()
            assert session.hello is not None
            if session.hello.boot != self._clock.boot_id:
                with self._gate:
                    self._clock = HostClock(self.host, session.hello.boot)
            self._talk = talk
            self._enter("connected", "")
            name = f"ataraxis-reached-{self.host}"
            Thread(self._on_open, name, (self,)).start()
            self._exchange(talk)
        finally:
            self._talk = None
            talk.close()
            with self._gate:
                left = list(self._questions.values())
            for question in left:
                question.is_over.set()

    def _exchange(self, talk: Conversation) -> None:
        published, told, began = 0.0, 0.0, time.monotonic()
        while self.is_needed:
            now = time.monotonic()
            # Later, only what is recorded here needs the clock each second.
            talk.session.is_timing = self._holds > 0 or now - began < _CALL_S
            if self._is_kept and now - told >= STAY_S:
                told = now
                talk.send(Ask(0, STAY))  # its answer tells nothing
            talk.send()
            talk.receive(talk.wait_time(now))
            for message in talk.messages():
                self._take(message)
            trips = talk.session.round_trips()
            if trips:
                self._measure(trips)
            now = time.monotonic()
            if now - published >= _PUBLISH_S and self._holds:
                published, local = now, now_ns()
                with self._gate:
                    offset = self._clock.offset(local)
                self._publisher.publish(offset, local, self._clock.boot_id)
            state = talk.session.state(now)
            self._enter("suspect" if state == "suspect" else "connected", "")

    def _measure(self, trips: list[Any]) -> None:
        for trip in trips:
            with self._gate:
                jump = self._clock.add(*trip)
            if jump is not None:
                self._report(str(jump))

    def _take(self, message: LinkMessage) -> None:
        if not isinstance(message, Reply):
            raise BadMessage(f"host {self.host!r} sent {type(message).__name__}")
        with self._gate:
            question = self._questions.get(message.number)
        if question is not None:
            question.reply = message
            question.is_over.set()

    def _enter(self, state: str, problem: str) -> None:
        is_known = {"suspect", "connected"} == {state, self.state}
        is_news = state != self.state and not is_known
        if state != self.state:
            self.state, self.since = state, time.monotonic()
        if is_news and state == "connected":
            self._report(f"host {self.host} answers")
        elif problem and (is_news or problem != self.problem):
            self._report(f"host {self.host}: {problem}")
        self.problem = problem


def serve_control(channel: Channel, me: Hello, answer: Answer) -> None:
    """Answer the questions of another host until its channel ends.

    Parameters
    ----------
    channel : Channel
        That the other host has dialled; closed at the end.
    me : Hello
        What this agent says of itself.
    answer : callable
        Called with the host, the question and its arguments. Its `AtaraxisError`,
        `OSError` and `ValueError` are told to the other host.
    """
    talk = Conversation(channel, LinkSession(me, channel.peer, time.monotonic()))
    try:
        waiting = list(talk.greet(DIAL_S))
        while True:
            for message in waiting:
                if not isinstance(message, Ask):
                    raise BadMessage(f"expected 'ask', got {type(message).__name__}")
                talk.send(_reply(message, channel.peer, answer))
            talk.send()
            talk.receive(talk.wait_time(time.monotonic()))
            waiting = list(talk.messages())
    except BadMessage as error:
        talk.refuse(str(error))
    except (ChannelClosed, TimeoutError):
        pass
    finally:
        talk.close()


def _reply(ask: Ask, host: str, answer: Answer) -> Reply:
    try:
        return Reply(ask.number, answer(host, ask.what, ask.arguments))
    except (AtaraxisError, OSError, ValueError, KeyError, TypeError) as error:
        return Reply(ask.number, error=f"{type(error).__name__}: {error}"[:4000])
