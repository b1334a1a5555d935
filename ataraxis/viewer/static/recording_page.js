// The page of a recording: its link, its header and its keys.

import {Link, takeToken} from "./link.js";
import {Recording} from "./recording.js";
import {startTheme, toggleTheme} from "./theme.js";
import {wallText} from "./times.js";

const find = id => document.getElementById(id);
const layout = new URLSearchParams(location.hash.slice(1));
startTheme(layout.get("theme"));
const token = takeToken();

function say({tone, text}) {
  find("verdict").className = tone;
  if (find("words").textContent !== text) find("words").textContent = text;
  document.title = `${tone === "bad" ? "! " : ""}${find("name").textContent}: ${text}`;
}

const chosen = (layout.get("show") ?? "").split(",").filter(Boolean).map(decodeURIComponent);
const recording = new Recording(find("view"), message => link.send(message), say, chosen);
globalThis.viewCounts = recording.counts;
globalThis.recording = recording;

// The span is in the link: a link to it shows the same.
let remembering = 0;
recording.onLook = ([start, stop]) => {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    layout.set("start", (start / 1e9).toFixed(6));
    layout.set("stop", (stop / 1e9).toFixed(6));
    history.replaceState(null, "", `#${layout}`);
  }, 300);
};
recording.onBegin = facts => {
  find("name").textContent = facts.name;
  find("place").textContent = [facts.length, facts.size, wallText(facts.begin_ms, 0)]
    .filter(Boolean).join(" · ");
  find("place").title = facts.path;
  const given = ["start", "stop"].map(key => Number(layout.get(key)) * 1e9);
  if (given[1] > given[0]) recording.look(...given);
};

const link = new Link(token, bundle => recording.take(bundle), (now, words) => {
  if (now === "open") { recording.again(); return; }
  say({tone: "bad", text: words || (now === "refused"
    ? "this page needs the printed link, or the view has ended" : "the view has ended")});
});

function changeTheme() {
  layout.set("theme", toggleTheme());
  recording.repaint();
  history.replaceState(null, "", `#${layout}`);
}

const clicks = {all: () => recording.whole(), in: () => recording.zoom(0.5),
  out: () => recording.zoom(2), theme: changeTheme, help: () => find("keys").showModal()};
for (const [id, call] of Object.entries(clicks))
  find(id).addEventListener("click", () => { if (recording.range || id === "theme" || id === "help") call(); });
addEventListener("keydown", event => {
  if (recording.press(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("dialog")) return;
  if (event.key === "t") changeTheme();
  if (event.key === "?") find("keys").showModal();
});
function frame() {
  recording.counts.frames++;
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);
