/* A mirror of a stream: a frame leaves the ring of A when the mirror has it, or the spool has; B's ring is the record.
 *
 * The machines of ataraxis/link: outlet and spool at A, inlet at B, one link that keeps the order and may break at any
 * moment with what is on its way. Of A stay, when its agent is killed: the ring, the spool's files, and that the mirror
 * exists. Of B stay: its ring. A step between two labels is one that a kill may follow: the lines of `DiskSpool`, `Store`
 * and `MirrorRing` in tests/link/simulated_lab.py are the same ones.
 *
 * Checked: B publishes each number once, in order, and what A sent under it; what B does not have is in A's ring or in the
 * spool, always; at the end, when the faults are used up, B has every frame; no process waits forever (Spin's invalid end
 * states). The spool may be full at any time (FULLS), and is then tried again. */
#ifndef FRAMES
#define FRAMES 3
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef BREAKS
#define BREAKS 1
#endif
#ifndef KILLS_A
#define KILLS_A 1
#endif
#ifndef KILLS_B
#define KILLS_B 1
#endif
#ifndef FULLS
#define FULLS 1
#endif
#define WANT 1
#define DATA 2
#define ACK 3
#define ALL ((1 << FRAMES) - 1)
#define BELOW(n) ((1 << (n)) - 1)
#define FROM_TO(a, b) (BELOW(b) & ~BELOW(a))

/* What stays. */
byte head = 0, tail = 0;                /* A's ring: frames tail .. head - 1 */
byte spool = 0;                         /* A's files: a bit a frame */
byte spool_next = 0;
bit is_known = 0;                       /* mirrors.json has the mirror */
byte published = 0;                     /* B's ring: the next number */
/* The link: its number changes when it breaks, and what was on its way is lost. */
byte link = 0;
chan there = [2] of { byte, byte };     /* B to A: kind, number */
chan back = [2] of { byte, byte };      /* A to B */
bit dead_a = 0, dead_b = 0;
byte breaks = 0, kills_a = 0, kills_b = 0, fulls = 0;

#define NEEDED FROM_TO(published, head)
#define HERE (spool | FROM_TO(tail, head))
#define DONE (published == FRAMES && tail == head && spool == 0)
inline check() { assert(!is_known || (NEEDED & ~HERE) == 0) }
inline break_link() {
  link++;
  do :: nempty(there) -> there?_, _ :: empty(there) -> break od;
  do :: nempty(back) -> back?_, _ :: empty(back) -> break od
}

active proctype Producer() {
  do
  :: atomic { head < FRAMES && head - tail < SLOTS -> head++; check() }
  :: head == FRAMES -> break
  od
}

/* The agent of A. Local words are its memory. */
active proctype Outlet() {
  byte kind, number, needs, sent, own, k;
  bit is_linked, is_asked;
start:
  atomic { needs = 0; sent = 0; is_linked = 0; own = 0; kind = 0; number = 0; k = 0; dead_a = 0;
#ifdef MUTANT_FORGET_MIRRORS
    is_asked = 0
#else
    is_asked = is_known
#endif
  };
  {
  do
  :: atomic { there?kind, number; own = (kind == WANT -> link : own) };
     if
     :: kind == WANT ->
        /* The mirror is remembered before anything is sent to it. */
        d_step { is_known = 1; is_asked = 1 };
        d_step { is_linked = 1;
          needs = (number > needs -> number : needs);
#ifdef MUTANT_RESUME_AT_SENT
          sent = (number > sent -> number : sent)
#else
          sent = number
#endif
        }
     :: kind == ACK -> needs = (is_linked && number > needs -> number : needs)
     fi;
     d_step { kind = 0; number = 0 }
  /* send: from the ring, or from the spool */
  :: atomic { is_linked && own == link && sent < head && nfull(back) && (sent >= tail || (spool & (1 << sent))) ->
     back!DATA, sent; sent++ }
  :: atomic { is_linked && own != link -> is_linked = 0; own = 0 }
  /* release: the mirror has it, or a file. Frames that no mirror needs are not kept. */
  :: atomic { is_known && tail < head && (!is_asked || tail < needs || tail < spool_next) -> tail++; check() }
#ifdef MUTANT_RELEASE_WHEN_SENT
  :: atomic { is_linked && tail < sent -> tail++; check() }
#endif
  /* spill the oldest frame: the disk may be full; it is in a file, and then it counts */
  :: is_asked && tail < head && tail >= needs && spool_next <= tail ->
     if
     :: atomic { fulls < FULLS -> fulls++ }
     :: k = tail;
#ifdef MUTANT_COUNT_FIRST
        spool_next = k + 1;
        atomic { spool = spool | (1 << k); check() }
#else
#ifdef MUTANT_RELEASE_FIRST
        atomic { tail = k + 1; check() };
#endif
        spool = spool | (1 << k);
        spool_next = k + 1
#endif
     fi;
     k = 0
  /* trim: what the mirror has is removed from the disk */
  :: atomic { (spool & BELOW(needs)) != 0 -> spool = spool & ~BELOW(needs); check() }
#ifdef MUTANT_TRIM_WHEN_SENT
  :: atomic { is_linked && (spool & BELOW(sent)) != 0 -> spool = spool & ~BELOW(sent); check() }
#endif
  :: DONE -> break
  od
  } unless { dead_a -> goto start }
}

/* The agent of B. */
active proctype Inlet() {
  byte kind, number, own, acked;
  bit has_asked;
start:
  atomic { own = 0; acked = 0; has_asked = 0; kind = 0; number = 0; dead_b = 0 };
  {
  do
  /* a new link: ask for what the ring does not have */
  :: atomic { !has_asked && nfull(there) -> own = link; has_asked = 1; acked = published; there!WANT, published }
  :: atomic { has_asked && own != link -> has_asked = 0 }
  :: atomic { has_asked && own == link && nempty(back) -> back?kind, number };
     if
     :: number < published -> skip              /* again: dropped */
     :: number > published ->
#ifdef MUTANT_PUBLISH_HOLES
        atomic { published = number + 1 }
#else
        atomic { break_link() }                 /* a hole: close, and ask again */
#endif
     :: number == published ->
#ifdef MUTANT_ACK_FIRST
        atomic { own == link && nfull(there) -> acked = published + 1; there!ACK, acked };
#endif
        atomic { assert(number == published && number < head); published++ }
     fi;
     d_step { kind = 0; number = 0 }
  :: atomic { has_asked && own == link && acked < published && nfull(there) -> acked = published; there!ACK, acked }
  :: DONE -> break
  od
  } unless { dead_b -> goto start }
}

/* Breaks and kills, at any moment. */
active proctype Faults() {
  do
  :: atomic { breaks < BREAKS -> breaks++; break_link() }
  :: atomic { kills_a < KILLS_A -> kills_a++; dead_a = 1; break_link() }
  :: atomic { kills_b < KILLS_B -> kills_b++; dead_b = 1; break_link() }
  :: DONE -> break
  od
}
