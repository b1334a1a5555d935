"""Mapped files, participants of segments, unlinking on signals, and vector registers.

A mapping is unmapped with its last reference, never by a call, so that views stay valid. A participant holds one
kernel-locked byte, which is released when its process dies (the liveness protocol of docs/explanation/concurrency.md):
no decision depends on a pid or a clock. A slot is free when its byte is unlocked, and only the holder of a byte
cleans up after the slot's last owner.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from cython cimport no_gc_clear
from libc.errno cimport EACCES, EAGAIN, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset, strdup
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport _SC_PAGESIZE, close, getpid, getuid, sysconf

from ataraxis._kernels.atomics cimport (
    ax_add64, ax_cas64, ax_load32, ax_load64, ax_peek64, ax_put64, ax_store32, ax_swap32,
)
from ataraxis._kernels.fork cimport (
    ax_forget_probe, ax_fork_count, ax_gate_enter, ax_gate_leave, ax_probe, ax_watch_forks, ax_watch_probe,
)
from ataraxis._kernels.layout cimport AX_ACTIVE, AX_CROWDED, AX_DAMAGED, AX_FREE, AX_KIND_LIMIT, ax_participant
from ataraxis._kernels.platform cimport (
    AX_CRASH_BUILD, F_UNLCK, F_WRLCK, ax_allocate, ax_byte, ax_bytes, ax_cpus, ax_crash, ax_hold_slot, ax_now_ns,
    ax_reopen, ax_same_file, ax_unlink, ax_watch_open, ax_watch_wait,
)
from ataraxis._kernels.unlink_on_signal cimport ax_unlink_entry, ax_unlink_register, ax_unlink_cancel

cdef enum:
    SPINS = 12   # attempts at a lock before sleeping, 1 us apart: a wake-up across cores costs 30 us

cdef ax_cleanup cleanups[8]

cdef void on_death(uint32_t kind, ax_cleanup cleanup) noexcept:
    # Register the clean-up function of a kind of segment; called when its kernel is loaded.
    cleanups[kind] = cleanup

cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <immintrin.h>
    __attribute__((target("avx"))) static void ax_clear_upper(void) { _mm256_zeroupper(); }
    static inline void ax_leave_vectors(void)
    {
        if (__builtin_cpu_supports("avx"))
            ax_clear_upper();
    }
    #else
    static inline void ax_leave_vectors(void) {}
    #endif
    """
    void ax_leave_vectors() noexcept nogil


# ---- the algorithm

cdef bint probing(ax_party *party) noexcept nogil:
    # Whether the probe is valid; reopened by name if user code closed it (closerange in a daemon).
    cdef int fresh
    if ax_same_file(party.probe, party.dev, party.ino):
        return True
    ax_gate_enter()
    if not ax_same_file(party.probe, party.dev, party.ino):
        # The old number may be in use elsewhere by now: it is not closed.
        fresh = ax_reopen(party.home, party.dev, party.ino) if party.home != NULL else -1
        if fresh >= 0:
            party.probe = fresh
    ax_gate_leave()
    return ax_same_file(party.probe, party.dev, party.ino)


cdef int alive(ax_party *party, uint32_t slot) noexcept nogil:
    # 1 alive, 0 dead, -1 unknown (treated as alive: exclusion comes first).
    if slot >= party.slots:
        # A damaged word: an impossible slot.
        return 0
    if slot == party.slot:
        return 1
    if not probing(party):
        return -1
    cdef int held = ax_byte(party.probe, 1, F_WRLCK, slot)
    return held if held >= 0 else -1


cdef bint reap(ax_party *party, uint32_t slot) noexcept nogil:
    # Clean up after a dead participant. Owning its byte keeps out other cleaners and new owners.
    cdef bint done = False
    if slot >= party.slots or alive(party, slot) != 0:
        return False
    ax_gate_enter()
    if ax_byte(party.probe, 0, F_WRLCK, slot) == 0:
        ax_crash("reap_before_cleanup")
        done = vacate(party, slot)
        ax_crash("reap_after_cleanup")
        ax_byte(party.probe, 0, F_UNLCK, slot)
    ax_gate_leave()
    return done


