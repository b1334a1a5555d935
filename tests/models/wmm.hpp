// A small exhaustive explorer for C11 atomics.
//
// View-based operational semantics: each store leaves a message in its location's modification order,
// each thread has a view of what it has read, and a thread may read any message that its view does not
// forbid, and place a store anywhere after the last one it knows. Release and acquire move views;
// fences, release sequences through read-modify-writes and seq_cst fences are modelled. Not modelled: load
// buffering (a load never sees a store that comes later in program order). A seq_cst access (TOTAL) is an
// acquire or release one that also takes its turn among the others and the fences, for its own location:
// it reads nothing older than they have written or seen, and they nothing older than it.
// Data that C11 would call racy are modelled as relaxed atomics.
//
// A thread may be killed before any of its steps (`mortal`); `probe` is the kernel's answer to "does it
// live?", and makes all stores of a dead thread visible, as the release of its byte lock does.
#pragma once
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

namespace wmm {

constexpr int LOCATIONS = 8, REGISTERS = 8, THREADS = 4;
enum Order { RELAXED, ACQUIRE, RELEASE, BOTH, TOTAL };

using Registers = std::array<short, REGISTERS>;
using Function = std::function<int(const Registers &)>;
using View = std::array<unsigned char, LOCATIONS>;    // last known message of each location, by id

struct Message {
    unsigned char id;
    short value;
    View view;
    bool is_followed;                                 // a read-modify-write read it: no store may be placed between
};

struct Thread {
    int at;
    Registers r;
    View current, acquired, released;                 // known; known after an acquire fence; as of the last release fence
    bool is_dead;
};

struct World {
    std::vector<Message> order[LOCATIONS];            // modification orders
    unsigned char ids[LOCATIONS];
    Thread thread[THREADS];
    View seq_cst;
    int last(int location) const { return order[location].back().value; }
};

enum Kind { LOAD, STORE, UPDATE, CAS, FENCE, FENCE_SEQ_CST, CHECK, SKIP, SET, PROBE };

struct Step {
    Kind kind;
    int location;
    Order order;
    int reg;
    Function value, expected;
    std::function<int(int, const Registers &)> update;
    int target;
};

class Litmus {
public:
    std::function<bool(const World &)> at_end;        // holds when every thread has ended or died
    int mortal = -1;                                  // the thread that may be killed, once

    Litmus(std::string name, int threads, int locations)
        : name_(std::move(name)), threads_(threads), locations_(locations) { start_.fill(0); }

    void start(int location, int value) { start_[location] = (short)value; }
    void load(int t, int reg, int location, Order o) { add(t, {LOAD, location, o, reg, {}, {}, {}, 0}); }
    void store(int t, int location, int value, Order o) { store(t, location, [value](const Registers &) { return value; }, o); }
    void store(int t, int location, Function value, Order o) { add(t, {STORE, location, o, 0, std::move(value), {}, {}, 0}); }
    // reg becomes the old value.
    void update(int t, int reg, int location, std::function<int(int, const Registers &)> f, Order o)
    { add(t, {UPDATE, location, o, reg, {}, {}, std::move(f), 0}); }
    // reg becomes 1 if `location` held `expected`, else 0.
    void cas(int t, int reg, int location, Function expected, Function value, Order o)
    { add(t, {CAS, location, o, reg, std::move(value), std::move(expected), {}, 0}); }
    void fence(int t, Order o) { add(t, {FENCE, 0, o, 0, {}, {}, {}, 0}); }
    void fence_seq_cst(int t) { add(t, {FENCE_SEQ_CST, 0, BOTH, 0, {}, {}, {}, 0}); }
    void check(int t, Function f) { add(t, {CHECK, 0, RELAXED, 0, std::move(f), {}, {}, 0}); }
    void set(int t, int reg, Function f) { add(t, {SET, 0, RELAXED, reg, std::move(f), {}, {}, 0}); }
    void probe(int t, int reg, int whom) { add(t, {PROBE, whom, RELAXED, reg, {}, {}, {}, 0}); }
    void leave_if(int t, Function f) { add(t, {SKIP, 0, RELAXED, 0, std::move(f), {}, {}, 1 << 20}); }
    void skip_if(int t, int steps, Function f)        // over the next `steps`
    { add(t, {SKIP, 0, RELAXED, 0, std::move(f), {}, {}, (int)code_[t].size() + 1 + steps}); }

