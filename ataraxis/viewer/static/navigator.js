// Navigator: the whole recording as lanes, and which part of it is looked at.

import {colour} from "./theme.js";
import {stepOf, timeText} from "./times.js";
import {countNames} from "./words.js";

const LABEL = 82, RIGHT = 8, LANE = 22, MOST = 6;

export class Navigator {
  // `onLook(start, stop)` is called when another part is chosen, ns.
  constructor(onLook) {
    this.onLook = onLook;
    this.element = document.createElement("section");
    this.element.className = "panel navigator";
    const head = document.createElement("h2");
    head.textContent = "the whole recording";
    this.about = head.appendChild(document.createElement("small"));
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.element.append(head, this.canvas);
    this.range = [0, 1];
    this.lanes = [];
    this.canvas.addEventListener("pointerdown", e => this.grab(e));
    this.canvas.addEventListener("pointermove", e => this.drag(e));
    for (const kind of ["pointerup", "pointercancel"])
      this.canvas.addEventListener(kind, () => { this.held = null; });
  }

  begin({recording, lanes, marks, gaps}) {
    this.end = recording.end;
    this.lanes = Object.entries(lanes ?? {}).slice(0, MOST);
    const often = countNames((marks ?? []).map(([, name]) => ({name})));
    this.marks = (marks ?? []).filter(([, name]) => often.get(name) <= 100);
    this.gaps = gaps ?? {};
    this.notes = recording.notes ?? [];
    this.length = recording.length;
    this.about.textContent = `${this.length}; frames a second, red: frames are missing, `
      + "lines: events; drag to look at a part";
    this.canvas.setAttribute("aria-label", `rates of ${this.lanes.map(l => l[0]).join(", ")} `
      + `over ${this.length}`);
    this.draw();
  }

  show(start, stop) {
    this.range = [start, stop];
    this.draw();
  }

  get wide() { return Math.max(120, this.element.getBoundingClientRect().width - 26); }

  x(ns) { return LABEL + ns / this.end * (this.wide - LABEL - RIGHT); }

  at(x) { return (x - LABEL) / (this.wide - LABEL - RIGHT) * this.end; }

  draw() {
    if (!this.end) return;
    const dpr = devicePixelRatio || 1, {wide} = this, rows = Math.max(this.lanes.length, 1);
    const high = rows * LANE + 20;
    const w = Math.round(wide * dpr), h = Math.round(high * dpr);
    if (this.canvas.width !== w || this.canvas.height !== h) {
      Object.assign(this.canvas, {width: w, height: h});
      Object.assign(this.canvas.style, {width: `${wide}px`, height: `${high}px`});
    }
    const c = this.canvas.getContext("2d");
    c.setTransform(dpr, 0, 0, dpr, 0, 0);
    c.clearRect(0, 0, wide, high);
    c.font = "12px system-ui, 'Noto Sans', sans-serif";
    this.lanes.forEach(([name, counts], k) => this.lane(c, name, counts, k * LANE + 2));
    this.overlays(c, rows * LANE);
    c.fillStyle = colour("quiet"); c.textBaseline = "alphabetic"; c.textAlign = "center";
    const step = stepOf(this.end, 7);
    for (let t = 0; t <= this.end; t += step) {
      c.textAlign = this.x(t) > wide - 24 ? "right" : "center";
      c.fillText(timeText(t, step), Math.min(this.x(t), wide), high - 5);
    }
  }

  lane(c, name, counts, top) {
    const floor = top + LANE - 5, n = counts.length, width = this.x(this.end) - LABEL;
    const sorted = [...counts].sort((a, b) => a - b);
    const most = Math.max(1e-9, sorted[Math.floor(n * 0.98)]) * 1.1;
    c.beginPath(); c.moveTo(LABEL, floor);
    counts.forEach((v, k) => {
      const y = floor - Math.min(v / most, 1) * (LANE - 7);
      c.lineTo(LABEL + k / n * width, y); c.lineTo(LABEL + (k + 1) / n * width, y);
    });
    c.lineTo(LABEL + width, floor);
    c.fillStyle = colour("area"); c.fill();
    c.fillStyle = colour("bad");
    for (const [from, to] of this.gaps[name] ?? [])
      c.fillRect(this.x(from) - 0.5, top, Math.max(this.x(to) - this.x(from), 2), LANE - 5);
    c.fillStyle = colour("ink"); c.textBaseline = "middle"; c.textAlign = "left";
    c.fillText(name, 0, top + LANE / 2 - 2, LABEL - 8);
  }

  overlays(c, high) {
    c.strokeStyle = colour("event"); c.lineWidth = 1; c.globalAlpha = 0.75;
    c.beginPath();
    for (const [at] of this.marks) { const x = Math.round(this.x(at)) + 0.5; c.moveTo(x, 0); c.lineTo(x, high); }
    c.stroke();
    c.globalAlpha = 1;
    const from = Math.max(this.x(this.range[0]), LABEL - 2);
    const to = Math.min(this.x(this.range[1]), this.x(this.end) + 2);
    c.fillStyle = colour("accent"); c.globalAlpha = 0.16;
    c.fillRect(from, 0, Math.max(to - from, 2), high);
    c.globalAlpha = 1;
    c.strokeStyle = colour("accent"); c.lineWidth = 1.5;
    c.strokeRect(from, 0.75, Math.max(to - from, 2), high - 1.5);
  }

  grab(event) {
    const at = this.at(event.offsetX), [start, stop] = this.range;
    const isInside = at > start && at < stop && stop - start < this.end * 0.98;
    this.held = {at, start, stop, isInside};
    if (!isInside && stop - start < this.end * 0.98)
      this.onLook(at - (stop - start) / 2, at + (stop - start) / 2);
    this.canvas.setPointerCapture?.(event.pointerId);
  }

  // Drag the part that is shown; of the whole recording, choose one.
  drag(event) {
    const {held} = this;
    if (!held) return;
    const at = this.at(event.offsetX);
    if (held.stop - held.start >= this.end * 0.98) {
      if (Math.abs(at - held.at) > this.end * 0.004) this.onLook(Math.min(at, held.at), Math.max(at, held.at));
    } else {
      const by = held.isInside ? at - held.at : at - (held.start + held.stop) / 2;
      this.onLook(held.start + by, held.stop + by);
    }
  }
}
