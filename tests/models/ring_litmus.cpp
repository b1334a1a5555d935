// Memory orders of a stream's ring: ataraxis/_kernels/ring.pyx and event.pxd, line by line.
// One slot, position 0 published before anything begins; the producer claims position 1 in the same slot.
// Each test has an expected outcome; mutants must be violations. The program exits with 1 if any outcome is
// another one.
#include "wmm.hpp"

using namespace wmm;
using R = const Registers &;

static bool all_as_expected = true;
static void expect(Litmus &l, bool ok) { all_as_expected &= l.run(ok); }
constexpr bool OK = true, VIOLATION = false;

enum { WORD, A, B, PIN, CURSOR, READERS, ANNOUNCED, SENDERS };          // a stream's
enum { SLEEPERS = 3, COUNT = 4, QUEUE = 5 };                            // an event's, beside WORD

// Values of the slot's word.
enum { READY_0 = 1, WRITING_1 = 2, READY_1 = 3, SKIP_1 = 4, WRITING_0 = 5, SKIP_0 = 6 };

static void publish(Litmus &l, int t, Order o = RELEASE)
{
    l.store(t, A, 2, RELAXED);
    l.store(t, B, 2, RELAXED);
    l.store(t, WORD, READY_1, o);
}

// Between a side's write and its check: the fence, as in the kernels; or both are seq_cst, which would do.
enum class Dekker { FENCED, TOTAL, BARE, TOTAL_WRITE_ONLY };

static void full(Litmus &l, int t, bool is_there)
{
    if (is_there)
        l.fence_seq_cst(t);
}

// The slot's word to WRITING: swapped; in a run stored, because no other thread changes it.
static void claim(Litmus &l, bool is_run, Order o = BOTH)
{
    if (is_run)
        l.store(0, WORD, WRITING_1, RELAXED);
    else
        l.cas(0, 6, WORD, [](R) { return READY_0; }, [](R) { return WRITING_1; }, o);
}

static int is_old(R r) { return r[1] == 1 && r[2] == 1; }

// ---- J: a joiner publishes its cursor and reads `announced`; a producer the other way round

struct Join { bool is_run = false, has_gate_fence = true, has_join_fence = true, is_announced_first = true, is_floor_looked_at = true; };

static void join(const char *name, Join c, bool ok)
{
    Litmus l(name, 2, 8);
    l.start(WORD, READY_0), l.start(A, 1), l.start(B, 1), l.start(ANNOUNCED, 1);
    auto announce = [&] { l.update(0, 7, ANNOUNCED, [](int, R) { return 2; }, BOTH); };
    // gate: a limit of 2 lets the producer claim position 1, which overwrites position 0.
    if (c.is_announced_first)
        announce();
    full(l, 0, c.has_gate_fence);
    l.load(0, 0, READERS, RELAXED);
    l.load(0, 1, CURSOR, ACQUIRE);
    if (!c.is_announced_first)
        announce();
    l.leave_if(0, [](R r) { return r[0] && r[1] == 1; });                // a reader gates at position 0: full
    claim(l, c.is_run);
    l.fence_seq_cst(0);                                                  // P
    publish(l, 0);
    // reader_join, from the oldest: the cursor at position 0, unless that may be overwritten.
    l.store(1, CURSOR, 1, RELEASE);
    l.update(1, 7, READERS, [](int, R) { return 1; }, BOTH);
    full(l, 1, c.has_join_fence);
    l.load(1, 0, ANNOUNCED, ACQUIRE);
    if (c.is_floor_looked_at)
        l.leave_if(1, [](R r) { return r[0] == 2; });                    // begins at position 1
    l.load(1, 3, WORD, ACQUIRE);
    l.leave_if(1, [](R r) { return r[3] != READY_0; });                  // overwritten: begins later
    l.load(1, 2, B, RELAXED);
    l.load(1, 1, A, RELAXED);
    l.check(1, is_old);
    expect(l, ok);
}

