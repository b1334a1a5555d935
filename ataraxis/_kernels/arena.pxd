# The arena of a queue: chunks for frames larger than a slot. Each chunk has one truth, its word, and pins beside it.
#
#   word     0 FREE; participant << 2 | FILLING; position << 2 | GIVEN: to the slot that was put at this position of the queue
#   pins     a bit per participant: it has live views of the chunk
#   extents  offset and class of size of the chunk; set once, when it is cut from the payload
#
#   FREE --take--> FILLING --give--> GIVEN --acknowledged--> FREE
#                     \-- drop, death --/ \-- its slot does not hold that position any more: anybody --/
#
# No two puts have the same position, so it is the generation of the word as well: a ticket that a getter kept names the
# chunk only while the word has its position. A chunk may be filled again if its word is FREE and it has no pins. A pin is
# set first and the word is checked then; a chunk is taken first and its pins are checked then (fence P, both sides, as in ring.pyx): one of
# the two sees the other. The lists of free chunks are hints, rebuilt from the words. Modelled in tests/models/arena.pml.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_u32, ax_u64
from ataraxis._kernels.layout cimport ax_arena
from ataraxis._kernels.memory cimport Participant, ax_party

# Whether a queue's slot holds what was put at a position.
ctypedef bint (*ax_keeps)(void *queue, uint64_t position) noexcept nogil

# State of one attachment, private to it; copied from shared memory once, in arena_open.
cdef struct ax_store:
    ax_party *party
    ax_arena *arena
    ax_u64 *words
    ax_u64 *extents
    ax_u32 *next
    ax_u32 *listed            # 1: in a list of free chunks, or about to be
    ax_u64 *pins
    char *memory
    uint64_t bytes
    uint64_t chunks
    uint32_t mask             # words of a mask of participants
    uint32_t me               # this participant
    ax_u64 rebuilt_ns         # when the lists were rebuilt last
    ax_u32 gate               # guards `counts` and the pins of this participant
    uint32_t *counts          # views of each chunk in this process

cdef int arena_take(ax_store *store, uint64_t bytes, ax_keeps keeps, void *queue, uint64_t *chunk) noexcept nogil
cdef bint arena_give(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil
cdef void arena_drop(ax_store *store, uint64_t chunk) noexcept nogil
cdef void arena_release(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil
cdef bint arena_pin(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil
cdef void arena_unpin(ax_store *store, uint64_t chunk) noexcept nogil
cdef char *chunk_at(ax_store *store, uint64_t chunk, uint64_t at, uint64_t bytes) noexcept nogil
cdef void arena_rebuild(ax_store *store, uint64_t least, ax_keeps keeps, void *queue) noexcept nogil

cdef class Arena:
    cdef ax_store store
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload

cdef class Chunk:
    cdef Arena arena
    cdef uint64_t chunk
    cdef char *start                    # of the bytes that its buffer has
    cdef Py_ssize_t bytes
    cdef bint is_filling                # the chunk's word names this participant; else the chunk is pinned
    cdef bint is_given
    cdef int give(self, uint64_t position) except -1

cdef Chunk filling_chunk(Arena arena, uint64_t chunk, char *start, uint64_t bytes)
cdef Chunk pinned_chunk(Arena arena, uint64_t chunk, uint64_t position, char *start, uint64_t bytes)
