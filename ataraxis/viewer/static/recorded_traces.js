// RecordedTraces: traces of a span of a recording, and where they lie in it.

import {colour} from "./theme.js";
import {Traces} from "./traces.js";
import {stepOf, timeText} from "./times.js";
import {digits, span} from "./words.js";

const LEFT = 46, LOST = 1;

export class RecordedTraces extends Traces {
  constructor(name) {
    super(name);
    this.gapsNs = [];
    this.state = {is_exact: true, share: 1};
    this.label("recorded");
  }

  // Show the columns of a span; while it is moved, the last ones are shown elsewhere.
  show(part, range) {
    this.isAwaited = false;
    this.range = range;
    if (!part.count) {
      this.n = 0;
      this.canvas?.clearRect(0, 0, this.W, this.H);
      this.note.textContent = "no samples here";
      return;
    }
    this.timeNs = part.timeNs; this.timeOf = 0; this.newest = part.count - 1;
    this.startNs = Number(part.timeNs);
    this.allot(part, part.count, 0);
    this.fill(part, 0);
    this.markGaps(part);
    this.note.textContent = "";
    this.scaled = 0;
    this.rescale(true);
    this.label(`${part.channels} channels, ${span((range[1] - range[0]) * 1e-9)}`);
    this.describe();
    this.redraw();
    this.place();
  }

  // Of a stream without a rate, columns within a gap are lost, too.
  markGaps(part) {
    if (part.flags & LOST) return;
    for (const [from, to] of this.gapsNs) {
      const first = Math.max(0, Math.floor((from - this.startNs) / this.ns) + 1);
      const end = Math.min(this.n, Math.ceil((to - this.startNs) / this.ns) - 1);
      for (let k = first; k < end; k++) {
        this.lost[k] = 1; this.held[k] = 0;
        for (let c = 0; c < this.channels; c++) {
          this.low[k * this.channels + c] = 1; this.high[k * this.channels + c] = 0;
        }
      }
    }
  }

  tell(state) {
    this.state = state;
    this.describe();
    this.overlay();
  }

  shift(range) {
    this.range = range;
    this.place();
    this.overlay();
  }

  // Put the pixels where their columns lie within the span.
  place() {
    if (!this.n || !this.range) return;
    const length = this.range[1] - this.range[0], wide = this.W / this.dpr;
    const left = (this.startNs - this.range[0]) / length * wide;
    const width = this.n * this.ns / length * wide;
    Object.assign(this.signal.style, {left: `${LEFT + left}px`, width: `${width}px`});
    const cut = (v) => `${Math.max(0, v)}px`;
    this.signal.style.clipPath = `inset(0 ${cut(left + width - wide)} 0 ${cut(-left)})`;
  }

  resize() {
    const isNew = super.resize();
    this.place();
    return isNew;
  }

  describe() {
    if (!this.n) return;
    super.describe();
    const {is_exact: isExact, share, problem} = this.state;
    if (problem) this.about.textContent += `; ${problem}`;
    else if (!isExact)
      this.about.textContent += `; sampled: ${Math.floor(share * 100)} % is read exactly`;
    if (this.state.is_fitted === false)
      this.about.textContent += "; times of the host: ataraxis fit makes better ones";
    this.element.classList.toggle("sampled", !isExact);
  }

  placeOf(timeNs) {
    if (!this.range) return null;
    const place = (timeNs - this.range[0]) / (this.range[1] - this.range[0]);
    return place >= 0 && place < 1 ? place : null;
  }

  drawTime(c, wide, high) {
    if (!this.range) return;
    const [start, stop] = this.range, length = stop - start;
    const step = stepOf(length, Math.max(2, wide / 120));
    this.drawGaps(c, wide, high);
    c.strokeStyle = colour("edge"); c.fillStyle = colour("quiet");
    c.textBaseline = "top";
    c.beginPath();
    for (let t = Math.ceil(start / step) * step; t <= stop; t += step) {
      const x = LEFT + (t - start) / length * wide;
      c.moveTo(x, high); c.lineTo(x, high + 4);
      c.textAlign = x < LEFT + 30 ? "left" : x > LEFT + wide - 30 ? "right" : "center";
      c.fillText(timeText(t, step), Math.min(x, LEFT + wide), high + 6);
    }
    c.stroke();
  }

  // A gap is a mark at the top, as one of a sample is too narrow to be seen.
  drawGaps(c, wide) {
    if (!this.gapsNs.length) return;
    const [start, stop] = this.range;
    c.fillStyle = colour("bad");
    for (const [from, to] of this.gapsNs) {
      if (to < start || from > stop) continue;
      const x = LEFT + Math.max((from - start) / (stop - start), 0) * wide;
      const end = LEFT + Math.min((to - start) / (stop - start), 1) * wide;
      c.fillRect(x - 1, 0, Math.max(end - x, 3), 4);
    }
  }

  drawPointer(c, wide, high) {
    if (!this.pointer || !this.range) return;
    const x = this.pointer[0], {range} = this;
    c.strokeStyle = colour("ink"); c.globalAlpha = 0.5;
    c.beginPath(); c.moveTo(x + 0.5, 0); c.lineTo(x + 0.5, high); c.stroke();
    c.globalAlpha = 1;
    const at = range[0] + (x - LEFT) / wide * (range[1] - range[0]);
    const slot = Math.floor((at - this.startNs) / this.ns), k = this.channelUnder;
    const where = slot * this.channels + k, {units, dim} = this.meta;
    const lo = this.low[where], hi = this.high[where];
    const value = !(slot >= 0 && slot < this.n) || this.held[slot] || !(lo <= hi)
      ? this.lost[slot] ? "lost" : "no sample"
      : lo === hi ? `${digits(lo, 5)} ${units}` : `${digits(lo, 5)} to ${digits(hi, 5)} ${units}`;
    this.readout.textContent =
      `${dim || "channel"} ${this.nameOf(k)}  ·  ${timeText(at, this.ns)}  ·  ${value}`;
  }
}
