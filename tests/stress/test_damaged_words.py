"""Control words are damaged at random under live peers: nothing hangs, dies or lies.

Everything between a segment's header and its payload is mutated, the words of the
header page that change, and the headers of frames. After each burst every peer comes
round within a second. docs/explanation/concurrency.md, "Damaged words".
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workers_damage import (
    BAD,
    BEAT,
    CASTS,
    CLOSED,
    DEED,
    DEEDS,
    GENERATION,
    GOOD,
    OPEN,
    SLOTS,
    STOP,
    TICKET,
    TROUBLE,
    WHERE,
    WORST,
)
from workers_stress import Zygote

from ataraxis.framebuffer.ring import name_of
from ataraxis.shm.header import LIVE
from ataraxis.stream.inspector import DURABLES, READER_BYTES, STREAM_BYTES

LIMIT_S = 1.0
QUEUE_BYTES, TALLY_BYTES, LINE_BYTES = 896, 128, 64
SPECIAL = (0, 1, 2, 3, 7, 16, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1)


class Target:
    """A segment's file, and the words of it that may be damaged."""

    def __init__(self, path: Path, cast: str) -> None:
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        geometry = struct.unpack_from("<4Q4Q", self.map, 0x60)
        participants = geometry[0]
        _, control, labels, payload = geometry[4:]
        self.regions = [(LIVE, LIVE + 16), (4096, control), (control, labels)]
        # The words that everything hangs on, more often than their share.
        self.hot: list[tuple[int, int]] = []
        self.slots: list[list[tuple[int, int]]] = []
        if cast == "stream":
            lines = control + STREAM_BYTES
            controls = lines + (participants + DURABLES) * READER_BYTES
            stride = (labels - controls) // SLOTS
            frame = struct.unpack_from("<Q", self.map, control + 8)[0]
            self.hot = [
                (controls + i * stride, controls + i * stride + 24)
                for i in range(SLOTS)
            ]
            self.hot += [(control, control + 48), (control + 128, control + 144)] * 2
            self.hot += [(control + 384, control + 656)]
            self.hot += [
                (lines + i * 128, lines + i * 128 + 16)
                for i in range(participants + DURABLES)
            ]
            self.hot += [
                (payload + i * frame, payload + i * frame + 192) for i in range(SLOTS)
            ]
            # What a frame consists of beside its payload.
            self.slots = [
                [(controls + i * stride, controls + i * stride + 64),
                 (payload + i * frame, payload + i * frame + 192)]
                for i in range(SLOTS)
            ]  # fmt: skip
        elif cast == "queue":
            lines = control + QUEUE_BYTES + participants * TALLY_BYTES
            stride = struct.unpack_from("<Q", self.map, control + 8)[0]
            self.hot = [(lines + i * 64, lines + i * 64 + 48) for i in range(SLOTS)] * 2
            self.hot += [(control, control + 24), (control + 128, control + 136)] * 2
            self.hot += [(control + 256, control + 272)] * 4
            self.hot += [
                (payload + i * stride, payload + i * stride + 64) for i in range(SLOTS)
            ]
        elif cast == "array":
            self.hot = [(control, control + 56)]
        else:
            self.hot = [(control, control + 24), (control + 128, control + 136)]

    def damage(self, chance: random.Random) -> tuple[int, int, int, int]:
        """Damage one word: where it is, its bytes, and what it was and is."""
        start, stop = chance.choice(self.hot if chance.random() < 0.7 else self.regions)
        size = chance.choice((4, 8))
        at = start + chance.randrange((stop - start) // size) * size
        code = "<Q" if size == 8 else "<I"
        old = struct.unpack_from(code, self.map, at)[0]
        way = chance.randrange(4)
        if way < 2:
            new = old ^ 1 << chance.randrange(size * 8)
        elif way == 2:
            new = chance.choice(SPECIAL) & (1 << size * 8) - 1
        else:
            new = chance.getrandbits(size * 8)
        struct.pack_into(code, self.map, at, new)
        return at, size, old, new

    def explains(self, where: int, log: list[tuple[int, int, int, int]]) -> bool:
        """Whether the headers of the frame in a slot were damaged themselves."""
        if not 0 <= where < len(self.slots):
            return False
        return any(
            start <= at < stop for at, *_ in log for start, stop in self.slots[where]
        )

    def close(self) -> None:
        self.map.close()


class Theatre:
    """A cast of peers, and one generation of their segment after another."""

    def __init__(self, zygote: Zygote, arena: Path, cast: str, seed: int) -> None:
        self.zygote, self.arena, self.cast = zygote, arena, cast
        self.board = zygote.board
        self.chance = random.Random(seed)
        self.count = len(CASTS[cast])
        self.pids = [
            zygote.start("workers_damage:play", k, cast=cast) for k in range(self.count)
        ]
        self.slowest = 0.0
        self.control_late = 0.0
        self.log: list[tuple[int, int, int, int]] = []
        self.generation = 0

    def words(self, word: int) -> list[int]:
        return [self.board.mine(k, word) for k in range(self.count)]

    def names(self) -> list[str]:
        return [peer.__name__ for peer in CASTS[self.cast]]

    def longest(self) -> str:
        """Say how long the longest call of each peer took."""
        return ", ".join(
            f"{name} {DEEDS[self.board.mine(k, DEED)]} {ns / 1e9:.3f}"
            for k, (name, ns) in enumerate(
                zip(self.names(), self.words(WORST), strict=True)
            )
        )

    def path(self) -> Path:
        name = f"g{self.generation}"
        return self.arena / (name_of(name) if self.cast == "framebuffer" else name)

    def round(self, what: str) -> None:
        """Wait until every peer has begun and ended something since now."""
        began = time.monotonic()
        before = self.words(BEAT)
        waiting = set(range(self.count))
        while waiting:
            now = time.monotonic() - began
            for k in list(waiting):
                if self.board.mine(k, BEAT) >= before[k] + 2:
                    waiting.discard(k)
                    if k == self.count - 1:
                        self.control_late = max(self.control_late, now - 0.02)
            if now > LIMIT_S + 10:
                self.hangs(waiting, what)
            time.sleep(0 if now < 0.002 else 0.0005)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)

    def hangs(self, waiting: set[int], what: str) -> None:
        stacks = []
        for k in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[k], signal.SIGUSR1)
        time.sleep(0.3)
        for k in waiting:
            stack = self.arena / f".stack{k}"
            stacks.append(f"{CASTS[self.cast][k].__name__}: {stack.read_text()}")
        mutations = [
            f"{a:#x} ({a - 0x1800:#x}) {s}: {o:#x} -> {n:#x}"
            for a, s, o, n in self.log[-20:]
        ]
        pytest.fail(
            f"{what}, generation {self.generation}: no sign of life of "
            f"{[self.names()[k] for k in waiting]}\n{self.zygote.complaints()}\n"
            f"{chr(10).join(mutations)}\n{chr(10).join(stacks)}"
        )

    def begin(self) -> Target:
        self.generation += 1
        self.log = []
        self.board.words[TICKET : TICKET + 3] = 0
        self.board[GENERATION] = self.generation
        deadline = time.monotonic() + 20
        while any(g != self.generation for g in self.words(OPEN)):
            if time.monotonic() > deadline:
                self.hangs(
                    {k for k, g in enumerate(self.words(OPEN)) if g != self.generation},
                    "opening",
                )
            time.sleep(0.0005)
        return Target(self.path(), self.cast)

    def end(self) -> None:
        self.board[GENERATION] = 0
        self.round("closing")
        deadline = time.monotonic() + 10
        while any(g != self.generation for g in self.words(CLOSED)):
            if time.monotonic() > deadline:
                self.hangs(
                    {
                        k
                        for k, g in enumerate(self.words(CLOSED))
                        if g != self.generation
                    },
                    "closing",
                )
            time.sleep(0.0005)
        for path in self.arena.iterdir():
            if not path.name.startswith(".stack"):
                path.unlink(missing_ok=True)

    def run(self, mutations: int) -> tuple[int, list[str]]:
        done, lies = 0, []
        while done < mutations:
            target = self.begin()
            trouble = sum(self.words(TROUBLE))
            bad = self.words(BAD)
            patience = self.chance.randrange(7)
            while done < mutations:
                burst = self.chance.choice((1, 1, 1, 2, 4, 8, 16))
                self.log += [target.damage(self.chance) for _ in range(burst)]
                done += burst
                self.round("a burst")
                if self.words(BAD) != bad or len(self.log) > 2000:
                    break
                if sum(self.words(TROUBLE)) > trouble:
                    patience -= 1
                    if patience < 0:
                        break
            target.close()
            self.end()
            worse = [a > b for a, b in zip(self.words(BAD), bad, strict=True)]
            if not all(
                target.explains(self.board.mine(k, WHERE), self.log)
                for k, w in enumerate(worse)
                if w
            ):
                lies.append(
                    f"generation {self.generation}, {worse} at {self.words(WHERE)}: "
                    + ", ".join(f"{a:#x}/{s} {o:#x}->{n:#x}" for a, s, o, n in self.log)
                )
        return done, lies

    def stop(self) -> None:
        self.board[STOP] = 1
        self.zygote.finish(*self.pids)
        for path in self.arena.iterdir():
            path.unlink()


