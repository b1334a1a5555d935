"""Mirrors between agents of two hosts: whole, in order, once, whatever breaks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import programs
import pytest
from agents import Lab, lab
from deadline import wait_until

from ataraxis import Consumer, Producer
from ataraxis.cluster import Mirror
from ataraxis.cluster.mirror import drop_mirror
from ataraxis.cluster.status import host_states, mirrors_here
from ataraxis.errors import AccessDenied, HostUnavailable, SegmentExists, SourceNotFound
from ataraxis.stream.inspector import Inspector

WAIT_S = 30.0


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab() as made:
        yield made


def send(producer: Producer, *numbers: int) -> None:
    for k in numbers:
        producer.send(np.full(4, k, "i8"), timeout=WAIT_S)


def read(consumer: Consumer, count: int) -> list[int]:
    found = []
    for _ in range(count):
        frame = consumer.receive(timeout=WAIT_S)
        if frame is None:
            break
        with frame:
            found.append(int(frame.array[0]))
    return found


@contextlib.contextmanager
def camera(rig: Lab, name: str = "camera", slots: int = 64, **more: Any):
    producer = Producer(
        name, shape=(4,), dtype="i8", buffer_count=slots, context=rig.contexts["acq"],
        **more,
    )  # fmt: skip
    try:
        yield producer
    finally:
        producer.unlink()


def mirror(rig: Lab, stream: str = "camera", here: str = "gpu", **more: Any) -> Mirror:
    return Mirror(stream, "acq", context=rig.contexts[here], timeout=WAIT_S, **more)


def reader(rig: Lab, name: str = "camera", here: str = "gpu", **more: Any) -> Consumer:
    more.setdefault("policy", "lossless")
    return Consumer(name, context=rig.contexts[here], timeout=WAIT_S, **more)


def readers_there(rig: Lab, name: str = "camera") -> list[str]:
    found = Inspector(name, rig.contexts["acq"]).statistics()
    return [one.label for one in found.readers] + list(found.detached)


def test_a_stream_is_here_whole_with_its_numbers_and_times(rig: Lab) -> None:
    original: Consumer
    with camera(rig) as producer:
        original = reader(rig, here="acq")
        with mirror(rig) as made, reader(rig) as copy:
            thread = threading.Thread(target=send, args=(producer, *range(1000)))
            thread.start()
            for k in range(1000):
                with copy.receive(timeout=WAIT_S) as here, original.receive() as there:
                    assert int(here.array[0]) == k
                    assert here.sequence == there.sequence
                    assert here.time_ns == there.time_ns
            thread.join()
            producer.end()
            assert copy.receive(timeout=WAIT_S) is None
            assert made.wait(WAIT_S).reason == "completed"
            found = made.statistics()
            assert (found.frames, found.lost, found.repeated) == (1000, 0, 0)
        original.close()


def test_labels_are_equal_but_for_the_clock(rig: Lab) -> None:
    attrs = {"sample_rate_hz": 100.0, "units": "mV"}
    with (
        camera(rig, dims=("x",), coords={"x": [1, 2, 3, 4]}, attrs=attrs) as producer,
        mirror(rig),
        reader(rig) as copy,
    ):
        there, here = producer.labels, copy.labels
        assert (here.dtype, here.shape, here.dims) == (there.dtype, (4,), ("x",))
        assert here.coords["x"][1].tolist() == [1, 2, 3, 4]
        clock, origin = here.attrs["clock"], here.attrs["origin"]
        assert {**here.attrs} == {**attrs, "clock": clock, "origin": origin}
        assert clock.startswith("acq/")
        assert (copy.buffer_count, copy.is_typed) == (64, True)


def test_a_stream_of_bytes_stays_one(rig: Lab) -> None:
    with Producer("text", 100, 8, context=rig.contexts["acq"], sync=True) as producer:
        with mirror(rig, "text"), Consumer("text", context=rig.contexts["gpu"]) as copy:
            producer.send_string("hello")
            assert not copy.is_typed
            assert copy.policy == "lossless"
            assert copy.receive_string(timeout=WAIT_S) == "hello"
        producer.unlink()


def test_the_first_reader_has_the_first_frame(rig: Lab) -> None:
    """At most one ring flows until a reader that gates is here."""
    with camera(rig, slots=16) as producer, mirror(rig) as made:
        send(producer, *range(30))  # two rings nearly, and not one waits
        wait_until(lambda: made.statistics().frames == 16, WAIT_S, "one ring")
        with reader(rig) as copy:
            assert read(copy, 30) == list(range(30))


def test_the_network_is_cut_and_nothing_is_lost(rig: Lab) -> None:
    with camera(rig) as producer, mirror(rig) as made, reader(rig) as copy:
        for k in range(5):
            send(producer, *range(20 * k, 20 * k + 20))
            rig.network.cut("acq", "gpu", drop_tail=0 if k % 2 else None)
            rig.network.heal("acq", "gpu")
        assert read(copy, 100) == list(range(100))
        wait_until(lambda: made.state == "flowing", WAIT_S, "flowing")
        found = made.statistics()
        assert (found.lost, found.frames) == (0, 100)
        assert found.reconnects >= 1


def test_frames_wait_on_the_disk_while_the_network_is_cut(rig: Lab) -> None:
    with camera(rig, slots=16) as producer, mirror(rig) as made, reader(rig) as copy:
        send(producer, 0)
        assert read(copy, 1) == [0]
        rig.network.cut("acq", "gpu")
        send(producer, *range(1, 300))  # the ring has 16 slots
        (row,) = rig.agents["acq"].statistics()["streams"]
        assert row["spooled_bytes"] > 0
        assert host_states(rig.contexts["acq"])[0].spooled_bytes > 0
        rig.network.heal("acq", "gpu")
        assert read(copy, 299) == list(range(1, 300))
        assert made.statistics().lost == 0


def test_a_silent_network_is_noticed_by_both_ends(rig: Lab) -> None:
    """As a cable that is out: nothing ends, nothing arrives."""
    with camera(rig) as producer, mirror(rig) as made, reader(rig) as copy:
        send(producer, 0)
        assert read(copy, 1) == [0]
        rig.network.stall("acq", "gpu")
        rig.network.stall("gpu", "acq")
        send(producer, *range(1, 50))
        wait_until(lambda: made.state == "disconnected", WAIT_S, "disconnected")
        assert "acq" in made.statistics().problem
        rig.network.heal("acq", "gpu")
        assert read(copy, 49) == list(range(1, 50))


@pytest.mark.parametrize("host", ["acq", "gpu"])
def test_an_agent_is_restarted(rig: Lab, host: str) -> None:
    with camera(rig) as producer, mirror(rig) as made, reader(rig) as copy:
        send(producer, *range(10))
        assert read(copy, 10) == list(range(10))
        rig.stop(host)
        send(producer, *range(10, 40))
        assert copy.has_next
        rig.start(host)
        assert read(copy, 30) == list(range(10, 40))
        wait_until(lambda: made.state == "flowing", WAIT_S, "flowing")
        send(producer, *range(40, 50))
        assert read(copy, 10) == list(range(40, 50))


def test_the_next_stream_of_the_name_is_mirrored(rig: Lab) -> None:
    with mirror_later(rig) as made:
        for part in range(3):
            with camera(rig) as producer, made() as copy:
                send(producer, *range(part, part + 20))
                assert read(copy, 20) == list(range(part, part + 20))
                producer.end()
                assert copy.receive(timeout=WAIT_S) is None
            wait_until(
                lambda: not (rig.contexts["acq"] / "camera").exists(), WAIT_S, "the end"
            )


@contextlib.contextmanager
def mirror_later(rig: Lab) -> Iterator[Any]:
    """A detached mirror of a stream that does not exist yet; readers of its parts."""
    with pytest.raises(TimeoutError, match="no stream 'camera'"):
        Mirror("camera", "acq", context=rig.contexts["gpu"], timeout=0.5)
    with camera(rig) as producer:
        mirror(rig, detached=True).close()
        with reader(rig) as copy:
            producer.end()
            assert copy.receive(timeout=WAIT_S) is None
    yield lambda: reader(rig)
    drop_mirror("camera", context=rig.contexts["gpu"])


@pytest.mark.parametrize("policy", ["lossy", "latest"])
def test_a_viewer_gates_nothing(rig: Lab, policy: Any) -> None:
    with (
        camera(rig, slots=8) as producer,
        mirror(rig, policy=policy) as made,
        reader(rig, policy="latest") as view,
    ):
        rig.network.stall("acq", "gpu")
        for k in range(1000):
            assert producer.send(np.full(4, k, "i8"), timeout=0.5)
        rig.network.heal("acq", "gpu")
        last = -1
        while last < 999:
            with view.receive(timeout=WAIT_S) as frame:
                assert int(frame.array[0]) > last
                last = int(frame.array[0])
        assert made.statistics().state == "flowing"


def test_two_mirrors_share_one_reader(context: Any) -> None:
    with (
        lab("acq", "gpu", "desk") as rig,
        camera(rig, slots=16) as producer,
        mirror(rig),
        mirror(rig, here="desk"),
        reader(rig) as one,
        reader(rig, here="desk") as other,
    ):
        assert readers_there(rig) == ["agent"]
        send(producer, *range(10))
        assert read(one, 10) == read(other, 10) == list(range(10))
        rig.network.cut("acq", "desk")
        send(producer, *range(10, 200))
        assert read(one, 190) == list(range(10, 200))
        rig.network.heal("acq", "desk")
        assert read(other, 190) == list(range(10, 200))


def test_a_closed_mirror_holds_up_nothing(rig: Lab) -> None:
    with camera(rig, slots=8) as producer:
        mirror(rig).close()
        wait_until(lambda: not readers_there(rig), WAIT_S, "the reader to leave")
        send(producer, *range(100))
        assert not (rig.contexts["gpu"] / "camera").exists()
        assert list((rig.place / "spool-acq").iterdir()) == []


def test_a_mirror_ends_with_its_program(rig: Lab) -> None:
    code = """
        import sys, time
        from ataraxis.cluster import Mirror
        made = Mirror("camera", "acq", context=sys.argv[1])
        print("here", flush=True)
        time.sleep(60)
        """
    with camera(rig):
        with programs.Program(code, rig.contexts["gpu"]) as program:
            program.expect("here")
            assert [one.name for one in mirrors_here(rig.contexts["gpu"])] == ["camera"]
            program.process.kill()
            wait_until(
                lambda: not mirrors_here(rig.contexts["gpu"]),
                WAIT_S,
                "the mirror's end",
            )
        wait_until(lambda: not readers_there(rig), WAIT_S, "the reader to leave")


def test_a_closed_mirror_is_forgotten_by_a_host_that_was_away(rig: Lab) -> None:
    with camera(rig, slots=8) as producer:
        with mirror(rig):
            rig.network.cut("acq", "gpu")
        assert readers_there(rig) == ["agent"]
        rig.network.heal("acq", "gpu")
        wait_until(lambda: not readers_there(rig), WAIT_S, "the reader to leave")
        send(producer, *range(100))


def test_a_mirror_that_was_asked_for_twice_is_one(rig: Lab) -> None:
    with camera(rig) as producer, mirror(rig) as one:
        with mirror(rig):
            pass
        with pytest.raises(SegmentExists, match="use another name"):
            mirror(rig, policy="latest")
        with reader(rig) as copy:
            send(producer, 1)
            assert read(copy, 1) == [1]
        assert one.state == "flowing"


def test_what_cannot_be_mirrored_is_said(rig: Lab) -> None:
    here = rig.contexts["gpu"]
    with pytest.raises(HostUnavailable, match="did you mean"):
        Mirror("camera", "aqc", context=here)
    with pytest.raises(ValueError, match="is this host"):
        Mirror("camera", "gpu", context=here)
    with pytest.raises(SourceNotFound, match="is not a mirror here"):
        drop_mirror("camera", context=here)
    with Producer("camera", 8, context=here) as taken:
        with pytest.raises(SegmentExists, match="another name"):
            Mirror("camera", "acq", context=here)
        with (
            camera(rig) as producer,
            mirror(rig, name="theirs"),
            reader(rig, "theirs") as copy,
        ):
            send(producer, 5)
            assert read(copy, 1) == [5]
        taken.unlink()
    rig.stop("gpu")
    with pytest.raises(HostUnavailable, match="no agent runs"):
        Mirror("camera", "acq", context=here)
    rig.start("gpu")
    rig.stop("acq")
    with pytest.raises(HostUnavailable, match="doctor acq"):
        Mirror("camera", "acq", context=here, timeout=0.5)


def test_a_host_without_the_right_reads_nothing(context: Any) -> None:
    with lab() as rig, camera(rig):
        rig.stop("acq")
        rig.may["acq"] = {"gpu": []}
        rig.start("acq")
        with pytest.raises(AccessDenied, match="may not read"):
            Mirror("camera", "acq", context=rig.contexts["gpu"], timeout=2)
        assert readers_there(rig) == []


def test_a_stream_that_has_ended_is_not_received_twice(rig: Lab) -> None:
    """The agent here dies after the end, and before the other host knows of it."""
    with (
        camera(rig) as producer,
        mirror(rig) as made,
        reader(rig, durable="disk", policy=None) as copy,
    ):
        send(producer, *range(10))
        assert read(copy, 10) == list(range(10))
        rig.network.stall("gpu", "acq")
        producer.end()
        assert copy.receive(timeout=WAIT_S) is None
        rig.stop("gpu")
        rig.network.heal("acq", "gpu")
        rig.start("gpu")
        assert made.wait(WAIT_S).reason == "completed"
        there = rig.contexts["acq"] / "camera"
        wait_until(lambda: not there.exists(), WAIT_S, "the end to be known")
        assert made.statistics().frames == 0


def test_a_viewer_sees_the_end_of_a_producer_that_died(rig: Lab) -> None:
    code = """
        import sys
        from ataraxis import Producer
        made = Producer("dying", 8, 8, context=sys.argv[1])
        made.send(b"a")
        print("here", flush=True)
        sys.stdin.read()
        """
    with programs.Program(code, rig.contexts["acq"]) as program:
        program.expect("here")
        with (
            mirror(rig, "dying", policy="latest") as made,
            reader(rig, "dying", policy="latest") as view,
        ):
            program.process.kill()
            assert made.wait(WAIT_S).reason == "completed"
            assert view.receive(timeout=WAIT_S) is None


def test_streams_wait_for_a_mirror_that_is_away(rig: Lab) -> None:
    """The program there is restarted, while the other host cannot be reached."""
    here = rig.contexts["gpu"]
    with camera(rig) as producer:
        mirror(rig, detached=True).close()
        copy = reader(rig)
        send(producer, 0)
        assert read(copy, 1) == [0]
        rig.network.cut("acq", "gpu")
        send(producer, *range(1, 100))
        producer.end()
    with camera(rig) as producer:
        wait_until(lambda: readers_there(rig) == ["agent"], WAIT_S, "the agent there")
        send(producer, *range(100, 300))
        rig.network.heal("acq", "gpu")
        assert read(copy, 99) == list(range(1, 100))
        assert copy.receive(timeout=WAIT_S) is None
        copy.close()
        with reader(rig) as copy:
            assert read(copy, 200) == list(range(100, 300))
        drop_mirror("camera", context=here)