// ---- P: a viewer pins and checks again; a producer claims and checks the pins

struct Pin { bool is_run = false; Dekker claim = Dekker::FENCED; bool has_pin_fence = true, is_looked_again = true, is_claimed_first = true; };

static void pin(const char *name, Pin c, bool ok)
{
    Litmus l(name, 2, 4);
    l.start(WORD, READY_0), l.start(A, 1), l.start(B, 1);
    const Order claimed = c.claim == Dekker::TOTAL || c.claim == Dekker::TOTAL_WRITE_ONLY ? TOTAL : BOTH;
    const Order looked = c.claim == Dekker::TOTAL ? TOTAL : ACQUIRE;
    if (!c.is_claimed_first)
        l.load(0, 0, PIN, looked);
    claim(l, c.is_run, claimed);
    if (c.claim == Dekker::FENCED)
        l.fence_seq_cst(0);
    else
        l.fence(0, RELEASE);                                             // for readers that copy
    if (c.is_claimed_first)
        l.load(0, 0, PIN, looked);
    l.skip_if(0, 2, [](R r) { return !r[0]; });
    l.store(0, WORD, SKIP_1, RELEASE);                                   // skipped
    l.leave_if(0, [](R) { return 1; });
    publish(l, 0);
    l.load(1, 0, WORD, ACQUIRE);
    l.leave_if(1, [](R r) { return r[0] != READY_0; });
    l.update(1, 7, PIN, [](int, R) { return 1; }, BOTH);
    full(l, 1, c.has_pin_fence);
    if (c.is_looked_again) {
        l.load(1, 3, WORD, ACQUIRE);
        l.leave_if(1, [](R r) { return r[3] != r[0]; });
    }
    l.load(1, 2, B, RELAXED);
    l.load(1, 1, A, RELAXED);
    l.check(1, is_old);
    expect(l, ok);
}

// ---- copies of an unprotected slot: check, copy, check again

struct Copy { bool is_run = false, has_claim_fence = true, has_copy_fence = true, is_looked_again = true; Order shown = RELEASE, seen = ACQUIRE; };

static void copy(const char *name, Copy c, bool is_b_first, bool ok)
{
    Litmus l(name, 2, 3);
    l.start(WORD, READY_0), l.start(A, 1), l.start(B, 1);
    claim(l, c.is_run);
    full(l, 0, c.has_claim_fence);
    publish(l, 0, c.shown);
    l.load(1, 0, WORD, c.seen);
    l.leave_if(1, [](R r) { return r[0] != READY_0 && r[0] != READY_1; });
    l.load(1, is_b_first ? 2 : 1, is_b_first ? B : A, RELAXED);
    l.load(1, is_b_first ? 1 : 2, is_b_first ? A : B, RELAXED);
    if (c.has_copy_fence)
        l.fence(1, ACQUIRE);
    if (c.is_looked_again) {
        l.load(1, 3, WORD, RELAXED);
        l.leave_if(1, [](R r) { return r[3] != r[0]; });
    }
    l.check(1, [](R r) { return r[1] == r[2] && r[1] == (r[0] == READY_0 ? 1 : 2); });
    expect(l, ok);
}

// ---- E: the eventcount. QUEUE is the kernel's: entered before comparing, as under the kernel's lock.

struct Event {
    Dekker signal = Dekker::FENCED;
    bool has_sleep_fence = true, is_bit_first = true, is_counted = true;
};

