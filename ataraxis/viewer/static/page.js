// Page: which panels there are, what the server says, keys, and the link as a layout.

import {BINS, COLUMNS, PICTURE, STATE} from "./bundle.js";
import {Graph} from "./graph.js";
import {Hosts} from "./hosts.js";
import {Link, takeToken} from "./link.js";
import {Picture} from "./picture.js";
import {Spectrogram} from "./spectrogram.js";
import {Intervals, Lanes} from "./strips.js";
import {Table} from "./table.js";
import {startTheme, toggleTheme} from "./theme.js";
import {Traces} from "./traces.js";
import {clock, isClock, newestOfEach} from "./words.js";

const WINDOWS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30];
const FIRST_TRACES = 3, FIRST_PICTURES = 2, MOST_INTERVALS = 4;
const FILTERS = ["", "highpass", "median"];
const find = id => document.getElementById(id);

const layout = new URLSearchParams(location.hash.slice(1));
startTheme(layout.get("theme"));
const token = takeToken();

const panels = new Map();     // by stream: {stream, kind, view, number, bins}
const byNumber = new Map();
const state = {streams: [], labels: {}, pipes: [], hosts: {}, about: {}, verdict: null, pages: 1};
const counts = {frames: 0, bundles: 0, columns: 0, gaps: 0, pictures: 0, events: 0, bytes: 0,
  drawMs: 0, tracesMs: 0, sideMs: 0, longestMs: 0};
globalThis.viewCounts = counts;
let seconds = Number(layout.get("seconds")) || 2, isFrozen = false, nextNumber = 1;
let filter = FILTERS.includes(layout.get("filter")) ? layout.get("filter") : "";
let hasLayout = layout.has("show"), nowNs = 0, isSideDue = true, lastMs = 0;

const table = new Table(find("table"), toggle);
const graph = new Graph(find("graph"));
const hosts = new Hosts();
find("left").append(hosts.element);
const lanes = new Lanes(find("lanes"));
const intervals = new Intervals(find("intervals"));

const sizes = new ResizeObserver(queueResize);
let resizing = 0;

// ---- panels

function open(stream, kind) {
  if (panels.has(stream)) return;
  const view = kind === "picture" ? new Picture(stream) : new Traces(stream);
  const panel = {stream, kind, view, number: nextNumber++, bins: 0};
  const used = [...panels.values()].filter(p => p.bins).length;
  if (used < MOST_INTERVALS) panel.bins = nextNumber++;
  const given = layout.get("channels");
  if (kind === "traces" && given) panel.ranges = ranges(given);
  panels.set(stream, panel);
  byNumber.set(panel.number, panel);
  if (panel.bins) byNumber.set(panel.bins, panel);
  find(kind === "picture" ? "pictures" : "traces").append(view.element);
  view.resize();
  ask(panel);
  sizes.observe(view.plot);
}

// The spectrogram of the channel under the pointer, or of the first; or none again.
function spectrogram() {
  const open = [...panels.values()].find(p => p.kind === "spectrogram");
  if (open) return close(open.key);
  const of = traces().find(p => p.view.channelUnder != null) ?? traces()[0];
  if (!of || !of.view.meta.rate) return;
  const channel = (of.view.channelUnder ?? 0) + of.view.first;
  const view = new Spectrogram(of.stream, channel), key = `${of.stream}\nspectrogram`;
  view.meta = of.view.meta;
  const panel = {stream: of.stream, key, kind: "spectrogram", view, number: nextNumber++,
    bins: 0, ranges: [[channel, channel + 1]]};
  panels.set(key, panel);
  byNumber.set(panel.number, panel);
  find("traces").append(view.element);
  view.resize();
  ask(panel);
  sizes.observe(view.plot);
}

function close(stream) {
  const panel = panels.get(stream);
  if (!panel) return;
  for (const number of [panel.number, panel.bins].filter(Boolean)) {
    link.send({op: "hide", panel: number});
    byNumber.delete(number);
  }
  if (panel.bins) intervals.parts.delete(stream);
  sizes.unobserve(panel.view.plot);
  panel.view.element.remove();
  panels.delete(stream);
}

function toggle(stream) {
  const about = state.streams.find(s => s.name === stream);
  if (panels.has(stream)) close(stream);
  else if (about?.kind) open(stream, about.kind);
  hasLayout = true;
  remember();
  side();
}

// Ask the server for a panel as it is now; it sends the whole window again.
function ask(panel) {
  if (panel.kind === "picture")
    link.send({op: "show", panel: panel.number, kind: "picture", stream: panel.stream,
      columns: Math.min(panel.view.wanted, 8192)});
  else {
    panel.view.reset();
    link.send({op: "show", panel: panel.number, kind: panel.kind, stream: panel.stream,
      seconds, columns: Math.min(panel.view.W ?? 1000, 8192),
      ...panel.ranges ? {channels: panel.ranges} : {}, filter});
  }
  if (panel.bins)
    link.send({op: "show", panel: panel.bins, kind: "intervals", stream: panel.stream});
}

