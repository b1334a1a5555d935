/* The lock of a segment, as ataraxis/_kernels/lock.pxd, lock.pyx, copy.pxd and memory.pyx have it.
 *
 * One step here is one shared access there. Memory is sequentially consistent: lock_litmus.cpp checks weaker
 * orders. Sizes and variants are set on the command line (-D...), see
 * docs/explanation/concurrency-models.md and tests/models/test_models.py:
 *
 *   LOCKERS   processes that lock and write (2)      TURNS     writes of each (2)
 *   SLOTS     slots of the segment (LOCKERS)         KILLS     kills, at any step, of lockers (0)
 *   RESTARTS  killed lockers that come back (0)      GIVEUPS   waits for the lock that time out (0)
 *   READS     optimistic reads of a reader (0)       CHANGES   1: a process waits for every change (0)
 *   ELEMENTS  turns store one element each           UNTIMED   sleepers rely on being woken (not with KILLS, GIVEUPS)
 *   NIGHTLY   the sizes of the longer run instead: 2 kills and 2 restarts
 *   MUTANT_*  one mistake each, that Spin must catch
 *
 * A timed sleeper wakes up by itself only if it can go on: the lock is free, or its
 * owner's byte is. So a wait without end shows as an invalid end state.
 */
#ifdef NIGHTLY
#define KILLS 2
#define RESTARTS 2
#endif
#ifndef LOCKERS
#define LOCKERS 2
#endif
#ifndef SLOTS
#define SLOTS LOCKERS
#endif
#ifndef TURNS
#define TURNS 2
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef GIVEUPS
#define GIVEUPS 0
#endif
#ifndef READS
#define READS 0
#endif
#ifndef CHANGES
#define CHANGES 0
#endif

#define OWNER 15            /* slot + 1, as in the kernels */
#define WAITERS 16
#define CHANGE 32
#define NONE 0
#define IS_ODD(v) ((v) & 1)
#define BIT(process) (1 << (process))

/* ---- ax_guard and the participants' table */
byte lock, version, event;
bit dirty, health;
byte first, second;         /* the payload: two halves, or two elements */
byte held_by[SLOTS + 1];    /* byte of slot + 1: process + 1 whose description locks it; the kernel's */
bit tenant[SLOTS + 1];      /* ax_participant.state */

/* ---- the kernel's queues of sleepers */
byte asleep;                /* on `lock`: bits of processes */
byte dozing;                /* on `event`: bits of processes */

/* ---- the world */
bit alive[LOCKERS];
byte kills = KILLS, restarts = RESTARTS, giveups = GIVEUPS;

/* ---- ghosts: read by assertions only */
byte inside;                /* process + 1 that holds the lock */
bit died_dirty;             /* an owner died while dirty, and no complete write has ended since */

/* complete states of first and second */
#ifdef ELEMENTS
#define WHOLE(a, b) ((a) == (b) || (a) == (b) + 1)     /* elements are stored in turns */
#define WRITTEN (first + second)                       /* how many writes the data show */
#else
#define WHOLE(a, b) ((a) == (b))
#define WRITTEN second
#endif

/* Invariants when the lock is taken. */
inline enter() {
    assert(inside == NONE);                          /* mutual exclusion */
    inside = me + 1;
    assert(!IS_ODD(version));                          /* every section was closed */
    assert(health == died_dirty);                      /* flagged if and only if an owner died dirty */
    assert(health || WHOLE(first, second));            /* and dirty enough */
}

inline cas(expected, desired) {
    atomic { ok = (lock == expected); if :: ok -> lock = desired :: else fi }
}

/* Futex wake of one sleeper: any of them. */
inline wake_one() {
    atomic {
        if
        :: asleep & 1 -> asleep = asleep & ~1
        :: asleep & 2 -> asleep = asleep & ~2
        :: asleep & 4 -> asleep = asleep & ~4
        :: else
        fi
    }
}

inline lock_wake(bits) {
    if
    :: (bits) & WAITERS -> wake_one()
    :: else
    fi;
    if
    :: CHANGES && ((bits) & CHANGE) ->
#ifndef MUTANT_CHANGE_ON_VERSION
        event++;            /* before the wake: a process about to sleep does not */
#endif
        dozing = 0
    :: else
    fi
}

inline lock_free() {
    do
    :: cas(seen, seen & WAITERS);
       if :: ok -> break :: else -> seen = lock fi
    od;
    lock_wake(WAITERS | CHANGE)
}

