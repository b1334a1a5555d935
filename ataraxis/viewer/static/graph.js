// Graph: who reads whom. Solid: the stream waits for it; dashed: it stalls nothing.
// What crosses to another host has two strokes across it, or a cross and dots if it is cut.

import {isCut} from "./hosts.js";
import {bytes, digits, isClock, plural, whole} from "./words.js";

const SVG = "http://www.w3.org/2000/svg", WIDE = 116, HIGH = 40, GAP = 58, ROW = 58;
const MOST = 10, STUB = 34;

function make(parent, name, attributes, text) {
  const element = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text != null) element.textContent = text;
  return element;
}

const cut = (text, n = 17) => text.length > n ? `${text.slice(0, n - 1)}…` : text;

export class Graph {
  constructor(section) {
    this.place = section.querySelector(".drawing");
    this.about = section.querySelector("small");
    this.said = "";
  }

  update(streams, pipes, shown, hosts = {}) {
    const graph = arrange(streams, pipes, shown, hosts);
    const workers = pipes.flatMap(p => p.steps).reduce((sum, s) => sum + s.workers, 0);
    this.about.textContent = pipes.length
      ? `${plural(pipes.length, "pipe")}, ${plural(workers, "worker")}` : "";
    const said = JSON.stringify(graph);
    if (said !== this.said) { this.said = said; this.draw(graph); }
  }

