// Spectrogram: power of one channel over time; a column of frequencies at a time.

import {tableOf} from "./maps.js";
import {colour} from "./theme.js";
import {Traces} from "./traces.js";
import {digits, round125, span} from "./words.js";

const LEFT = 46, SAMPLED = 4000;

export class Spectrogram extends Traces {
  constructor(name, channel) {
    super(name);
    this.channel = channel;
    this.grow = 2.5;
    this.table = tableOf("inferno", 0, 255);
    this.element.querySelector("h2 span").textContent = `${name}, spectrogram`;
  }

  // Black and white of the colours: percentiles of what is shown, once a sweep.
  rescale(isForced = false) {
    const turn = Math.floor(this.newest / this.n);
    const isEarly = this.scaled < 64 && this.newest - this.scaledAt >= 8;
    if (!isForced && turn === this.turn && !isEarly && this.perRow) return false;
    const values = [], step = Math.max(1, Math.floor(this.low.length / SAMPLED));
    for (let k = 0; k < this.low.length; k += step) {
      const slot = Math.floor(k / this.channels);
      if (this.columnOf[slot] >= 0 && this.low[k] <= this.high[k]) values.push(this.low[k]);
    }
    if (values.length < 16) return false;
    values.sort((a, b) => a - b);
    this.scaled = this.columnOf.filter(c => c >= 0).length;
    this.scaledAt = this.newest;
    this.turn = turn;
    this.floor = values[Math.floor(values.length * 0.2)];
    this.perRow = Math.max(3, values[Math.floor(values.length * 0.998)] - this.floor);
    this.describe();
    return true;
  }

  zoom(direction) {
    this.factor = direction === 0 ? 1 : this.factor * Math.SQRT2 ** -direction;
    if (this.perRow) { this.describe(); this.redraw(); }
  }

  describe() {
    if (!this.n) return;
    const scale = this.perRow
      ? `; ${digits(this.floor)} to ${digits(this.floor + this.row)} dB` : "";
    this.about.textContent = `${this.meta.dim || "channel"} ${this.nameOf(this.channel)}, `
      + `0 to ${digits((this.meta.rate ?? 0) / 2, 5)} Hz, a column is `
      + `${span(this.ns * 1e-9)}${scale}`;
  }

  nameOf(k) { return this.meta.names[k] ?? String(k); }

  paint() { this.shade = 0; }

  slot(slot) {
    const {n, W, H, channels, low, pixels} = this;
    if (this.columnOf[slot] < 0) return;
    const x0 = Math.floor(slot * W / n);
    const x1 = Math.max(x0 + 1, Math.floor((slot + 1) * W / n));
    const scale = 255 / this.row, here = slot * channels;
    for (let y = 0; y < H; y++) {
      const bin = Math.min(channels - 1, Math.floor((1 - (y + 0.5) / H) * channels));
      const value = low[here + bin];
      if (!(value <= this.high[here + bin])) continue;
      const v = Math.max(0, Math.min(255, Math.round((value - this.floor) * scale)));
      pixels.fill(this.table[v], y * W + x0, y * W + x1);
    }
  }

  drawChannels(c, high) {
    const half = (this.meta.rate ?? 0) / 2;
    if (!half) return;
    c.textAlign = "right"; c.textBaseline = "middle"; c.fillStyle = colour("quiet");
    const step = round125(half / 4);
    for (let f = 0; f <= half; f += step) {
      const y = Math.min(Math.max(high * (1 - f / half), 6), high - 5);
      c.fillText(f >= 1000 ? `${digits(f / 1000)}k` : digits(f), LEFT - 7, y, LEFT - 9);
    }
  }

  drawBar() {}

  get channelUnder() { return null; }

  drawPointer(c, wide, high) {
    if (!this.pointer) return;
    const [x, y] = this.pointer;
    const slot = Math.min(this.n - 1, Math.max(0, Math.floor((x - LEFT) / wide * this.n)));
    const share = Math.min(1, Math.max(0, 1 - y / high));
    const bin = Math.min(this.channels - 1, Math.floor(share * this.channels));
    c.strokeStyle = colour("ink"); c.globalAlpha = 0.5;
    c.beginPath(); c.moveTo(x + 0.5, 0); c.lineTo(x + 0.5, high); c.stroke();
    c.globalAlpha = 1;
    const value = this.columnOf[slot] < 0 ? "no sample"
      : `${digits(this.low[slot * this.channels + bin])} dB`;
    this.readout.textContent = `${digits(share * (this.meta.rate ?? 0) / 2)} Hz  ·  `
      + `${(slot / this.n * this.seconds).toFixed(3)} s  ·  ${value}`;
  }
}