static void event(const char *name, Event c, bool ok)
{
    Litmus l(name, 2, 6);
    if (c.signal == Dekker::TOTAL || c.signal == Dekker::TOTAL_WRITE_ONLY)
        l.update(0, 6, WORD, [](int, R) { return READY_0; }, TOTAL);
    else
        l.store(0, WORD, READY_0, RELEASE);
    full(l, 0, c.signal == Dekker::FENCED);
    l.load(0, 0, SLEEPERS, c.signal == Dekker::TOTAL ? TOTAL : RELAXED);
    l.leave_if(0, [](R r) { return !r[0]; });
    l.update(0, 6, SLEEPERS, [](int, R) { return 0; }, BOTH);
    if (c.is_counted)
        l.update(0, 1, COUNT, [](int old, R) { return old + 1; }, BOTH);
    l.fence_seq_cst(0);                                                  // futex wake
    l.update(0, 3, QUEUE, [](int, R) { return 0; }, BOTH);
    l.load(1, 0, COUNT, ACQUIRE);
    if (!c.is_bit_first)
        l.load(1, 1, WORD, ACQUIRE);
    l.update(1, 7, SLEEPERS, [](int, R) { return 1; }, BOTH);
    full(l, 1, c.has_sleep_fence);
    if (c.is_bit_first)
        l.load(1, 1, WORD, ACQUIRE);
    l.leave_if(1, [](R r) { return r[1] == READY_0; });
    l.update(1, 7, QUEUE, [](int, R) { return 1; }, BOTH);
    l.fence_seq_cst(1);                                                  // futex wait
    l.update(1, 2, COUNT, [](int old, R) { return old; }, BOTH);
    l.set(1, 5, [](R r) { return r[2] == r[0]; });
    l.at_end = [](const World &w) { return !(w.thread[1].r[5] && w.last(QUEUE)); };
    expect(l, ok);
}

// ---- the end: a reader that sees no producer sees every frame

struct End { Order left = BOTH, asked = ACQUIRE; bool is_looked_again = true; };

static void end(const char *name, End c, bool ok)
{
    Litmus l(name, 2, 8);
    l.start(SENDERS, 1);
    l.store(0, A, 1, RELAXED);
    l.store(0, WORD, READY_0, RELEASE);
    l.update(0, 7, SENDERS, [](int, R) { return 0; }, c.left);
    l.load(1, 0, WORD, ACQUIRE);
    l.leave_if(1, [](R r) { return r[0] == READY_0; });
    l.load(1, 1, SENDERS, c.asked);
    l.leave_if(1, [](R r) { return r[1]; });
    if (c.is_looked_again) {
        l.load(1, 0, WORD, ACQUIRE);
        l.leave_if(1, [](R r) { return r[0] == READY_0; });
    }
    l.check(1, [](R) { return 0; });                                     // it saw the end and missed a frame
    expect(l, ok);
}

// ---- death: the producer dies anywhere; a cleaner that owns its byte skips its claims

static void death(const char *name, bool is_word_first, Order senders, bool ok)
{
    Litmus l(name, 3, 8);
    l.mortal = 0;
    l.start(SENDERS, 1);
    l.cas(0, 6, WORD, [](R) { return 0; }, [](R) { return WRITING_0; }, BOTH);
    l.store(0, A, 1, RELAXED);
    l.store(0, B, 1, RELAXED);
    l.store(0, WORD, READY_0, RELEASE);
    l.probe(1, 0, 0);
    l.leave_if(1, [](R r) { return !r[0]; });
    auto forget = [&] { l.update(1, 7, SENDERS, [](int, R) { return 0; }, senders); };
    if (!is_word_first)
        forget();
    l.load(1, 1, WORD, ACQUIRE);
    l.skip_if(1, 1, [](R r) { return r[1] != WRITING_0; });
    l.cas(1, 6, WORD, [](R) { return WRITING_0; }, [](R) { return SKIP_0; }, BOTH);
    if (is_word_first)
        forget();
    // A reader that sees the end has read every frame, and left no claim; its frames are complete.
    l.load(2, 1, SENDERS, ACQUIRE);
    l.load(2, 0, WORD, ACQUIRE);
    l.check(2, [](R r) { return r[1] || r[0] != WRITING_0; });
    l.leave_if(2, [](R r) { return r[0] != READY_0; });
    l.load(2, 2, B, RELAXED);
    l.load(2, 3, A, RELAXED);
    l.check(2, [](R r) { return r[2] == 1 && r[3] == 1; });
    expect(l, ok);
}