cdef bint vacate(ax_party *party, uint32_t slot) noexcept nogil:
    # The caller owns byte `slot`. Acquire pairs with the release of AX_ACTIVE in `fill_entry`.
    if ax_load32(&entry_of(party, slot).state) == AX_FREE:
        return False
    party.cleanup(party, slot)
    ax_crash("vacate_cleaned")
    # Release: a process that sees the slot free sees it clean.
    ax_store32(&entry_of(party, slot).state, AX_FREE)
    ax_add64(&live_of(party).recoveries, 1)
    return True


cdef int sweep(ax_party *party, int64_t period_ns) noexcept nogil:
    # Reap every dead participant, at most once a period (by elapsed time, never by wake-ups).
    cdef uint64_t before = ax_peek64(&party.swept_ns)
    cdef uint64_t now = <uint64_t>ax_now_ns()
    cdef uint32_t slot
    cdef int found = 0
    if now - before < <uint64_t>period_ns or not ax_cas64(&party.swept_ns, before, now):
        return 0
    for slot in range(party.slots):
        # Any state but FREE: reap() leaves a live participant with a damaged state alone.
        if slot != party.slot and ax_load32(&entry_of(party, slot).state) != AX_FREE:
            found += reap(party, slot)
    return found


cdef bint lock_vacant(ax_party *party, uint32_t slot) noexcept nogil:
    # Own the byte of a slot without an owner, whose last owner was cleaned up: a word that names this slot meanwhile
    # is damaged. `unlock_vacant` releases it.
    if slot >= party.slots or alive(party, slot) != 0:
        return False
    ax_gate_enter()
    if ax_byte(party.probe, 0, F_WRLCK, slot) == 0:
        if ax_load32(&entry_of(party, slot).state) == AX_FREE:
            return True
        ax_byte(party.probe, 0, F_UNLCK, slot)
    ax_gate_leave()
    return False


cdef void unlock_vacant(ax_party *party, uint32_t slot) noexcept nogil:
    ax_byte(party.probe, 0, F_UNLCK, slot)
    ax_gate_leave()


cdef int damaged(ax_damage *damage, int word, uint64_t index, uint64_t found, uint64_t other) noexcept nogil:
    damage.word, damage.index, damage.found, damage.other = word, index, found, other
    return AX_DAMAGED


cdef int take_slot(ax_party *party, const char *path, size_t page_bytes, uint32_t role, const char *label) noexcept nogil:
    # Take a slot: free ones first, then those whose owner may have died. >= 0, AX_CROWDED or -1000 - errno.
    cdef uint32_t k, slot
    cdef uint32_t start = <uint32_t>(ax_now_ns() >> 4) % party.slots
    cdef int look, r
    cdef void *page = NULL
    for look in range(2):
        for k in range(party.slots):
            slot = (start + k) % party.slots
            if look == 0 and ax_load32(&entry_of(party, slot).state) != AX_FREE:
                continue
            ax_gate_enter()
            r = ax_hold_slot(path, party.dev, party.ino, slot, page_bytes, &page)
            ax_gate_leave()
            if r == -EAGAIN or r == -EACCES:
                continue
            if r < 0:
                return -1000 + r
            ax_crash("attach_byte_held")
            party.slot = slot
            party.page = page
            vacate(party, slot)
            fill_entry(party, entry_of(party, slot), role, label)
            ax_crash("attach_settled")
            return <int>slot
    return AX_CROWDED


cdef void fill_entry(ax_party *party, ax_participant *entry, uint32_t role, const char *label) noexcept nogil:
    entry.role = role
    entry.attach_ns = ax_now_ns()
    entry.nonce = <uint64_t>entry.attach_ns * 0x9E3779B97F4A7C15u + <uint64_t>getpid()
    entry.pid = getpid()
    entry.uid = getuid()
    memcpy(entry.label, label, 24)
    ax_crash("attach_introduced")
    # Release: a reaper that sees ACTIVE sees the entry.
    ax_store32(&entry.state, AX_ACTIVE)


# ---- the bridge

CRASH_BUILD = bool(AX_CRASH_BUILD)

cdef class Mapping:
    """Map `bytes` of the file `descriptor`, shared and writable; exports a buffer."""

    def __cinit__(self, int descriptor, Py_ssize_t bytes):
        cdef void *base = mmap(NULL, <size_t>bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        if base == MAP_FAILED:
            raise OSError(errno, "mmap failed")
        self.base = <char *>base
        self.bytes = bytes

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, <size_t>self.bytes)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.base, self.bytes, 0, flags)

    def __len__(self):
        return self.bytes

    @property
    def address(self):
        """Where it begins in this process."""
        return <uint64_t>self.base

