/* The arena of a queue: a chunk is filled only while no slot and no view has it, and none is lost to a kill.
 *
 * The words of ataraxis/_kernels/arena.pxd: a chunk has a word (FREE, FILLING by a participant, GIVEN to a position) and pins.
 * The queue's own protocol is tests/models/queue.pml; here its claim, lease and acknowledgement are one step each. Lists of
 * free chunks are hints: a putter takes any chunk. A step between two labels is one atomic access of arena.pyx.
 *
 * Checked: no chunk is filled while a view of it was granted; a view and a copy read what was put at their position; a view
 * never changes; the chunk of a waiting frame is that frame's; at the end every chunk is free and has no pins, also after
 * kills; no process waits forever (Spin's invalid end states). */
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef CHUNKS
#define CHUNKS 2
#endif
#ifndef FRAMES
#define FRAMES 2
#endif
#ifndef PUTTERS
#define PUTTERS 1
#endif
#ifndef GETTERS
#define GETTERS 2
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef EXPIRE
#define EXPIRE 0
#endif
#ifndef BUMPS
#define BUMPS 0
#endif
#define WHO (PUTTERS + GETTERS)
#define FREE 0
#define WRITING 1
#define READY 2
#define LEASED 3
#define RETRY 4
#define FILLING 1
#define GIVEN 2
#define TORN 100
#define POSITION(i) (lap[i] * SLOTS + i)
#define LEFT(x) (over[x] || (!alive[x] && !dirty[x]))
#if PUTTERS > 1
#define FINISHED (LEFT(0) && LEFT(1))
#else
#define FINISHED LEFT(0)
#endif

byte lap[SLOTS]; byte st[SLOTS]; byte own[SLOTS]; byte lse[SLOTS]; byte id[SLOTS]; byte ticket[SLOTS];
byte word[CHUNKS]; byte owner[CHUNKS]; byte pins[CHUNKS]; byte data[CHUNKS];
bit alive[WHO]; bit held[WHO]; bit dirty[WHO]; bit over[WHO]; byte reaper[WHO];
byte kills = 0; byte expired = 0; byte bumps = 0;
/* Ghosts: views of a chunk that were granted, a bit per live process; the frame put at a position. */
byte views[CHUNKS]; byte sent[(FRAMES * PUTTERS + 2) * SLOTS + SLOTS];

/* queue_keeps: one load of the word, one of the id */
inline keeps(p) {
  i = p % SLOTS;
  atomic { ws = st[i]; wl = lap[i] };
  if
  :: ws == FREE -> kept = 0
  :: ws == LEASED || ws == RETRY ->
#ifdef MUTANT_RECLAIM_BY_LAP
     kept = (wl * SLOTS + i == p)
#else
     kept = (id[i] == p)
#endif
  :: else -> kept = (wl * SLOTS + i == p)
  fi;
  i = 0
}

/* arena_rebuild */
inline rebuild() {
  c = 0;
  do
  :: c < CHUNKS ->
     atomic { cw = word[c]; co = owner[c] };
     if
     :: cw == GIVEN ->
        keeps(co);
        if
        :: !kept -> atomic { if :: word[c] == GIVEN && owner[c] == co -> word[c] = FREE; owner[c] = 0 :: else fi }
        :: else
        fi
     :: else
     fi;
     c++
  :: c == CHUNKS -> break
  od;
  c = 0; cw = 0; co = 0; ws = 0; wl = 0; kept = 0
}

/* reap: own the dead participant's byte, clean up, release it; a killed reaper loses the byte. Of queue and arena together. */
inline reap(x) {
  if
  :: atomic { !held[x] && reaper[x] == 0 && dirty[x] -> reaper[x] = me + 1 };
     i = 0;
     do
     :: i < SLOTS ->
        atomic {
          if
          :: st[i] == WRITING && own[i] == x -> st[i] = FREE
          :: st[i] == LEASED && own[i] == x -> st[i] = RETRY
          :: else
          fi;
          i++
        }
     :: i == SLOTS -> break
     od;
     i = 0;
     do
     :: i < CHUNKS ->
#ifndef MUTANT_NO_CLEAN_FILLING
        atomic { if :: word[i] == FILLING && owner[i] == x -> word[i] = FREE; owner[i] = 0 :: else fi };
#endif
#ifndef MUTANT_NO_CLEAN_PINS
        pins[i] = pins[i] & ~(1 << x);
#endif
        i++
     :: i == CHUNKS -> break
     od;
     i = 0;
     atomic { dirty[x] = 0; reaper[x] = 0 }
  :: else
  fi
}