// "0:32,40" as [[0, 32], [40, 41]]; undefined: it is not that.
function ranges(text) {
  const found = text.split(",").map(part => part.split(":").map(Number))
    .map(([first, end]) => [first, end ?? first + 1]);
  return found.every(pair => pair.every(Number.isInteger) && pair[0] >= 0 && pair[0] < pair[1])
    ? found : undefined;
}

function choose() {
  if (hasLayout) {
    for (const stream of (layout.get("show") ?? "").split(",").filter(Boolean)) {
      const about = state.streams.find(s => s.name === decodeURIComponent(stream));
      if (about?.kind) open(about.name, about.kind);
    }
    return;
  }
  const live = state.streams.filter(s => s.kind && !s.is_ended && !isClock(s.name));
  const some = kind => live.filter(s => s.kind === kind)
    .sort((a, b) => (b.bytes_hz ?? 0) - (a.bytes_hz ?? 0));
  const has = kind => [...panels.values()].filter(p => p.kind === kind).length;
  for (const [kind, most] of [["traces", FIRST_TRACES], ["picture", FIRST_PICTURES]])
    for (const s of some(kind).slice(0, Math.max(0, most - has(kind)))) open(s.name, kind);
}

// ---- what comes

function take(bundle) {
  const began = performance.now();
  nowNs = Number(bundle.nowNs);
  counts.bundles++;
  counts.bytes = link.bytes;
  for (const part of bundle.parts) {
    if (part.kind === STATE) { takeState(part.state); continue; }
    const panel = byNumber.get(part.panel);
    if (!panel) continue;
    if (part.kind === COLUMNS) {
      const at = performance.now();
      panel.view.add(part, seconds);
      counts.tracesMs += performance.now() - at;
      counts.columns += part.count;
      counts.gaps = [...panels.values()].reduce((sum, p) => sum + (p.view.gaps ?? 0), 0);
    } else if (part.kind === PICTURE) {
      panel.view.add(part);
      counts.pictures++;
    } else if (part.kind === BINS) {
      intervals.parts.set(panel.stream, {...part, counts: part.counts.slice()});
      isSideDue = true;
    }
  }
  const took = performance.now() - began;
  counts.drawMs += took;
  counts.longestMs = Math.max(counts.longestMs, took);
}

function takeState(news) {
  if (news.beats) lanes.add(news.beats);
  if (news.events) {
    counts.events += news.events.length;
    lanes.events = newestOfEach([...lanes.events, ...news.events], 100);
    for (const panel of panels.values()) panel.view.addEvents?.(news.events);
  }
  for (const key of ["streams", "labels", "pipes", "hosts", "about", "verdict", "pages"])
    if (key in news) state[key] = news[key];
  if (news.panels) for (const [number, about] of Object.entries(news.panels)) {
    const panel = byNumber.get(Number(number));
    if (!panel || Number(number) !== panel.number) continue;
    if (about.problem && !isFrozen) panel.view.note.textContent = about.problem;
    if (panel.view.describe) {
      panel.view.missed = about.missed ?? 0;
      panel.view.filter = about.filter ?? "";
      panel.view.describe();
    }
  }
  if (news.labels || news.streams) {
    choose();
    for (const panel of panels.values()) {
      const about = state.labels[state.streams.find(s => s.name === panel.stream)?.id];
      if (about && panel.view instanceof Traces && panel.view.meta !== about) {
        panel.view.meta = about;
        if (panel.kind === "traces") panel.view.first = panel.ranges?.length ? panel.ranges[0][0] : 0;
        panel.view.describe();
      }
    }
  }
  if (news.verdict) say(news.verdict);
  sayPlace(state.about);
  isSideDue = true;
}

// Which session is recorded, for how long, and where.
function sayPlace({session, begun_ns, directory, host, context}) {
  if (!host) return;
  const place = find("place"), where = `${host} · ${context}`;
  const text = session ? `${session} · ${clock((nowNs - begun_ns) / 1e9)} · ${host}` : where;
  if (place.textContent !== text) place.textContent = text;
  place.title = session ? `${directory} · ${where}` : where;
}

function say({tone, text}) {
  const verdict = find("verdict");
  verdict.className = tone;
  if (find("words").textContent !== text) find("words").textContent = text;
  document.title = `${tone === "bad" ? "! " : ""}ataraxis: ${text}`;
}

function side() {
  const began = performance.now();
  const shown = new Set([...panels.values()].map(p => p.stream));
  table.update(state.streams, state.pages, shown);
  hosts.update(state.hosts);
  graph.update(state.streams, state.pipes, shown, state.hosts);
  const names = state.streams.filter(s => !s.problem && s.name !== "events"
    && (shown.has(s.name) || !isClock(s.name))).map(s => s.name);
  lanes.draw(nowNs, [...names.filter(n => shown.has(n)), ...names.filter(n => !shown.has(n))]);
  intervals.draw();
  counts.sideMs += performance.now() - began;
}

const link = new Link(token, take, (now, words) => {
  if (now === "open") {
    for (const panel of panels.values()) ask(panel);
    return;
  }
  const text = words || (now === "refused"
    ? "this page needs the printed link, or the view has ended" : "the view has ended");
  say({tone: "bad", text});
});

