// Recording: panels of a recording over one span of time, on a page or in a notebook.

import {BINS, COLUMNS, PICTURE, STATE} from "./bundle.js";
import {Navigator} from "./navigator.js";
import {Picture} from "./picture.js";
import {RecordedTraces} from "./recorded_traces.js";
import {Intervals} from "./strips.js";
import {timeText} from "./times.js";
import {plural, span, whole} from "./words.js";

const FIRST_TRACES = 3, FIRST_PICTURES = 2, MOST_INTERVALS = 4, MOST_COLUMNS = 8192;
const LEAST_NS = 1e6, LEAST_SAMPLES = 8, MARGIN = 0.02, WHEEL = 0.0016, SETTLE_MS = 120;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export class Recording {
  // `send` sends a message to the server; `say({tone, text})` shows the verdict.
  constructor(root, send, say, chosen = []) {
    this.send = send;
    this.say = say;
    this.chosen = chosen;       // names of streams, if not all are shown
    this.panels = new Map();    // by stream
    this.byNumber = new Map();
    this.next = 1;
    this.facts = null;
    this.range = null;          // ns since the beginning: [start, stop]
    this.counts = {frames: 0, bundles: 0, columns: 0, pictures: 0, answers: 0, events: 0,
      drawMs: 0};
    this.build(root);
  }

  build(root) {
    this.root = root;
    const main = element("main"), left = element("div", "column"), right = element("div", "column");
    this.left = left; this.right = right;
    this.stack = element("div", "stack traces");
    this.pictures = element("div", "stack pictures");
    this.navigator = new Navigator((start, stop) => this.look(start, stop));
    this.table = this.buildTable();
    const bins = element("section", "panel intervals");
    bins.append(element("h2", "", "time between frames"));
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    bins.append(canvas);
    this.bins = bins;
    this.intervals = new Intervals(bins);
    this.log = element("section", "panel log");
    left.append(this.stack, this.navigator.element, this.table);
    right.append(this.pictures, bins, this.log);
    main.append(left, right);
    root.append(main);
    this.sizes = new ResizeObserver(() => this.queueResize());
    this.sizes.observe(main);
    this.stack.addEventListener("wheel", e => this.wheel(e), {passive: false});
    this.stack.addEventListener("pointerdown", e => this.grab(e));
    this.stack.addEventListener("pointermove", e => this.drag(e));
    for (const kind of ["pointerup", "pointercancel"])
      this.stack.addEventListener(kind, () => this.drop());
    this.stack.addEventListener("pointerleave", () => this.pointAt(null));
  }

  buildTable() {
    const section = element("section", "panel table"), head = element("h2", "", "streams");
    this.tableNote = head.appendChild(element("small"));
    const box = element("div", "scroll"), table = element("table");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "streams");
    const row = table.createTHead().insertRow();
    ["stream", "what", "frames", "frames/s", "span", "missing", "gaps", ""].forEach((text, k) => {
      const cell = element("th", k >= 2 && k < 7 ? "n" : "", text);
      cell.scope = "col";
      row.append(cell);
    });
    this.rows = table.createTBody();
    box.append(table);
    section.append(head, box);
    return section;
  }

  // ---- what the server says

  take(bundle) {
    const began = performance.now();
    this.counts.bundles++;
    for (const part of bundle.parts) {
      if (part.kind === STATE) { this.takeState(part.state); continue; }
      const panel = this.byNumber.get(part.panel);
      if (!panel) continue;
      if (part.kind === COLUMNS) {
        panel.view.show(part, this.range);
        this.counts.columns += part.count;
        this.counts.answers++;
      } else if (part.kind === PICTURE) {
        panel.view.add(part);
        this.counts.pictures++;
      } else if (part.kind === BINS) {
        this.intervals.parts.set(panel.stream, {...part, counts: part.counts.slice()});
        this.intervals.draw();
      }
    }
    this.counts.drawMs += performance.now() - began;
  }

  takeState(news) {
    if (news.recording) this.begin(news);
    if (news.verdict) this.say(news.verdict);
    for (const [number, about] of Object.entries(news.panels ?? {})) {
      const panel = this.byNumber.get(Number(number));
      if (panel && Number(number) === panel.number) this.describe(panel, about);
    }
  }

  describe(panel, about) {
    if (about.problem) panel.view.note.textContent = about.problem;
    if (about.events) {
      panel.view.events = about.events;
      this.counts.events = Math.max(this.counts.events, about.events.length);
    }
    if (panel.kind === "traces") panel.view.tell(about);
    if (about.at != null) {
      panel.at = about.at;
      panel.view.said = timeText(about.at, 1e6, this.facts.begin_ms);
    }
  }

  begin(news) {
    this.facts = news.recording;
    this.streams = news.streams;
    this.labels = news.labels;
    this.gaps = news.gaps ?? {};
    this.marks = news.marks ?? [];
    const rates = Object.values(news.labels).map(about => about.rate ?? 0);
    this.leastNs = Math.min(LEAST_NS, LEAST_SAMPLES * 1e9 / Math.max(1, ...rates));
    this.navigator.begin(news);
    this.whole();
    this.fillLog();
    const drawn = this.streams.filter(s => s.kind && (!this.chosen.length || this.chosen.includes(s.name)));
    for (const [kind, most] of [["traces", FIRST_TRACES], ["picture", FIRST_PICTURES]])
      for (const s of drawn.filter(s => s.kind === kind).slice(0, this.chosen.length ? 8 : most))
        if (!this.panels.has(s.name)) this.open(s.name, kind);
    this.pictures.hidden = ![...this.panels.values()].some(p => p.kind === "picture");
    this.bins.hidden = !this.streams.length;
    this.fillTable();
    if (!this.panels.size) this.say({tone: "bad", text: "no stream of numbers or pictures"});
    this.onBegin?.(this.facts);
  }

  open(stream, kind) {
    const view = kind === "picture" ? new Picture(stream) : new RecordedTraces(stream);
    const panel = {stream, kind, view, number: this.next++, bins: 0};
    if ([...this.panels.values()].filter(p => p.bins).length < MOST_INTERVALS)
      panel.bins = this.next++;
    if (kind === "traces") {
      view.meta = this.labels[stream];
      view.gapsNs = this.gaps[stream] ?? [];
      view.beginMs = this.facts.begin_ms;
    }
    this.panels.set(stream, panel);
    this.byNumber.set(panel.number, panel);
    if (panel.bins) this.byNumber.set(panel.bins, panel);
    (kind === "picture" ? this.pictures : this.stack).append(view.element);
    this.pictures.hidden = this.pictures.childElementCount === 0;
    view.resize();
    this.ask(panel);
    this.sizes.observe(view.plot);
  }

  close(stream) {
    const panel = this.panels.get(stream);
    for (const number of [panel.number, panel.bins].filter(Boolean)) {
      this.send({op: "hide", panel: number});
      this.byNumber.delete(number);
    }
    this.intervals.parts.delete(stream);
    this.intervals.draw();
    this.sizes.unobserve(panel.view.plot);
    panel.view.element.remove();
    this.panels.delete(stream);
    this.pictures.hidden = this.pictures.childElementCount === 0;
  }

  toggle(stream) {
    const about = this.streams.find(s => s.name === stream);
    if (this.panels.has(stream)) this.close(stream); else this.open(stream, about.kind);
    this.fillTable();
  }

  ask(panel) {
    const columns = Math.min(panel.kind === "picture" ? panel.view.wanted : panel.view.W ?? 1000,
      MOST_COLUMNS);
    this.send({op: "show", panel: panel.number, kind: panel.kind, stream: panel.stream, columns,
      ...panel.ranges ? {channels: panel.ranges} : {}});
    if (panel.bins)
      this.send({op: "show", panel: panel.bins, kind: "intervals", stream: panel.stream});
  }

  // Ask for everything, of a server that knows nothing.
  again() {
    if (!this.facts) return;
    if (this.range) this.tell();
    for (const panel of this.panels.values()) this.ask(panel);
  }

  fillTable() {
    this.tableNote.textContent = `${plural(this.streams.length, "stream")}, `
      + `${plural(this.facts.events, "event")}, ${this.facts.size}`;
    this.rows.replaceChildren(...this.streams.map(s => {
      const row = element("tr", "stream"), head = element("th", "", s.name);
      head.scope = "row";
      row.append(head);
      const gaps = (this.gaps[s.name] ?? []).length;
      const cells = [s.problem || s.what, whole(s.frames), s.hz == null ? "" : s.hz.toPrecision(4),
        span(s.span_s), whole(s.lost), whole(gaps)];
      cells.forEach((text, k) => row.append(
        element("td", k ? `n${k >= 4 && s.lost ? " bad" : ""}` : "", text)));
      const cell = row.insertCell();
      if (s.kind) {
        const isShown = this.panels.has(s.name);
        const button = element("button", "", isShown ? "shown" : "show");
        button.type = "button";
        button.setAttribute("aria-pressed", String(isShown));
        button.setAttribute("aria-label", `${isShown ? "hide" : "show"} ${s.name}`);
        button.addEventListener("click", () => this.toggle(s.name));
        cell.append(button);
      }
      return row;
    }));
  }

  // What the session's log says; a line leads to its time.
  fillLog() {
    const head = element("h2", "", "log"), list = element("ol");
    const box = element("div", "scroll");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "log of the session");
    for (const [at, text] of this.facts.notes) {
      const line = element("li"), button = element("button", "",
        timeText(Math.max(at, 0), 1e9, this.facts.begin_ms));
      button.type = "button";
      button.addEventListener("click", () => this.center(at));
      line.append(button, element("span", "", text));
      list.append(line);
    }
    this.log.hidden = !this.facts.notes.length;
    box.append(list);
    this.log.replaceChildren(head, box);
  }

  // ---- the span

  get length() { return this.range[1] - this.range[0]; }

  // Look at a span, ns; it stays within the recording, with a little margin.
  look(start, stop) {
    const end = this.facts.end, most = end * (1 + 2 * MARGIN);
    const length = Math.min(Math.max(stop - start, this.leastNs), most);
    const middle = (start + stop) / 2;
    start = Math.min(Math.max(middle - length / 2, -end * MARGIN), end * (1 + MARGIN) - length);
    this.range = [Math.round(start), Math.round(start + length)];
    this.navigator.show(...this.range);
    for (const panel of this.panels.values()) panel.view.shift?.(this.range);
    if (!this.isTelling) {
      this.isTelling = true;
      requestAnimationFrame(() => { this.isTelling = false; this.tell(); });
    }
    this.onLook?.(this.range);
  }

  tell() {
    this.send({op: "span", start: this.range[0], stop: this.range[1]});
  }

  whole() { this.look(-MARGIN * this.facts.end, this.facts.end * (1 + MARGIN)); }

  // Zoom by a factor around a place of the span, 0 to 1.
  zoom(factor, place = 0.5) {
    const at = this.range[0] + place * this.length, length = this.length * factor;
    this.look(at - place * length, at + (1 - place) * length);
  }

  move(share) {
    const by = share * this.length;
    this.look(this.range[0] + by, this.range[1] + by);
  }

  center(at) { this.look(at - this.length / 2, at + this.length / 2); }

  toStart() { this.look(0, this.length); }
  toEnd() { this.look(this.facts.end - this.length, this.facts.end); }

  // The next event or gap behind (or before) the middle, at a quarter of the span.
  nextOf(times, direction) {
    const middle = (this.range[0] + this.range[1]) / 2, near = this.length * 1e-3;
    const found = direction > 0 ? times.find(t => t > middle + near)
      : times.findLast(t => t < middle - near);
    if (found != null) {
      if (this.length > this.facts.end / 20) this.zoom(this.facts.end / 50 / this.length);
      this.center(found);
    }
  }

  nextEvent(direction) { this.nextOf(this.marks.map(m => m[0]), direction); }

  nextGap() {
    const all = Object.values(this.gaps).flat().map(([a, b]) => (a + b) / 2).sort((a, b) => a - b);
    this.nextOf(all, 1);
  }

  placeOf(event) {
    const plot = event.target.closest?.(".plot");
    if (!plot) return null;
    const box = plot.getBoundingClientRect(), left = 46;
    return Math.min(Math.max((event.clientX - box.left - left) / (box.width - left), 0), 1);
  }

  wheel(event) {
    const place = this.placeOf(event);
    if (place == null || !this.range || event.ctrlKey) return;
    event.preventDefault();
    const scale = event.deltaMode ? 30 : 1;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX * scale * WHEEL / 2);
    else if (event.shiftKey) this.move(event.deltaY * scale * WHEEL / 2);
    else this.zoom(Math.exp(event.deltaY * scale * WHEEL), place);
  }

  grab(event) {
    const place = this.placeOf(event);
    if (place == null || event.button !== 0 || !this.range) return;
    this.held = {place, range: [...this.range]};
    event.target.setPointerCapture?.(event.pointerId);
  }

  drag(event) {
    if (!this.held) return this.pointAt(this.placeOf(event));
    const place = this.placeOf(event);
    if (place == null) return;
    const [start, stop] = this.held.range, by = (this.held.place - place) * (stop - start);
    this.look(start + by, stop + by);
  }

  drop() { this.held = null; }

  // Pictures are those nearest to the pointer; without one, to the middle.
  pointAt(place) {
    if (!this.range || ![...this.panels.values()].some(p => p.kind === "picture")) return;
    const at = place == null ? null : Math.round(this.range[0] + place * this.length);
    if (at === this.pointed) return;
    this.pointed = at;
    clearTimeout(this.pointing);
    this.pointing = setTimeout(() => this.send({op: "cursor", at}), 40);
  }

  end() {
    this.sizes.disconnect();
    clearTimeout(this.resizing);
  }

  // ---- channels, scale, size

  get traces() { return [...this.panels.values()].filter(p => p.kind === "traces"); }

  scale(direction) { this.traces.forEach(p => p.view.zoom(direction)); }

  solo() {
    const panel = this.traces.find(p => p.view.channelUnder != null) ?? this.traces[0];
    if (!panel) return;
    const k = (panel.view.channelUnder ?? 0) + panel.view.first;
    panel.ranges = panel.ranges ? undefined : [[k, k + 1]];
    panel.view.first = panel.ranges ? k : 0;
    panel.view.only = Boolean(panel.ranges);
    panel.view.perRow = 0;
    this.ask(panel);
  }

  changeMap() {
    for (const {view, kind} of this.panels.values()) if (kind === "picture") {
      view.changeMap();
      if (view.last) view.add(view.last);
    }
  }

  repaint() {
    for (const {view} of this.panels.values()) if (view.n) { view.paint(); view.redraw(); }
    this.navigator.draw();
    this.intervals.draw();
  }

  queueResize() {
    clearTimeout(this.resizing);
    this.resizing = setTimeout(() => {
      for (const panel of this.panels.values())
        if (panel.view.resize() && panel.kind === "traces") this.ask(panel);
      this.navigator.draw();
      this.intervals.draw();
    }, SETTLE_MS);
  }

  // What a key does; undefined: nothing.
  get keys() {
    return {
      ArrowLeft: e => this.move(e.shiftKey ? -1 : -0.2),
      ArrowRight: e => this.move(e.shiftKey ? 1 : 0.2),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      "0": () => this.whole(), Home: () => this.toStart(), End: () => this.toEnd(),
      n: () => this.nextEvent(1), p: () => this.nextEvent(-1), g: () => this.nextGap(),
      "]": () => this.scale(1), "[": () => this.scale(-1), a: () => this.scale(0),
      s: () => this.solo(), c: () => this.changeMap(),
    };
  }

  press(event) {
    const own = event.target.closest?.("select, dialog, input");
    if (own || event.ctrlKey || event.metaKey || event.altKey || !this.range) return false;
    const call = this.keys[event.key];
    if (!call) return false;
    event.preventDefault();
    call(event);
    return true;
  }
}
