"""MomentumX's chapter of the seed runs as printed, in processes of its own.

What is mended is listed here and nothing else: seeds/printed/stream_*.txt are
the seed's own words.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path

from places import PRINTED
from programs import Program
from test_seed_array import chapter_file

NAMES = (
    "streaming_producer",
    "streaming_consumer",
    "sync_producer",
    "sync_consumer",
    "numpy",
    "context",
)
COPIES = [PRINTED / f"stream_{name}.txt" for name in NAMES]
# The import line; and DESIGN's slips: a bare uint8, and literal `...` arguments.
IMPORT = ("import momentumx as mx", "import ataraxis.stream as mx")
SLIPS = [
    ("dtype=uint8", "dtype=np.uint8"),
    ("'my_stream', ..., context=", "'my_stream', 64, 4, context="),
    ("\n...\n", "\nstream.send_string('hello')\nproducer = stream\n"),
]
# A consumer as printed wants a stream that is there already.
WAIT = "mx.wait_for_stream({name!r}, 20)\n"
# Nothing of this is the seed's: what the programs say of themselves at their end.
ACCOUNT = """
print("account", stream.received_count, stream.dropped_count, stream._words[4])
stream.close()
"""


def text_of(name: str) -> str:
    text = (PRINTED / f"stream_{name}.txt").read_text(encoding="utf-8")
    assert text.count(IMPORT[0]) == 1
    return text.replace(*IMPORT)


def consumer(name: str, stream: str = "my_stream") -> str:
    """The program as printed, after waiting for the stream; then its account."""
    head, found, rest = text_of(name).partition(IMPORT[1] + "\n")
    assert found
    return head + found + WAIT.format(name=stream) + rest + ACCOUNT


def test_the_copies_are_the_chapter_word_for_word() -> None:
    file = chapter_file().with_name("momentumx.md")
    blocks = re.findall(r"^```python\n(.*?)^```$", file.read_text("utf-8"), re.M | re.S)
    assert [copy.read_text(encoding="utf-8") for copy in COPIES] == blocks


def streaming() -> None:
    """One run: the reader gets them in order, and knows what it has lost."""
    with (
        Program(consumer("streaming_consumer")) as reader,
        Program(text_of("streaming_producer")) as writer,
    ):
        assert writer.succeed() == ""
        *lines, account = reader.succeed().splitlines()
    received, dropped, first = map(int, account.split()[1:])
    assert len(lines) == received
    assert received + dropped == 1000 - first
    digits = [int(line[2:-1]) for line in lines]
    assert lines == [f"b'{digit}'" for digit in digits]
    assert digits[-1] == 9
    # In order: what is passed over was dropped.
    passed = sum((b - a - 1) % 10 for a, b in itertools.pairwise(digits))
    assert passed <= dropped


def synchronous(readers: int = 1) -> None:
    """One run: all messages, in order."""
    text = text_of("sync_producer")
    assert text.count("min_subscribers = 1\n") == 1
    text = text.replace("min_subscribers = 1\n", f"min_subscribers = {readers}\n")
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Program(text))
        programs = [
            stack.enter_context(Program(consumer("sync_consumer")))
            for _ in range(readers)
        ]
        sent = writer.succeed().splitlines()
        assert sent[-1000:] == [f"Sent: {n}" for n in range(1000)]
        assert sent[-1001] == "All expected subscribers are ready"
        for program in programs:
            *lines, account = program.succeed().splitlines()
            assert lines == [f"Received: {n}" for n in range(1000)]
            assert account == "account 1000 0 0"


def with_numpy() -> None:
    """One run: the array is the frame's memory, and stays."""
    text = text_of("numpy").replace(*SLIPS[0])
    head, _, rest = text.partition(IMPORT[1] + "\n")
    code = head + IMPORT[1] + "\n" + WAIT.format(name="numpy_stream") + rest
    code += "\nprint(np_buff.tolist(), np_buff.flags.owndata, np_buff.flags.writeable)"
    code += "\ndel buffer\nassert stream.receive() is None\nprint(np_buff.sum())"
    made = """
    import ataraxis.stream as mx
    stream = mx.Producer('numpy_stream', 8, 4, sync=True)
    stream.wait_for_subscribers(1, 20)
    stream.next_to_send().write(bytes(range(8)))
    buffer = stream.next_to_send()
    buffer.write(bytes(range(8)))
    buffer.send()
    """
    with Program(made) as writer, Program(code) as reader:
        writer.succeed()
        assert reader.succeed() == f"{list(range(8))} False False\n28\n"


def in_a_context(directory: Path) -> None:
    """One run of the printed program: both ends in a directory of its own."""
    text = text_of("context").replace(*SLIPS[1]).replace(*SLIPS[2])
    text = text.replace("/my/path/", f"{directory}/")
    text += """
assert [stream.receive_string()] == ["hello"]
producer.end()
assert stream.receive_string() is None
stream.close()
producer.close()
"""
    with Program(text) as program:
        assert program.succeed() == ""
    assert list(directory.iterdir()) == []


def test_streaming(context: Path) -> None:
    streaming()
    assert list(context.iterdir()) == []


def test_synchronous(context: Path) -> None:
    synchronous()
    assert list(context.iterdir()) == []


def test_synchronous_with_two_readers(context: Path) -> None:
    synchronous(2)
    assert list(context.iterdir()) == []


def test_numpy() -> None:
    with_numpy()


def test_context(tmp_path: Path) -> None:
    in_a_context(tmp_path)
