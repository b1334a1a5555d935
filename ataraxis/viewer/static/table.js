// Table: streams and their readers; this page is counted in the heading.

import {bytes, digits, plural, span, whole} from "./words.js";

// Bring the rows of a table body in line with `rows`, changing what has changed.
export class Table {
  constructor(section, onShow) {
    this.body = section.querySelector("tbody");
    this.counts = section.querySelector("#counts");
    this.onShow = onShow;
  }

  update(streams, pages, shown) {
    const rows = [];
    for (const s of streams) {
      rows.push(this.ofStream(s, shown));
      for (const r of s.readers ?? []) rows.push(ofReader(r, s));
    }
    while (this.body.rows.length > rows.length) this.body.lastElementChild.remove();
    rows.forEach((row, k) => this.fill(this.body.rows[k] ?? this.insert(), row));
    this.counts.textContent =
      `${plural(streams.length, "stream")}, ${plural(pages, "page")} open`;
  }

  insert() {
    const row = this.body.insertRow();
    const head = row.appendChild(document.createElement("th"));
    head.scope = "row";
    for (let k = 1; k < 9; k++) row.insertCell();
    for (let k = 2; k < 8; k++) row.cells[k].className = "n";
    return row;
  }

  fill(row, {kind, cells, pill, tones, button}) {
    if (row.className !== kind) row.className = kind;
    cells.forEach((text, k) => {
      const cell = row.cells[k];
      if (k === 1 && pill) return setPill(cell, text, pill);
      if (cell.textContent !== text || cell.firstElementChild) cell.textContent = text;
      if (k >= 2) cell.className = k === 8 ? "" : tones?.[k] ? `n ${tones[k]}` : "n";
    });
    const last = row.cells[8];
    if (!button) { if (last.firstChild) last.replaceChildren(); return; }
    let b = last.querySelector("button");
    if (!b) {
      b = last.appendChild(document.createElement("button"));
      b.type = "button";
      b.addEventListener("click", () => this.onShow(b.dataset.stream));
    }
    b.dataset.stream = button.stream;
    b.setAttribute("aria-pressed", String(button.isShown));
    b.setAttribute("aria-label", `${button.isShown ? "hide" : "show"} ${button.stream}`);
    if (b.textContent !== button.text) b.textContent = button.text;
  }

  ofStream(s, shown) {
    if (s.problem) return {kind: "stream", cells: [s.name, s.problem, "", "", "", "", "", ""]};
    const isShown = shown.has(s.name);
    return {
      kind: "stream",
      cells: [s.name, s.is_ended ? `${s.what}, ended` : s.what, digits(s.frames_hz ?? NaN),
        bytes(s.bytes_hz), whole(s.sent), span(s.age_s), "", s.lost ? whole(s.lost) : ""],
      tones: {7: s.lost ? "bad" : ""},
      button: s.kind && {stream: s.name, isShown, text: isShown ? "shown" : "show"},
    };
  }
}

function ofReader(r, stream) {
  const isAway = r.away_s != null;
  const words = [r.policy, ...r.is_durable ? ["durable"] : [],
    ...isAway ? [`away ${span(r.away_s)}`] : []];
  return {
    kind: "reader",
    cells: [r.label, words.join(" · "), "", "", whole(r.received), "", whole(r.lag),
      whole(r.lost)],
    pill: isAway ? "pill away" : r.is_gating ? "pill gates" : "pill",
    tones: {7: r.lost ? "bad" : "", 6: stream.is_stalled && r.lag ? "bad" : ""},
  };
}

function setPill(cell, text, kind) {
  let pill = cell.firstElementChild;
  if (!pill) {
    cell.textContent = "";
    pill = cell.appendChild(document.createElement("span"));
  }
  if (pill.className !== kind) pill.className = kind;
  if (pill.textContent !== text) pill.textContent = text;
}
