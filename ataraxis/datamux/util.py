"""The names of StreamingHub's ``util``, at the path its programs import."""

from ataraxis.datamux.streaminghub.util import (
    END_OF_STREAM,
    Enveloper,
    envelope,
    gen_randseq,
    identity,
    prefix,
    sleep,
)

__all__ = [
    "END_OF_STREAM",
    "Enveloper",
    "envelope",
    "gen_randseq",
    "identity",
    "prefix",
    "sleep",
]