cdef str damage_text(ax_damage *damage):
    # The word, its value, and what is possible.
    word, index, found, other = damage.word, damage.index, damage.found, damage.other
    if word == AX_WORD_OWNER:
        return f"the lock names participant {found} as its owner, which does not exist (participants are 0 to {other - 1})"
    if word == AX_WORD_AHEAD:
        return f"the word of slot {index} says lap {found}, and producers have come to lap {other}"
    if word == AX_WORD_BEHIND:
        return f"the word of slot {index} says lap {found}, and by the tail lap {other} was claimed there"
    if word == AX_WORD_STATE:
        return f"the word of slot {index} says state {found}, which does not exist (lap {other})"
    if word == AX_WORD_WRITER:
        return f"the word of slot {index} names participant {found} as its writer, which is not a producer (lap {other})"
    if word == AX_WORD_TAIL:
        return f"the tail is {found}, which is impossible: a reader that gates, or the ring's first slot, is at {other}"
    if word == AX_WORD_HEAD:
        return f"the head is {found}, which is impossible: the tail is {other}"
    if word == AX_WORD_LEFT:
        return f"slot {index} has {other} frames, but marks {found:#x} as left; its frames are dropped"
    return f"slot {index} was written again (lap {found}) while a reader kept it at lap {other}"

def allocate(int descriptor, int64_t offset, int64_t bytes):
    """Back the range with memory; return 0 or -errno. The caller proceeds in pieces and checks signals."""
    cdef int status
    with nogil:
        status = ax_allocate(descriptor, offset, bytes)
    return status

def watch_open(bytes directory, bint writes=False):
    """Watch a directory for new names, optionally for writes and closes; return a descriptor, or -errno."""
    return ax_watch_open(directory, writes)

def watch_wait(int descriptor, int64_t wait_ns):
    """Sleep until an event, or until `wait_ns` passed; return >= 0, or -errno."""
    cdef int status
    with nogil:
        status = ax_watch_wait(descriptor, wait_ns)
    return status

def crash_point(bytes name):
    """Kill the process here if a crash-test build is configured to; otherwise do nothing."""
    ax_crash(name)