/* guard_cleanup: the caller owns byte s, or thinks so. If interrupted, another process repeats it. */
inline cleanup(s) {
    seen = lock;
    if
    :: (seen & OWNER) == s ->
#ifdef MUTANT_FREE_FIRST
        lock_free();
#endif
#ifdef MUTANT_VERSION_FIRST
        was = version;
        version = (IS_ODD(was) -> was + 1 : was + 2);
#endif
#ifndef MUTANT_NO_HEALTH
        if
        :: dirty -> health = 1
        :: else
        fi;
#endif
#ifndef MUTANT_VERSION_FIRST
        was = version;
#if defined(MUTANT_NO_BUMP)
        version = (IS_ODD(was) -> was + 1 : was);
#elif defined(MUTANT_STAY_ODD)
        version = (IS_ODD(was) -> was : was + 2);
#else
        version = (IS_ODD(was) -> was + 1 : was + 2);
#endif
#endif
        dirty = 0;
#ifndef MUTANT_FREE_FIRST
        lock_free();
#endif
        was = 0
    :: else
    fi;
    seen = 0;
    ok = 0
}

inline vacate(s) {
    if
    :: tenant[s] -> cleanup(s); tenant[s] = 0
    :: else
    fi
}

inline reap(s) {
    if
#ifdef MUTANT_STEAL
    :: held_by[s] == NONE -> vacate(s)               /* dead, so clean up; without owning the byte */
#else
    :: atomic { held_by[s] == NONE -> held_by[s] = me + 1 };
#ifdef MUTANT_BYTE_EARLY
       held_by[s] = NONE;
       vacate(s)
#else
       vacate(s);
       held_by[s] = NONE
#endif
#endif
    :: else
    fi
}

/* take_slot: any slot whose byte is free. The code prefers free ones; here each is tried. */
inline attach() {
    if
    :: atomic { held_by[1] == NONE -> held_by[1] = me + 1; slot = 1 }
#if SLOTS > 1
    :: atomic { held_by[2] == NONE -> held_by[2] = me + 1; slot = 2 }
#endif
#if SLOTS > 2
    :: atomic { held_by[3] == NONE -> held_by[3] = me + 1; slot = 3 }
#endif
    fi;
#ifndef MUTANT_NO_VACATE
    vacate(slot);
#endif
    tenant[slot] = 1
}

/* Participant.__dealloc__ */
inline detach() {
    cleanup(slot);
    tenant[slot] = 0;
    atomic { held_by[slot] = NONE; slot = 0 }
}

#ifdef UNTIMED
#define COMES_BACK false
#else
#define COMES_BACK ((lock & OWNER) == 0 || held_by[lock & OWNER] == NONE)
#endif
#ifdef MUTANT_WAITERS_FORGOTTEN
#define KEPT 0
#else
#define KEPT WAITERS
#endif

/* lock_try, then lock_wait: ok is 1 if it was taken. */
inline take() {
    seen = lock;
    if
    :: !(seen & OWNER) -> atomic { cas(seen, seen | slot); if :: ok -> enter() :: else fi }
    :: else -> ok = 0
    fi;
    do
    :: ok -> break
    :: else ->
       seen = lock;
       if
       :: !(seen & OWNER) ->
          atomic { cas(seen, seen | KEPT | slot); if :: ok -> enter() :: else fi }
       :: else ->
          if
          :: giveups > 0 -> giveups--; break
          :: held_by[seen & OWNER] == NONE -> victim = seen & OWNER; reap(victim); victim = 0
          :: true ->                                  /* not time to probe yet: sleep first */
             ok = 1;
             if
             :: !(seen & WAITERS) -> cas(seen, seen | WAITERS); seen = seen | WAITERS
             :: else
             fi;
             if
             :: ok ->
                ok = 0;
                if
                :: atomic { lock == seen -> asleep = asleep | BIT(me) };
                   if
                   :: !(asleep & BIT(me))
                   :: atomic { (asleep & BIT(me)) && COMES_BACK -> asleep = asleep & ~BIT(me) }
                   fi
                :: lock != seen
                fi
             :: else
             fi
          fi
       fi
    od;
    seen = 0
}

inline release() {
#ifdef MUTANT_PLAIN_RELEASE
    seen = lock;                                       /* load, then store: not a swap */
    atomic { inside = NONE; lock = 0 };
#else
    atomic { inside = NONE; seen = lock; lock = 0 };
#endif
#ifndef MUTANT_NO_WAKE
    lock_wake(seen);
#endif
    seen = 0;
    ok = 0
}

