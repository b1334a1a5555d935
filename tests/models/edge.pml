/* An edge: values that a worker on another host takes, and what that host owes before their leases end.
 *
 * A is the run's own host and lives. It leases values to a host B, whose worker makes one output of each. The output is
 * consumed on B, or goes over a second edge: to C (which may be wiped), or back to A. A has the sink. All that the agents
 * do is one step each between two labels; messages of a link may be late, in any order, and are lost when it breaks.
 * `clock` is the silence of A and B: 1 after the lease, 2 after the lease and its grace, 3 when A has taken the values back.
 * B counts from the same beat. It needs less than the grace to end its workers, unless it is frozen.
 *
 * Checked: the result of each value is at the sink, or A has the value, or a host that lives has its output; the sink has
 * no result twice; A takes nothing back from workers that run, and accepts no output of an old epoch; when nothing fails
 * any more, all leases end and no process waits.
 *
 * THROUGH is the stricter rule: a lease of A lasts until the next host has settled the outputs, not until it has received
 * them. ORDER: values are leased in order, and the next host waits for the next one. STAYS_DEAD: a host that was wiped does
 * not come back. EPOCH_AT_C and ONCE_ON_B ask for more than can be kept. */
#ifndef VALUES
#define VALUES 2
#endif
#ifndef HOSTS
#define HOSTS 1         /* B, or B and another one that competes */
#endif
#ifndef NEXT
#define NEXT 1          /* the output: 0 is consumed on B, 1 goes to C, 2 goes to A */
#endif
#ifndef COPIES
#define COPIES 2        /* outputs of a value that a host may have at a time */
#endif
#ifndef CREDIT
#define CREDIT VALUES   /* leases of a host */
#endif
#ifndef WIPES
#define WIPES 0         /* of B */
#endif
#ifndef WIPES_C
#define WIPES_C 0
#endif
#ifndef KILLS
#define KILLS 0         /* of workers */
#endif
#ifndef CUTS
#define CUTS 0          /* between A and B; short or long */
#endif
#ifndef CUTS_C
#define CUTS_C 0        /* between B and C */
#endif
#ifndef FREEZES
#define FREEZES 0       /* of B; short or long */
#endif
#define VH (VALUES * HOSTS)
#define AT (h * VALUES + v)
#define COPY(v, k) ((h * VALUES + (v)) * COPIES + (k))

/* A's edge queue: a value waits, is leased to host 0 or 1, or is settled. */
#define QUEUED 0
#define SETTLED 1
#define LEASED 2
byte queue[VALUES]; byte epoch[HOSTS] = 1;
byte sink[VALUES]; bit seen[VALUES]; byte leases[HOSTS];
bit back[VALUES];        /* was taken back: it needs no credit */
/* A and B: is there a link, its silence; leases and settlements on their way, with their epoch. */
bit up[HOSTS] = 1; byte clock[HOSTS]; byte granted[VH]; byte told[VH];
/* B's memory: its epoch, 0 without one; what it did with each value; its outputs. */
#define WAITING 1
#define TAKEN 2
#define EMITTED 3
#define ACKNOWLEDGED 4
#define TOLD 5          /* settled, as far as B knows */
byte own[HOSTS] = 1; byte inbox[VH];
#define READY 1
#define SENT 2
#define RECEIVED 3
byte out[VH * COPIES]; byte made[VH * COPIES];
bit dead[HOSTS]; bit frozen[HOSTS];
bit late[HOSTS];         /* a ghost: B was frozen when its lease and the grace were over; it may run on, for a moment */
/* B and the next host: a link, whether that host was wiped since; outputs on their way, with their epoch; answers. */
bit up_c[HOSTS] = 1; bit wiped_c[HOSTS]; byte moving[VH * COPIES]; bit answer[VH * COPIES];
/* The next host's memory: 1 is received, 2 its result is at the sink, 3 is acknowledged. */
byte next[VALUES];
#ifdef MUTANT_REPEAT_SETTLED
byte first[VALUES];     /* which output came first: its place and epoch */
#define ID(v, k) (moving[COPY(v, k)] * VH * COPIES + COPY(v, k))
#endif
byte wipes = 0, wipes_c = 0, kills = 0, cuts = 0, cuts_c = 0, freezes = 0;