inline reap_any() {
  if
  :: atomic { me != 0 && !held[0] && dirty[0] && reaper[0] == 0 -> skip }; reap(0)
  :: atomic { me != 1 && !held[1] && dirty[1] && reaper[1] == 0 -> skip }; reap(1)
#if WHO > 2
  :: atomic { me != 2 && !held[2] && dirty[2] && reaper[2] == 0 -> skip }; reap(2)
#endif
  :: else
  fi
}

proctype Putter(byte me) {
  byte k = 0; byte f; byte c = 0; byte s = 0; byte i = 0; byte cw = 0; byte co = 0; byte ws = 0; byte wl = 0; byte p = 0;
  bit kept = 0;
  {
  do
  :: k == FRAMES -> break
  :: k < FRAMES ->
     f = me * FRAMES + k + 1;
     /* take */
     c = 0;
     do
     :: c < CHUNKS ->
        if
        :: atomic { word[c] == FREE -> word[c] = FILLING; owner[c] = me };
#ifndef MUTANT_NO_PIN_CHECK
           if
           :: pins[c] != 0 -> atomic { word[c] = FREE; owner[c] = 0 }; c++
           :: else -> break
           fi
#else
           break
#endif
        :: else -> c++
        fi
     :: c == CHUNKS -> break
     od;
     if
     :: c == CHUNKS ->
        /* No chunk: the frame goes into a segment of its own, or after a search of the words. */
        reap_any();
        rebuild();
        if
        :: k++
        :: skip
        fi;
        goto next
     :: else
     fi;
     /* fill */
     atomic { assert(views[c] == 0); data[c] = TORN };
     atomic { assert(views[c] == 0); data[c] = f };
#ifdef MUTANT_GIVE_BEFORE_CLAIM
     p = 0;
     do
     :: s = 0; break
     :: s = SLOTS - 1; break
     od;
     atomic { word[c] = GIVEN; owner[c] = (lap[s] + 1) * SLOTS + s };
     if
     :: atomic { st[s] == FREE -> st[s] = WRITING; own[s] = me; lap[s]++; p = POSITION(s); sent[p] = f; owner[c] = p }
     fi;
#else
     /* queue_claim */
     if
     :: atomic { st[0] == FREE -> s = 0; st[0] = WRITING; own[0] = me; lap[0]++; p = POSITION(s); sent[p] = f }
#if SLOTS > 1
     :: atomic { st[1] == FREE -> s = 1; st[1] = WRITING; own[1] = me; lap[1]++; p = POSITION(s); sent[p] = f }
#endif
     fi;
     /* arena_give */
     atomic { assert(word[c] == FILLING && owner[c] == me); word[c] = GIVEN; owner[c] = p };
#endif
     ticket[s] = c;
     id[s] = p;
     st[s] = READY;
     k++;
next:
     c = 0
  od;
  atomic { over[me] = 1; dirty[me] = 0; held[me] = 0 }
  } unless { !alive[me] };
end:
  skip
}

#define OURS (st[s] == LEASED && own[s] == me && lse[s] == mine && id[s] == p)

