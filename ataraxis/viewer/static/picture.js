// Picture: the newest frame; one is decoded at a time, and the last one is shown.

import {tableOf} from "./maps.js";
import {digits, whole} from "./words.js";

const JPEG = 1, AUTO_MS = 500;
const MAPS = ["", "automatic contrast", "viridis", "inferno"];

export class Picture {
  constructor(name) {
    this.name = name;
    this.shown = 0;
    this.map = 0;
    this.bounds = [0, 255];
    const panel = this.element = document.createElement("section");
    panel.className = "panel";
    const head = document.createElement("h2");
    head.append(Object.assign(document.createElement("span"), {textContent: name}));
    this.about = head.appendChild(document.createElement("small"));
    this.readout = Object.assign(document.createElement("div"), {className: "readout"});
    this.plot = Object.assign(document.createElement("div"), {className: "plot"});
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `newest picture of ${name}`);
    this.note = Object.assign(document.createElement("p"), {className: "note"});
    this.plot.append(this.canvas, this.note);
    panel.append(head, this.readout, this.plot);
    this.plot.addEventListener("pointermove", e => this.point(e.clientX, e.clientY));
    this.plot.addEventListener("pointerleave", () => { this.readout.textContent = ""; });
  }

  get wanted() {
    const box = this.plot.getBoundingClientRect();
    return Math.max(64, Math.round(box.width * (devicePixelRatio || 1)));
  }

  resize() {
    const part = this.part, box = this.plot.getBoundingClientRect();
    if (!part || !box.width || !box.height) return;
    const scale = Math.min(box.width / part.width, box.height / part.height);
    const wide = part.width * scale, high = part.height * scale;
    Object.assign(this.canvas.style, {width: `${wide}px`, height: `${high}px`,
      left: `${(box.width - wide) / 2}px`, top: `${(box.height - high) / 2}px`});
  }

  async add(part) {
    if (this.frozen) return;
    if (this.isBusy) { this.next = part; return; }
    this.isBusy = true;
    try {
      const source = part.encoding === JPEG
        ? await createImageBitmap(new Blob([part.data], {type: "image/jpeg"}))
        : raw(part);
      this.draw(part, source);
    } catch (error) {
      this.note.textContent = `a picture cannot be decoded: ${error.message}`;
    } finally {
      this.isBusy = false;
      const next = this.next;
      this.next = null;
      if (next) this.add(next);
    }
  }

  draw(part, source) {
    const {canvas} = this;
    const isNew = !this.part || this.part.width !== part.width || this.part.height !== part.height;
    this.part = part;
    if (isNew) {
      Object.assign(canvas, {width: part.width, height: part.height});
      this.context = canvas.getContext("2d", {willReadFrequently: true});
      this.resize();
    }
    if (source instanceof ImageData) this.context.putImageData(source, 0, 0);
    else { this.context.drawImage(source, 0, 0); source.close(); }
    if (this.map && part.channels === 1) this.recolour(part);
    this.shown++;
    this.note.textContent = "";
    const mapped = part.low === 0 && part.high === 255 ? ""
      : `, ${digits(part.low)} to ${digits(part.high)}`;
    this.about.textContent =
      `${part.wholeWidth}×${part.wholeHeight}, frame ${whole(part.sequence)}${mapped}${this.mapped(part)}`;
  }

  // ---- colours and contrast, of grey pictures

  changeMap() {
    this.map = (this.map + 1) % MAPS.length;
    this.boundsMs = 0;
  }

  mapped(part) {
    if (!this.map || part.channels !== 1) return "";
    const value = v => digits(part.low + v / 255 * (part.high - part.low));
    return `; ${MAPS[this.map]}, ${value(this.bounds[0])} to ${value(this.bounds[1])}`;
  }

  recolour(part) {
    const image = this.context.getImageData(0, 0, part.width, part.height);
    const pixels = new Uint32Array(image.data.buffer);
    this.grey = new Uint8Array(pixels.length);
    for (let k = 0; k < pixels.length; k++) this.grey[k] = pixels[k] & 255;
    const now = performance.now();
    if (now - (this.boundsMs || 0) > AUTO_MS) {
      this.boundsMs = now;
      const counts = new Uint32Array(256);
      for (let k = 0; k < this.grey.length; k += 7) counts[this.grey[k]]++;
      this.bounds = [edge(counts, 0.005), edge(counts, 0.995)];
      this.table = tableOf(MAPS[this.map], ...this.bounds);
    }
    for (let k = 0; k < pixels.length; k++) pixels[k] = this.table[this.grey[k]];
    this.context.putImageData(image, 0, 0);
  }

  point(x, y) {
    if (!this.part) return;
    const box = this.canvas.getBoundingClientRect(), part = this.part;
    const px = Math.floor((x - box.left) / box.width * part.width);
    const py = Math.floor((y - box.top) / box.height * part.height);
    if (px < 0 || py < 0 || px >= part.width || py >= part.height) return;
    let [r, g, b] = this.context.getImageData(px, py, 1, 1).data;
    if (this.map && part.channels === 1 && this.grey) r = this.grey[py * part.width + px];
    const value = v => digits(part.low + v / 255 * (part.high - part.low), 4);
    const shown = part.channels === 1 ? value(r) : [r, g, b].join(" ");
    const step = part.wholeWidth / part.width;
    this.readout.textContent =
      `x ${Math.floor(px * step)}  y ${Math.floor(py * step)}  ·  ≈ ${shown}`;
  }
}

// The value below which a share of the counted pixels are.
function edge(counts, share) {
  let left = counts.reduce((sum, n) => sum + n, 0) * share;
  for (let v = 0; v < 256; v++) if ((left -= counts[v]) <= 0) return v;
  return 255;
}

function raw(part) {
  const image = new ImageData(part.width, part.height), out = image.data;
  const {data, channels} = part;
  for (let k = 0, at = 0; k < part.width * part.height; k++, at += channels) {
    out[4 * k] = data[at];
    out[4 * k + 1] = data[at + (channels > 1 ? 1 : 0)];
    out[4 * k + 2] = data[at + (channels > 2 ? 2 : 0)];
    out[4 * k + 3] = 255;
  }
  return image;
}
