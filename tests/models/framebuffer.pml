/* The ring of a frame buffer, as ataraxis/_kernels/framebuffer.pyx and framebuffer/client.py have it:
 * allocation, put, read, get, view, the age of the oldest bytes.
 *
 * One step here is one shared access there; memory is sequentially consistent (for the orders see
 * framebuffer_litmus.cpp). A checksum is the bytes themselves: equal only if all are. Contents repeat,
 * so that bytes may change and change back. Set on the command line, see tests/models/test_framebuffer_models.py:
 *
 *   CAP      bytes of the ring (3)                   WRITERS  processes that allocate and write (2)
 *   TURNS    chunks of each writer (2)               LOOKS    chunks a reader takes (1)
 *   VIEWS    1: readers use views, 0: copies (0)     AGES     queries of the stamps; then no reader (0)
 *   KILLS    kills of writers at any step (0)        MUTANT_* one mistake each, that Spin must catch
 *
 * No process waits for another: a process that could not end would show as an invalid end state.
 */
#ifndef CAP
#define CAP 3
#endif
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef TURNS
#define TURNS 2
#endif
#ifndef LOOKS
#define LOOKS 1
#endif
#ifndef VIEWS
#define VIEWS 0
#endif
#ifndef AGES
#define AGES 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
#define CHUNKS (WRITERS * TURNS)
#define UNSET 255

byte cell[CAP];                       /* the payload */
byte head;
byte stamp[CAP], lap_of[CAP];         /* one sector a byte: a stamp's time and lap, one word */
byte clock;                             /* a clock that every allocation advances */
byte kills;
/* Posted tickets, by chunk. */
bit posted[CHUNKS];
byte at[CHUNKS], size[CHUNKS], pos[CHUNKS], sum0[CHUNKS], sum1[CHUNKS];
/* ghosts */
byte sent[CHUNKS];                    /* bytes that its writer sent */
byte owner[CAP];                      /* chunk to which a byte was last allocated, + 1 */
byte born[CAP];                       /* when; of the bytes that are intact */

/* May be killed here. */
#define MAY_DIE if :: kills < KILLS -> kills++; goto dead :: skip fi

/* ring_holds: a chunk was allocated and not overwritten. */
#ifdef MUTANT_HOLDS_LONGER
#define HOLDS(h, p, n) (n <= h && p <= h - n && h - p <= CAP + 1)
#else
#define HOLDS(h, p, n) (n <= h && p <= h - n && h - p <= CAP)
#endif

proctype Writer(byte me) {
  byte turn, mine, n, h, start, next, k, lap, value, time;
  do
  :: turn < TURNS ->
     mine = me * TURNS + turn;
     if :: n = 1 :: n = 2 fi;
     value = 1 + me % 2;
again:
     h = head;
     MAY_DIE;
     atomic {
       start = h % CAP; lap = h / CAP;
       if
       :: start > CAP - n -> start = 0; next = (lap + 1) * CAP
       :: else -> next = h
       fi;
#ifdef MUTANT_TAIL_NOT_COUNTED
       next = h;
#endif
       /* the compare-and-swap */
#ifndef MUTANT_PLAIN_HEAD
       if :: head != h -> goto again :: else fi;
#endif
       head = next + n;
       assert(start + n <= CAP);
       owner[start] = mine + 1;
       owner[start + n - 1] = mine + 1;
#if AGES
       clock++;
       born[start] = clock;
       born[start + n - 1] = clock;
#endif
       at[mine] = start; size[mine] = n; pos[mine] = next; sent[mine] = value
     };
     MAY_DIE;
#if AGES
     /* write_stamps(): the skipped tail first, then the chunk; the time is read after the head has moved */
     atomic { clock++; time = clock };
     k = h;
     do
     :: k < next + n ->
        atomic { stamp[k % CAP] = time; lap_of[k % CAP] = k / CAP; k++ };
        MAY_DIE
     :: else -> break
     od;
#else
     /* write(): copy, and certify the caller's bytes */
     cell[start] = value;
     MAY_DIE;
     if :: n == 2 -> cell[start + 1] = value :: else fi;
     MAY_DIE;
#ifdef MUTANT_CERTIFY_RING
     sum0[mine] = cell[start];
     if :: n == 2 -> sum1[mine] = cell[start + 1] :: else fi;
#else
     sum0[mine] = value; sum1[mine] = value;
#endif
     /* put() checks once more */
     h = head;
     if :: HOLDS(h, pos[mine], n) -> posted[mine] = 1 :: else fi;
#endif
     atomic { turn++; n = 0; h = 0; start = 0; next = 0; k = 0; lap = 0; value = 0; time = 0 }
  :: turn == TURNS -> break
  od;
dead: skip
}

