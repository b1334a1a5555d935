/* The ring of a stream, as ataraxis/_kernels/ring.pyx has it: claims, cursors, pins.
 *
 * One step here is one shared access there; memory is sequentially consistent. Sizes and variants are
 * set on the command line, see tests/models/test_ring_models.py:
 *
 *   PRODUCERS  1, or 2 that share the stream       GATERS    readers that gate, joining late (1)
 *   WATCHERS   readers that pin or copy (1)        LOOKS     frames a watcher takes (1)
 *   N          slots (2)                           M         frames of each producer (3)
 *   UNPINNED   slots below it are copied (1)       KILLS     kills at any step, of any process (0)
 *   FREEZE     watchers keep their pins forever    HOLD      gaters keep a frame until they have the next
 *   RUN        slots that the only producer claims together, published in order when all are filled (1)
 *   DURABLE    gater 0 goes on gating when it dies, and comes back once
 *   RESUME     the stream outlives the death of its only producer, which comes back and continues its numbers
 *   MUTANT_*   one mistake each, that Spin must catch
 *
 * Waiting is a guard: a wait without end shows as an invalid end state. Timed sleepers also wake
 * to reap dead participants.
 */
#ifndef PRODUCERS
#define PRODUCERS 1
#endif
#ifndef GATERS
#define GATERS 1
#endif
#ifndef WATCHERS
#define WATCHERS 1
#endif
#ifndef LOOKS
#define LOOKS 1
#endif
#ifndef N
#define N 2
#endif
#ifndef M
#define M 3
#endif
#ifndef UNPINNED
#define UNPINNED 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#define FREE 0
#define WRITING 1
#define READY 2
#define SKIP 3
#define IDLE 0
#define GATING 1
#define DETACHED 2
#define G0 2            /* participants: producers 0 1, gaters 2 3, watchers 4 5 */
#define W0 4
#define ALL 6
#define LAP(p) ((p) / N + 1)
#define MOST 24         /* positions: more are an error */
#define SHARED (PRODUCERS > 1)
#ifndef OLDEST
#define OLDEST 0       /* 1: gaters begin with the oldest frame that is safe */
#endif
#ifndef AHEAD
#define AHEAD 1
#endif
#ifndef RUN
#define RUN 1
#endif

byte lap[N], st[N], own[N];           /* a slot's word: always accessed in one step */
byte da[N], db[N];                    /* its frame, in two halves */
byte pin[N];                          /* bit of a watcher */
byte tail, announced;
bit joining[2], ended;
byte cst[2], cur[2];                  /* a gater's cursor: one word */
bit sends[2];
bit byte_[ALL], reaper[ALL], dirty[ALL], alive[ALL], done[ALL];
byte kills;
/* ghosts */
byte pub[MOST];                       /* position -> frame published there */
byte need[2]; bit joined[2];          /* a live gater needs all from here on */
byte kept[N];                         /* bit of a live watcher with a confirmed pin */
bit came_back;
bit over;                             /* the end mark of a stream that can be resumed */
byte count;                           /* frames published, counted after each */
byte came_again, last;                /* ghosts: producers that resumed; frames published */
#if defined(RESUME) && !defined(MUTANT_DEATH_ENDS)
#define OVER over
#else
#define OVER 1
#endif

