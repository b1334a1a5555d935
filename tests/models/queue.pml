/* A work queue: each frame goes to one getter, which acknowledges it; a kill leaves no frame stuck or lost.
 *
 * The words of ataraxis/_kernels/queue.pxd: a slot has lap, state, owner, number of the lease; `tail`, `head` and `hint` are
 * hints. A slot holds PACK frames. With GROW (and PACK 2) a putter puts the first alone, then appends the second
 * unless the slot is leased; then it is not put at all. A step between two labels is one atomic access of queue.pyx.
 *
 * Checked: no frame is held by two live getters (without EXPIRE); a getter reads what was put; every frame
 * whose put returned is acknowledged once; read once without kills and expiry; the
 * segment is kept while such a frame is there; no process waits forever (Spin's invalid end states). */
#ifndef SLOTS
#define SLOTS 2
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
#ifndef PACK
#define PACK 1
#endif
#ifndef BACK
#define BACK 0
#endif
#ifndef GROW
#define GROW 0
#endif
#define WHO (PUTTERS + GETTERS)
#define TOTAL (PUTTERS * FRAMES)
#define ALL ((1 << PACK) - 1)
#define FREE 0
#define WRITING 1
#define READY 2
#define LEASED 3
#define RETRY 4
#define GROWING 5
#define KEPT 1
#define LAP(p) ((p) / SLOTS + 1)
#define LEFT(x) (over[x] || (!alive[x] && !dirty[x]))
#if PUTTERS > 1
#define FINISHED (LEFT(0) && LEFT(1))
#else
#define FINISHED LEFT(0)
#endif

byte lap[SLOTS]; byte st[SLOTS]; byte own[SLOTS]; bit lse[SLOTS];
byte data[SLOTS]; byte id[SLOTS]; byte left[SLOTS];
#if GROW
byte more[SLOTS]; byte num[SLOTS];  /* the second frame, the number of frames */
bit back[TOTAL * PACK];             /* the put of this one returned */
#endif
byte tail = 0; byte head = 0; bit hint = 0; byte kept = 0;

bit alive[WHO]; bit held[WHO]; byte reaper[WHO]; bit dirty[WHO]; bit over[WHO];
byte kills = 0; byte expired = 0; byte backs = 0;
/* Ghosts. Frame f has bits PACK * f ... */
bit returned[TOTAL]; byte acked[TOTAL * PACK]; byte got[TOTAL * PACK]; byte holder[TOTAL];
byte shown = 0; byte gone = 0;      /* slots published, slots fully acknowledged */

/* queue_settle_kept */
inline settle_kept() {
#ifdef WITH_KEPT
  if
  :: kept == 0
  :: else ->
#ifndef MUTANT_KEPT_NO_MARK
     kept = 2 + me;
#endif
     i = 0;
     do
     :: i < SLOTS && st[i] == FREE -> i++
     :: i < SLOTS && st[i] != FREE -> break
     :: i == SLOTS -> break
     od;
#ifdef MUTANT_KEPT_NO_MARK
     if :: i == SLOTS -> kept = 0 :: else fi;
#else
#ifdef MUTANT_KEPT_PLAIN
     if :: i == SLOTS -> kept = 0 :: else fi;
#endif
     atomic { if :: kept == 2 + me && i == SLOTS -> kept = 0 :: kept == 2 + me && i < SLOTS -> kept = KEPT :: else fi };
#endif
     i = 0
  fi
#else
  skip
#endif
}

/* reap: own the dead participant's byte, clean up, release it; a killed reaper loses the byte. */
inline reap(x) {
  if
  :: atomic { !held[x] && reaper[x] == 0 && dirty[x] -> reaper[x] = me + 1 };
     i = 0;
     do
     :: i < SLOTS ->
        atomic {
          if
#ifndef MUTANT_NO_CLEAN_WRITING
          :: st[i] == WRITING && own[i] == x -> st[i] = FREE
#endif
#if GROW && !defined(MUTANT_NO_CLEAN_GROWING)
          :: st[i] == GROWING && own[i] == x ->
#ifdef MUTANT_CLEAN_GROWING_FREE
             st[i] = FREE; gone++
#else
             left[i] = (num[i] == 2 -> 3 : 1); st[i] = READY
#endif
#endif
#ifndef MUTANT_NO_CLEAN_LEASED
          :: st[i] == LEASED && own[i] == x -> st[i] = RETRY
#endif
          :: else
          fi;
          i++
        }
     :: i == SLOTS -> break
     od;
     i = 0;
#ifndef MUTANT_NO_HINT_CLEAN
     hint = 1;
#endif
     settle_kept();
     atomic { dirty[x] = 0; reaper[x] = 0 }
  :: else
  fi
}

