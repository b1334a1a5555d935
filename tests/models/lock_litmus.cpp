// Memory orders of the lock, the write section and the single-element store: ataraxis/_kernels/lock.pxd,
// lock.pyx and copy.pxd, line by line. Each test has an expected outcome; mutants must be violations. The
// program exits with 1 if any outcome is another one.
#include "wmm.hpp"

using namespace wmm;
using R = const Registers &;

static bool all_as_expected = true;
static void expect(Litmus &l, bool ok) { all_as_expected &= l.run(ok); }
constexpr bool OK = true, VIOLATION = false;

// ---- the code, as in the kernels

enum { VERSION, A, B, HEALTH, DIRTY, LOCK, EVENT, QUEUE };

enum class Odd { FENCED, BARE, RELEASED };

static void section_open(Litmus &l, int t, int version, Odd odd = Odd::FENCED)
{
    l.store(t, VERSION, version | 1, odd == Odd::RELEASED ? RELEASE : RELAXED);
    if (odd == Odd::FENCED)
        l.fence(t, RELEASE);
}

static void section_close(Litmus &l, int t, int version, Order even = RELEASE) { l.store(t, VERSION, (version | 1) + 1, even); }

static void store_element(Litmus &l, int t, int element, int value, int version, bool is_fenced = true)
{
    if (is_fenced)
        l.fence(t, RELEASE);
    l.store(t, element, value, RELAXED);
    l.store(t, VERSION, version, RELEASE);
}

// copy_out: r0 version, r1 A, r2 B. Copies in either order, then checks.
static void copy_out(Litmus &l, int t, bool is_b_first, Function law, bool is_fenced = true)
{
    l.load(t, 0, VERSION, ACQUIRE);
    l.leave_if(t, [](R r) { return r[0] & 1; });
    l.load(t, 3, HEALTH, RELAXED);
    l.leave_if(t, [](R r) { return r[3] != 0; });
    l.load(t, is_b_first ? 2 : 1, is_b_first ? B : A, RELAXED);
    l.load(t, is_b_first ? 1 : 2, is_b_first ? A : B, RELAXED);
    if (is_fenced)
        l.fence(t, ACQUIRE);
    l.load(t, 4, VERSION, RELAXED);
    l.leave_if(t, [](R r) { return r[4] != r[0]; });
    l.check(t, std::move(law));
}

static int is_whole(R r) { return r[1] == r[2]; }
static int is_b_after_a(R r) { return r[1] >= r[2]; }

// ---- the section

static void section(const char *name, Odd odd, Order even, bool is_reader_fenced, bool ok)
{
    Litmus l(name, 2, 4);
    for (int k = 0; k < 2; k++) {
        section_open(l, 0, 2 * k, odd);
        l.store(0, A, k + 1, RELAXED);
        l.store(0, B, k + 1, RELAXED);
        section_close(l, 0, 2 * k, even);
    }
    copy_out(l, 1, true, [](R r) { return r[1] == r[2] && 2 * r[1] == r[0]; }, is_reader_fenced);
    expect(l, ok);
}

// The data are torn and flagged; a complete write heals them. A reader that sees health 0 sees the odd version.
static void heal(const char *name, Odd odd, bool ok)
{
    Litmus l(name, 2, 4);
    l.start(A, 5), l.start(B, 4), l.start(HEALTH, 1);
    section_open(l, 0, 0, odd);
    l.store(0, A, 6, RELAXED);
    l.store(0, B, 6, RELAXED);
    l.store(0, HEALTH, 0, RELAXED);
    section_close(l, 0, 0);
    copy_out(l, 1, true, is_whole);
    expect(l, ok);
}

// ---- single elements: A, then B

static void elements(const char *name, bool is_b_first, bool is_fenced, bool is_reader_fenced, bool ok)
{
    Litmus l(name, 2, 4);
    store_element(l, 0, A, 1, 2, is_fenced);
    store_element(l, 0, B, 1, 4, is_fenced);
    copy_out(l, 1, is_b_first, is_b_after_a, is_reader_fenced);
    expect(l, ok);
}

