"""Sound: WAV, FLAC and what else ``soundfile`` reads, in pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.recording import (
    LazyRecording,
    Recording,
    UniformTimes,
    check_rate,
)
from ataraxis.datamux.sources.pieces import held
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

# Stored samples -> the dtype that holds them exactly, and soundfile's name of it.
_DTYPES = {
    "PCM_U8": "i16", "PCM_S8": "i16", "PCM_16": "i16", "PCM_24": "i32",
    "PCM_32": "i32", "FLOAT": "f32", "DOUBLE": "f64",
}  # fmt: skip
_READ_AS = {"i16": "int16", "i32": "int32", "f32": "float32", "f64": "float64"}


class Sound(SuffixFormat):
    """``wav://{session}`` and ``flac://{session}``: the stream ``sound``.

    It has a field a channel.
    Integers are as ``soundfile`` gives them: samples of 24 bits in the upper 24 of 32.
    A float field is from -1 to 1.
    """

    suffix = ".wav"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the stream of a file."""
        with folder.opened(f"{key}{self.suffix}") as opened, _sound(opened) as sound:
            dtype = _DTYPES.get(sound.subtype, "f32")
            fields = {
                f"ch{i}": Field(f"ch{i}", dtype=dtype) for i in range(sound.channels)
            }
            rate = float(sound.samplerate)
        return {"sound": Stream("sound", frequency=rate, fields=fields)}

    def recording(
        self, folder: Folder, key: str, stream: Stream, where: str
    ) -> Recording:
        """Return the recording; samples are read when they are asked for."""
        opened = held(folder, f"{key}{self.suffix}")
        try:
            return self._lazy(opened, stream, where)
        except BaseException:
            opened.file.close()
            raise

    def _lazy(self, opened: OpenedFile, stream: Stream, where: str) -> Recording:
        sound = _sound(opened)
        kinds = {field.dtype for field in stream.fields.values()}
        if len(stream.fields) != sound.channels or len(kinds) != 1:
            raise RecordingError(
                f"{where}: {sound.channels} channels of one dtype, the stream declares "
                f"{[*stream.fields]}"
            )
        (kind,) = kinds
        if kind not in _READ_AS:
            raise RecordingError(
                f"{where}: sound is read as {', '.join(_READ_AS)}, {kind} is declared"
            )
        rate = float(sound.samplerate)
        check_rate(stream, rate, where)

        def rows(start: int, stop: int) -> NDArray[Any]:
            sound.seek(start)
            found: NDArray[Any] = sound.read(
                stop - start, dtype=_READ_AS[kind], always_2d=True
            )
            return found

        width = np.dtype(_READ_AS[kind]).itemsize * sound.channels
        times = UniformTimes(sound.frames, rate)
        return LazyRecording(stream, times, rows, width, where, opened.file.close)


def _sound(opened: OpenedFile) -> Any:
    soundfile = need("soundfile", "audio", "a sound recording")
    try:
        return soundfile.SoundFile(opened.file)
    except Exception as error:  # soundfile raises its own and OSError
        raise RecordingError(
            f"{opened.shown}: not sound, or damaged: {error}"
        ) from error