proctype Putter(byte me) {
  byte p; byte k = 0; byte i = 0; byte f; byte wl; byte ws; byte wo; bit wn; bit room = 0;
  {
  do
  :: k == FRAMES -> break
  :: k < FRAMES ->
     f = me * FRAMES + k;
again:
     p = tail;
     atomic { wl = lap[p % SLOTS]; ws = st[p % SLOTS]; wo = own[p % SLOTS]; wn = lse[p % SLOTS] };
     if
     :: wl >= LAP(p) -> atomic { if :: tail == p -> tail = p + 1 :: else fi }; goto again
     :: wl < LAP(p) && ws == FREE ->
        if
#ifdef MUTANT_BLIND_CLAIM
        :: atomic { lap[p % SLOTS] = LAP(p); st[p % SLOTS] = WRITING; own[p % SLOTS] = me }
#else
        :: atomic { lap[p % SLOTS] == wl && st[p % SLOTS] == FREE -> lap[p % SLOTS] = LAP(p); st[p % SLOTS] = WRITING; own[p % SLOTS] = me; lse[p % SLOTS] = 0 }
        :: else -> goto again
#endif
        fi
     :: wl < LAP(p) && (ws == LEASED || ws == RETRY) ->
        /* next_free: is another slot free? */
        d_step { room = 0; i = 0; do :: i < SLOTS -> if :: st[i] == FREE -> room = 1 :: else fi; i++ :: i == SLOTS -> break od; i = 0 };
        if
        :: room -> atomic { if :: lap[p % SLOTS] == wl && st[p % SLOTS] == ws && own[p % SLOTS] == wo && lse[p % SLOTS] == wn -> lap[p % SLOTS] = LAP(p) :: else fi }
        :: !room ->
           if
           :: atomic { st[p % SLOTS] != ws || lap[p % SLOTS] != wl || st[(p + 1) % SLOTS] == FREE -> skip }
           :: atomic { ws == LEASED && !held[wo] && dirty[wo] && reaper[wo] == 0 -> skip }; reap(wo)
           fi
        fi;
        goto again
     :: else ->
        if
        :: atomic { st[p % SLOTS] != ws || lap[p % SLOTS] != wl || tail != p -> skip }
        :: atomic { (ws == WRITING || ws == GROWING) && !held[wo] && dirty[wo] && reaper[wo] == 0 -> skip }; reap(wo)
        fi;
        goto again
     fi;
     atomic { if :: tail == p -> tail = p + 1 :: else fi };
     /* queue_publish */
#ifdef MUTANT_READY_EARLY
     atomic { st[p % SLOTS] = READY; shown++; left[p % SLOTS] = ALL };
#endif
     atomic { data[p % SLOTS] = f + 1; id[p % SLOTS] = p };
#if GROW
     atomic { left[p % SLOTS] = 1; more[p % SLOTS] = 0 };
     num[p % SLOTS] = 1;
#else
     left[p % SLOTS] = ALL;
#endif
#ifdef WITH_KEPT
     if :: kept != KEPT -> kept = KEPT :: else fi;
#endif
#ifndef MUTANT_READY_EARLY
     atomic { assert(st[p % SLOTS] == WRITING && own[p % SLOTS] == me); st[p % SLOTS] = READY; shown++ };
#endif
#ifdef WITH_KEPT
     if :: kept != KEPT -> kept = KEPT :: else fi;
#endif
#if GROW
     back[f * PACK] = 1;
     /* queue_grow */
     if
#ifdef MUTANT_BLIND_GROW
     :: atomic { st[p % SLOTS] = GROWING; own[p % SLOTS] = me }
#else
     :: atomic { st[p % SLOTS] == READY && lap[p % SLOTS] == LAP(p) && own[p % SLOTS] == me && lse[p % SLOTS] == 0 -> st[p % SLOTS] = GROWING }
     :: else -> goto grown
#endif
     fi;
#ifdef MUTANT_GROW_COUNT_EARLY
     num[p % SLOTS] = 2;
#endif
     more[p % SLOTS] = f + 1;
     left[p % SLOTS] = 3;
     num[p % SLOTS] = 2;
#ifdef WITH_KEPT
     if :: kept != KEPT -> kept = KEPT :: else fi;
#endif
     atomic { assert(st[p % SLOTS] == GROWING && own[p % SLOTS] == me); st[p % SLOTS] = READY };
#ifdef WITH_KEPT
     if :: kept != KEPT -> kept = KEPT :: else fi;
#endif
     back[f * PACK + 1] = 1;
grown:
     k++
#else
     atomic { if :: acked[f * PACK + PACK - 1] == 0 -> returned[f] = 1 :: else fi; k++ }
#endif
  od;
  atomic { over[me] = 1; dirty[me] = 0; held[me] = 0 }
  } unless { !alive[me] };
end:
  skip
}

