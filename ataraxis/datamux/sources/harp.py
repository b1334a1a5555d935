"""Registers of Harp devices, one ``.bin`` file each, through ``harp-python``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream, dtype_name
from ataraxis.datamux.folder import Folder, SuffixFormat
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need


class Harp(SuffixFormat):
    """``harp://{device}_{register}``: the stream ``register``, a field a value.

    Times are the device's, s; ``kind`` is the type of each message: READ, WRITE, EVENT.
    """

    suffix = ".bin"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the stream of a file."""
        columns = self._read(folder, key)
        fields = {
            name: Field(name, dtype=dtype_name(column.dtype) or "str")
            for name, column in columns.items()
            if name != "t"
        }
        index = {"t": Field("time", unit="s")}
        return {"register": Stream("register", fields=fields, index=index)}

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the messages."""
        columns = self._read(folder, key)
        return {stream.time: columns.pop("t"), **columns}

    def _read(self, folder: Folder, key: str) -> dict[str, NDArray[Any]]:
        if not folder.is_there(f"{key}.bin"):
            raise folder.not_there(f"{key}.bin")
        harp = need("harp", "harp", "a Harp register")
        with folder.opened(f"{key}.bin") as opened:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    table = harp.read(opened.file, keep_type=True)
            except Exception as error:  # harp and pandas raise several kinds
                raise RecordingError(
                    f"{opened.shown}: not a Harp register, or damaged: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if not len(table):
            return {"t": np.empty(0), "kind": np.empty(0, "U1")}
        kinds = np.asarray([str(kind) for kind in table.pop("MessageType")], "U")
        columns = {
            f"value{name}" if isinstance(name, int) else str(name): np.asarray(column)
            for name, column in table.items()
        }
        return {"t": np.asarray(table.index, "f8"), **columns, "kind": kinds}