/* No byte of a chunk was allocated again. */
#define ITS_OWN(c) (owner[at[c]] == c + 1 && (size[c] == 1 || owner[(at[c] + 1) % CAP] == c + 1))

proctype Reader() {
  byte c, look, h, a, b, x, y, turn, gone;
  do
  :: look < LOOKS ->
     /* any posted chunk */
     atomic {
       c = 0;
       do
       :: c < CHUNKS && posted[c] -> break
       :: c < CHUNKS -> c++
       :: c == CHUNKS -> goto late
       od
     };
     /* get(): the position first. The ghost belongs to the step that loads head. */
     atomic {
       h = head;
       if
       :: HOLDS(h, pos[c], size[c]) -> assert(ITS_OWN(c))
       :: else -> goto late
       fi
     };
#if VIEWS
     /* view(): where head reaches one of these bytes again; check; use; check again */
     gone = h % CAP;
     turn = (gone >= at[c] && gone < at[c] + size[c] -> h : h + (at[c] + CAP - gone) % CAP);
     a = cell[at[c]];
     b = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sum1[c]);
     if :: a != sum0[c] || b != sum1[c] -> goto late :: else fi;
     x = cell[at[c]];
     y = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sent[c]);
#ifndef MUTANT_NO_SECOND_CHECK
     a = cell[at[c]];
     b = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sum1[c]);
     if :: a != sum0[c] || b != sum1[c] -> goto late :: else fi;
#endif
#ifndef MUTANT_NO_TURN
     if :: head > turn -> goto late :: else fi;
#endif
#else
#ifdef MUTANT_CHECK_FIRST
     a = cell[at[c]];
     b = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sum1[c]);
     if :: a != sum0[c] || b != sum1[c] -> goto late :: else fi;
     x = cell[at[c]];
     y = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sum1[c]);
#else
     /* read(): copy, then check the copy */
     x = cell[at[c]];
     y = (size[c] == 2 -> cell[(at[c] + 1) % CAP] : sum1[c]);
#ifndef MUTANT_NO_CHECK
     if :: x != sum0[c] || y != sum1[c] -> goto late :: else fi;
#endif
#endif
#endif
     /* accepted: only bytes that were sent */
     assert(x == sent[c]);
     assert(size[c] == 1 || y == sent[c]);
late:
     atomic { look++; c = 0; h = 0; a = 0; b = 0; x = 0; y = 0; turn = 0; gone = 0 }
  :: look == LOOKS -> break
  od
}

/* statistics(): when the oldest intact bytes were allocated. The age is never overstated. */
proctype Watcher() {
  byte look, h, start, k, left, seen, truth;
  do
  :: look < AGES ->
     atomic { h = head; start = (h > CAP -> h - CAP : 0); truth = born[start % CAP] };
     k = start; left = CAP; seen = 0;
     do
     :: left > 0 ->
        atomic {
          if
#ifdef MUTANT_NO_LAP
          :: stamp[k % CAP] -> seen = stamp[k % CAP]; left = 0
#else
          :: stamp[k % CAP] && lap_of[k % CAP] == k / CAP -> seen = stamp[k % CAP]; left = 0
#endif
          :: else -> k++; left--
          fi
        }
     :: left == 0 -> break
     od;
#ifndef MUTANT_NO_RECHECK
     if :: head != h -> goto moved :: else fi;
#endif
     /* `truth` is of the first check; without a second one it is of now */
#ifdef MUTANT_NO_RECHECK
     atomic { start = (head > CAP -> head - CAP : 0); truth = born[start % CAP] };
#endif
     assert(seen == 0 || seen >= truth);
moved:
     atomic { look++; h = 0; start = 0; k = 0; seen = 0; truth = 0 }
  :: look == AGES -> break
  od
}

init {
  atomic {
    byte w = 0;
    do :: w < WRITERS -> run Writer(w); w++ :: w == WRITERS -> break od;
#if AGES
    run Watcher()
#else
    run Reader()
#endif
  }
}