inline reap(x) {
  if
  :: atomic { !byte_[x] && !reaper[x] && dirty[x] -> reaper[x] = 1 };
     i = 0;
     do
     :: i < N ->
#ifndef MUTANT_NO_CLEAN_WORD
        atomic { if :: st[i] == WRITING && own[i] == x -> st[i] = SKIP :: else fi };
#endif
        atomic { if :: x >= W0 -> pin[i] = pin[i] & (255 - (1 << (x - W0))) :: else fi; i++ }
     :: i == N -> break
     od;
#ifndef MUTANT_NO_CLEAN_CURSOR
     if
     :: x >= G0 && x < W0 ->
#ifdef DURABLE
#ifndef MUTANT_PROMISED_EARLY
        atomic { if :: cst[x - G0] == GATING && joining[x - G0] -> cst[x - G0] = IDLE :: else fi };
#endif
        atomic { if :: cst[x - G0] == GATING -> cst[x - G0] = DETACHED :: else fi }
#else
        cst[x - G0] = IDLE
#endif
     :: else fi;
#endif
     if :: x < G0 -> sends[x] = 0 :: else fi;
     atomic { dirty[x] = 0; reaper[x] = 0; i = 0 }
  :: else
  fi
}
#define DEAD(x) (dirty[x] && !byte_[x] && !reaper[x])
/* A timed sleeper reaps dead participants. */
inline sweep() {
  if :: DEAD(0) -> reap(0) :: DEAD(1) -> reap(1) :: DEAD(2) -> reap(2) :: DEAD(3) -> reap(3)
     :: DEAD(4) -> reap(4) :: DEAD(5) -> reap(5) :: else fi
}
#define ANY_DEAD (DEAD(0) || DEAD(1) || DEAD(2) || DEAD(3) || DEAD(4) || DEAD(5))
#define GATED(c, p) (cst[c] != IDLE && cur[c] + N <= (p))
inline leave(x) { atomic { done[x] = 1; dirty[x] = 0; byte_[x] = 0; alive[x] = 0 } }

#ifdef RESUME
/* No number is missing, none is there twice. */
#define NUMBER assert(k == last); last = k + 1
#define COUNT count = k + 1
/* The producer before may have died after it published a frame, and before it counted it. */
inline count_last() {
  k = count;
#ifndef MUTANT_COUNT_WORD
  p = tail; low = tail; c = 0;
  do
  :: p > 0 && low - p < N && c == 0 ->
     p--;
     atomic { if :: lap[p % N] == LAP(p) && st[p % N] == READY -> c = da[p % N] :: else fi }
  :: else -> break
  od;
  atomic { if :: c > k -> k = c :: else fi; count = k; p = 0; low = 0; c = 0 }
#endif
}
#else
#define NUMBER skip
#define COUNT skip
#endif

/* Set the state of a claimed word: a store with one producer, else a swap that may find the lap raised. */
inline set_state(p, state) {
  atomic {
    assert(st[p % N] == WRITING && own[p % N] == me);
    if
    :: lap[p % N] == LAP(p) -> st[p % N] = state; if :: state == READY -> assert(!ended); pub[p] = me * 100 + k + 1; NUMBER :: else fi
    :: else -> assert(SHARED); st[p % N] = SKIP
    fi
  }
}

/* A claim never overwrites a frame that a reader still needs. */
#define NEEDED(c, p) ((p) >= N && joined[c] && need[c] <= (p) - N && pub[(p) - N])

#if RUN > 1
/* Words are loaded and then stored: no other process changes them. One store of the tail after all of them. */
inline claim_run() {
  r = 0;
  do
#ifdef MUTANT_RUN_PAST_LIMIT
  :: r < RUN && k + r < M && p % N + r < N && lap[(p + r) % N] < LAP(p) && st[(p + r) % N] != WRITING -> r++
#else
  :: r < RUN && k + r < M && p % N + r < N && p + r < limit && lap[(p + r) % N] < LAP(p) && st[(p + r) % N] != WRITING -> r++
#endif
  :: else -> break
  od;
  q = 0;
  do
  :: q < r ->
     atomic { assert(lap[(p + q) % N] < LAP(p) && st[(p + q) % N] != WRITING && !NEEDED(0, p + q) && !NEEDED(1, p + q));
              lap[(p + q) % N] = LAP(p); st[(p + q) % N] = WRITING; own[(p + q) % N] = me; q++ }
  :: q == r -> break
  od;
  tail = p + r                                 /* fence P below it */
}
inline send_run() {
  q = p; c = 0;                                /* c: filled */
  do
  :: q < p + r ->
     if
#ifndef MUTANT_NO_PIN_CHECK
     :: q % N >= UNPINNED && pin[q % N] != 0 -> set_state(q, SKIP)
#endif
     :: else ->
        atomic { assert(!kept[q % N]); da[q % N] = me * 100 + k + c + 1 };
        atomic { assert(!kept[q % N]); db[q % N] = me * 100 + k + c + 1 };
        c++
     fi;
     q++
  :: q == p + r -> break
  od;
  q = p;
  do
  :: q < p + r ->
     if :: st[q % N] == WRITING -> set_state(q, READY); COUNT; k++ :: else fi;
     q++
  :: q == p + r -> break
  od
}
#endif

