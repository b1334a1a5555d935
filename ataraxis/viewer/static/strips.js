// Strips: the rates of the last minute, and the times between frames.

import {colour} from "./theme.js";
import {countNames, digits} from "./words.js";

const MINUTE = 60, LABEL = 82, VALUE = 64;

function prepare(canvas, high) {
  const dpr = devicePixelRatio || 1, box = canvas.parentElement.getBoundingClientRect();
  const wide = Math.max(120, box.width - 26);
  const w = Math.round(wide * dpr), h = Math.round(high * dpr);
  if (canvas.width !== w || canvas.height !== h) {
    Object.assign(canvas, {width: w, height: h});
    canvas.style.height = `${high}px`;
    canvas.style.width = `${wide}px`;
  }
  const c = canvas.getContext("2d");
  c.setTransform(dpr, 0, 0, dpr, 0, 0);
  c.clearRect(0, 0, wide, high);
  c.font = "12px system-ui, 'Noto Sans', sans-serif";
  return [c, wide];
}

export class Lanes {
  constructor(section) {
    this.canvas = section.querySelector("canvas");
    this.beats = new Map();
    this.events = [];
  }

  add(beats) {
    for (const [name, found] of Object.entries(beats))
      this.beats.set(name, [...this.beats.get(name) ?? [], ...found].slice(-140));
  }

  draw(nowNs, names) {
    const lanes = names.filter(name => this.beats.has(name)).slice(0, 6);
    const LANE = lanes.length > 3 ? 23 : 30;
    const [c, wide] = prepare(this.canvas, Math.max(lanes.length, 1) * LANE + 20);
    const x0 = LABEL, x1 = wide - VALUE, x = t => x1 + (t - nowNs) / 1e9 / MINUTE * (x1 - x0);
    const recent = this.events.filter(e => x(e.time_ns) >= x0), often = countNames(recent);
    const marks = recent.filter(e => often.get(e.name) <= 80).map(e => x(e.time_ns));
    lanes.forEach((name, k) => {
      const top = k * LANE + 2, floor = top + LANE - 6;
      const found = this.beats.get(name).filter(beat => x(beat[0]) >= x0);
      const most = Math.max(1e-9, ...found.map(beat => beat[1])) * 1.08;
      const y = v => floor - v / most * (LANE - 8);
      c.strokeStyle = colour("grid"); c.lineWidth = 1;
      c.beginPath(); c.moveTo(x0, floor + 0.5); c.lineTo(x1, floor + 0.5); c.stroke();
      if (found.length > 1) {
        c.beginPath(); c.moveTo(x(found[0][0]), floor);
        for (const beat of found) c.lineTo(x(beat[0]), y(beat[1]));
        c.lineTo(x(found.at(-1)[0]), floor); c.fillStyle = colour("area"); c.fill();
        c.beginPath();
        for (const beat of found) c.lineTo(x(beat[0]), y(beat[1]));
        c.strokeStyle = colour("line"); c.lineWidth = 1.4; c.stroke();
      }
      c.fillStyle = colour("bad"); c.globalAlpha = 0.6;
      found.forEach((beat, i) => {
        if (beat[2]) return;
        const from = i ? x(found[i - 1][0]) : x(beat[0]) - 2;
        c.fillRect(from, top, Math.max(2, x(beat[0]) - from), LANE - 6);
      });
      c.globalAlpha = 1;
      c.strokeStyle = colour("event"); c.lineWidth = 1;
      c.beginPath();
      for (const at of marks) { c.moveTo(at, top); c.lineTo(at, floor); }
      c.stroke();
      c.fillStyle = colour("ink"); c.textBaseline = "middle"; c.textAlign = "left";
      c.fillText(name, 0, top + LANE / 2 - 2, LABEL - 8);
      c.fillStyle = colour("quiet"); c.textAlign = "right";
      const rate = found.at(-1)?.[1] ?? 0;
      c.fillText(`${digits(rate)}/s`, wide, top + LANE / 2 - 2);
    });
    c.fillStyle = colour("quiet"); c.textBaseline = "alphabetic"; c.textAlign = "center";
    const base = Math.max(lanes.length, 1) * LANE + 14;
    for (const s of [60, 45, 30, 15, 0])
      c.fillText(s ? `−${s} s` : "now", x1 - s / MINUTE * (x1 - x0), base);
    this.canvas.setAttribute("aria-label", "rates of the last minute: " + lanes.map(
      name => `${name} ${digits(this.beats.get(name).at(-1)?.[1] ?? 0)} per second`).join(", "));
  }
}

const TICKS = [["1 µs", 3], ["10 µs", 4], ["100 µs", 5], ["1 ms", 6], ["10 ms", 7],
  ["100 ms", 8], ["1 s", 9]];

export class Intervals {
  constructor(section) {
    this.canvas = section.querySelector("canvas");
    this.parts = new Map();
  }

  draw() {
    const high = 92, [c, wide] = prepare(this.canvas, high);
    const floor = high - 18, low = 3, top = 9, x = v => (v - low) / (top - low) * wide;
    c.strokeStyle = colour("grid"); c.fillStyle = colour("quiet");
    c.textBaseline = "alphabetic";
    TICKS.forEach(([text, at], k) => {
      c.beginPath(); c.moveTo(x(at) + 0.5, 0); c.lineTo(x(at) + 0.5, floor); c.stroke();
      c.textAlign = k === 0 ? "left" : k === TICKS.length - 1 ? "right" : "center";
      c.fillText(text, x(at), high - 4);
    });
    const inks = [colour("line"), colour("event"), colour("good"), colour("quiet")];
    let k = 0, right = wide;
    const said = [];
    for (const [name, part] of [...this.parts].slice(0, 4)) {
      const most = Math.log1p(Math.max(1, ...part.counts));
      c.fillStyle = inks[k]; c.globalAlpha = 0.62;
      part.counts.forEach((count, i) => {
        if (!count) return;
        const from = x(part.first + i * part.step), to = x(part.first + (i + 1) * part.step);
        const tall = Math.log1p(count) / most * (floor - 16);
        c.fillRect(from + 0.5, floor - tall, Math.max(1, to - from - 1), tall);
      });
      c.globalAlpha = 1; c.textAlign = "right";
      c.fillText(name, right, 10);
      right -= c.measureText(name).width + 12;
      const peak = part.counts.indexOf(Math.max(...part.counts));
      if (part.counts[peak]) said.push(`${name} mostly ${digits(10 ** (part.first + peak * part.step - 6))} ms`);
      k++;
    }
    this.canvas.setAttribute("aria-label",
      "times between frames: " + (said.join(", ") || "none yet"));
  }
}