static void elements_and_change(const char *name, bool is_counted_first, bool ok)
{
    Litmus l(name, 2, 4);
    l.fence(0, RELEASE);
    if (is_counted_first)
        l.store(0, VERSION, 2, RELEASE);
    l.store(0, A, 1, RELAXED);
    if (!is_counted_first)
        l.store(0, VERSION, 2, RELEASE);
    l.load(1, 0, VERSION, ACQUIRE);                   // change_wait, then a read of the element
    l.leave_if(1, [](R r) { return r[0] != 2; });
    l.load(1, 1, A, RELAXED);
    l.check(1, [](R r) { return r[1] == 1; });
    expect(l, ok);
}

// One process stores A, the next one B: the version must come to the second through the lock.
static void elements_of_two(const char *name, Order release, Order acquire, bool is_fenced, bool ok)
{
    Litmus l(name, 3, 6);
    l.start(LOCK, 1);
    store_element(l, 0, A, 1, 2, is_fenced);
    l.update(0, 7, LOCK, [](int, R) { return 0; }, release);
    l.cas(1, 6, LOCK, [](R) { return 0; }, [](R) { return 2; }, acquire);
    l.leave_if(1, [](R r) { return !r[6]; });
    l.load(1, 0, VERSION, RELAXED);
    if (is_fenced)
        l.fence(1, RELEASE);
    l.store(1, B, 1, RELAXED);
    l.store(1, VERSION, [](R r) { return r[0] + 2; }, RELEASE);
    copy_out(l, 2, true, is_b_after_a);
    expect(l, ok);
}

// An element stored by its lock's holder inside the section that Lock.acquire opened: depth 2.
static void nested(const char *name, bool is_a_section, bool ok)
{
    Litmus l(name, 2, 5);
    if (is_a_section)
        section_open(l, 0, 0);
    for (int half : {A, B}) {
        l.store(0, DIRTY, 1, RELAXED);
        if (is_a_section) {
            l.fence(0, RELEASE);
            l.store(0, half, 1, RELAXED);
        } else
            store_element(l, 0, half, 1, half == A ? 2 : 4);
    }
    if (is_a_section)
        section_close(l, 0, 0);
    l.store(0, DIRTY, 0, RELEASE);
    copy_out(l, 1, true, is_whole);
    expect(l, ok);
}

// ---- the lock word

static void hand_over(const char *name, Order release, Order acquire, bool is_bit_set_between, bool ok)
{
    Litmus l(name, 3, 6);
    l.start(LOCK, 1);
    l.store(0, A, 1, RELAXED);
    l.update(0, 7, LOCK, [](int, R) { return 0; }, release);
    if (is_bit_set_between)                           // change_wait's fetch_or: the release sequence continues through it
        l.update(2, 7, LOCK, [](int old, R) { return old | 64; }, RELAXED);
    l.load(1, 0, LOCK, RELAXED);
    l.leave_if(1, [](R r) { return r[0] & 15; });
    l.cas(1, 6, LOCK, [](R r) { return r[0]; }, [](R r) { return r[0] | 2; }, acquire);
    l.leave_if(1, [](R r) { return !r[6]; });
    l.load(1, 1, A, RELAXED);
    l.check(1, [](R r) { return r[1] == 1; });
    expect(l, ok);
}

// Thread 0 commits `commits` times and wakes sleepers; thread 1 waits once, for a version beyond `last`.
// QUEUE is the kernel's: entered before comparing, as under the kernel's lock; not removed: a lost wake-up.
struct Change { int commits = 1, last = 0; bool is_swap = true, is_bit_first = true, has_event = true; Order order = BOTH; };

static void change(const char *name, Change c, bool ok)
{
    Litmus l(name, 2, 8);
    for (int k = 0; k < c.commits; k++) {
        l.store(0, VERSION, 2 * (k + 1), RELEASE);
        if (c.is_swap)
            l.update(0, 1, LOCK, [](int, R) { return 0; }, c.order);
        else {
            l.load(0, 1, LOCK, ACQUIRE);
            l.store(0, LOCK, 0, RELEASE);
        }
        if (k + 1 < c.commits)                        // owned again, for the next commit
            l.update(0, 2, LOCK, [](int old, R) { return old | 1; }, BOTH);
        l.skip_if(0, c.has_event ? 3 : 2, [](R r) { return !(r[1] & 64); });
        if (c.has_event)
            l.update(0, 3, EVENT, [](int old, R) { return old + 1; }, BOTH);
        l.fence_seq_cst(0);                           // futex wake
        l.update(0, 3, QUEUE, [](int, R) { return 0; }, BOTH);
    }
    l.load(1, 0, EVENT, ACQUIRE);
    if (!c.is_bit_first)
        l.load(1, 1, VERSION, ACQUIRE);
    l.update(1, 7, LOCK, [](int old, R) { return old | 64; }, c.order);
    if (c.is_bit_first)
        l.load(1, 1, VERSION, ACQUIRE);
    const int last = c.last;
    l.leave_if(1, [last](R r) { return r[1] > last; });
    l.update(1, 7, QUEUE, [](int, R) { return 1; }, BOTH);
    l.fence_seq_cst(1);                               // futex wait
    l.update(1, 2, c.has_event ? EVENT : VERSION, [](int old, R) { return old; }, BOTH);
    const int expected = c.has_event ? 0 : 1;
    l.set(1, 5, [expected](R r) { return r[2] == r[expected]; });
    l.at_end = [last](const World &w) {
        const bool is_asleep = w.thread[1].r[5] && w.last(QUEUE);
        return !(is_asleep && w.last(VERSION) > last);
    };
    expect(l, ok);
}

