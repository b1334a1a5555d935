// Graph: who reads whom. Solid: the stream waits for it; dashed: it stalls nothing.

import {bytes, digits, plural} from "./words.js";

const SVG = "http://www.w3.org/2000/svg", WIDE = 116, HIGH = 40, GAP = 58, ROW = 58;
const MOST = 10;

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

  update(streams, pipes, shown) {
    const graph = arrange(streams, pipes, shown);
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
    const wide = columns * WIDE + (columns - 1) * GAP + 4, high = rows * ROW + (nodes.some(n => n.kind === "step") ? ROW : 0) + 6;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${Math.max(wide, 380)} ${Math.max(high, 200)}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", edges.map(
      e => `${e.to} reads ${e.from}${e.gates ? "" : ", stalls nothing"}`).join("; ")
      || "no readers");
    const at = new Map(), steps = nodes.some(n => n.kind === "step");
    for (let k = 0; k < columns; k++) {
      const own = nodes.filter(n => n.column === k), tall = Math.max(high, 200);
      const span = Math.max(wide, 380) - 4, isStep = own.some(n => n.kind === "step");
      // Steps are at the bottom, so that edges to the last column pass above them.
      own.forEach((node, row) => at.set(node.id, [
        2 + (columns > 1 ? k * (span - WIDE) / (columns - 1) : 0),
        isStep ? tall - 6 - (own.length - row) * (HIGH + 14) + 14
          : (row + 0.5) * (tall - (steps ? HIGH + 10 : 0)) / own.length - HIGH / 2]));
    }
    for (const edge of edges) {
      const [from, to] = [at.get(edge.from), at.get(edge.to)];
      if (!from || !to) continue;
      const x0 = from[0] + WIDE, y0 = from[1] + HIGH / 2, x1 = to[0], y1 = to[1] + HIGH / 2;
      const bend = Math.min(Math.max(30, (x1 - x0) / 2), 70);
      make(svg, "path", {class: edge.gates ? "gates" : "watches",
        d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`});
    }
    for (const node of nodes) {
      const [x, y] = at.get(node.id), group = make(svg, "g", {class: node.kind});
      make(group, "title", {}, `${node.name}: ${node.about}`);
      make(group, "rect", {x, y, width: WIDE, height: HIGH, rx: 8});
      make(group, "text", {x: x + WIDE / 2, y: y + 17}, cut(node.name));
      make(group, "text", {x: x + WIDE / 2, y: y + 31, class: "about"}, cut(node.about, 20));
    }
    this.place.replaceChildren(svg);
  }
}

// Nodes in columns and edges between them, of the state's streams and pipes.
export function arrange(streams, pipes, shown) {
  const nodes = [], edges = [], ids = new Set();
  const add = node => { if (!ids.has(node.id)) { ids.add(node.id); nodes.push(node); } };
  const steps = pipes.length ? Math.max(...pipes.map(depth)) : 0, last = steps + 1;
  const isPiped = s => (s.readers ?? []).some(r => r.label.startsWith("pipe "));
  streams = [...streams].sort((a, b) => isPiped(a) - isPiped(b)).slice(0, MOST);
  for (const s of streams)
    add({id: `stream ${s.name}`, name: s.name, kind: "stream", column: 0,
      about: s.bytes_hz ? `${bytes(s.bytes_hz)}/s` : s.problem || (s.is_ended ? "ended" : "quiet")});
  for (const pipe of pipes) {
    const depths = depthsOf(pipe);
    for (const step of pipe.steps) {
      const workers = step.workers > 1 ? `, ${step.workers} workers` : "";
      add({id: `${pipe.run} ${step.name}`, name: step.name, kind: "step",
        column: 1 + depths.get(step.name), about: `${pipe.pipe}${workers}`});
      for (const child of step.children)
        edges.push({from: `${pipe.run} ${step.name}`, to: `${pipe.run} ${child}`, gates: true});
    }
  }
  for (const s of streams) {
    for (const r of s.readers ?? []) {
      const pipe = pipes.find(p => r.label === `pipe ${p.pipe}`);
      const isAway = r.away_s != null;
      if (pipe) {
        for (const root of rootsOf(pipe))
          edges.push({from: `stream ${s.name}`, to: `${pipe.run} ${root}`, gates: r.is_gating});
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
  return {nodes, edges};
}

function rootsOf(pipe) {
  const below = new Set(pipe.steps.flatMap(s => s.children));
  return pipe.steps.map(s => s.name).filter(name => !below.has(name));
}

function depthsOf(pipe) {
  const found = new Map(pipe.steps.map(s => [s.name, 0]));
  for (let turn = 0; turn < pipe.steps.length; turn++)
    for (const s of pipe.steps) for (const child of s.children)
      found.set(child, Math.max(found.get(child) ?? 0, found.get(s.name) + 1));
  return found;
}

const depth = pipe => Math.max(1, ...[...depthsOf(pipe).values()].map(d => d + 1));