proctype Producer(byte me) {
  byte p, k, limit, low, top, i, c, wl, ws, wo;
#if RUN > 1
  byte r, q;
#endif
  {
#ifdef RESUME
  count_last();
#endif
  do
  :: k < M ->
next:
     p = tail;
     assert(p < MOST - 1);
     if
     :: p >= limit ->
        low = tail;
        top = low + AHEAD;
#ifndef MUTANT_NOT_ANNOUNCED
        atomic { if :: announced < top -> announced = top :: else fi };
#endif
        /* fence J */
        c = 0;
        do
        :: c < 2 -> atomic { if :: cst[c] != IDLE && cur[c] < low -> low = cur[c] :: else fi; c++ }
        :: c == 2 -> break
        od;
        limit = (low + N < top -> low + N : top);
        if
        :: p >= limit ->                       /* full */
           if
           :: atomic { (tail != p || (!GATED(0, p) && !GATED(1, p))) -> skip }
           :: atomic { ANY_DEAD -> skip }; sweep()
           fi;
           goto next
        :: else
        fi
     :: else
     fi;
#if RUN > 1
     claim_run();
     if :: r -> send_run(); goto sent :: else fi;
#endif
     atomic { wl = lap[p % N]; ws = st[p % N]; wo = own[p % N] };
     if
     :: wl > LAP(p) -> goto next
     :: wl == LAP(p) -> atomic { if :: tail == p -> tail = p + 1 :: else fi }; goto next
     :: wl < LAP(p) && ws == WRITING ->        /* a lap behind, and no reader gates on it: raise the lap */
        atomic { if :: lap[p % N] == wl && st[p % N] == ws && own[p % N] == wo -> lap[p % N] = LAP(p) :: else fi };
        goto next
     :: else ->
        if
        :: atomic { lap[p % N] == wl && st[p % N] == ws && own[p % N] == wo ->
             assert(!NEEDED(0, p) && !NEEDED(1, p));
             lap[p % N] = LAP(p); st[p % N] = WRITING; own[p % N] = me }
        :: else -> goto next
        fi
     fi;
     atomic { if :: tail == p -> tail = p + 1 :: else fi };
#ifndef MUTANT_NO_PIN_CHECK
     if                                        /* fence P above it */
#ifdef MUTANT_PIN_ALL
     :: pin[p % N] != 0 ->
#else
     :: p % N >= UNPINNED && pin[p % N] != 0 ->
#endif
        set_state(p, SKIP);
        goto next
     :: else
     fi;
#endif
#ifdef MUTANT_LEAVE_EARLY
     if :: k == M - 1 -> sends[me] = 0 :: else fi;
#endif
#ifdef MUTANT_READY_EARLY
     atomic { assert(!kept[p % N]); da[p % N] = me * 100 + k + 1 };
     set_state(p, READY);
     atomic { assert(!kept[p % N]); db[p % N] = me * 100 + k + 1 };
#else
     atomic { assert(!kept[p % N]); da[p % N] = me * 100 + k + 1 };
     atomic { assert(!kept[p % N]); db[p % N] = me * 100 + k + 1 };
     set_state(p, READY);
#endif
     COUNT;
     k++;
sent: skip
  :: k >= M -> break
  od;
#ifdef RESUME
  over = 1;
#endif
  sends[me] = 0;
  leave(me)
  } unless { !alive[me] && !done[me] };
end0:
#ifdef RESUME
  /* The next one: with the byte, after the dead one was cleaned up. */
  if
#ifdef MUTANT_RESUME_UNCLEANED
  :: atomic { !done[me] && !over && came_again < KILLS && !reaper[me] ->
#else
  :: atomic { !done[me] && !over && came_again < KILLS && !reaper[me] && !dirty[me] ->
#endif
       came_again++; alive[me] = 1; byte_[me] = 1; dirty[me] = 1; sends[me] = 1; run Producer(me) }
  :: done[me] || over || came_again == KILLS
  :: atomic { !done[me] && DEAD(me) -> skip }; reap(me); goto end0
  fi
#else
  skip
#endif
}

proctype Gater(byte me) {
  byte g, pos, i, wl, ws, wo, v, t;
  bit first;
  g = me - G0;
  {
  if
  :: cst[g] == DETACHED ->                     /* a durable name: continue where its reader died */
     atomic { cst[g] = GATING; pos = cur[g]; need[g] = pos; joined[g] = 1 }
  :: else ->
     t = tail;
     t = (OLDEST && t > N -> t - N : (OLDEST -> 0 : t));
     joining[g] = 1;
     atomic { cst[g] = GATING; cur[g] = t };
     /* fence J */
#ifndef MUTANT_JOIN_ONCE
     if
     :: OLDEST -> v = announced; t = (v > N && v - N > t -> v - N : t)
     :: else -> t = tail
     fi;
#endif
     cur[g] = t;
#ifndef MUTANT_PROMISED_EARLY
     atomic { joining[g] = 0; pos = t; need[g] = t; joined[g] = 1 }
#else
     atomic { pos = t; need[g] = t; joined[g] = 1 }
#endif
  fi;
  first = 1;
  do
  :: atomic { wl = lap[pos % N]; ws = st[pos % N]; wo = own[pos % N] };
     if
     :: wl < LAP(pos) || (wl == LAP(pos) && ws == WRITING) ->
        if
        :: atomic { lap[pos % N] >= LAP(pos) && st[pos % N] != WRITING -> skip }
        :: atomic { ANY_DEAD -> skip }; sweep()
        :: atomic { !sends[0] && !sends[1] && OVER && wl < LAP(pos) && !ANY_DEAD -> skip };
           if                                  /* the end: check again once no producer is left */
           :: lap[pos % N] < LAP(pos) ->
              t = pos;
              atomic { do :: t < MOST -> assert(!pub[t]); t++ :: t == MOST -> break od; ended = 1 };
              break
           :: else
           fi
        fi
     :: wl == LAP(pos) && ws == SKIP ->
        atomic { assert(!pub[pos]); need[g] = pos + 1 };
        pos++;
#ifdef HOLD
        if :: first -> cur[g] = pos :: else fi
#else
        cur[g] = pos
#endif
     :: wl == LAP(pos) && ws == READY ->
#ifdef MUTANT_CURSOR_EARLY
        atomic { need[g] = pos; cur[g] = pos + 1 };
#endif
#ifdef HOLD
        if :: !first -> cur[g] = pos :: else fi;    /* the previous frame is released now */
        first = 0;
#endif
        v = da[pos % N];
        assert(v == pub[pos]);
        atomic { assert(db[pos % N] == v && da[pos % N] == v && lap[pos % N] == LAP(pos)); need[g] = pos + 1 };
        pos++;
#ifndef HOLD
        cur[g] = pos
#endif
     :: wl > LAP(pos) -> assert(false)         /* overwritten before it was read */
     fi
  od;
  atomic { joined[g] = 0; cst[g] = IDLE };
  leave(me)
  } unless { !alive[me] && !done[me] };
end0:
#ifdef DURABLE
  /* It comes back: with its byte, after the previous owner was cleaned up. */
  if
  :: atomic { !done[me] && g == 0 && !came_back && !reaper[me] && !dirty[me] ->
       came_back = 1; alive[me] = 1; byte_[me] = 1; dirty[me] = 1; run Gater(me) }
  :: done[me] || came_back || g != 0
  :: atomic { !done[me] && DEAD(me) -> skip }; reap(me); goto end0
  fi
#else
  skip
#endif
}

proctype Watcher(byte me) {
  byte pos, n, i, wl, ws, a, b;
  bit ok;
  byte bit_;
  bit_ = 1 << (me - W0);
  {
  do
  :: n < LOOKS ->
     atomic { (tail > 0 || (!sends[0] && !sends[1]) || ANY_DEAD) -> skip };
     pos = tail;
     if :: pos == 0 -> sweep(); n++; goto again :: else -> pos-- fi;
     atomic { wl = lap[pos % N]; ws = st[pos % N] };
     if
     :: wl == LAP(pos) && ws == READY ->
#ifdef MUTANT_PIN_ALL
        if :: true ->
#else
        if :: pos % N >= UNPINNED ->
#endif
           pin[pos % N] = pin[pos % N] | bit_;
           /* fence P */
#ifdef MUTANT_NO_PIN_RECHECK
           atomic { ok = 1; kept[pos % N] = kept[pos % N] | bit_ };
#else
           atomic { ok = (lap[pos % N] == LAP(pos) && st[pos % N] == READY);
                    if :: ok -> kept[pos % N] = kept[pos % N] | bit_ :: else fi };
#endif
           if
           :: ok ->
              a = da[pos % N]; b = db[pos % N];
              assert(a == pub[pos] && b == pub[pos]);
#ifdef FREEZE
              goto endfrozen;
#endif
              atomic { assert(da[pos % N] == a && db[pos % N] == a); kept[pos % N] = kept[pos % N] & (255 - bit_) }
           :: else
           fi;
           pin[pos % N] = pin[pos % N] & (255 - bit_)
        :: else ->                             /* copy, and check again */
           a = da[pos % N]; b = db[pos % N];
#ifdef MUTANT_NO_COPY_CHECK
           ok = 1;
#else
           atomic { ok = (lap[pos % N] == LAP(pos) && st[pos % N] == READY) };
#endif
           if :: ok -> assert(a == pub[pos] && b == pub[pos]) :: else fi
        fi
     :: else
     fi;
     n++;
again: skip
  :: n >= LOOKS -> break
  od;
  leave(me)
  } unless { !alive[me] && !done[me] };
  goto end0;
endfrozen:
  (!alive[me]);
end0: skip
}

proctype Killer() {
  byte v;
  do
  :: atomic { kills < KILLS ->
     if :: alive[0] -> v = 0 :: alive[1] -> v = 1 :: alive[2] -> v = 2 :: alive[3] -> v = 3
        :: alive[4] -> v = 4 :: alive[5] -> v = 5 :: else -> goto fin fi;
     alive[v] = 0; byte_[v] = 0; kills++;
     if :: v >= W0 -> kept[0] = kept[0] & (255 - (1 << (v - W0))); kept[N - 1] = kept[N - 1] & (255 - (1 << (v - W0)));
                      kept[N / 2] = kept[N / 2] & (255 - (1 << (v - W0)))
#ifdef DURABLE
        :: v >= G0 && v < W0 -> skip           /* goes on gating, and still needs all frames not read */
#else
        :: v >= G0 && v < W0 -> joined[v - G0] = 0
#endif
        :: else fi }
  :: break
  od;
fin: skip
}

#define START(x, what) alive[x] = 1; byte_[x] = 1; dirty[x] = 1; run what(x)
init {
  atomic {
    sends[0] = 1; START(0, Producer);
#if PRODUCERS > 1
    sends[1] = 1; START(1, Producer);
#endif
#if GATERS > 0
    START(2, Gater);
#endif
#if GATERS > 1
    START(3, Gater);
#endif
#if WATCHERS > 0
    START(4, Watcher);
#endif
#if WATCHERS > 1
    START(5, Watcher);
#endif
    if :: KILLS > 0 -> run Killer() :: else fi
  }
}