#define RUNS(h) (!dead[h] && !frozen[h])
#if NEXT == 2
#define UP_C(h) up[h]
#else
#define UP_C(h) up_c[h]
#endif
#ifdef THROUGH
#define LEFT(c) (out[c] == 0)
#else
#define LEFT(c) (out[c] == 0 || out[c] == RECEIVED)
#endif

#ifdef MUTANT_CREDIT_FOR_ALL
#define CREDIT_FOR(v) (leases[h] < CREDIT)
#else
#define CREDIT_FOR(v) (leases[h] < CREDIT || back[v])
#endif
#ifdef ORDER
#define FIRST(v) (v == 0 || queue[v - 1] != QUEUED)
#define IN_TURN(v) (v == 0 || sink[v - 1] > 0)
#else
#define FIRST(v) true
#define IN_TURN(v) true
#endif

#define LOOP(n, top) n = 0; do :: n < top ->
#define POOL(n, top) n++ :: n == top -> break od; n = 0

/* The filter of the sink. That of a sink on B is wiped with B. */
inline deliver() {
#ifdef MUTANT_NO_FILTER
  sink[v]++;
#else
  if :: !seen[v] -> sink[v]++ :: else fi;
#endif
  seen[v] = 1;
#if NEXT == 0 && !defined(ONCE_ON_B)
  assert(sink[v] <= 1 + wipes)
#else
  assert(sink[v] == 1)
#endif
}
inline drop_messages() {
  LOOP(i, VALUES) granted[h * VALUES + i] = 0; told[h * VALUES + i] = 0; POOL(i, VALUES)
}
inline drop_outputs_on_their_way() {
  LOOP(i, VALUES * COPIES) moving[h * VALUES * COPIES + i] = 0; answer[h * VALUES * COPIES + i] = 0; POOL(i, VALUES * COPIES)
}
/* The link of B and the next host is new. That host may be new, too. */
inline link_next() {
  drop_outputs_on_their_way();
  LOOP(i, VALUES * COPIES)
    if
    :: out[h * VALUES * COPIES + i] == SENT || (out[h * VALUES * COPIES + i] == RECEIVED && wiped_c[h]) ->
       out[h * VALUES * COPIES + i] = READY
    :: else
    fi;
  POOL(i, VALUES * COPIES);
  wiped_c[h] = 0
}
inline break_link() {
  up[h] = 0; clock[h] = 0; drop_messages();
#if NEXT == 2
  drop_outputs_on_their_way();
#endif
}
inline take_back() {
  LOOP(i, VALUES)
    if :: queue[i] == LEASED + h -> queue[i] = QUEUED; back[i] = 1; leases[h]-- :: else fi;
  POOL(i, VALUES);
  epoch[h]++;
  drop_messages()
}
inline wipe() {
  LOOP(i, VALUES)
#if NEXT == 0
    seen[i] = 0;
#endif
    inbox[h * VALUES + i] = 0;
    j = 0; do :: j < COPIES -> out[COPY(i, j)] = 0; made[COPY(i, j)] = 0; answer[COPY(i, j)] = 0; j++ :: j == COPIES -> break od; j = 0;
  POOL(i, VALUES);
  own[h] = 0; late[h] = 0
}
/* Workers are ended; their values and what A does not count on are dropped. The outputs of a value
   that B has settled are kept: A has ended its lease, or is about to. */
inline fence() {
  LOOP(i, VALUES)
    j = 0;
    do
    :: j < COPIES ->
       if
#if !defined(THROUGH) && !defined(MUTANT_FENCE_DROPS_OUTPUTS)
       :: inbox[h * VALUES + i] == 0 || inbox[h * VALUES + i] == TOLD -> skip
#endif
       :: else -> out[COPY(i, j)] = 0; made[COPY(i, j)] = 0
       fi;
       j++
    :: j == COPIES -> break
    od;
    j = 0;
    inbox[h * VALUES + i] = 0;
  POOL(i, VALUES);
  own[h] = 0; late[h] = 0
}

