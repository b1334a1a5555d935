"""A server and a client in two network namespaces, whose link is cut for 8 s."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time

import pytest
from places import PATH

CUT_S = 8.0
CLIENT = """
import queue, sys
import ataraxis.datamux as dm
from workers_remote import count_into

token, certificate = sys.argv[1:]
with dm.RemoteAPI("websocket", "frame") as api:
    api.connect("10.77.0.2", 8765, token=token, tls=certificate, heartbeat_s=1.0,
                patience=60)
    sink = queue.Queue()
    ack = count_into(api, sink, 1000, 14.0)
    for _ in range(1000):
        sink.get(timeout=60)
    print("cut", flush=True)
    end = ack.wait(90)
    numbers = [round(sink.get()["value"]["x"]) for _ in range(sink.qsize() - 1)]
    assert numbers == [*range(1000, 14_000)], (len(numbers), end)
    print(end.reason, len(ack.task.statistics().reconnects), flush=True)
"""


def sh(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, timeout=30)


@pytest.fixture
def link():
    """Two namespaces with a cable between them: names, and the cable's end."""
    if shutil.which("ip") is None or shutil.which("openssl") is None:
        pytest.skip("ip(8) and openssl(1) are needed")
    if os.geteuid():
        pytest.skip("network namespaces need root")
    here, there, cable = (f"ax{x}{os.getpid()}" for x in "htc")
    made = subprocess.run(["ip", "netns", "add", here], capture_output=True)
    if made.returncode:
        pytest.skip(f"no network namespaces here: {made.stderr.decode()}")
    try:
        sh(f"ip netns add {there}")
        sh(f"ip link add {cable}0 netns {here} type veth peer {cable}1 netns {there}")
        for name, end, address in ((here, 0, 1), (there, 1, 2)):
            sh(f"ip -n {name} addr add 10.77.0.{address}/24 dev {cable}{end}")
            sh(f"ip -n {name} link set {cable}{end} up")
            sh(f"ip -n {name} link set lo up")
        yield here, there, f"{cable}1"
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_link_that_is_cut_for_8_seconds(link, tmp_path):
    """With TLS and a token; no sample is lost or duplicated, no thread is left."""
    here, there, end = link
    certificate, key, token = (tmp_path / n for n in ("c.pem", "k.pem", "token"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=lab", "-addext", "subjectAltName=IP:10.77.0.2",
         "-out", certificate, "-keyout", key],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": PATH}
    server = subprocess.Popen(
        ["ip", "netns", "exec", there, sys.executable, "-P", "-m", "ataraxis.datamux",
         "serve", "-H", "10.77.0.2", "-p", "8765", "--token-file", token,
         "--certificate", certificate, "--key", key,
         "--data_dir", tmp_path, "--meta_dir", tmp_path],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert "wss://10.77.0.2:8765" in server.stdout.readline()
        client = subprocess.Popen(
            ["ip", "netns", "exec", here, sys.executable, "-P", "-c",
             textwrap.dedent(CLIENT), token.read_text().strip(), certificate],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        try:
            assert client.stdout.readline() == "cut\n"
            sh(f"ip -n {there} link set {end} down")
            time.sleep(CUT_S)  # the length of the cut
            sh(f"ip -n {there} link set {end} up")
            out, _ = client.communicate(timeout=150)
            assert client.returncode == 0
            assert out.startswith("completed")
        finally:
            client.kill()
            client.communicate()
        server.terminate()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()
