"""The names of StreamingHub's ``util``, where its programs look for them."""

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