proctype Getter(byte me) {
  byte s = 0; byte c = 0; byte v = 0; byte p = 0; byte i = 0; byte cw = 0; byte co = 0; byte ws = 0; byte wl = 0; byte mine = 0;
  bit kept = 0; bit view = 0;
  {
  do
  :: true ->
     /* queue_lease */
     if
     :: atomic { st[0] == READY || st[0] == RETRY -> s = 0; st[0] = LEASED; own[0] = me; lse[0]++; mine = lse[0] }
#if SLOTS > 1
     :: atomic { st[1] == READY || st[1] == RETRY -> s = 1; st[1] = LEASED; own[1] = me; lse[1]++; mine = lse[1] }
#endif
#if BUMPS > 0
     :: atomic { bumps < BUMPS && st[0] == LEASED -> lap[0]++; bumps++ }; goto next
#endif
#if EXPIRE > 0
     :: atomic { expired < EXPIRE && st[0] == LEASED -> st[0] = RETRY; expired++ }; goto next
#endif
     :: atomic { !held[0] && dirty[0] && reaper[0] == 0 -> skip }; reap(0); goto next
     :: atomic { me != 1 && !held[1] && dirty[1] && reaper[1] == 0 -> skip }; reap(1); goto next
#if WHO > 2
     :: atomic { me != 2 && !held[2] && dirty[2] && reaper[2] == 0 -> skip }; reap(2); goto next
#endif
     :: atomic { FINISHED && st[0] == FREE && st[SLOTS - 1] == FREE && (me < WHO - 1 || GETTERS == 1 || LEFT(WHO - 2)) -> break }
     fi;
     /* The lease holds, or was lost just before: then these are of any frame. */
     c = ticket[s];
     p = id[s];
     if
     :: true ->
        /* arena_pin */
#ifdef MUTANT_CHECK_THEN_PIN
        if :: atomic { word[c] == GIVEN && owner[c] == p -> skip } :: else -> goto next fi;
        pins[c] = pins[c] | (1 << me);
        atomic { view = 1; views[c] = views[c] | (1 << me) };
#else
        pins[c] = pins[c] | (1 << me);
        if
        :: atomic { word[c] == GIVEN && owner[c] == p -> view = 1; views[c] = views[c] | (1 << me) }
        :: else -> pins[c] = pins[c] & ~(1 << me); goto lost
        fi;
#endif
        v = data[c];
        assert(v == sent[p])
     :: true ->
        /* a copy, and queue_holds */
        v = data[c];
        if :: atomic { OURS -> assert(v == sent[p]) } :: else -> goto lost fi
     fi;
#ifdef MUTANT_RELEASE_FIRST
     atomic { if :: word[c] == GIVEN && owner[c] == p -> word[c] = FREE; owner[c] = 0 :: else fi };
#endif
     /* queue_settle, or give back */
     if
     :: atomic { OURS -> st[s] = FREE };
        /* arena_release */
#ifdef MUTANT_BLIND_RELEASE
        atomic { word[c] = FREE; owner[c] = 0 }
#else
        atomic { if :: word[c] == GIVEN && owner[c] == p -> word[c] = FREE; owner[c] = 0 :: else fi }
#endif
     :: else -> skip
     fi;
lost:
     /* The view outlives the lease. */
     if
     :: view ->
        assert(data[c] == v);
        atomic { view = 0; views[c] = views[c] & ~(1 << me) };
        pins[c] = pins[c] & ~(1 << me)
     :: else
     fi;
next:
     skip
  od;
  if
  :: me == WHO - 1 -> rebuild()
  :: else
  fi;
  atomic { over[me] = 1; dirty[me] = 0; held[me] = 0 }
  } unless { !alive[me] };
end:
  skip
}

active proctype Killer() {
  byte v; byte j;
  do
  :: atomic { kills < KILLS ->
       if
       :: alive[0] && !over[0] -> v = 0
#if PUTTERS > 1
       :: alive[1] && !over[1] -> v = 1
#endif
#if GETTERS > 1
       :: alive[PUTTERS] && !over[PUTTERS] -> v = PUTTERS
#endif
       :: else -> goto fin
       fi;
       alive[v] = 0; held[v] = 0; kills++;
       j = 0;
       do :: j < WHO -> if :: reaper[j] == v + 1 -> reaper[j] = 0 :: else fi; j++ :: j == WHO -> break od;
       j = 0;
       do :: j < CHUNKS -> views[j] = views[j] & ~(1 << v); j++ :: j == CHUNKS -> break od
     }
  :: break
  od;
fin:
  skip
}

init {
  byte j = 0;
  atomic {
    do :: j < WHO -> alive[j] = 1; held[j] = 1; dirty[j] = 1; j++ :: j == WHO -> break od;
    run Putter(0);
#if PUTTERS > 1
    run Putter(1);
#endif
    run Getter(PUTTERS);
#if GETTERS > 1
    run Getter(PUTTERS + 1);
#endif
  };
  /* The last getter is never killed: it ends when everything is done, and searches the words once more. */
  over[WHO - 1];
  j = 0;
  do
  :: j < CHUNKS -> assert(word[j] == FREE && pins[j] == 0); j++
  :: j == CHUNKS -> break
  od
}