@no_gc_clear   # __dealloc__ writes into the mapping, which must outlive it
cdef class Participant:
    """A participant of a mapped segment, until its last reference is dropped.

    Owns `descriptor` from here on, also if no slot was free (then `slot` is -1).
    """

    def __cinit__(self, Mapping mapping not None, int descriptor, uint64_t dev, uint64_t ino, bytes path,
                  uint32_t kind, uint32_t slots, Py_ssize_t control, uint32_t role, bytes label,
                  bytes home=None):
        cdef int status
        cdef char name[24]
        self.mapping = mapping
        self.party.probe = descriptor
        if not (0 < slots <= 1024 and 4096 + 64 * <Py_ssize_t>slots <= mapping.bytes and 0 < control < mapping.bytes):
            raise ValueError("participants or control block outside the mapping")
        if kind >= <uint32_t>AX_KIND_LIMIT or cleanups[kind] == NULL:
            raise ValueError(f"no kernel is loaded for segments of kind {kind}")
        self.party.base = mapping.base
        self.party.bytes = mapping.bytes
        self.party.control = mapping.base + control
        self.party.kind = kind
        self.party.slots = slots
        self.party.slot = 0xFFFFFFFFu
        self.party.dev = dev
        self.party.ino = ino
        self.party.spins = SPINS if ax_cpus() > 1 else 0
        self.party.cleanup = cleanups[kind]
        ax_watch_forks()
        if home is not None:
            self.party.home = strdup(<char *>home)
        self.party.watch = ax_watch_probe(&self.party.probe, dev, ino)
        if self.party.watch == NULL:
            raise MemoryError()
        self.party.forks = ax_fork_count()
        self.party.fork = self.party.forks[0]
        memset(name, 0, 24)
        memcpy(name, <char *>label, min(len(label), 23))
        cdef const char *where = path
        cdef size_t page_bytes = <size_t>sysconf(_SC_PAGESIZE)
        with nogil:
            status = take_slot(&self.party, where, page_bytes, role, name)
        if status < 0:
            self.party.slot = 0xFFFFFFFFu
            self.party.page = NULL
            if status <= -1000:
                raise OSError(-(status + 1000), "cannot take a slot of the segment", path)

    def __dealloc__(self):
        cdef ax_party *party = &self.party
        if party.page != NULL and party.forks != NULL and not inherited(party):
            party.cleanup(party, party.slot)
            ax_crash("detach_cleaned")
            # Release: the next owner sees a clean slot.
            ax_store32(&entry_of(party, party.slot).state, AX_FREE)
            ax_crash("detach_freed")
            munmap(party.page, <size_t>sysconf(_SC_PAGESIZE))
        ax_forget_probe(<ax_probe *>party.watch)
        free(party.home)
        if party.probe > 0 and (party.dev == 0 or ax_same_file(party.probe, party.dev, party.ino)):
            close(party.probe)

    @property
    def slot(self):
        """Its slot, or -1 if every slot was held."""
        return -1 if self.party.page == NULL else <int>self.party.slot

    @property
    def is_inherited(self):
        """Whether this is a forked child's copy of its parent's attachment."""
        return inherited(&self.party)

    @property
    def recoveries(self):
        """Dead participants of the segment that were cleaned up, by any process."""
        return ax_load64(&live_of(&self.party).recoveries)

    @property
    def descriptor(self):
        """A descriptor of the segment's file, for locking bytes of it."""
        probing(&self.party)
        return self.party.probe

    def take_recovered(self):
        """Return how many locks this process freed after a death since the last call."""
        return ax_swap32(&self.party.recovered, 0)

    def sweep(self):
        """Clean up after every dead participant; return how many there were."""
        cdef int found
        if inherited(&self.party):
            return 0
        ax_put64(&self.party.swept_ns, 0)
        with nogil:
            found = sweep(&self.party, 0)
        return found


def byte_held(int descriptor, int64_t slot):
    """Return whether another process holds the byte of `slot`; 1, 0 or -errno."""
    return ax_byte(descriptor, 1, F_WRLCK, slot)


def anybody(int descriptor, int64_t slots):
    """Return whether the segment has a participant; 1, 0 or -errno."""
    return ax_bytes(descriptor, 1, F_WRLCK, 0, slots)


def unlink(int descriptor, int directory, bytes name, int64_t slots, bint force):
    """Unlink `name` if it names the file `descriptor`; return a status (see ax_unlink in platform.h)."""
    cdef int status
    cdef const char *text = name
    with nogil:
        # Inside the gate: a forked child would inherit the descriptor and, with it, the byte.
        ax_gate_enter()
        status = ax_unlink(descriptor, directory, text, slots, force)
        ax_gate_leave()
    return status


cdef class UnlinkOnSignal:
    """Unlink `path`, which names the participant's segment, if a signal kills the process.

    Until `cancel`, or until the last reference is dropped.
    """

    cdef ax_unlink_entry *unlink_entry
    cdef Participant participant        # keeps the descriptor open

    def __cinit__(self, Participant participant not None, bytes path):
        self.participant = participant
        self.unlink_entry = ax_unlink_register(
            participant.party.probe, participant.party.dev, participant.party.ino, participant.party.slots, path
        )
        if self.unlink_entry == NULL:
            raise MemoryError("the path is too long, or memory is exhausted")

    def cancel(self):
        """Keep the name from here on."""
        if self.unlink_entry != NULL:
            ax_unlink_cancel(self.unlink_entry)
        self.unlink_entry = NULL
        self.participant = None

    def __dealloc__(self):
        if self.unlink_entry != NULL:
            ax_unlink_cancel(self.unlink_entry)


def vzeroupper():
    """Execute VZEROUPPER: mark the upper halves of the vector registers as unused.

    AVX code that ends without VZEROUPPER (ISA-L's checksums) leaves them in use. From then on every SSE
    instruction of the thread also waits for them: all code that was compiled for plain x86-64 is slower, including
    CPython and forked children. Source: Intel 64 and IA-32 Architectures Optimization Reference Manual,
    "Mixing AVX code with SSE code".
    """
    ax_leave_vectors()