// ---- death and clean-up

// The writer dies anywhere; thread 1 notices and cleans up; thread 2 reads.
static void death_in_section(const char *name, bool is_health_first, Order even, bool ok)
{
    Litmus l(name, 3, 5);
    l.mortal = 0;
    l.store(0, DIRTY, 1, RELAXED);
    section_open(l, 0, 0);
    l.store(0, A, 1, RELAXED);
    l.store(0, B, 1, RELAXED);
    section_close(l, 0, 0);
    l.store(0, DIRTY, 0, RELEASE);
    l.probe(1, 0, 0);
    l.leave_if(1, [](R r) { return !r[0]; });
    l.load(1, 1, DIRTY, RELAXED);
    l.load(1, 2, VERSION, RELAXED);
    if (!is_health_first)
        l.store(1, VERSION, [](R r) { return r[2] & 1 ? r[2] + 1 : r[2] + 2; }, even);
    l.skip_if(1, 1, [](R r) { return !r[1]; });
    l.store(1, HEALTH, 1, RELAXED);
    if (is_health_first)
        l.store(1, VERSION, [](R r) { return r[2] & 1 ? r[2] + 1 : r[2] + 2; }, even);
    l.store(1, DIRTY, 0, RELAXED);
    copy_out(l, 2, true, is_whole);
    expect(l, ok);
}

// The writer of A dies anywhere, perhaps with its element stored and not counted; the next one stores B.
static void death_in_element(const char *name, bool is_bumped, bool ok)
{
    Litmus l(name, 3, 4);
    l.mortal = 0;
    store_element(l, 0, A, 1, 2);
    l.probe(1, 0, 0);
    l.leave_if(1, [](R r) { return !r[0]; });
    l.load(1, 1, A, RELAXED);
    l.leave_if(1, [](R r) { return !r[1]; });
    l.load(1, 2, VERSION, RELAXED);
    if (is_bumped) {
        l.set(1, 2, [](R r) { return r[2] + 2; });
        l.store(1, VERSION, [](R r) { return r[2]; }, RELEASE);
    }
    l.fence(1, RELEASE);
    l.store(1, B, 1, RELAXED);
    l.store(1, VERSION, [](R r) { return r[2] + 2; }, RELEASE);
    copy_out(l, 2, false, is_b_after_a);
    expect(l, ok);
}

// ---- writes without the lock are counted, too (_changed_unlocked), during another thread's section

enum class Count { LOADED_AND_STORED, UPDATED, OWN_WORD };

static void unlocked(const char *name, Count count, bool ok)
{
    Litmus l(name, 3, 5);
    const int own = DIRTY;                            // a word that is not used otherwise here
    auto advance = [&](int to_odd, Order o) {
        auto next = [to_odd](int old) { return to_odd ? old | 1 : (old | 1) + 1; };
        if (count == Count::UPDATED) {
            l.update(0, 0, VERSION, [next](int old, R) { return next(old); }, BOTH);
        } else {
            l.load(0, 0, VERSION, RELAXED);
            l.store(0, VERSION, [next](R r) { return next(r[0]); }, o);
        }
    };
    advance(1, RELAXED);
    l.fence(0, RELEASE);
    l.store(0, A, 1, RELAXED);
    l.store(0, B, 1, RELAXED);
    advance(0, RELEASE);
    l.update(1, 0, count == Count::OWN_WORD ? own : VERSION, [](int old, R) { return old + 2; }, BOTH);
    copy_out(l, 2, false, is_whole);
    expect(l, ok);
}

