"""The arena of a queue: chunks for frames larger than a slot, in a segment of its own.

Source: docs/decisions/0030-an-arena-beside-the-queue.md. A process killed at any instruction leaves a chunk that is free,
or one whose word or pin names it, which the clean-up of the segment frees, or one whose slot does not hold it any more,
which the next search for a free chunk frees. No step waits for another process.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from cython cimport final, no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from ataraxis._kernels.atomics cimport (
    ax_and64, ax_cas32, ax_cas64, ax_fence_full, ax_load32, ax_load64, ax_or64, ax_pause, ax_peek64, ax_put32, ax_put64,
    ax_store32, ax_store64, ax_u32, ax_u64,
)
from ataraxis._kernels.layout cimport (
    AX_ARENA_CHUNKS, AX_CHUNK_CLASSES, AX_CHUNK_FILLING, AX_CHUNK_FREE, AX_CHUNK_GIVEN, AX_CHUNK_GRAIN, AX_FULL,
    AX_KIND_ARENA, AX_OK, AX_OVERFLOW, ax_arena,
)
from ataraxis._kernels.memory cimport Participant, ax_party, inherited, on_death, sweep
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns

cdef enum:
    POPS = 64               # attempts to take a chunk from a list before that counts as damaged
    REBUILD_NS = 1000000    # shortest time between two searches of all words
    PROBE_NS = 20000000     # shortest time between two searches for dead participants
    CLASS_MASK = 0xFF       # of an extent: class + 1; above EXTENT: the offset in grains
    EXTENT = 32


# ---- the algorithm

cdef inline uint64_t size_of(uint64_t kind) noexcept nogil:
    # A grain more than a round number: room for the header.
    return (<uint64_t>(3 * AX_CHUNK_GRAIN if kind & 1 else 2 * AX_CHUNK_GRAIN) << (kind >> 1)) + AX_CHUNK_GRAIN


cdef uint64_t class_of(uint64_t bytes) noexcept nogil:
    # The smallest class that holds so many bytes; AX_CHUNK_CLASSES: none.
    cdef uint64_t kind = 0
    while kind < <uint64_t>AX_CHUNK_CLASSES and size_of(kind) < bytes:
        kind += 1
    return kind


cdef inline uint64_t rounded(uint64_t bytes) noexcept nogil:
    return (bytes + 127) // 128 * 128


cdef uint64_t lay_out(ax_store *store, char *control, uint64_t chunks, uint64_t participants) noexcept nogil:
    # Find the arrays of a control block; returns its size.
    cdef uint64_t at = sizeof(ax_arena)
    store.arena = <ax_arena *>control
    store.mask = <uint32_t>((participants + 63) // 64)
    store.words = <ax_u64 *>(control + at)
    at += rounded(chunks * 8)
    store.extents = <ax_u64 *>(control + at)
    at += rounded(chunks * 8)
    store.next = <ax_u32 *>(control + at)
    at += rounded(chunks * 4)
    store.listed = <ax_u32 *>(control + at)
    at += rounded(chunks * 4)
    store.pins = <ax_u64 *>(control + at)
    return at + rounded(chunks * store.mask * 8)


cdef int arena_open(ax_store *store, ax_party *party, char *memory, uint64_t bytes) noexcept nogil:
    # Copy and check the geometry; AX_OVERFLOW if it does not fit the segment.
    cdef ax_arena *arena = <ax_arena *>party.control
    store.party = party
    store.me = party.slot
    store.chunks = arena.chunks
    store.memory = memory
    store.bytes = arena.bytes
    ax_put64(&store.rebuilt_ns, 0)
    ax_put32(&store.gate, 0)
    if not (
        0 < store.chunks <= <uint64_t>AX_ARENA_CHUNKS
        and store.bytes <= bytes
        and party.control + lay_out(store, party.control, store.chunks, party.slots) <= memory
        and memory + bytes <= party.base + party.bytes
    ):
        return AX_OVERFLOW
    party.cells = store.chunks
    return AX_OK


cdef bint extent_of(ax_store *store, uint64_t chunk, uint64_t *offset, uint64_t *size) noexcept nogil:
    # Where a chunk is; False: it was not cut, or its extent is damaged. Acquire: pairs with the swap in cut_chunk.
    cdef uint64_t seen = ax_load64(&store.extents[chunk]), kind = (seen & CLASS_MASK) - 1
    if kind >= <uint64_t>AX_CHUNK_CLASSES:
        return False
    offset[0] = (seen >> EXTENT) * AX_CHUNK_GRAIN
    size[0] = size_of(kind)
    return size[0] <= store.bytes and offset[0] <= store.bytes - size[0]


cdef char *chunk_at(ax_store *store, uint64_t chunk, uint64_t at, uint64_t bytes) noexcept nogil:
    # The address of bytes [at, at + bytes) of a chunk; NULL: there are none. No argument is trusted.
    cdef uint64_t offset = 0, size = 0
    if chunk >= store.chunks or not extent_of(store, chunk, &offset, &size) or at > size or bytes > size - at:
        return NULL
    return store.memory + offset + at


cdef inline bint is_pinned(ax_store *store, uint64_t chunk) noexcept nogil:
    # Acquire: pairs with the release of the last view in arena_unpin.
    cdef uint32_t k
    for k in range(store.mask):
        if ax_load64(&store.pins[chunk * store.mask + k]):
            return True
    return False


cdef void list_free(ax_store *store, uint64_t chunk) noexcept nogil:
    # Put a chunk on its list if it is free and on none. Called after its word became FREE, and after its last pin was
    # gone: the fence lets at least one of the two callers see both.
    cdef uint64_t seen, kind = (ax_load64(&store.extents[chunk]) & CLASS_MASK) - 1
    cdef int left = POPS
    ax_fence_full()
    if kind >= <uint64_t>AX_CHUNK_CLASSES or ax_load64(&store.words[chunk]) != AX_CHUNK_FREE or is_pinned(store, chunk):
        return
    if not ax_cas32(&store.listed[chunk], 0, 1):
        return
    ax_crash("chunk_listing")
    while left:
        left -= 1
        seen = ax_load64(&store.arena.free[kind])
        ax_put32(&store.next[chunk], <uint32_t>seen)
        # Release: pairs with the load in pop_free, which follows `next`.
        if ax_cas64(&store.arena.free[kind], seen, (seen >> 32) + 1 << 32 | chunk + 1):
            return
    ax_put32(&store.listed[chunk], 0)


cdef bint take(ax_store *store, uint64_t chunk) noexcept nogil:
    # Own a free chunk: FILLING. False: it is not free, or pinned.
    if ax_peek64(&store.words[chunk]) != AX_CHUNK_FREE:
        return False
    # One winner. Acquire: pairs with the swap that freed it: the getter that read the last frame has finished.
    if not ax_cas64(&store.words[chunk], AX_CHUNK_FREE, <uint64_t>store.me << 2 | AX_CHUNK_FILLING):
        return False
    ax_crash("chunk_taken")
    # Fence P: pairs with that in arena_pin. Also keeps the frame's stores behind: a getter that lost its lease and still
    # copies sees the slot's word changed (queue_holds).
    ax_fence_full()
    if not is_pinned(store, chunk):
        return True
    # Release: pairs with the next take. Only the owner changes it.
    ax_store64(&store.words[chunk], AX_CHUNK_FREE)
    list_free(store, chunk)
    return False


cdef int64_t pop_free(ax_store *store, uint64_t kind) noexcept nogil:
    # Own the chunk of a class that was freed last; -1: none is listed.
    cdef ax_u64 *head = &store.arena.free[kind]
    cdef uint64_t seen = 0, chunk
    cdef uint32_t after
    cdef int left = POPS
    while left:
        left -= 1
        # Acquire: pairs with the swap in list_free.
        seen = ax_load64(head)
        if <uint32_t>seen == 0:
            return -1
        chunk = <uint32_t>seen - 1
        if chunk >= store.chunks:
            break
        after = ax_load32(&store.next[chunk])
        if not ax_cas64(head, seen, (seen >> 32) + 1 << 32 | after):
            continue
        ax_crash("chunk_popped")
        ax_put32(&store.listed[chunk], 0)
        if take(store, chunk):
            return <int64_t>chunk
    # A list that goes in a circle, or leads out of the arena.
    ax_cas64(head, seen, 0)
    return -1


cdef int64_t cut_chunk(ax_store *store, uint64_t kind) noexcept nogil:
    # Cut a new chunk from what is left of the payload, and own it; -1: no room.
    cdef uint64_t size = size_of(kind), offset = 0, before = 0
    cdef uint64_t k = min(<uint64_t>ax_load32(&store.arena.cut), store.chunks)
    # The hint is ahead only if it is damaged.
    while k and ax_load64(&store.extents[k - 1]) == 0:
        k -= 1
    while k < store.chunks:
        if ax_load64(&store.extents[k]):
            k += 1
            continue
        offset = before = 0
        if k and not extent_of(store, k - 1, &offset, &before):
            return -1
        offset += before
        if size > store.bytes or offset > store.bytes - size:
            return -1
        # One winner; the next chunk begins where this one ends. A process killed here leaves a free chunk.
        if ax_cas64(&store.extents[k], 0, offset // AX_CHUNK_GRAIN << EXTENT | kind + 1):
            ax_crash("chunk_cut")
            ax_store32(&store.arena.cut, <uint32_t>k + 1)
            if take(store, k):
                return <int64_t>k
    return -1


cdef void arena_rebuild(ax_store *store, uint64_t least, ax_keeps keeps, void *queue) noexcept nogil:
    # Free chunks whose slot does not hold them any more, and list free ones again. Lists of chunks of `least` bytes or
    # more were found empty: what is marked as listed there is lost.
    cdef uint64_t k, seen, offset = 0, size = 0
    for k in range(store.chunks):
        if not extent_of(store, k, &offset, &size):
            return
        # Acquire: pairs with arena_give: the slot has held the position since before.
        seen = ax_load64(&store.words[k])
        if seen & 3 == AX_CHUNK_GIVEN and not keeps(queue, seen >> 2) and ax_cas64(&store.words[k], seen, AX_CHUNK_FREE):
            ax_crash("chunk_reclaimed")
            seen = AX_CHUNK_FREE
        if seen == AX_CHUNK_FREE:
            if size >= least:
                ax_put32(&store.listed[k], 0)
            list_free(store, k)


cdef int64_t take_listed(ax_store *store, uint64_t kind) noexcept nogil:
    # Own a listed chunk of a class, or of a larger one.
    cdef int64_t found = -1
    while found < 0 and kind < <uint64_t>AX_CHUNK_CLASSES and size_of(kind) <= store.bytes:
        found = pop_free(store, kind)
        kind += 1
    return found


cdef int arena_take(ax_store *store, uint64_t bytes, ax_keeps keeps, void *queue, uint64_t *chunk) noexcept nogil:
    # Own a chunk of at least so many bytes: AX_OK, AX_FULL. The chunk freed last comes first. Never waits.
    cdef uint64_t kind = class_of(bytes), before, now
    cdef int64_t found
    if kind >= <uint64_t>AX_CHUNK_CLASSES:
        return AX_FULL
    found = pop_free(store, kind)
    if found < 0:
        found = cut_chunk(store, kind)
    if found < 0:
        found = take_listed(store, kind + 1)
    if found < 0:
        now = <uint64_t>ax_now_ns()
        before = ax_peek64(&store.rebuilt_ns)
        if now - before < <uint64_t>REBUILD_NS or not ax_cas64(&store.rebuilt_ns, before, now):
            return AX_FULL
        sweep(store.party, PROBE_NS)
        arena_rebuild(store, bytes, keeps, queue)
        found = take_listed(store, kind)
        if found < 0:
            return AX_FULL
    chunk[0] = <uint64_t>found
    return AX_OK


cdef bint arena_give(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil:
    # Give a filled chunk to the slot claimed at a position; False: the word is damaged. Release: pairs with the loads of
    # the word in arena_pin and arena_rebuild.
    ax_crash("chunk_filled")
    if not ax_cas64(&store.words[chunk], <uint64_t>store.me << 2 | AX_CHUNK_FILLING, position << 2 | AX_CHUNK_GIVEN):
        return False
    ax_crash("chunk_given")
    return True


cdef void arena_drop(ax_store *store, uint64_t chunk) noexcept nogil:
    # Free a chunk that was taken and not given.
    if ax_cas64(&store.words[chunk], <uint64_t>store.me << 2 | AX_CHUNK_FILLING, AX_CHUNK_FREE):
        list_free(store, chunk)


cdef void arena_release(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil:
    # Free a chunk whose slot was acknowledged. Loses to arena_rebuild. Release: pairs with the next take.
    ax_crash("chunk_acknowledged")
    if chunk < store.chunks and ax_cas64(&store.words[chunk], position << 2 | AX_CHUNK_GIVEN, AX_CHUNK_FREE):
        ax_crash("chunk_freed")
        list_free(store, chunk)


cdef inline void enter_gate(ax_store *store) noexcept nogil:
    # Threads of this process share the participant's pins. No Python code runs inside.
    while not ax_cas32(&store.gate, 0, 1):
        ax_pause()


cdef void unpin(ax_store *store, uint64_t chunk) noexcept nogil:
    store.counts[chunk] -= 1
    if store.counts[chunk] == 0:
        # Release: pairs with is_pinned in take: the views' loads come before the next frame's stores.
        ax_and64(&store.pins[chunk * store.mask + (store.me >> 6)], ~(<uint64_t>1 << (store.me & 63)))


cdef bint arena_pin(ax_store *store, uint64_t chunk, uint64_t position) noexcept nogil:
    # Pin a chunk that a slot was given; False: it is not the slot's any more.
    cdef bint holds
    if chunk >= store.chunks:
        return False
    enter_gate(store)
    store.counts[chunk] += 1
    ax_or64(&store.pins[chunk * store.mask + (store.me >> 6)], <uint64_t>1 << (store.me & 63))
    ax_crash("chunk_pinned")
    # Fence P: pairs with that in take. Set first, then check: a putter that took the chunk before sees the pin, or this
    # its word.
    ax_fence_full()
    holds = ax_load64(&store.words[chunk]) == (position << 2 | AX_CHUNK_GIVEN)
    if not holds:
        unpin(store, chunk)
    ax_store32(&store.gate, 0)
    if not holds:
        list_free(store, chunk)
    return holds


cdef void arena_unpin(ax_store *store, uint64_t chunk) noexcept nogil:
    # Drop one view.
    enter_gate(store)
    unpin(store, chunk)
    ax_store32(&store.gate, 0)
    ax_crash("chunk_unpinned")
    list_free(store, chunk)


cdef void arena_cleanup(ax_party *party, uint32_t who) noexcept nogil:
    # The only clean-up. The caller owns byte `who`. May be interrupted at any line and repeated.
    cdef ax_store store
    cdef uint64_t k, chunks = party.cells
    cdef ax_u64 *mask
    if chunks == 0:
        # Not checked by a handle: accepted if the arrays fit into the file.
        chunks = (<ax_arena *>party.control).chunks
    if chunks > <uint64_t>AX_ARENA_CHUNKS:
        return
    if lay_out(&store, party.control, chunks, party.slots) > <uint64_t>(party.base + party.bytes - party.control):
        return
    for k in range(chunks):
        if ax_load64(&store.extents[k]) == 0:
            break
        # Only this writes it: its owner is dead.
        ax_cas64(&store.words[k], <uint64_t>who << 2 | AX_CHUNK_FILLING, AX_CHUNK_FREE)
        mask = &store.pins[k * store.mask + (who >> 6)]
        if ax_load64(mask) >> (who & 63) & 1:
            ax_and64(mask, ~(<uint64_t>1 << (who & 63)))
        ax_crash("arena_cleanup_chunk")
    ax_crash("arena_cleaned")


on_death(AX_KIND_ARENA, arena_cleanup)


# ---- the bridge

def control_bytes(uint64_t chunks, uint32_t participants):
    """Return the size of an arena's control block in bytes; a multiple of 128."""
    cdef ax_store store
    return lay_out(&store, NULL, chunks, participants)