#define LOST(v) (sink[v] == 0 && queue[v] == SETTLED && next[v] == 0 && !HAS_OUTPUT(v))
#if COPIES == 3
#define HELD(c) (out[c] || out[(c) + 1] || out[(c) + 2])
#define ALL_LEFT(c) (LEFT(c) && LEFT((c) + 1) && LEFT((c) + 2))
#else
#define HELD(c) (out[c] || out[(c) + 1])
#define ALL_LEFT(c) (LEFT(c) && LEFT((c) + 1))
#endif
#define IDLE(x) (inbox[x] == 0 || inbox[x] == TOLD)
#if HOSTS == 2
#define HAS_OUTPUT(v) (HELD((v) * COPIES) || HELD((VALUES + (v)) * COPIES))
#define IS_IDLE(v) (IDLE(v) && IDLE(VALUES + (v)))
#else
#define HAS_OUTPUT(v) HELD((v) * COPIES)
#define IS_IDLE(v) IDLE(v)
#endif
#define FINISHED(v) (queue[v] == SETTLED && sink[v] > 0 && IS_IDLE(v) && !HAS_OUTPUT(v) && next[v] != 1 && next[v] != 2)
#if VALUES == 1
#define DONE FINISHED(0)
#define ANY_LOST LOST(0)
#define EMPTY (queue[0] == SETTLED)
#define NO_OUTPUTS (!HAS_OUTPUT(0))
#elif VALUES == 2
#define DONE (FINISHED(0) && FINISHED(1))
#define ANY_LOST (LOST(0) || LOST(1))
#define EMPTY (queue[0] == SETTLED && queue[1] == SETTLED)
#define NO_OUTPUTS (!HAS_OUTPUT(0) && !HAS_OUTPUT(1))
#else
#define DONE (FINISHED(0) && FINISHED(1) && FINISHED(2))
#define ANY_LOST (LOST(0) || LOST(1) || LOST(2))
#endif

/* All that happens to value v at host h, and at A for it. */
proctype Value(byte h; byte v) {
  byte k;
end:
  do
  /* A: a lease; again on a new link, if B does not have it */
  :: atomic { queue[v] == QUEUED && up[h] && own[h] == epoch[h] && FIRST(v) && CREDIT_FOR(v) ->
       queue[v] = LEASED + h; leases[h]++; granted[AT] = epoch[h] }
  :: atomic { queue[v] == LEASED + h && up[h] && own[h] == epoch[h] && granted[AT] == 0 && inbox[AT] == 0 -> granted[AT] = epoch[h] }
  :: atomic { told[AT] != 0 ->
       if
       :: told[AT] == epoch[h] && queue[v] == LEASED + h -> queue[v] = SETTLED; leases[h]--
       :: else
       fi;
       told[AT] = 0 }
  /* B: the inbox and the worker */
  :: atomic { granted[AT] != 0 && RUNS(h) ->
       if :: granted[AT] == own[h] && inbox[AT] == 0 -> inbox[AT] = WAITING :: else fi;
       granted[AT] = 0 }
  :: atomic { inbox[AT] == WAITING && RUNS(h) -> inbox[AT] = TAKEN }
  :: atomic { inbox[AT] == TAKEN && RUNS(h) ->
       k = 0;
       do :: out[COPY(v, k)] == 0 -> break :: else -> k++; assert(k < COPIES) od;
       out[COPY(v, k)] = READY; made[COPY(v, k)] = own[h]; k = 0;
       inbox[AT] = EMITTED }
  :: atomic { inbox[AT] == EMITTED && RUNS(h) -> inbox[AT] = ACKNOWLEDGED }
  :: atomic { (inbox[AT] == TAKEN || inbox[AT] == EMITTED) && kills < KILLS && !frozen[h] -> kills++; inbox[AT] = WAITING }
  /* B: settles by descent; again on a new link */
#if defined(MUTANT_SETTLE_AT_ACKNOWLEDGE)
  :: atomic { inbox[AT] == ACKNOWLEDGED && RUNS(h) -> inbox[AT] = TOLD }
#elif defined(MUTANT_SETTLE_WHEN_EMPTY)
  :: atomic { inbox[AT] == ACKNOWLEDGED && NO_OUTPUTS && RUNS(h) -> inbox[AT] = TOLD }
#else
  :: atomic { inbox[AT] == ACKNOWLEDGED && ALL_LEFT(COPY(v, 0)) && RUNS(h) -> inbox[AT] = TOLD }
#endif
  :: atomic { inbox[AT] == TOLD && told[AT] == 0 && up[h] && RUNS(h) && queue[v] == LEASED + h && epoch[h] == own[h] -> told[AT] = own[h] }
  od
}

