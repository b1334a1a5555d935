// Hosts: those of the lab as the agent here sees them, mirrors here, edges of pipes.

import {bytes, digits, plural, span, whole} from "./words.js";

// A state is a word with a mark before it, so that no colour is needed to read it.
const MARKS = {here: "\u25c6", connected: "\u25cf", flowing: "\u25cf", idle: "\u25cb",
  connecting: "\u25cb", suspect: "\u25d0", spooling: "\u25d0", away: "\u00d7",
  disconnected: "\u00d7", cut: "\u00d7", lost: "\u00d7", ended: "\u25a0"};
const BAD = new Set(["away", "disconnected", "cut", "lost"]);
const WARN = new Set(["suspect", "spooling"]);
const DASH = "\u2013";

const clock = ns => ns == null ? DASH
  : `${ns < 0 ? "\u2212" : ""}${span(Math.abs(ns) * 1e-9)}`;
const state = (word, seconds) => ({pill: BAD.has(word) ? "cut" : WARN.has(word) ? "warn" : "",
  text: `${MARKS[word] ?? ""} ${word}${seconds == null ? "" : ` ${span(seconds)}`}`.trim()});
const bad = n => n ? {text: whole(n), bad: true} : whole(n);
const problem = text => ({text, title: text, wrong: true});

// For each table: its name, heads (those of numbers begin with "#"), and cells of a row.
const TABLES = {
  hosts: ["hosts", ["host", "state", "#round trip", "#clock ahead", "#\u00b1 at most",
    "#mirrors", "#served", "#behind", "#spooled", "#lost", "what is wrong"],
    h => [h.name, state(h.state, h.state === "here" ? null : h.since_s),
      clock(h.round_trip_ns), clock(h.offset_ns), clock(h.bound_ns), whole(h.mirrors),
      whole(h.served), whole(h.behind_frames), bytes(h.spooled_bytes), bad(h.lost),
      problem(h.problem)]],
  mirrors: ["mirrors here", ["mirror", "of", "state", "#frames", "#behind", "#for", "#lost",
    "#repeated", "#spooled there", "what is wrong"],
    m => [m.name, `${m.host}:${m.stream}`, state(m.state, m.since_s), whole(m.frames),
      whole(m.behind_frames), m.behind_s ? span(m.behind_s) : "", bad(m.lost),
      whole(m.repeated), bytes(m.spooled_bytes), problem(m.problem)]],
  edges: ["edges of pipes", ["queue", "from", "to", "state", "#waiting", "#leased",
    "#settled/s", "#settled", "#repeated", "what is wrong"],
    e => [e.name, e.source, e.to, state(e.is_connected ? "connected" : "cut"),
      e.waiting == null ? DASH : whole(e.waiting), whole(e.leased),
      digits(e.settled_hz ?? NaN), whole(e.settled), whole(e.repeated), problem(e.problem)]],
};

const make = (parent, name, about = {}) =>
  parent.appendChild(Object.assign(document.createElement(name), about));

export class Hosts {
  constructor() {
    this.element = Object.assign(document.createElement("section"),
      {className: "panel hosts", hidden: true, ariaLabel: "hosts"});
    const heading = make(this.element, "h2");
    make(heading, "span", {textContent: "hosts"});
    heading.append(" ");
    this.about = make(heading, "small");
    const scroll = make(this.element, "div", {className: "scroll", tabIndex: 0,
      role: "region", ariaLabel: "hosts, mirrors and edges"});
    this.tables = new Map(Object.entries(TABLES).map(([key, [title, heads]]) => {
      const table = make(scroll, "table", {hidden: true});
      make(table, "caption", {className: "hidden", textContent: title});
      const row = make(make(table, "thead"), "tr");
      for (const head of heads)
        make(row, "th", {scope: "col", textContent: head.replace("#", ""),
          className: head[0] === "#" ? "n" : ""});
      return [key, {table, body: make(table, "tbody"), heads}];
    }));
  }

  // `found`: what the state has of hosts; without an agent it is empty.
  update(found) {
    const isThere = Boolean(found.state), {element} = this;
    if (element.hidden === isThere) element.hidden = !isThere;
    if (!isThere) return;
    const [me] = found.hosts;
    const text = found.problem || (me ? [`as the agent of ${me.name} sees them`,
      plural(found.hosts.length, "host"), plural(found.mirrors.length, "mirror"),
      ...found.left_out ? [`${whole(found.left_out)} rows left out`] : []].join(", ")
      : "the agent was asked");
    const isOld = found.state !== "answers" && found.state !== "asked";
    element.classList.toggle("old", isOld);
    if (this.about.textContent !== text) this.about.textContent = text;
    for (const [key, {table, body, heads}] of this.tables) {
      const rows = found[key] ?? [];
      table.hidden = !rows.length;
      while (body.rows.length > rows.length) body.lastElementChild.remove();
      rows.forEach((row, k) => fill(body.rows[k] ?? insert(body, heads), TABLES[key][2](row)));
    }
  }
}

function insert(body, heads) {
  const row = body.insertRow();
  make(row, "th", {scope: "row"});
  for (const head of heads.slice(1))
    row.insertCell().className = head[0] === "#" ? "n" : "";
  return row;
}

function fill(row, cells) {
  cells.forEach((cell, k) => {
    const place = row.cells[k], {text = cell, title, pill, wrong} = cell;
    if (pill != null) {
      const inside = place.firstElementChild ?? make(place, "span");
      inside.className = `pill ${pill}`;
      if (inside.textContent !== text) inside.textContent = text;
      return;
    }
    if (place.textContent !== text) place.textContent = text;
    if (wrong) { place.className = text ? "wrong" : ""; place.title = title; }
    else place.classList.toggle("bad", Boolean(cell.bad));
  });
}

// Whether the agent has told that a host, or what comes from it, is out of reach.
export const isCut = word => BAD.has(word);
