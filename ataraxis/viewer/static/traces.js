// Traces: minimum and maximum of each column, as pixels; only what is new is drawn.

import {channelColour, colour, pixel} from "./theme.js";
import {countNames, digits, newestOfEach, round125, span, whole} from "./words.js";

const LEFT = 46, BELOW = 20, LOST = 1, FRESH = 2, HISTORY = 4, STEP = Math.SQRT2;
const HEAD = 0.013;           // of the window: the empty strip before the newest column
const SAMPLED = 160;          // columns that a scale is made of
const ROOM = 1.6;             // of a row, for each channel's usual range
const ENOUGH = 24;            // columns before the first scale

export class Traces {
  constructor(name) {
    this.name = name;
    this.meta = {rate: null, units: "", names: [], dim: "channel"};
    this.factor = 1;          // by the user, of the automatic scale
    this.perRow = 0;          // value that a row is high; 0: not known yet
    this.first = 0;           // channel that the first row shows
    this.events = [];
    this.frozen = false;
    this.gaps = 0;
    this.build();
    this.reset();
  }

  build() {
    const panel = this.element = document.createElement("section");
    panel.className = "panel";
    const head = document.createElement("h2");
    head.append(Object.assign(document.createElement("span"), {textContent: this.name}));
    this.about = head.appendChild(document.createElement("small"));
    this.readout = Object.assign(document.createElement("div"), {className: "readout"});
    this.plot = Object.assign(document.createElement("div"), {className: "plot"});
    this.signal = document.createElement("canvas");
    this.signal.setAttribute("role", "img");
    this.front = document.createElement("canvas");
    this.front.setAttribute("aria-hidden", "true");
    this.note = Object.assign(document.createElement("p"), {className: "note"});
    this.plot.append(this.signal, this.front, this.note);
    panel.append(head, this.readout, this.plot);
    this.plot.addEventListener("pointermove", e => this.point(e.offsetX, e.offsetY));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    this.label("waiting");
  }

  label(state) {
    this.signal.setAttribute("aria-label", `traces of ${this.name}: ${state}`);
  }

  // ---- size

  // Fit the canvases; return whether the width has changed.
  resize() {
    const box = this.plot.getBoundingClientRect(), dpr = this.dpr = devicePixelRatio || 1;
    const wide = Math.max(64, Math.round((box.width - LEFT) * dpr));
    const high = Math.max(32, Math.round((box.height - BELOW) * dpr));
    if (box.width < 80 || (wide === this.W && high === this.H)) return false;
    const isNew = wide !== this.W;
    this.W = wide; this.H = high;
    Object.assign(this.signal, {width: wide, height: high});
    Object.assign(this.signal.style, {left: `${LEFT}px`, width: `${wide / dpr}px`,
      height: `${high / dpr}px`});
    Object.assign(this.front, {width: Math.round(box.width * dpr),
      height: Math.round(box.height * dpr)});
    this.canvas = this.signal.getContext("2d");
    this.image = this.canvas.createImageData(wide, high);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.redraw();
    return isNew;
  }

  // ---- columns

  reset() {
    this.n = 0; this.channels = 0; this.newest = -1; this.drawn = 0;
    this.scaled = 0; this.isAwaited = true;
  }

  // Make room for `n` columns: a sweep, or, from column `base` on, a look back.
  allot(part, n, base) {
    this.n = n;
    this.base = base;
    this.ns = part.nsAColumn;
    this.channels = part.channels;
    this.seconds = n * this.ns * 1e-9;
    const ArrayOf = part.low.constructor;
    this.low = new ArrayOf(this.n * part.channels);
    this.high = new ArrayOf(this.n * part.channels);
    this.columnOf = new Float64Array(this.n).fill(-1);
    this.lost = new Uint8Array(this.n);
    this.held = new Uint8Array(this.n);
    this.element.style.flexGrow = this.grow ?? Math.min(8, Math.max(1.4, Math.sqrt(part.channels)));
    this.element.style.setProperty("--rows", part.channels);
    this.paint();
  }