/* One output of value v at host h, and at the next host. */
proctype Output(byte h; byte v; byte k) {
end:
  do
#if NEXT == 0
  :: atomic { out[COPY(v, k)] == READY && RUNS(h) -> out[COPY(v, k)] = SENT; deliver() }
  :: atomic { out[COPY(v, k)] == SENT && RUNS(h) -> out[COPY(v, k)] = 0; made[COPY(v, k)] = 0 }
  :: atomic { out[COPY(v, k)] == SENT && kills < KILLS && RUNS(h) -> kills++; out[COPY(v, k)] = READY }
#else
  :: atomic { out[COPY(v, k)] == READY && UP_C(h) && RUNS(h) && moving[COPY(v, k)] == 0 ->
       moving[COPY(v, k)] = made[COPY(v, k)];
#ifdef MUTANT_DROP_WHEN_SENT
       out[COPY(v, k)] = 0; made[COPY(v, k)] = 0
#else
       out[COPY(v, k)] = SENT
#endif
     }
  :: atomic { moving[COPY(v, k)] != 0 && UP_C(h) ->
       if
#if NEXT == 2 && !defined(MUTANT_NO_EPOCH_CHECK)
       :: moving[COPY(v, k)] != epoch[h] -> skip        /* refused: B drops it when it ends its workers */
#endif
       :: else ->
#if NEXT == 2 || defined(EPOCH_AT_C)
          assert(moving[COPY(v, k)] == epoch[h]);
#endif
          answer[COPY(v, k)] = 1;
          if
          :: next[v] == 0 -> next[v] = 1;
#ifdef MUTANT_REPEAT_SETTLED
             first[v] = ID(v, k)
          :: next[v] != 0 && first[v] != ID(v, k) && out[COPY(v, k)] == SENT && RUNS(h) ->
             out[COPY(v, k)] = 0; made[COPY(v, k)] = 0; answer[COPY(v, k)] = 0
#endif
          :: else                                       /* a repeat: settled with the first one */
          fi
       fi;
       moving[COPY(v, k)] = 0 }
  :: atomic { answer[COPY(v, k)] && RUNS(h) && UP_C(h) ->
       answer[COPY(v, k)] = 0;
       if
#ifdef MUTANT_DROP_WHEN_RECEIVED
       :: out[COPY(v, k)] == SENT -> out[COPY(v, k)] = 0; made[COPY(v, k)] = 0
#else
       :: out[COPY(v, k)] == SENT -> out[COPY(v, k)] = RECEIVED
#endif
       :: else
       fi }
  /* the next host has settled it */
  :: atomic { out[COPY(v, k)] == RECEIVED && next[v] == 3 && UP_C(h) && RUNS(h) && !wiped_c[h] -> out[COPY(v, k)] = 0; made[COPY(v, k)] = 0 }
#endif
  od
}

#if NEXT > 0
/* The worker of the next host: its result is received by A, then it acknowledges. */
proctype Next(byte v) {
end:
  do
  :: atomic { next[v] == 1 && IN_TURN(v) -> next[v] = 2; deliver() }
#ifdef MUTANT_SETTLE_WHEN_EMPTY
  :: atomic { next[v] == 2 && EMPTY -> next[v] = 3 }
#else
  :: atomic { next[v] == 2 -> next[v] = 3 }
#endif
  :: atomic { next[v] == 2 && kills < KILLS -> kills++; next[v] = 1 }
  od
}
#endif