// Side panels twice a second at most, and the overlays of the traces four times.
function frame(ms) {
  counts.frames++;
  if (ms - lastMs > 240) {
    lastMs = ms;
    if (!isFrozen) for (const panel of panels.values()) panel.view.overlay?.();
    if (isSideDue) { isSideDue = false; side(); }
  }
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);

// ---- controls

function freeze() {
  isFrozen = !isFrozen;
  find("freeze").setAttribute("aria-pressed", String(isFrozen));
  find("freeze").textContent = isFrozen ? "Go on" : "Freeze";
  for (const panel of panels.values()) {
    if (panel.view.freeze) panel.view.freeze(isFrozen);
    else panel.view.frozen = isFrozen;
    if (!isFrozen) ask(panel);
  }
}

const traces = () => [...panels.values()].filter(p => p.kind === "traces");
const swept = () => [...panels.values()].filter(p => p.view instanceof Traces);
const zoom = direction => swept().forEach(p => p.view.zoom(direction));

// Look back, or more closely, while the page is frozen: the server keeps a minute.
function look(by, factor) {
  if (!isFrozen) return;
  for (const panel of swept()) {
    const range = panel.view.seek(by, factor);
    if (range) link.send({op: "window", panel: panel.number, ...range});
  }
}

function setWindow(value) {
  seconds = value;
  find("window").value = String(value);
  if (isFrozen) freeze();
  else swept().forEach(ask);
  remember();
}

function stepWindow(by) {
  if (isFrozen) return look(0, by > 0 ? 2 : 0.5);
  const at = WINDOWS.findIndex(w => w >= seconds);
  setWindow(WINDOWS[Math.min(Math.max((at < 0 ? 4 : at) + by, 0), WINDOWS.length - 1)]);
}

function move(by) {
  for (const panel of traces()) {
    const view = panel.view, names = view.meta.names.length || panel.all || view.channels;
    panel.all ??= view.channels;
    if (!panel.ranges) continue;
    const count = panel.ranges[0][1] - panel.ranges[0][0];
    const first = Math.min(Math.max(panel.ranges[0][0] + by, 0), Math.max(names, count) - count);
    select(panel, [[first, first + count]]);
  }
}

function solo() {
  const panel = traces().find(p => p.view.channelUnder != null) ?? traces()[0];
  if (!panel) return;
  panel.all ??= panel.view.channels;
  if (panel.ranges) return select(panel, undefined);
  const k = (panel.view.channelUnder ?? 0) + panel.view.first;
  select(panel, [[k, k + 1]]);
}

function select(panel, chosen) {
  panel.ranges = chosen;
  panel.view.first = chosen ? chosen[0][0] : 0;
  panel.view.only = Boolean(chosen);
  ask(panel);
}

// Filters are of the picture only; the heading of the traces names them.
function changeFilter() {
  filter = FILTERS[(FILTERS.indexOf(filter) + 1) % FILTERS.length];
  traces().forEach(ask);
  layout.set("filter", filter);
  remember();
}

function changeMap() {
  for (const panel of panels.values()) panel.view.changeMap?.();
}

function changeTheme() {
  layout.set("theme", toggleTheme());
  for (const panel of panels.values()) if (panel.view.n) { panel.view.paint(); panel.view.redraw(); }
  graph.said = "";
  side();
  remember();
}

// The layout of the page is its fragment: a link to it shows the same.
function remember() {
  layout.set("seconds", String(seconds));
  const shown = [...panels.values()].filter(p => p.kind !== "spectrogram");
  if (hasLayout) layout.set("show", shown.map(p => p.stream).map(encodeURIComponent).join(","));
  history.replaceState(null, "", `#${layout}`);
}

for (const value of [...new Set([...WINDOWS, seconds])].sort((a, b) => a - b))
  find("window").append(new Option(value < 1 ? `${value * 1000} ms` : `${value} s`, value,
    false, value === seconds));
find("window").addEventListener("change", e => setWindow(Number(e.target.value)));
const clicks = {freeze, less: () => zoom(-1), more: () => zoom(1), auto: () => zoom(0),
  theme: changeTheme, help: () => find("keys").showModal()};
for (const [id, call] of Object.entries(clicks)) find(id).addEventListener("click", call);

const KEYS = {
  " ": freeze, "+": () => zoom(1), "=": () => zoom(1), "-": () => zoom(-1),
  "0": () => zoom(0), "[": () => stepWindow(-1), "]": () => stepWindow(1),
  ArrowLeft: () => look(-0.25), ArrowRight: () => look(0.25),
  ArrowUp: () => move(-1), ArrowDown: () => move(1), s: solo, t: changeTheme,
  f: changeFilter, g: spectrogram, c: changeMap, p: () => traces().forEach(p => p.view.save()), "?": () => find("keys").showModal(),
};
addEventListener("keydown", event => {
  const own = event.target.closest?.("select, dialog, [role=region]")
    || (event.key === " " && event.target.closest?.("button"));
  if (own || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

// ---- size

function queueResize() {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    for (const panel of panels.values()) if (panel.view.resize()) ask(panel);
    side();
  }, 80);
}
sizes.observe(document.body);