  add(part, seconds) {
    if (part.flags & HISTORY) { this.lookAt(part); return; }
    const isFresh = part.flags & FRESH;
    if (this.isAwaited && !isFresh) return;   // of what was asked for before
    if (!isFresh && part.first !== this.newest + 1) this.gaps++;
    this.timeNs = part.timeNs; this.timeOf = part.first;
    if (this.frozen) { this.newest = part.first + part.count - 1; return; }
    if (isFresh) {
      this.isAwaited = false;
      this.newest = -1; this.scaled = 0; this.perRow = 0;
      this.allot(part, Math.max(2, Math.round(seconds * 1e9 / part.nsAColumn)), null);
      this.label(`${part.channels} channels, live`);
      this.describe();
    }
    this.note.textContent = "";
    const {n} = this, skip = Math.max(0, part.count - n);
    this.fill(part, skip);
    this.newest = part.first + part.count - 1;
    const head = Math.max(1, Math.ceil(n * HEAD));
    for (let k = 1; k <= head; k++) this.columnOf[(this.newest + k) % n] = -1;
    if (this.rescale()) this.redraw();
    else this.strips(part.first + skip, part.count - skip + head);
  }

  slotOf(column) { return this.base == null ? column % this.n : column - this.base; }

  fill(part, skip) {
    const {channels} = this;
    for (let k = skip; k < part.count; k++) {
      const column = part.first + k, slot = this.slotOf(column);
      const from = k * channels, to = slot * channels;
      this.low.set(part.low.subarray(from, from + channels), to);
      this.high.set(part.high.subarray(from, from + channels), to);
      this.columnOf[slot] = column;
      const isEmpty = !(part.low[from] <= part.high[from]);
      this.lost[slot] = isEmpty && part.flags & LOST ? 1 : 0;
      this.held[slot] = isEmpty && !(part.flags & LOST) ? 1 : 0;
      if (this.held[slot]) this.hold(slot, column);
    }
  }

  // ---- looking back, while it is frozen

  freeze(isFrozen) {
    this.frozen = isFrozen;
    this.look = isFrozen && this.n ? {first: this.newest + 1 - this.n, n: this.n,
      end: this.newest + 1} : null;
  }

  // Move by parts of the window, and change its width; return what is to be asked for.
  seek(by, factor = 1) {
    const {look} = this;
    if (!look) return null;
    const n = Math.min(8192, Math.max(16, Math.round(look.n * factor)));
    const middle = look.first + look.n / 2 + by * n;
    look.first = Math.max(0, Math.round(Math.min(middle - n / 2, look.end - n)));
    look.n = n;
    return {first: look.first, last: look.first + n};
  }

  lookAt(part) {
    if (!this.look) return;
    this.allot(part, this.look.n, this.look.first);
    this.fill(part, Math.max(0, this.look.first - part.first));
    this.label(`${part.channels} channels, frozen`);
    this.describe();
    this.redraw();
  }

  // A stream without a rate: no sample was due, and the last one is shown on.
  hold(slot, column) {
    const before = slot ? slot - 1 : this.n - 1, {channels, low, high} = this;
    if (this.columnOf[before] !== column - 1) return;
    for (let c = 0, at = slot * channels, from = before * channels; c < channels; c++) {
      if (!(low[from + c] <= high[from + c])) continue;
      low[at + c] = high[at + c] = this.held[before] ? low[from + c]
        : (low[from + c] + high[from + c]) / 2;
    }
  }

  // ---- scale

