"""The program of one source of a rig; `Program.of_source` starts it.

Passes a live source into a stream until the source ends, or its standard input does:
it ends with whoever started it.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from ataraxis.datamux import API, producer_of


def run(told: dict[str, Any]) -> dict[str, Any]:
    """Pass a source on; what became of it.

    Parameters
    ----------
    told : dict
        ``node``, ``stream``, ``attrs``, ``name``, ``samples``, ``buffer_s``,
        ``patience_s``, ``context``, and ``readers``, which it waits for at first.
    """
    with API() as api:
        source = api.open_source(told["node"], told["stream"], told["attrs"])
        described = source.stream
        source.close()
        options = {"buffer_seconds": told["buffer_s"]} if described.rate_hz else {}
        producer = producer_of(
            described, told["name"], samples=told["samples"],
            context=told["context"], **options,
        )  # fmt: skip
        with producer:
            producer.wait_for_subscribers(told["readers"], told["timeout_s"])
            ack = api.proxy_live_stream(
                told["node"], told["stream"], told["attrs"], producer,
                patience=told["patience_s"],
            )  # fmt: skip
            threading.Thread(target=_end_with_input, args=(api,), daemon=True).start()
            end = ack.wait()
            done = ack.task.statistics()
    return {
        "samples": done.samples,
        "lost": done.lost,
        "dropped": done.dropped,
        "reconnects": list(done.reconnects),
        "error": "" if end.error is None else str(end.error),
    }


def _end_with_input(api: API) -> None:
    sys.stdin.read()
    api.stop()


def main() -> int:
    """Run what the first argument says, JSON; tell what became of it, JSON."""
    found = run(json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["error"]))
