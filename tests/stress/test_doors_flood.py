"""What clients may cost: all of them at once, and one more with a token is served.

At full figures: 2,000 silent connections, 20,000 hostile messages for each codec, 200
requests that cost too much, 50 clients that never read; with TLS and without. Meanwhile
a client with a token connects, asks and leaves, again and again: each time within 2 s.
The server's memory stays under 300 MB, and its descriptors under their limit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import workers_doors
from places import PATH
from remote_rig import ServeCommand, connected, folder

MEMORY, SERVED_S, DESCRIPTORS = 300 << 20, 2.0, 1024


class Watch(threading.Thread):
    """Sample the server's memory and descriptors until stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.descriptors, self.memory = pid, 0, 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.05):
            self.descriptors = max(
                self.descriptors, len(os.listdir(f"/proc/{self.pid}/fd"))
            )
            words = Path(f"/proc/{self.pid}/statm").read_text().split()
            self.memory = max(self.memory, int(words[1]) * os.sysconf("SC_PAGESIZE"))


def certificate(path: Path) -> tuple[Path, Path]:
    made, key = path / "c.pem", path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=lab", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", made, "-keyout", key],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return made, key


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_client_with_a_token_is_served_whatever_others_do(tmp_path, figure, tls):
    if tls and shutil.which("openssl") is None:
        pytest.skip("openssl(1) makes the certificate")
    folder(tmp_path)
    token, options = tmp_path / "token", []
    pem = ""
    if tls:
        made, key = certificate(tmp_path)
        pem, options = str(made), ["--certificate", str(made), "--key", str(key)]
    counts = {
        "silent": int(figure(2000, 300)), "messages": int(figure(20_000, 200)),
        "priced": int(figure(200, len(workers_doors.PRICED))),
        "unread": int(figure(50, 5)),
    }  # fmt: skip
    with ServeCommand(tmp_path, "--token-file", str(token), *options) as server:
        secret = token.read_text().strip()
        known = {"token": secret, "tls": pem or None}
        with connected(server.port, **known) as api:
            api.list_collections()  # loads modules at first use
        watch = Watch(server.process.pid)
        watch.start()
        attackers = {
            kind: subprocess.Popen(
                [sys.executable, "-P", workers_doors.__file__, kind, str(server.port),
                 secret, pem, str(count)],
                env={**os.environ, "PYTHONPATH": PATH},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=lambda: os.nice(19),  # in reality they run on other machines
            )
            for kind, count in counts.items()
        }  # fmt: skip
        served: list[float] = []
        try:
            while any(process.poll() is None for process in attackers.values()):
                begin = time.monotonic()
                with connected(server.port, "json", **known) as api:
                    assert [c.id for c in api.list_collections()] == ["eyes"]
                served.append(time.monotonic() - begin)
                time.sleep(0.2)
            heard = {k: p.communicate(timeout=60) for k, p in attackers.items()}
        finally:
            for process in attackers.values():
                process.kill()
                process.communicate()
            watch.is_over.set()
            watch.join()
        assert server.end() == 0
    for kind, (report, complaint) in heard.items():
        assert report.startswith(kind), complaint[-500:]
        print(report.strip())
    print(
        f"{'tls' if tls else 'plain'}: served {len(served)} times, the slowest in "
        f"{max(served):.2f} s; memory {watch.memory / 2**20:.0f} MiB; descriptors "
        f"{watch.descriptors}"
    )
    assert f"priced {counts['priced']} of" in heard["priced"][0]
    assert watch.memory < MEMORY
    assert watch.descriptors < DESCRIPTORS
    assert max(served) < SERVED_S
