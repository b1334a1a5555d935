// Widget: traces and pictures in a notebook, by messages of its kernel; no port.

import {COLUMNS, PICTURE, STATE, decode} from "./bundle.js";
import {Hosts} from "./hosts.js";
import {Picture} from "./picture.js";
import {setRoot, startTheme} from "./theme.js";
import {Traces} from "./traces.js";
import {isClock} from "./words.js";

// Whether the notebook is dark: by the lightness of its ground.
export function isDarkBehind(element) {
  for (let e = element; e; e = e.parentElement) {
    const found = /rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?/.exec(
      getComputedStyle(e).backgroundColor);
    if (found && found[4] !== "0") return (+found[1] + +found[2] + +found[3]) / 3 < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

export function render({model, el}) {
  const shadow = el.attachShadow({mode: "open"});
  const sheet = document.createElement("style");
  sheet.textContent = model.get("sheet");
  const root = document.createElement("div");
  root.className = "widget";
  shadow.append(sheet, root);
  setRoot(root);
  startTheme(isDarkBehind(el) ? "dark" : "light");
  const verdict = document.createElement("p");
  verdict.id = "verdict";
  verdict.setAttribute("role", "status");
  const dot = Object.assign(document.createElement("span"), {className: "dot"});
  const words = document.createElement("span");
  verdict.append(dot, words);
  const bar = Object.assign(document.createElement("div"), {className: "bar"});
  bar.append(verdict);
  const hosts = new Hosts();
  root.append(bar, hosts.element);

  const panels = new Map(), counts = {frames: 0, bundles: 0, columns: 0, gaps: 0, pictures: 0};
  el.viewCounts = counts;
  const pending = [], seconds = model.get("seconds");
  let next = 1, labels = {}, streams = [], isOver = false, lastMs = 0;
  const send = message => model.send({view: JSON.stringify(message)});

  function open(about) {
    const view = about.kind === "picture" ? new Picture(about.name) : new Traces(about.name);
    const panel = {view, kind: about.kind, number: next++, id: about.id};
    panels.set(about.name, panel);
    view.element.classList.add(about.kind);
    if (panel.kind === "traces") view.meta = labels[about.id] ?? view.meta;
    root.append(view.element);
    view.resize();
    ask(about.name, panel);
    new ResizeObserver(() => {
      if (view.resize() && panel.kind === "traces") ask(about.name, panel);
    }).observe(view.plot);
  }

  function ask(stream, panel) {
    panel.view.reset?.();
    const ranges = model.get("channels");
    send({op: "show", panel: panel.number, kind: panel.kind, stream, seconds,
      columns: Math.min(8192, panel.kind === "picture" ? panel.view.wanted : panel.view.W ?? 800),
      ...panel.kind === "traces" && ranges.length ? {channels: ranges} : {}});
  }

  function take(data) {
    const bundle = decode(data);
    counts.bundles++;
    for (const part of bundle.parts) {
      const panel = [...panels.values()].find(p => p.number === part.panel);
      if (part.kind === STATE) takeState(part.state);
      else if (part.kind === COLUMNS && panel) {
        panel.view.add(part, seconds);
        counts.columns += part.count;
        counts.gaps += panel.view.gaps; panel.view.gaps = 0;
      } else if (part.kind === PICTURE && panel) { panel.view.add(part); counts.pictures++; }
    }
    return bundle.tick;
  }

  function takeState(news) {
    labels = news.labels ?? labels;
    streams = news.streams ?? streams;
    if (news.verdict) { verdict.className = news.verdict.tone; words.textContent = news.verdict.text; }
    if (news.hosts) hosts.update(news.hosts);
    if (news.events) for (const {view} of panels.values()) view.addEvents?.(news.events);
    const names = model.get("streams");
    const wanted = streams.filter(s => s.kind && (names.length ? names.includes(s.name) 
      : !s.is_ended && !isClock(s.name)));
    // In the order asked for, else traces before pictures.
    const place = s => names.length ? names.indexOf(s.name) : s.kind === "picture" ? 1 : 0;
    wanted.sort((a, b) => place(a) - place(b));
    for (const about of wanted.slice(0, 6)) if (!panels.has(about.name)) open(about);
  }

  const onMessage = (message, buffers) => {
    const view = buffers[0];
    if (!view) return;
    const data = view.buffer ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)
      : view;
    pending.push(data);
  };
  model.on("msg:custom", onMessage);

  function frame(ms) {
    if (isOver) return;
    counts.frames++;
    let tick = 0;
    for (const data of pending.splice(0)) tick = take(data);
    if (tick) send({op: "ack", tick});
    if (ms - lastMs > 240) {
      lastMs = ms;
      for (const {view} of panels.values()) view.overlay?.();
    }
    requestAnimationFrame(frame);
  }
  requestAnimationFrame(frame);
  send({op: "hello"});
  return () => { isOver = true; model.off("msg:custom", onMessage); send({op: "bye"}); };
}

export default {render};