/* The links and the clock. */
proctype Link(byte h) {
  byte i, j;
end:
  do
  /* A and the next host see that B is silent; the link comes back; B starts again */
  :: atomic { up[h] && (dead[h] || frozen[h]) -> break_link() }
  :: atomic { !up[h] && RUNS(h) -> up[h] = 1; clock[h] = 0;
#if NEXT == 2
       link_next()
#endif
     }
#ifndef STAYS_DEAD
#if NEXT == 1
  :: atomic { dead[h] && !up[h] && !up_c[h] -> dead[h] = 0 }
#else
  :: atomic { dead[h] && !up[h] -> dead[h] = 0 }
#endif
#endif
  :: atomic { frozen[h] -> frozen[h] = 0 }
#if NEXT == 1
  :: atomic { up_c[h] && (dead[h] || frozen[h]) -> up_c[h] = 0; drop_outputs_on_their_way() }
  :: atomic { !up_c[h] && RUNS(h) -> up_c[h] = 1; link_next() }
#endif
  /* the lease is over; so is the grace; A takes the values back */
  :: atomic { !up[h] && clock[h] == 0 -> clock[h] = 1 }
#ifdef MUTANT_BACK_BEFORE_FENCE
  :: atomic { !up[h] && clock[h] == 1 -> clock[h] = 2 }
#else
  :: atomic { !up[h] && clock[h] == 1 && (own[h] == 0 || !RUNS(h)) -> clock[h] = 2; late[h] = frozen[h] }
#endif
  :: atomic { !up[h] && clock[h] == 2 -> clock[h] = 3; assert(own[h] == 0 || !RUNS(h) || late[h]); take_back() }
  /* B ends its workers: by its clock, or told of another epoch */
#ifdef MUTANT_OLD_WORKERS_STAY
  :: atomic { RUNS(h) && own[h] != 0 && up[h] && own[h] != epoch[h] -> own[h] = epoch[h] }
#endif
  :: atomic { RUNS(h) && own[h] != 0 && ((!up[h] && clock[h] > 0) || (up[h] && own[h] != epoch[h])) -> fence() }
  /* B says that its workers are gone */
  :: atomic { up[h] && RUNS(h) && own[h] == 0 -> take_back(); own[h] = epoch[h] }
  od
}

/* A host is wiped only when those that were wiped before are back, with all their links; AT_ONCE: at any moment. */
#define IS_BACK(h) (!dead[h] && !wiped_c[h] && (wipes == 0 || (up[h] && up_c[h] && own[h] == epoch[h])))
#ifdef AT_ONCE
#define ALL_BACK true
#elif HOSTS == 2
#define ALL_BACK (IS_BACK(0) && IS_BACK(1))
#else
#define ALL_BACK IS_BACK(0)
#endif

/* Faults of host 0 and C, at any moment, and at any moment no more of them. */
active proctype Faults() {
  byte i, j; byte h = 0;
  do
  :: atomic { wipes < WIPES && RUNS(h) && ALL_BACK -> wipes++; wipe(); dead[h] = 1 }
  :: atomic { cuts < CUTS && up[h] -> cuts++; break_link() }
  :: atomic { freezes < FREEZES && RUNS(h) -> freezes++; frozen[h] = 1 }
#if NEXT == 1
  :: atomic { cuts_c < CUTS_C && up_c[h] -> cuts_c++; up_c[h] = 0; drop_outputs_on_their_way() }
  :: atomic { wipes_c < WIPES_C && ALL_BACK -> wipes_c++;
       LOOP(i, VALUES) next[i] = 0; POOL(i, VALUES);
       LOOP(j, HOSTS) h = j; up_c[h] = 0; wiped_c[h] = 1; drop_outputs_on_their_way(); POOL(j, HOSTS);
       h = 0 }
#endif
  :: break
  od
}

/* At the end nothing can happen any more, and everything must be done. */
active proctype Watcher() {
  do
  :: atomic { ANY_LOST -> assert(false) }
  :: timeout -> assert(DONE); break
  od
}

init {
  byte h, v, k;
  atomic {
    do
    :: h < HOSTS ->
       run Link(h);
       v = 0;
       do
       :: v < VALUES ->
          run Value(h, v);
          k = 0;
          do :: k < COPIES -> run Output(h, v, k); k++ :: k == COPIES -> break od;
          v++
       :: v == VALUES -> break
       od;
       h++
    :: h == HOSTS -> break
    od;
#if NEXT > 0
    v = 0;
    do :: v < VALUES -> run Next(v); v++ :: v == VALUES -> break od;
#endif
    h = 0; v = 0; k = 0
  }
}