def describe(unsigned char[::1] control not None, uint64_t chunks, uint64_t bytes, uint32_t participants):
    """Write an arena's geometry into its control block, which is all zeros and not published yet."""
    cdef ax_arena *arena = <ax_arena *>&control[0]
    arena.chunks = chunks
    arena.bytes = bytes
    arena.participants = participants


def chunk_bytes(uint64_t bytes):
    """Return the size of the chunk that holds so many bytes; 0: none does."""
    cdef uint64_t kind = class_of(bytes)
    return size_of(kind) if kind < <uint64_t>AX_CHUNK_CLASSES else 0


@no_gc_clear   # `store` points into `participant` and `memory`, which must outlive it
cdef class Arena:
    """A participant of an arena; it leaves with its last view."""

    def __cinit__(self, unsigned char[::1] memory not None, Participant participant not None):
        self.memory = memory
        self.participant = participant
        if arena_open(&self.store, &participant.party, <char *>&memory[0], memory.shape[0]) != AX_OK:
            raise ValueError("the control block does not fit the file")
        self.store.counts = <uint32_t *>calloc(self.store.chunks, sizeof(uint32_t))
        if self.store.counts == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.store.counts)

    @property
    def capacity(self):
        """Bytes of all chunks together."""
        return self.store.bytes

    @property
    def used(self):
        """Bytes of the chunks that are not free, or pinned."""
        cdef uint64_t k, offset = 0, size = 0, used = 0
        for k in range(self.store.chunks):
            if not extent_of(&self.store, k, &offset, &size):
                break
            if ax_load64(&self.store.words[k]) != AX_CHUNK_FREE or is_pinned(&self.store, k):
                used += size
        return used

    def sweep(self):
        """Clean up after dead participants."""
        return self.participant.sweep()