int main()
{
    join("J: cursor, fence, announced; announced, fence, cursor", {}, OK);
    join("J: the same, claimed in a run", {.is_run = true}, OK);
    join("mutant J: no fence in gate", {.has_gate_fence = false}, VIOLATION);
    join("mutant J: no fence in reader_join", {.has_join_fence = false}, VIOLATION);
    join("mutant J: announced after the scan", {.is_announced_first = false}, VIOLATION);
    join("mutant J: what was announced is not looked at", {.is_floor_looked_at = false}, VIOLATION);

    pin("P: pin, fence, word; word, fence, pin", {}, OK);
    pin("P: the same, claimed in a run", {.is_run = true}, OK);
    pin("mutant P: a run without its fence", {.is_run = true, .claim = Dekker::BARE}, VIOLATION);
    pin("P: a total swap and a total look would do without the fence in claim", {.claim = Dekker::TOTAL}, OK);
    pin("mutant P: no fence in claim", {.claim = Dekker::BARE}, VIOLATION);
    pin("mutant P: a total swap, and pins looked at by a load that is not", {.claim = Dekker::TOTAL_WRITE_ONLY}, VIOLATION);
    pin("mutant P: no fence in pin", {.has_pin_fence = false}, VIOLATION);
    pin("mutant P: the word is not looked at again", {.is_looked_again = false}, VIOLATION);
    pin("mutant P: pins looked at before the claim", {.is_claimed_first = false}, VIOLATION);

    copy("copy: look, copy, fence, look; claim, fence, write, show", {}, false, OK);
    copy("copy: the same, copied in reverse", {}, true, OK);
    copy("copy: the same, claimed in a run", {.is_run = true}, true, OK);
    copy("mutant copy: a run without its fence", {.is_run = true, .has_claim_fence = false}, true, VIOLATION);
    copy("mutant copy: no fence after the claim", {.has_claim_fence = false}, true, VIOLATION);
    copy("mutant copy: no fence after the copy", {.has_copy_fence = false}, false, VIOLATION);
    copy("mutant copy: the word is not looked at again", {.is_looked_again = false}, true, VIOLATION);
    copy("mutant copy: shown relaxed", {.shown = RELAXED}, true, VIOLATION);
    copy("mutant copy: seen relaxed", {.seen = RELAXED}, true, VIOLATION);

    event("E: bit, fence, look, sleep; show, fence, bits", {}, OK);
    event("E: a total swap and a total look would do without the fence in event_signal", {.signal = Dekker::TOTAL}, OK);
    event("mutant E: no fence in event_signal", {.signal = Dekker::BARE}, VIOLATION);
    event("mutant E: a total swap, and bits looked at by a load that is not", {.signal = Dekker::TOTAL_WRITE_ONLY}, VIOLATION);
    event("mutant E: no fence in event_prepare", {.has_sleep_fence = false}, VIOLATION);
    event("mutant E: looked before the bit was set", {.is_bit_first = false}, VIOLATION);
    event("mutant E: wake-ups are not counted", {.is_counted = false}, VIOLATION);

    end("end: frame, then the sender's bit; bit, then the frame", {}, OK);
    end("mutant end: the bit taken away relaxed", {.left = RELAXED}, VIOLATION);
    end("mutant end: the bit asked for relaxed", {.asked = RELAXED}, VIOLATION);
    end("mutant end: no second look", {.is_looked_again = false}, VIOLATION);

    death("death: the claim is passed over, then the bit goes", true, BOTH, OK);
    death("mutant death: the bit goes first", false, BOTH, VIOLATION);
    death("mutant death: the bit goes relaxed", true, RELAXED, VIOLATION);
    return all_as_expected ? 0 : 1;
}
