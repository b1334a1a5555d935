"""The seed's two examples as printed, and the how-to's, over a real RPC.

What is mended is listed here, and nothing else: seeds/printed/framebuffer_*.txt
are the seed's own words. The RPC is the how-to's: XML-RPC between processes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from deadline import wait_until
from places import PRINTED
from workers_framebuffer import (
    CONTAINED,
    HOWTO,
    can_contain,
    free_ports,
    heeded_signals,
    listens,
    pages,
)

SEED = PRINTED
# What is wrong in print, and what stands for the libraries it leaves open.
REPAIRS = [
    (r"\bfrim\b", "from"),
    (r"from framebuffer\.", "from ataraxis.framebuffer."),
    (
        r"from __SOME_LIBRARY__ import RPC_METHOD\n",
        "from rpc import RPC_METHOD, service\n",
    ),
    (r"__SOME_LIBRARY__", "rpc"),
    (r"\(service_name='(\w+)', '(\w+)'", r"(service_name='\1', method='\2'"),
]
# What a program needs after its last printed line, to be one.
DRIVERS = {
    "server": "",
    "writer": "    print('sent', checksum.hex())\n",
    "reader": (
        "        else:\n"
        "            print('read', len(data), checksum.hex(), flush=True)\n"
        "    SERVICE.run()\n"
    ),
}


def mended(name: str) -> str:
    text = (SEED / f"framebuffer_{name}.txt").read_text()
    for pattern, replacement in REPAIRS:
        text = re.sub(pattern, replacement, text)
    return text.rstrip() + "\n" + DRIVERS[name]


class Services:
    """Programs in a directory that talk by the how-to's RPC."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ports = free_ports(2)
        self.ports = dict(zip(("framebuffer", "reader"), ports, strict=True))
        hosts = {name: ["127.0.0.1", port] for name, port in self.ports.items()}
        # Scripts of the seed, which import what lies beside them.
        own = {"RPC_HOSTS": json.dumps(hosts), "PYTHONSAFEPATH": ""}
        self.environment = {**os.environ, **own}
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self, program: str, service: str | None = None, within: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*within, sys.executable, "-W", "error", program],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        if service is not None:
            wait_until(
                lambda: process.poll() is not None or listens(self.ports[service]), 60
            )
        return process

    def finish(self, process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert err == ""
        return out

    def stop(self, process: subprocess.Popen[str], number: int) -> str:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == -number, (process.returncode, out, err)
        return out


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    pages(tmp_path)
    services = Services(tmp_path)
    with heeded_signals():
        yield services
    for process in services.running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_both_examples_of_the_seed(
    services: Services, context: Path, number: int
) -> None:
    """Server, writer and reader as printed; the server ends by a signal."""
    for name in DRIVERS:
        text = mended(name).replace("500 * 2**20", "20 * 2**20")
        (services.directory / f"seed_{name}.py").write_text(text)
    server = services.start("seed_server.py", "framebuffer")
    reader = services.start("seed_reader.py", "reader")
    sent = [services.finish(services.start("seed_writer.py")) for _ in range(2)]
    got = services.stop(reader, signal.SIGTERM)
    checksums = [line.split()[1] for line in sent]
    assert got.split("\n")[:-1] == [
        f"read {2**20} {checksum}" for checksum in checksums
    ]
    assert len(list(context.iterdir())) == 1
    services.stop(server, number)
    assert not list(context.iterdir())


def test_the_howto_runs_between_containers(services: Services, context: Path) -> None:
    """Server, reader and writer in namespaces of their own, one directory shared."""
    if not can_contain():
        pytest.skip("no namespaces for this user (needs CAP_SYS_ADMIN)")
    server = services.start("server.py", "framebuffer", within=CONTAINED)
    reader = services.start("reader.py", "reader", within=CONTAINED)
    for _ in range(2):
        writer = services.start("writer.py", within=CONTAINED)
        assert services.finish(writer) == "got 1048576 bytes\n"
    services.stop(reader, signal.SIGKILL)
    assert len(list(context.iterdir())) == 1
    # A container is stopped by a signal to its first process.
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    (first,) = map(int, children.read_text().split())
    os.kill(first, signal.SIGTERM)
    server.communicate(timeout=60)
    # Nothing kills a first process by default; it ends all the same, as if it did.
    assert server.returncode == 128 + signal.SIGTERM
    assert not list(context.iterdir())


def test_the_seed_times_out(services: Services, context: Path) -> None:
    """The reader gets an error for a chunk that was overtaken before it looked."""
    (services.directory / "seed_server.py").write_text(
        mended("server").replace("500 * 2**20", "3 * 2**19")
    )
    late = mended("reader").replace("            ...\n", "            return 'late'\n")
    (services.directory / "seed_reader.py").write_text(late)
    overtaken = mended("writer").replace(
        "    # Send data to service",
        "    client.write(RPC_CALL(service_name='framebuffer', method='allocate',"
        " args=(size)), bytes(size))",
    )
    send = "    RPC_CALL(service_name='reader'"
    overtaken = overtaken.replace(send, f"    print({send.strip()}")
    overtaken = overtaken.replace("checksum))\n", "checksum)))\n")
    (services.directory / "seed_writer.py").write_text(overtaken)
    server = services.start("seed_server.py", "framebuffer")
    reader = services.start("seed_reader.py", "reader")
    assert services.finish(services.start("seed_writer.py")).startswith("late")
    services.stop(reader, signal.SIGTERM)
    services.stop(server, signal.SIGTERM)


def test_the_mends_are_only_mends() -> None:
    """Line by line, the programs differ from print only where print cannot run."""
    for name, driver in DRIVERS.items():
        printed = (SEED / f"framebuffer_{name}.txt").read_text().rstrip().split("\n")
        ours = mended(name).removesuffix(driver).rstrip().split("\n")
        assert len(printed) == len(ours)
        changed = [new for old, new in zip(printed, ours, strict=True) if old != new]
        assert len(changed) <= 6
        assert all("import" in line or "RPC_CALL" in line for line in changed)
        ast.parse(mended(name))


def test_the_howto_runs(services: Services, context: Path) -> None:
    """docs/howto/framebuffer.md: every program in it."""
    server = services.start("server.py", "framebuffer")
    reader = services.start("reader.py", "reader")
    for _ in range(2):
        assert services.finish(services.start("writer.py")) == "got 1048576 bytes\n"
    arrays = services.finish(services.start("arrays.py"))
    assert arrays == "(4, 3)\n[ 1.  4.  7. 10.]\n66.0\n"
    services.stop(reader, signal.SIGTERM)
    services.stop(server, signal.SIGHUP)
    assert not list(context.iterdir())
    blocks = re.findall(r"```python\n# (\w+)\.py", HOWTO.read_text())
    assert blocks == ["rpc", "server", "reader", "writer", "arrays"]