@pytest.fixture
def theatre(zygote: Zygote, arena: Path) -> Iterator[Callable[[str], Theatre]]:
    made = []

    def make(cast: str) -> Theatre:
        seed = int(os.environ.get("ATARAXIS_SEED", "20261130"))
        made.append(Theatre(zygote, arena, cast, seed))
        return made[-1]

    yield make
    for path in arena.iterdir():
        path.unlink()


@pytest.mark.parametrize("cast", list(CASTS))
def test_damaged_words_hang_nobody(
    theatre: Callable[[str], Theatre], figure: Callable[..., float], cast: str
) -> None:
    share = {
        "stream": 30_000,
        "queue": 30_000,
        "array": 20_000,
        "framebuffer": 20_000,
    }
    stage = theatre(cast)
    done, lies = stage.run(int(figure(share[cast], 100)))
    stage.stop()
    good, trouble = sum(stage.words(GOOD)), sum(stage.words(TROUBLE))
    print(
        f"{cast}: {done} words, {stage.generation} segments, {good} data, {trouble} "
        f"exceptions, longest calls {stage.longest()}, longest round "
        f"{stage.slowest:.3f} s, machine late {stage.control_late:.3f} s, "
        f"lies {len(lies)}"
    )
    assert good > stage.generation
    assert not lies, "\n".join(lies[:20])
    # The machine's own lateness is not ours.
    late = max(0.0, stage.control_late)
    assert max(stage.words(WORST)) < (LIMIT_S + late) * 1e9, stage.longest()