  draw({nodes, edges}) {
    const columns = Math.max(1, ...nodes.map(n => n.column + 1));
    const rows = Math.max(1, ...[...Array(columns).keys()].map(
      k => nodes.filter(n => n.column === k).length));
    const left = nodes.some(n => n.stub && n.column === 0) ? STUB : 0;
    const wide = left + columns * WIDE + (columns - 1) * GAP + 4, high = rows * ROW + (nodes.some(n => n.kind === "step") ? ROW : 0) + 6;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${Math.max(wide, 380)} ${Math.max(high, 200)}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", [...nodes.filter(n => n.stub).map(n => n.stub.about),
      ...edges.map(e => `${e.to} reads ${e.from}${e.gates ? "" : ", stalls nothing"}${
        e.crosses ? `, ${e.about}` : ""}`)].join("; ") || "no readers");
    const at = new Map(), steps = nodes.some(n => n.kind === "step");
    for (let k = 0; k < columns; k++) {
      const own = nodes.filter(n => n.column === k), tall = Math.max(high, 200);
      const span = Math.max(wide, 380) - 4 - left, isStep = own.some(n => n.kind === "step");
      // Steps are at the bottom, so that edges to the last column pass above them.
      own.forEach((node, row) => at.set(node.id, [
        2 + left + (columns > 1 ? k * (span - WIDE) / (columns - 1) : 0),
        isStep ? tall - 6 - (own.length - row) * (HIGH + 14) + 14
          : (row + 0.5) * (tall - (steps ? HIGH + 10 : 0)) / own.length - HIGH / 2]));
    }
    for (const edge of edges) {
      const [from, to] = [at.get(edge.from), at.get(edge.to)];
      if (!from || !to) continue;
      const x0 = from[0] + WIDE, y0 = from[1] + HIGH / 2, x1 = to[0], y1 = to[1] + HIGH / 2;
      const bend = Math.min(Math.max(30, (x1 - x0) / 2), 70);
      const d = `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
      if (edge.crosses) cross(svg, d, (x0 + x1) / 2, (y0 + y1) / 2, edge);
      else make(svg, "path", {class: edge.gates ? "gates" : "watches", d});
    }
    for (const node of nodes.filter(n => n.stub)) {
      const [x, y] = at.get(node.id), middle = y + HIGH / 2;
      cross(svg, `M${x - STUB} ${middle}H${x}`, x - STUB / 2, middle, node.stub);
    }
    for (const node of nodes) {
      const [x, y] = at.get(node.id), group = make(svg, "g", {class: node.kind});
      make(group, "title", {}, `${node.name}: ${node.about}`);
      make(group, "rect", {x, y, width: WIDE, height: HIGH, rx: 8});
      make(group, "text", {x: x + WIDE / 2, y: y + 17}, cut(node.name));
      make(group, "text", {x: x + WIDE / 2, y: y + 31, class: "about"}, cut(node.about, 20));
      if (node.host) tag(group, node, x, y);
    }
    this.place.replaceChildren(svg);
  }
}

// An edge to another host: two strokes across it; if it is cut, a cross, and dots.
function cross(svg, d, x, y, {cut: is, about, label}) {
  const group = make(svg, "g", {class: "crossing"}), more = is ? " is-cut" : "";
  make(group, "title", {}, about);
  make(group, "path", {class: `crosses${more}`, d});
  make(group, "path", {class: `mark${more}`, d: is
    ? `M${x - 5} ${y - 5}l10 10m-10 0l10 -10`
    : `M${x - 5} ${y + 6}l4 -12m2 12l4 -12`});
  if (label) make(group, "text", {x, y: y - 9, class: "about"}, label);
}

// The host of a node, at its upper edge.
function tag(group, node, x, y) {
  const text = cut(node.isCut ? `${node.host} \u00d7` : node.host, 14), more = node.isCut ? " is-cut" : "";
  const wide = 10 + 6.2 * text.length;
  make(group, "rect", {class: `tag${more}`, x: x + 8, y: y - 8, width: wide, height: 15, rx: 7});
  make(group, "text", {class: `tag${more}`, x: x + 8 + wide / 2, y: y + 3}, text);
}

// Nodes in columns and edges between them, of the state's streams and pipes.
export function arrange(streams, pipes, shown, hosts = {}) {
  const nodes = [], edges = [], ids = new Set();
  const add = node => { if (!ids.has(node.id)) { ids.add(node.id); nodes.push(node); } };
  const steps = pipes.length ? Math.max(...pipes.map(depth)) : 0, last = steps + 1;
  const isPiped = s => (s.readers ?? []).some(r => r.label.startsWith("pipe "));
  const isUsed = s => !isClock(s.name) || s.readers?.length || shown.has(s.name);
  streams = streams.filter(isUsed).sort((a, b) => isPiped(a) - isPiped(b)).slice(0, MOST);
  const mirrors = new Map((hosts.mirrors ?? []).map(m => [m.name, m]));
  const away = new Set((hosts.hosts ?? []).filter(h => isCut(h.state)).map(h => h.name));
  for (const s of streams) {
    const about = s.bytes_hz ? `${bytes(s.bytes_hz)}/s` : s.problem || (s.is_ended ? "ended" : "quiet");
    const m = mirrors.get(s.name);
    add({id: `stream ${s.name}`, name: s.name, kind: "stream", column: 0, about,
      ...m && {host: m.host, isCut: isCut(m.state), stub: {cut: isCut(m.state),
        about: `${s.name} is a mirror of ${m.host}:${m.stream}, ${m.state}`}}});
  }
  for (const pipe of pipes) {
    const depths = depthsOf(pipe);
    for (const step of pipe.steps) {
      const workers = step.workers > 1 ? `, ${step.workers} workers` : "";
      const isFar = step.hosts?.some(h => h !== pipe.home);
      const node = {id: `${pipe.run} ${step.name}`, name: step.name, kind: "step",
        column: 1 + depths.get(step.name), about: `${pipe.pipe}${workers}`,
        ...isFar && {host: step.hosts.join(", "), isCut: step.hosts.some(h => away.has(h))}};
      add(node);
      for (const child of step.children)
        edges.push({from: node.id, to: `${pipe.run} ${child}`, gates: true,
          ...crossing(pipe, step.hosts, pipe.steps.find(s => s.name === child), hosts, away)});
    }
  }
  for (const s of streams) {
    for (const r of s.readers ?? []) {
      const pipe = pipes.find(p => r.label === `pipe ${p.pipe}`);
      const isAway = r.away_s != null;
      if (pipe) {
        for (const root of rootsOf(pipe))
          edges.push({from: `stream ${s.name}`, to: `${pipe.run} ${root.name}`, gates: r.is_gating,
            ...crossing(pipe, [pipe.home], root, hosts, away)});
        continue;
      }
      const isRecorder = r.is_durable && r.label.startsWith("session-");
      const id = isRecorder ? "recorder" : `reader ${r.label}`;
      add({id, name: isRecorder ? "recorder" : r.label, column: last,
        kind: isAway ? "reader away" : "reader",
        about: isAway ? "away; kept" : isRecorder ? "to disk"
          : r.is_gating ? "is waited for" : "stalls nothing"});
      edges.push({from: `stream ${s.name}`, to: id, gates: r.is_gating});
    }
    if (shown.has(s.name)) {
      add({id: "page", name: "this page", kind: "page", column: last, about: "stalls nothing"});
      edges.push({from: `stream ${s.name}`, to: "page", gates: false});
    }
  }
  for (const pipe of pipes) for (const root of rootsOf(pipe)) {  // fed by its program
    const node = nodes.find(n => n.id === `${pipe.run} ${root.name}`);
    const found = crossing(pipe, [pipe.home], root, hosts, away);
    if (found.crosses && !edges.some(e => e.to === node.id)) node.stub = found;
  }
  return {nodes, edges};
}

// What an edge of a pipe is if it goes to another host; empty if it stays on one.
function crossing(pipe, from, step, hosts, away) {
  const to = (step.hosts ?? []).filter(h => !(from?.length === 1 && from[0] === h));
  if (!from?.length || !to.length) return {};
  const rows = (hosts.edges ?? []).filter(e => e.run === pipe.run && isInto(e, step.name));
  const isBroken = rows.some(e => !e.is_connected)
    || [...from, ...to].some(h => away.has(h));
  const sum = key => rows.reduce((all, e) => all + (e[key] ?? 0), 0);
  const hz = rows.some(e => e.settled_hz != null) ? `${digits(sum("settled_hz"))}/s` : "";
  const counts = rows.length
    ? `: ${whole(sum("waiting"))} wait, ${whole(sum("leased"))} leased, ${hz || "–"} settled` : "";
  return {crosses: true, cut: isBroken, label: isBroken ? "cut" : hz,
    about: `from ${from.join(", ")} to ${to.join(", ")}${isBroken ? ", cut" : ""}${counts}`};
}

// Whether values of an edge between hosts go to a step.
function isInto(edge, step) {
  const name = edge.name.slice(edge.run.length);
  return [`.edge.in.${step}`, `.in.${step}`].some(
    end => name === end || name.startsWith(`${end}.`));
}

function rootsOf(pipe) {
  const below = new Set(pipe.steps.flatMap(s => s.children));
  return pipe.steps.filter(s => !below.has(s.name));
}

function depthsOf(pipe) {
  const found = new Map(pipe.steps.map(s => [s.name, 0]));
  for (let turn = 0; turn < pipe.steps.length; turn++)
    for (const s of pipe.steps) for (const child of s.children)
      found.set(child, Math.max(found.get(child) ?? 0, found.get(s.name) + 1));
  return found;
}

const depth = pipe => Math.max(1, ...[...depthsOf(pipe).values()].map(d => d + 1));