    // Explore; true if the outcome is the expected one.
    bool run(bool is_expected_ok)
    {
        World w{};
        for (int l = 0; l < locations_; l++) {
            w.order[l].push_back({0, start_[l], View{}, false});
            w.ids[l] = 1;
        }
        explore(w);
        bool is_as_expected = problem_.empty() == is_expected_ok;
        std::printf("%-12s %-74s %8zu states  %s\n", is_as_expected ? "as expected" : "UNEXPECTED", name_.c_str(),
                    seen_.size(), problem_.empty() ? "OK" : "VIOLATION");
        if (!is_as_expected && !problem_.empty()) {
            for (const std::string &line : trail_)
                std::printf("    %s\n", line.c_str());
            std::printf("    %s\n", problem_.c_str());
        }
        return is_as_expected;
    }

private:
    std::string name_;
    int threads_, locations_;
    std::array<short, LOCATIONS> start_;
    std::vector<Step> code_[THREADS];
    std::unordered_set<std::string> seen_;
    std::vector<std::string> trail_;
    std::string problem_;

    void add(int t, Step s) { code_[t].push_back(std::move(s)); }

    static int place(const World &w, int l, unsigned char id)
    {
        for (size_t i = 0; i < w.order[l].size(); i++)
            if (w.order[l][i].id == id)
                return (int)i;
        std::abort();
    }

    void join(const World &w, View &to, const View &from) const
    {
        for (int l = 0; l < locations_; l++)
            if (place(w, l, from[l]) > place(w, l, to[l]))
                to[l] = from[l];
    }

    // A state's identity: places in modification order, not ids, so that equal worlds are merged.
    std::string key(const World &w) const
    {
        std::string k;
        auto put = [&](const View &v) { for (int l = 0; l < locations_; l++) k += (char)place(w, l, v[l]); };
        for (int l = 0; l < locations_; l++) {
            k += (char)w.order[l].size();
            for (const Message &m : w.order[l]) {
                k.append((const char *)&m.value, sizeof m.value);
                k += (char)m.is_followed;
                put(m.view);
            }
        }
        for (int t = 0; t < threads_; t++) {
            const Thread &h = w.thread[t];
            k.append((const char *)&h.at, sizeof h.at);
            k += (char)h.is_dead;
            k.append((const char *)h.r.data(), sizeof h.r);
            put(h.current), put(h.acquired), put(h.released);
        }
        put(w.seq_cst);
        return k;
    }

    bool is_over(const World &w, int t) const { return w.thread[t].is_dead || w.thread[t].at >= (int)code_[t].size(); }

    void read(World &w, int t, int l, int i, Order o) const
    {
        const Message m = w.order[l][i];
        Thread &h = w.thread[t];
        h.current[l] = m.id;
        join(w, h.acquired, m.view);
        if (o == ACQUIRE || o == BOTH || o == TOTAL)
            join(w, h.current, m.view);
        if (o == TOTAL && place(w, l, m.id) > place(w, l, w.seq_cst[l]))
            w.seq_cst[l] = m.id;
    }

    // `before`: the view of the message a read-modify-write read, which its own passes on (release sequence).
    void write(World &w, int t, int l, int i, int value, Order o, const View *before) const
    {
        Thread &h = w.thread[t];
        Message m{w.ids[l]++, (short)value, o == RELEASE || o == BOTH || o == TOTAL ? h.current : h.released, false};
        w.order[l].insert(w.order[l].begin() + i, m);
        h.current[l] = m.id;
        Message &mine = w.order[l][i];
        if (before)
            join(w, mine.view, *before);
        mine.view[l] = m.id;
        join(w, h.acquired, mine.view);
        if (o == TOTAL && place(w, l, m.id) > place(w, l, w.seq_cst[l]))
            w.seq_cst[l] = m.id;
    }

    void next(World &w, int t, const std::string &what)
    {
        trail_.push_back("thread " + std::to_string(t) + " step " + std::to_string(w.thread[t].at) + ": " + what);
        w.thread[t].at++;
        explore(w);
        if (problem_.empty())
            trail_.pop_back();
    }