  rescale(isForced = false) {
    const turn = Math.floor(this.newest / this.n);
    const isFirst = this.scaled < ENOUGH || isForced;
    if (!isFirst && turn === this.turn) return false;
    const slots = [];
    const step = Math.max(1, Math.floor(this.n / SAMPLED));
    for (let s = 0; s < this.n; s += step) if (this.columnOf[s] >= 0) slots.push(s);
    if (!slots.length || (isFirst && slots.length <= this.scaled)) return false;
    this.turn = turn;
    this.scaled = Math.max(slots.length, this.perRow && turn > 0 ? ENOUGH : 0);
    const {channels} = this, centres = new Float64Array(channels), spreads = [];
    for (let c = 0; c < channels; c++) {
      const lows = [], highs = [], middles = [];
      for (const s of slots) {
        const lo = this.low[s * channels + c], hi = this.high[s * channels + c];
        if (!(lo <= hi)) continue;
        lows.push(lo); highs.push(hi); middles.push((lo + hi) / 2);
      }
      if (!lows.length) continue;
      for (const list of [lows, highs, middles]) list.sort((a, b) => a - b);
      centres[c] = middles[middles.length >> 1];
      const edge = Math.floor(lows.length * 0.1);
      spreads.push(highs[highs.length - 1 - edge] - lows[edge]);
    }
    if (!spreads.length) return false;
    spreads.sort((a, b) => a - b);
    const wanted = (spreads[spreads.length >> 1] || 1) * ROOM;
    const isFar = wanted > this.perRow * 1.2 || wanted < this.perRow / 1.6;
    const moved = !this.centres || this.centres.length !== channels ||
      centres.some((v, c) => Math.abs(v - this.centres[c]) > wanted * 0.25);
    if (!isFar && !moved) return false;
    if (isFar) this.perRow = wanted;
    this.centres = centres;
    this.describe();
    return true;
  }

  zoom(direction) {
    this.factor = direction === 0 ? 1 : this.factor * STEP ** -direction;
    if (direction === 0) this.perRow = this.scaled = 0;
    if (this.n && this.newest >= 0) { if (!this.perRow) this.rescale(true); this.describe(); this.redraw(); }
  }

  get row() { return this.perRow * this.factor || 1; }

  describe() {
    if (!this.n) return;
    const {rate, units, dim} = this.meta, count = this.channels;
    const noun = count === 1 ? "1 channel" : `${whole(count)} channels`;
    const often = rate ? ` × ${digits(rate, 6)}/s` : "";
    const scale = this.perRow ? `; a row is ${digits(this.row, 2)} ${units}` : "";
    const which = this.first || this.only ? ` from ${dim} ${this.first}` : "";
    const filtered = this.filter ? `; ${this.filter}` : "";
    const missed = this.missed ? `; this page missed ${whole(this.missed)} frames` : "";
    this.about.textContent =
      `${noun}${which}${often}, a column is ${span(this.ns * 1e-9)}${scale.trimEnd()}${filtered}${missed}`;
  }

  // ---- pixels

  paint() {
    this.inks = new Uint32Array(this.channels);
    for (let c = 0; c < this.channels; c++)
      this.inks[c] = pixel(channelColour(c, this.channels));
    this.shade = pixel(colour("grid"));
  }

  redraw() {
    if (!this.n || !this.W) return;
    this.strip(0, this.n);
    this.overlay();
  }

  // Draw the slots of `count` columns from `column` on, and put them on the screen.
  strips(column, count) {
    const {n} = this, first = column % n;
    const end = Math.min(first + count, n);
    this.strip(first, end);
    if (first + count > n) this.strip(0, Math.min(first + count - n, n));
  }

  strip(first, end) {
    const {n, W, H, pixels} = this;
    const left = Math.floor(first * W / n), right = Math.ceil(end * W / n);
    for (let y = 0, at = left; y < H; y++, at += W) pixels.fill(0, at, at + right - left);
    if (this.perRow) for (let slot = first; slot < end; slot++) this.slot(slot);
    this.canvas.putImageData(this.image, 0, 0, left, 0, right - left, H);
    this.drawn += end - first;
  }

