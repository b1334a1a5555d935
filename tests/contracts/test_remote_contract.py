"""One contract for the API here, and on a server with each codec."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from remote_rig import connected, served

from ataraxis.datamux import API
from ataraxis.testing.apis import ApiContract


class TestLocal(ApiContract):
    def make(self, folder: Path):
        return API(folder, folder)


class Remote(ApiContract):
    codec = ""

    @contextmanager
    def make(self, folder: Path):
        with served(folder) as server, connected(server, self.codec) as api:
            yield api


class TestFrame(Remote):
    codec = "frame"


class TestJson(Remote):
    codec = "json"


class TestMsgpack(Remote):
    codec = "msgpack"