/* still_leased: the lap may have been raised. */
#define OURS (st[s] == LEASED && own[s] == me && lse[s] == mine && id[s] == frame)

proctype Getter(byte me) {
  byte h; byte i = 0; byte s; byte v; byte wl; byte ws; byte wo; byte bits; byte b; byte frame; bit mine; bit has = 0;
  {
  do
  :: true ->
     has = 0;
     if
     :: hint ->
        /* lease_retry */
#ifndef MUTANT_HINT_AFTER_LOOK
        hint = 0;
#endif
        i = 0;
        do
        :: i < SLOTS ->
           if
           :: atomic { st[i] == RETRY -> st[i] = LEASED; own[i] = me; lse[i] = 1 - lse[i]; mine = lse[i]; s = i; has = 1 };
#ifndef MUTANT_NO_HINT_AGAIN
              hint = 1;
#endif
              break
           :: else -> i++
           fi
        :: i == SLOTS -> break
        od;
        i = 0;
#ifdef MUTANT_HINT_AFTER_LOOK
        if :: !has -> hint = 0 :: else fi;
#endif
        if :: has -> goto work :: else fi
     :: else
     fi;
     h = head;
     atomic { wl = lap[h % SLOTS]; ws = st[h % SLOTS]; wo = own[h % SLOTS] };
     if
     :: wl == LAP(h) && ws == READY ->
        if
#ifdef MUTANT_BLIND_LEASE
        :: atomic { st[h % SLOTS] = LEASED; own[h % SLOTS] = me; lse[h % SLOTS] = 1; mine = 1; s = h % SLOTS; has = 1 }
#else
        :: atomic { lap[h % SLOTS] == wl && st[h % SLOTS] == READY -> st[h % SLOTS] = LEASED; own[h % SLOTS] = me; lse[h % SLOTS] = 1; mine = 1; s = h % SLOTS; has = 1 }
        :: else -> goto next
#endif
        fi;
        atomic { if :: head == h -> head = h + 1 :: else fi }
#ifdef MUTANT_SKIP_WRITING
     :: wl > LAP(h) || (wl == LAP(h) && ws != READY) ->
#else
     :: wl == LAP(h) && (ws == WRITING || ws == GROWING) ->
        if
        :: atomic { st[h % SLOTS] != ws || lap[h % SLOTS] != wl || head != h || hint -> skip }
        :: atomic { !held[wo] && dirty[wo] && reaper[wo] == 0 -> skip }; reap(wo)
        fi;
        goto next
     :: wl > LAP(h) || (wl == LAP(h) && (ws == LEASED || ws == FREE || ws == RETRY)) ->
#endif
        atomic { if :: head == h -> head = h + 1 :: else fi };
        goto next
     :: wl < LAP(h) ->
        settle_kept();
        /* No frame: sleep until an event, or until a sweep finds a dead participant. */
        if
        :: atomic { hint || head != h || lap[h % SLOTS] >= LAP(h) -> skip }
        :: atomic { !held[0] && dirty[0] && reaper[0] == 0 -> skip }; reap(0)
#if WHO > 2
        :: atomic { me != 1 && !held[1] && dirty[1] && reaper[1] == 0 -> skip }; reap(1)
        :: atomic { me != 2 && !held[2] && dirty[2] && reaper[2] == 0 -> skip }; reap(2)
#endif
#if WHO > 3
        :: atomic { me != 3 && !held[3] && dirty[3] && reaper[3] == 0 -> skip }; reap(3)
#endif
        :: atomic { gone == shown && FINISHED -> break }
#if EXPIRE > 0
        :: atomic { expired < EXPIRE && st[0] == LEASED -> st[0] = RETRY; expired++ }; hint = 1
        :: atomic { expired < EXPIRE && SLOTS > 1 && st[SLOTS - 1] == LEASED -> st[SLOTS - 1] = RETRY; expired++ }; hint = 1
#endif
        fi;
        goto next
     fi;
work:
     /* lease_slot: the slot's contents */
     atomic { v = data[s]; frame = id[s] };
     bits = left[s];
#if EXPIRE == 0
     atomic { assert(v > 0 && v <= TOTAL); assert(holder[v - 1] == 0); holder[v - 1] = me + 1 };
#endif
     if
     :: bits == 0 -> skip       /* acknowledged by a getter that died before it freed the slot */
     :: else ->
        b = 0;
        do :: !(bits & (1 << b)) -> b++ :: else -> break od;
        /* queue_holds, after the copy */
        if :: atomic { OURS -> assert(data[s] == v);
#if GROW
             assert(b == 0 || more[s] == v);
#endif
             got[(v - 1) * PACK + b]++ } :: else -> goto lost fi;
#if BACK > 0
        if
        :: atomic { backs < BACK -> backs++; bits = 0 }
        :: true
        fi;
#endif
        if
        :: bits == 0 -> skip
        :: else ->
#ifndef MUTANT_MARK_LATE
           if :: atomic { OURS -> left[s] = left[s] & ~(1 << b); acked[(v - 1) * PACK + b]++; returned[v - 1] = returned[v - 1] && left[s] != 0 } :: else -> goto lost fi
#else
           skip
#endif
        fi
     fi;
     /* queue_settle */
     if
#ifdef MUTANT_BLIND_ACK
     :: atomic { st[s] = (left[s] -> RETRY : FREE); holder[v - 1] = 0; if :: left[s] == 0 -> gone++ :: else fi }
#else
#ifdef MUTANT_MARK_LATE
     :: atomic { OURS -> holder[v - 1] = 0; st[s] = ((bits && left[s] == (1 << b)) -> FREE : RETRY); if :: st[s] == FREE -> gone++ :: else fi };
        if :: bits -> atomic { left[s] = left[s] & ~(1 << b); acked[(v - 1) * PACK + b]++; returned[v - 1] = returned[v - 1] && left[s] != 0 } :: else fi
#else
     :: atomic { OURS -> holder[v - 1] = 0; st[s] = (left[s] -> RETRY : FREE); if :: left[s] == 0 -> gone++ :: else fi }
#endif
     :: else -> goto lost
#endif
     fi;
#ifndef MUTANT_NO_HINT_BACK
     if :: left[s] -> hint = 1 :: else fi;
#endif
     goto next;
lost:
     assert(EXPIRE > 0);
next:
     skip
  od;
  atomic { over[me] = 1; dirty[me] = 0; held[me] = 0 }
  } unless { !alive[me] };
end:
  skip
}