  slot(slot) {
    const {n, W, H, channels, low, high, pixels, inks, centres} = this;
    if (this.columnOf[slot] < 0) return;
    const x0 = Math.floor(slot * W / n);
    const x1 = Math.max(x0 + 1, Math.floor((slot + 1) * W / n));
    if (this.lost[slot]) {
      for (let y = 0, at = x0; y < H; y++, at += W) pixels.fill(this.shade, at, at + x1 - x0);
      return;
    }
    const before = slot ? slot - 1 : n - 1;
    const joins = this.columnOf[before] === this.columnOf[slot] - 1;
    const rowHigh = H / channels, scale = rowHigh / this.row;
    const least = Math.max(1, Math.round(this.dpr * (rowHigh > 24 * this.dpr ? 2 : 1)));
    const here = slot * channels, there = before * channels;
    for (let c = 0; c < channels; c++) {
      let lo = low[here + c], hi = high[here + c];
      if (!(lo <= hi)) continue;
      if (joins) {
        const lowBefore = low[there + c], highBefore = high[there + c];
        if (lowBefore <= highBefore) {
          if (lo > highBefore) lo = highBefore;
          else if (hi < lowBefore) hi = lowBefore;
        }
      }
      const middle = (c + 0.5) * rowHigh + centres[c] * scale;
      let top = Math.round(middle - hi * scale), bottom = Math.round(middle - lo * scale);
      if (bottom - top < least) bottom = top + least;
      if (top < 0) top = 0;
      if (bottom > H) bottom = H;
      const ink = inks[c];
      if (x1 - x0 === 1)
        for (let at = top * W + x0, stop = bottom * W; at < stop; at += W) pixels[at] = ink;
      else
        for (let y = top; y < bottom; y++) pixels.fill(ink, y * W + x0, y * W + x1);
    }
  }

  // ---- what lies over them: axes, events, the pointer

  addEvents(events) {
    this.events = newestOfEach([...this.events, ...events], 100);
  }

  // The place of a time across the plot, 0 to 1; null: not in the window.
  placeOf(timeNs) {
    if (!this.n || this.timeOf == null) return null;
    const column = this.timeOf + Number(BigInt(timeNs) - this.timeNs) / this.ns;
    const slot = this.slotOf(Math.floor(column));
    if (!(slot >= 0 && slot < this.n) || this.columnOf[slot] !== Math.floor(column)) return null;
    return (slot + column % 1) / this.n;
  }

  overlay() {
    if (!this.W || !this.n) return;
    const c = this.front.getContext("2d"), {dpr} = this;
    const wide = this.W / dpr, high = this.H / dpr;
    c.setTransform(dpr, 0, 0, dpr, 0, 0);
    c.clearRect(0, 0, this.front.width, this.front.height);
    c.font = "11px system-ui, 'Noto Sans', sans-serif";
    this.drawChannels(c, high);
    this.drawTime(c, wide, high);
    this.drawEvents(c, wide, high);
    this.drawBar(c, wide, high);
    this.drawPointer(c, wide, high);
  }

  drawChannels(c, high) {
    const row = high / this.channels, each = Math.max(1, Math.ceil(13 / row));
    c.textAlign = "right"; c.textBaseline = "middle";
    for (let k = 0, last = -20; k < this.channels; k += each) {
      c.fillStyle = channelColour(k, this.channels);
      const y = Math.min(Math.max((k + 0.5) * row, 6), high - 4);
      if (y - last < 10) continue;
      last = y;
      c.fillText(this.nameOf(k), LEFT - 7, y, LEFT - 9);
    }
  }

  nameOf(k) { return this.meta.names[k + this.first] ?? String(k + this.first); }

  drawTime(c, wide, high) {
    c.strokeStyle = colour("edge"); c.fillStyle = colour("quiet");
    c.textBaseline = "top";
    // Of a look back: seconds before it was frozen.
    const from = this.base == null ? 0 : (this.base - this.look.end) * this.ns * 1e-9;
    const said = t => t === 0 ? "0 s" : t < 0 ? `−${span(-t)}` : span(t);
    const step = round125(this.seconds / 4 * 1.01), until = from + this.seconds;
    c.beginPath();
    for (let k = Math.ceil(from / step - 0.01); k * step <= until + step * 0.01; k++) {
      const x = LEFT + (k * step - from) / this.seconds * wide;
      const text = said(Number((k * step).toPrecision(9)));
      c.moveTo(x, high); c.lineTo(x, high + 4);
      c.textAlign = x < LEFT + 16 ? "left" : x > LEFT + wide - 16 ? "right" : "center";
      c.fillText(text, Math.min(x, LEFT + wide), high + 6);
    }
    c.stroke();
  }