// The unlocked writer checks the bit of a waiter, as the owner's swap does.
static void unlocked_change(const char *name, bool is_update, bool ok)
{
    Litmus l(name, 2, 6);
    l.update(0, 0, VERSION, [](int old, R) { return old + 2; }, BOTH);
    if (is_update)
        l.update(0, 1, LOCK, [](int old, R) { return old & ~64; }, BOTH);
    else
        l.load(0, 1, LOCK, RELAXED);
    l.update(1, 7, LOCK, [](int old, R) { return old | 64; }, BOTH);
    l.load(1, 1, VERSION, ACQUIRE);
    l.at_end = [](const World &w) { return w.thread[1].r[1] == 2 || (w.thread[0].r[1] & 64); };
    expect(l, ok);
}

int main()
{
    section("section: fences of writer and reader", Odd::FENCED, RELEASE, true, OK);
    section("mutant: section without the writer's fence", Odd::BARE, RELEASE, true, VIOLATION);
    section("mutant: odd version stored with release, no fence after it", Odd::RELEASED, RELEASE, true, VIOLATION);
    section("mutant: even version stored relaxed", Odd::FENCED, RELAXED, true, VIOLATION);
    section("mutant: section without the reader's fence", Odd::FENCED, RELEASE, false, VIOLATION);
    heal("heal: health 0 inside the section", Odd::FENCED, OK);
    heal("mutant: heal without the writer's fence", Odd::BARE, VIOLATION);

    elements("elements: two stores, copied in order", false, true, true, OK);
    elements("elements: two stores, copied in reverse", true, true, true, OK);
    elements("mutant: elements without the release fence", false, false, true, VIOLATION);
    elements("mutant: elements without the reader's fence", false, true, false, VIOLATION);
    elements_and_change("elements: who is told of one sees it", false, OK);
    elements_and_change("mutant: version before the element", true, VIOLATION);
    elements_of_two("elements: of two processes, by way of the lock", BOTH, BOTH, true, OK);
    elements_of_two("mutant: elements of two, no release fence", BOTH, BOTH, false, VIOLATION);
    elements_of_two("mutant: elements of two, relaxed swap", RELAXED, BOTH, true, VIOLATION);
    nested("nested: elements inside an open section", true, OK);
    nested("mutant: elements of one section counted one by one", false, VIOLATION);

    hand_over("lock: swap to CAS", BOTH, BOTH, false, OK);
    hand_over("lock: swap to CAS, a bit set in between", BOTH, BOTH, true, OK);
    hand_over("mutant: lock given back by a relaxed swap", RELAXED, BOTH, false, VIOLATION);
    hand_over("mutant: lock taken by a relaxed CAS", BOTH, RELAXED, false, VIOLATION);

    change("change: one commit", {}, OK);
    change("change: two commits, waiting for the second", {.commits = 2, .last = 2}, OK);
    change("mutant: look and plain store instead of the swap", {.is_swap = false}, VIOLATION);
    change("mutant: version looked at before the bit", {.is_bit_first = false}, VIOLATION);
    change("mutant: relaxed swap and bit", {.order = RELAXED}, VIOLATION);
    change("change: sleeping on the version would do for one commit", {.has_event = false}, OK);
    change("mutant: sleeping on the version, waiting for the second commit", {.commits = 2, .last = 2, .has_event = false}, VIOLATION);

    death_in_section("death in a section: health, then the even version", true, RELEASE, OK);
    death_in_section("mutant: even version before health", false, RELEASE, VIOLATION);
    death_in_section("mutant: cleanup's even version stored relaxed", true, RELAXED, VIOLATION);
    death_in_element("death in an element's store: version + 2", true, OK);
    death_in_element("mutant: an uncounted element stays uncounted", false, VIOLATION);

    unlocked("unlocked: counted in a word of its own, beside a section", Count::OWN_WORD, OK);
    unlocked("unlocked: the version is only ever updated", Count::UPDATED, OK);
    unlocked("mutant: the version is loaded and stored by the owner, updated by others", Count::LOADED_AND_STORED, VIOLATION);
    unlocked_change("unlocked: the waiter's bit is taken by an update", true, OK);
    unlocked_change("mutant: the waiter's bit is looked for by a relaxed load", false, VIOLATION);
    return all_as_expected ? 0 : 1;
}