active proctype Killer() {
  byte v; byte j;
  do
  :: atomic { kills < KILLS ->
       /* Any process but the last getter. */
       if
       :: alive[0] && !over[0] -> v = 0
#if PUTTERS > 1
       :: alive[1] && !over[1] -> v = 1
#endif
#if GETTERS > 1
       :: alive[PUTTERS] && !over[PUTTERS] -> v = PUTTERS
#endif
#if GETTERS > 2
       :: alive[PUTTERS + 1] && !over[PUTTERS + 1] -> v = PUTTERS + 1
#endif
       :: else -> goto fin
       fi;
       alive[v] = 0; held[v] = 0; kills++;
       j = 0;
       do :: j < WHO -> if :: reaper[j] == v + 1 -> reaper[j] = 0 :: else fi; j++ :: j == WHO -> break od;
       j = 0;
       do :: j < TOTAL -> if :: holder[j] == v + 1 -> holder[j] = 0 :: else fi; j++ :: j == TOTAL -> break od
     }
  :: break
  od;
fin:
  skip
}

#ifdef WITH_KEPT
active proctype Collector() {
  /* The segment is kept while a frame is guaranteed. */
end:
#if GROW
  atomic { kept == 0 && (back[0] && !acked[0] || back[1] && !acked[1]) -> assert(false) }
#else
  atomic { kept == 0 && (returned[0] || returned[TOTAL - 1]) -> assert(false) }
#endif
}
#endif

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
#if GETTERS > 2
    run Getter(PUTTERS + 2);
#endif
  };
  /* The last getter is never killed: it ends when everything is done. */
  over[WHO - 1];
  j = 0;
  do
  :: j < TOTAL * PACK ->
     assert(!returned[j / PACK]);
#ifndef MUTANT_MARK_LATE
     assert(acked[j] <= 1);
#endif
#if GROW
     assert(!back[j] || acked[j] == 1);
     if :: KILLS == 0 -> assert(acked[j] == back[j] && got[j] == back[j]) :: else fi;
#else
     if :: KILLS == 0 && EXPIRE == 0 && BACK == 0 -> assert(got[j] == 1 && acked[j] == 1) :: else fi;
     if :: KILLS == 0 -> assert(acked[j] == 1) :: else fi;
#endif
     assert(got[j] <= 1 + KILLS + EXPIRE + BACK);
     j++
  :: j == TOTAL * PACK -> break
  od
}