/* copy_in, or a section opened by Lock.acquire or array() that is written in later. Heals. */
inline write_section() {
    was = (first > second -> first : second) + 1;
#ifdef MUTANT_DIRTY_LATE
    version = version | 1;
    first = was;
    dirty = 1;
#else
    if
    :: dirty = 1; version = version | 1
    :: version = version | 1; dirty = 1
    fi;
#ifdef MUTANT_NO_SECTION
    version = version & ~1;
#endif
    first = was;
#endif
    second = was;
    was = 0;
    atomic { health = 0; died_dirty = 0 };
#ifdef MUTANT_EVEN_KEPT
    version = version & ~1;                            /* even again, not counted */
#else
    version = (version | 1) + 1;
#endif
    dirty = 0
}

/* store_element, without a section: in turns, so that the newer one is known. */
inline store_element() {
    if
    :: first == second ->
#ifdef MUTANT_COUNT_FIRST
       version = version + 2;
#endif
       first = first + 1
    :: else ->
#ifdef MUTANT_COUNT_FIRST
       version = version + 2;
#endif
       second = second + 1
    fi;
#ifndef MUTANT_COUNT_FIRST
    version = version + 2
#endif
}

proctype Locker(byte me) {
    byte slot, seen, was, victim, turn;
    bit ok;
start:
    {
        attach();
        do
        :: turn < TURNS ->
           take();
           if
           :: ok ->
#ifdef ELEMENTS
              store_element();
#else
              write_section();
#endif
              release()
           :: else                                     /* timed out */
           fi;
           turn++
        :: else -> break
        od;
        detach();
        alive[me] = 0
    } unless { !alive[me] };
    if
    :: atomic { slot && restarts > 0 -> restarts--; alive[me] = 1;
                slot = 0; seen = 0; was = 0; victim = 0; ok = 0 };
       goto start                                      /* a new process, perhaps in the same slot */
    :: slot
    :: !slot
    fi
}

#if LOCKERS > 2
#define ANY_ALIVE (alive[0] || alive[1] || alive[2])
#else
#define ANY_ALIVE (alive[0] || alive[1])
#endif

/* The kernel's part of SIGKILL: descriptions are closed, so bytes are freed; the process does not sleep any more. */
active proctype Killer() {
    byte victim, s;
end_killer:
    do
    :: atomic { kills > 0 && ANY_ALIVE ->
           kills--;
           if
           :: alive[0] -> victim = 0
           :: alive[1] -> victim = 1
#if LOCKERS > 2
           :: alive[2] -> victim = 2
#endif
           fi;
           alive[victim] = 0;
           asleep = asleep & ~BIT(victim);
           s = 1;
           do
           :: s <= SLOTS -> if :: held_by[s] == victim + 1 -> held_by[s] = NONE :: else fi; s++
           :: else -> break
           od;
           if
           :: inside == victim + 1 ->
              inside = NONE;
              if
              :: dirty -> died_dirty = 1
              :: else
              fi
           :: else
           fi;
           victim = 0; s = 0
       }
    od
}

#if READS
/* copy_out: accepts only complete writes. */
active proctype Reader() {
    byte looks = READS, v, a, b;
    do
    :: looks > 0 ->
       looks--;
       v = version;
       if
       :: !IS_ODD(v) && !health ->                     /* two loads in the kernel; `health` is set in odd versions only */
          a = first;
          b = second;
          if
          :: version == v -> assert(WHOLE(a, b))
          :: version != v
          fi
       :: else
       fi;
       v = 0; a = 0; b = 0
    :: else -> break
    od
}
#endif

#if CHANGES
#define MYSELF 7
/* change_wait, called until the last of all changes was seen. */
active proctype Waiter() {
    byte last, v, e;
    do
    :: last < LOCKERS * TURNS ->
#ifdef MUTANT_LOOK_FIRST
       e = event;
       v = version;
       lock = lock | CHANGE;
#else
       e = event;
       lock = lock | CHANGE;
       v = version;
#endif
       if
       :: v / 2 != last ->
          assert(WRITTEN >= v / 2);                    /* a process that learns of a write can read it */
          last = v / 2
       :: else ->
#ifdef MUTANT_CHANGE_ON_VERSION
          if
          :: atomic { version == v -> dozing = dozing | BIT(MYSELF) }; !(dozing & BIT(MYSELF))
          :: version != v
          fi
#else
          if
          :: atomic { event == e -> dozing = dozing | BIT(MYSELF) }; !(dozing & BIT(MYSELF))
          :: event != e
          fi
#endif
       fi;
       v = 0; e = 0
    :: else -> break
    od
}
#endif

init {
    byte k;
    atomic {
        do
        :: k < LOCKERS -> alive[k] = 1; run Locker(k); k++
        :: else -> break
        od
    }
}