cdef Chunk filling_chunk(Arena arena, uint64_t chunk, char *start, uint64_t bytes):
    # A chunk that this participant has taken, for its bytes from `start` on.
    cdef Chunk made = Chunk.__new__(Chunk)
    made.arena, made.chunk, made.start, made.bytes = arena, chunk, start, bytes
    made.is_filling = True
    return made


cdef Chunk pinned_chunk(Arena arena, uint64_t chunk, uint64_t position, char *start, uint64_t bytes):
    # A view of what a slot was given; None: the chunk is not the slot's any more.
    cdef Chunk made = Chunk.__new__(Chunk)
    if not arena_pin(&arena.store, chunk, position):
        return None
    made.arena, made.chunk, made.start, made.bytes = arena, chunk, start, bytes
    made.is_given = True
    return made


@final
@no_gc_clear   # __dealloc__ uses `arena`
cdef class Chunk:
    """Bytes of a chunk, which is not filled again while this object lives. Exports a buffer, read-only once it was put."""

    def __dealloc__(self):
        if self.arena is None or inherited(self.arena.store.party):
            return
        if self.is_filling:
            arena_drop(&self.arena.store, self.chunk)
        elif self.is_given:
            arena_unpin(&self.arena.store, self.chunk)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.bytes, not self.is_filling, flags)

    def __len__(self):
        return self.bytes

    cdef int give(self, uint64_t position) except -1:
        # Give the filled chunk to a slot; it stays pinned until this object goes. False: its word is damaged.
        cdef ax_store *store = &self.arena.store
        enter_gate(store)
        store.counts[self.chunk] += 1
        ax_or64(&store.pins[self.chunk * store.mask + (store.me >> 6)], <uint64_t>1 << (store.me & 63))
        ax_store32(&store.gate, 0)
        self.is_filling, self.is_given = False, True
        return arena_give(store, self.chunk, position)