    void explore(const World &w)
    {
        if (!problem_.empty() || !seen_.insert(key(w)).second)
            return;
        bool is_end = true;
        for (int t = 0; t < threads_ && problem_.empty(); t++) {
            if (is_over(w, t))
                continue;
            is_end = false;
            if (t == mortal) {
                World n = w;
                n.thread[t].is_dead = true;
                trail_.push_back("thread " + std::to_string(t) + " is killed");
                explore(n);
                if (problem_.empty())
                    trail_.pop_back();
            }
            step(w, t);
        }
        if (is_end && problem_.empty() && at_end && !at_end(w))
            problem_ = "wrong at the end";
    }

    void step(const World &w, int t)
    {
        const Step &s = code_[t][w.thread[t].at];
        const int l = s.location, newest = (int)w.order[l].size() - 1;
        int oldest = place(w, l, w.thread[t].current[l]);
        if (s.order == TOTAL && s.kind != PROBE)
            oldest = std::max(oldest, place(w, l, w.seq_cst[l]));
        const Registers &r = w.thread[t].r;
        switch (s.kind) {
        case LOAD:
            for (int i = newest; i >= oldest && problem_.empty(); i--) {
                World n = w;
                read(n, t, l, i, s.order);
                n.thread[t].r[s.reg] = w.order[l][i].value;
                next(n, t, "load " + std::to_string(l) + " = " + std::to_string(w.order[l][i].value));
            }
            break;
        case STORE:
            for (int i = newest + 1; i > oldest && problem_.empty(); i--) {
                if (w.order[l][i - 1].is_followed)
                    continue;
                World n = w;
                write(n, t, l, i, s.value(r), s.order, nullptr);
                next(n, t, "store " + std::to_string(l) + " = " + std::to_string(s.value(r)));
            }
            break;
        case UPDATE:
        case CAS:
            for (int i = newest; i >= oldest && problem_.empty(); i--) {
                const int old = w.order[l][i].value;
                const bool is_done = s.kind == UPDATE || old == s.expected(r);
                if (is_done && w.order[l][i].is_followed)
                    continue;
                World n = w;
                read(n, t, l, i, s.order);
                if (is_done) {
                    n.order[l][i].is_followed = true;
                    const View before = w.order[l][i].view;
                    write(n, t, l, i + 1, s.kind == CAS ? s.value(r) : s.update(old, r), s.order, &before);
                }
                n.thread[t].r[s.reg] = s.kind == CAS ? is_done : (short)old;
                next(n, t, "update " + std::to_string(l) + ", was " + std::to_string(old));
            }
            break;
        case PROBE: {
            World n = w;
            n.thread[t].r[s.reg] = w.thread[l].is_dead;
            if (w.thread[l].is_dead) {
                join(n, n.thread[t].current, w.thread[l].current);
                join(n, n.thread[t].acquired, n.thread[t].current);
            }
            next(n, t, w.thread[l].is_dead ? "finds it dead" : "finds it alive");
            break;
        }
        case CHECK:
            if (!s.value(r))
                problem_ = "thread " + std::to_string(t) + " step " + std::to_string(w.thread[t].at) + ": check failed";
            else
                silent(w, t, [](Thread &) {});
            break;
        case FENCE:
            silent(w, t, [&](Thread &h) {
                if (s.order != RELEASE)
                    join(w, h.current, h.acquired);
                if (s.order != ACQUIRE)
                    h.released = h.current;
            });
            break;
        case FENCE_SEQ_CST: {
            World n = w;
            Thread &h = n.thread[t];
            join(n, h.current, h.acquired);
            join(n, h.current, n.seq_cst);
            n.seq_cst = h.acquired = h.released = h.current;
            next(n, t, "fence seq_cst");
            break;
        }
        case SKIP:
            silent(w, t, [&](Thread &h) { if (s.value(h.r)) h.at = s.target - 1; });
            break;
        case SET:
            silent(w, t, [&](Thread &h) { h.r[s.reg] = (short)s.value(h.r); });
            break;
        }
    }

    void silent(const World &w, int t, const std::function<void(Thread &)> &change)
    {
        World n = w;
        change(n.thread[t]);
        next(n, t, "-");
    }
};

}  // namespace wmm