  drawEvents(c, wide, high) {
    c.textAlign = "left"; c.textBaseline = "top";
    let free = -1;
    const ink = colour("event"), shade = colour("shade");
    const shown = this.events.map(e => [this.placeOf(e.time_ns), e])
      .filter(([place]) => place != null).sort((a, b) => a[0] - b[0]);
    const often = countNames(shown.map(([, event]) => event));
    const isRare = ([, event]) => often.get(event.name) <= 16;
    for (const [place, event] of [...shown.filter(e => !isRare(e)), ...shown.filter(isRare)]) {
      const x = Math.round(LEFT + place * wide) + 0.5, isDense = often.get(event.name) > 16;
      c.strokeStyle = ink; c.globalAlpha = isDense ? 0.5 : 0.85;
      c.beginPath(); c.moveTo(x, 0); c.lineTo(x, isDense ? 7 : high); c.stroke();
      c.globalAlpha = 1;
      const text = event.name.slice(0, 24), width = c.measureText(text).width + 8;
      if (isDense || x < free || x + width > LEFT + wide) continue;
      c.fillStyle = shade; c.fillRect(x + 1, 1, width, 15);
      c.fillStyle = ink; c.fillText(text, x + 5, 3);
      free = x + width;
    }
  }

  drawBar(c, wide, high) {
    if (!this.perRow) return;
    const perPixel = this.row * this.channels / high;
    const value = round125(perPixel * Math.min(70, high * 0.4)), length = value / perPixel;
    const text = `${digits(value)} ${this.meta.units}`.trim();
    const width = c.measureText(text).width + 22, x = LEFT + wide - 8;
    c.fillStyle = colour("shade");
    c.fillRect(x - width, high - length - 12, width + 8, length + 8);
    c.fillStyle = colour("ink");
    c.fillRect(x - 3, high - length - 8, 2, length);
    c.textAlign = "right"; c.textBaseline = "middle";
    c.fillText(text, x - 9, high - 8 - length / 2);
  }

  point(x, y) {
    this.pointer = x == null || x < LEFT ? null : [x, y];
    this.overlay();
    if (!this.pointer) this.readout.textContent = "";
  }

  get channelUnder() {
    if (!this.pointer || !this.channels) return null;
    const row = Math.floor(this.pointer[1] * this.dpr / this.H * this.channels);
    return Math.min(Math.max(row, 0), this.channels - 1);
  }

  drawPointer(c, wide, high) {
    if (!this.pointer) return;
    const x = this.pointer[0], slot = Math.min(this.n - 1,
      Math.max(0, Math.floor((x - LEFT) / wide * this.n)));
    c.strokeStyle = colour("ink"); c.globalAlpha = 0.5;
    c.beginPath(); c.moveTo(x + 0.5, 0); c.lineTo(x + 0.5, high); c.stroke();
    c.globalAlpha = 1;
    const k = this.channelUnder, at = slot * this.channels + k;
    const before = this.base == null ? 0 : (this.base - this.look.end) * this.ns * 1e-9;
    const t = `${(before + slot / this.n * this.seconds).toFixed(3)} s`;
    const lo = this.low[at], hi = this.high[at], {units, dim} = this.meta;
    const value = this.columnOf[slot] < 0 || this.held[slot] || !(lo <= hi) ? "no sample"
      : lo === hi ? `${digits(lo, 5)} ${units}` : `${digits(lo, 5)} to ${digits(hi, 5)} ${units}`;
    this.readout.textContent = `${dim || "channel"} ${this.nameOf(k)}  ·  ${t}  ·  ${value}`;
  }

  // ---- as a file

  save() {
    const all = Object.assign(document.createElement("canvas"),
      {width: this.front.width, height: this.front.height});
    const c = all.getContext("2d");
    c.fillStyle = colour("panel");
    c.fillRect(0, 0, all.width, all.height);
    c.drawImage(this.signal, LEFT * this.dpr, 0);
    c.drawImage(this.front, 0, 0);
    all.toBlob(blob => {
      const url = URL.createObjectURL(blob);
      Object.assign(document.createElement("a"),
        {href: url, download: `${this.name}.png`}).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }
}
