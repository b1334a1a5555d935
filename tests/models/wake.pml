/* The eventcount of a ring, as ataraxis/_kernels/event.pxd has it; waits are not timed here.
 *
 *   SLEEPERS  processes that wait (2)     EVENTS  events of each signaller (2)
 *   SIGNALLERS  processes that signal (1)     KILLS  sleepers that die (0)
 *   MUTANT_*  one mistake each, that Spin must catch
 */
#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#ifndef EVENTS
#define EVENTS 2
#endif
#ifndef SIGNALLERS
#define SIGNALLERS 1
#endif
#define ALL (EVENTS * SIGNALLERS)
#ifndef KILLS
#define KILLS 0
#endif
byte happened, count, mask, kills;
bit asleep[SLEEPERS], dead[SLEEPERS];

proctype Signaller() {
  byte n, i;
  do
  :: n < EVENTS ->
#ifdef MUTANT_LOOK_FIRST
     byte seen;
     seen = mask;
     happened = happened + 1;
     if :: seen != 0 ->
#else
     happened = happened + 1;
     /* fence E */
     if :: mask != 0 ->
#endif
#ifndef MUTANT_CLEAR_LATE
        mask = 0;
#endif
#ifndef MUTANT_NO_COUNT
        count = count + 1;
#endif
#ifdef MUTANT_CLEAR_LATE
        mask = 0;
#endif
        atomic { i = 0;
#ifdef MUTANT_WAKE_ONE
                 do :: i < SLEEPERS && !asleep[i] -> i++ :: else -> break od;
                 if :: i < SLEEPERS -> asleep[i] = 0 :: else fi
#else
                 do :: i < SLEEPERS -> asleep[i] = 0; i++ :: else -> break od
#endif
        }
     :: else
     fi;
     n++
  :: n == EVENTS -> break
  od
}

proctype Sleeper(byte me) {
  byte had, seen;
  {
  do
  :: had < ALL ->
     if
     :: happened > had -> had++
     :: else ->
        seen = count;
#ifndef MUTANT_NO_BIT
        mask = mask | (1 << me);
#endif
        /* fence E */
#ifndef MUTANT_NO_SECOND_LOOK
        if
        :: happened > had -> skip
        :: else ->
#endif
           atomic { if :: count == seen -> asleep[me] = 1 :: else fi };
           (!asleep[me]);
#ifndef MUTANT_NO_SECOND_LOOK
        fi;
#endif
        mask = mask & (255 - (1 << me))
     fi
  :: had == ALL -> break
  od
  } unless { dead[me] };
end0: skip
}

proctype Killer() {
  do
  :: atomic { kills < KILLS -> if :: !dead[0] -> dead[0] = 1 :: else fi; kills++ }
  :: break
  od
}

init {
  byte j;
  atomic {
    do :: j < SIGNALLERS -> run Signaller(); j++ :: else -> break od;
    j = 0;
    do :: j < SLEEPERS -> run Sleeper(j); j++ :: else -> break od;
    if :: KILLS > 0 -> run Killer() :: else fi
  }
}
