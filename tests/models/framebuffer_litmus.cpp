// Memory orders of the frame buffer: ataraxis/_kernels/framebuffer.pyx, line by line. The checksum
// needs no order: a copy is compared with the bytes that were sent. Order is needed
// for the second check of a view: bytes that were right, wrong and right again.
#include "wmm.hpp"

using namespace wmm;
using R = const Registers &;

static bool all_as_expected = true;
constexpr bool OK = true, VIOLATION = false;

enum { HEAD, BYTE, SERVER, LABELS };

// ring_allocate, then the bytes of the chunk's writer.
static void allocate_and_write(Litmus &l, int t, int value, bool is_fenced)
{
    l.update(t, 7, HEAD, [](int old, R) { return old + 1; }, BOTH);
    if (is_fenced)
        l.fence(t, RELEASE);
    l.store(t, BYTE, value, RELAXED);
}

// turn_of, check, use, check, turned: r2 is the used value. Head may not move at all here.
static void view(Litmus &l, int t, bool is_fenced, bool has_second_check)
{
    l.load(t, 0, HEAD, ACQUIRE);
    l.leave_if(t, [](R r) { return r[0] != 0; });
    l.load(t, 1, BYTE, RELAXED);
    l.leave_if(t, [](R r) { return r[1] != 1; });
    l.load(t, 2, BYTE, RELAXED);
    if (has_second_check) {
        l.load(t, 3, BYTE, RELAXED);
        l.leave_if(t, [](R r) { return r[3] != 1; });
    }
    if (is_fenced)
        l.fence(t, ACQUIRE);
    l.load(t, 4, HEAD, ACQUIRE);
    l.leave_if(t, [](R r) { return r[4] != 0; });
    l.check(t, [](R r) { return r[2] == 1; });
}

static void lend(const char *name, bool is_writer_fenced, bool is_viewer_fenced, bool ok, bool has_second_check = true)
{
    Litmus l(name, 2, 5);
    l.start(BYTE, 1);
    allocate_and_write(l, 0, 2, is_writer_fenced);
    allocate_and_write(l, 0, 1, is_writer_fenced);
    view(l, 1, is_viewer_fenced, has_second_check);
    all_as_expected &= l.run(ok);
}

// A writer got the chunk before the view, and writes late: only the checksum detects it.
static void late(const char *name, bool has_second_check, bool ok)
{
    Litmus l(name, 2, 5);
    l.start(BYTE, 1);
    l.store(0, BYTE, 2, RELAXED);
    view(l, 1, true, has_second_check);
    l.at_end = [](const World &) { return true; };
    all_as_expected &= l.run(ok);
}

// Two allocators: one word, one winner for each of its values.
static void allocators(const char *name, bool is_cas, bool ok)
{
    Litmus l(name, 2, 4);
    for (int t = 0; t < 2; t++) {
        if (is_cas) {
            l.update(t, 0, HEAD, [](int old, R) { return old + 1; }, BOTH);
        } else {
            l.load(t, 0, HEAD, ACQUIRE);
            l.store(t, HEAD, [](R r) { return r[0] + 1; }, RELEASE);
        }
    }
    l.at_end = [](const World &w) { return w.thread[0].r[0] != w.thread[1].r[0]; };
    all_as_expected &= l.run(ok);
}

// serve: a process that sees the server's word sees a complete ring.
static void serve(const char *name, Order order, bool ok)
{
    Litmus l(name, 2, 4);
    l.store(0, LABELS, 1, RELAXED);
    l.store(0, SERVER, 1, order);
    l.load(1, 0, SERVER, ACQUIRE);
    l.leave_if(1, [](R r) { return r[0] == 0; });
    l.load(1, 1, LABELS, RELAXED);
    l.check(1, [](R r) { return r[1] == 1; });
    all_as_expected &= l.run(ok);
}

int main()
{
    lend("view: fences of allocator and viewer", true, true, OK);
    lend("mutant: no fence after the allocator's CAS", false, true, VIOLATION);
    lend("mutant: no fence before the second look at head", true, false, VIOLATION);
    lend("view: the head alone tells of who allocates meanwhile", true, true, OK, false);
    late("mutant: no second checksum, and a late writer", false, VIOLATION);
    allocators("allocate: CAS", true, OK);
    allocators("mutant: load and store instead of the CAS", false, VIOLATION);
    serve("serve: released", RELEASE, OK);
    serve("mutant: serve relaxed", RELAXED, VIOLATION);
    return all_as_expected ? 0 : 1;
}
