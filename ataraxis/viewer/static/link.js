// Link: the socket to the server, its token, and the acknowledgements.

import {decode} from "./bundle.js";

const RETRY_MS = 1000, KEY = "ataraxis-token";

// Move the token out of the address bar; the page keeps it for this tab.
export function takeToken() {
  const url = new URL(location.href), given = url.searchParams.get("token");
  if (given) {
    try { sessionStorage.setItem(KEY, given); } catch { /* no storage: until reloaded */ }
    url.searchParams.delete("token");
    history.replaceState(null, "", url);
    return given;
  }
  try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

export class Link {
  // onBundle(bundle) is called within a frame of the browser, so a hidden page gets
  // nothing; onState("open" | "closed" | "refused", words) when the link changes.
  constructor(token, onBundle, onState) {
    this.token = token;
    this.onBundle = onBundle;
    this.onState = onState;
    this.pending = [];
    this.bytes = 0;
    this.isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.connect();
  }

  connect() {
    const url = new URL("socket", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.search = new URLSearchParams({token: this.token});
    url.hash = "";
    const socket = this.socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    let wasOpen = false;
    socket.onopen = () => { wasOpen = true; this.onState("open", ""); };
    socket.onmessage = event => {
      this.bytes += event.data.byteLength;
      this.pending.push(event.data);
      if (this.pending.length === 1) this.schedule();
    };
    socket.onclose = event => {
      this.pending.length = 0;
      this.onState(wasOpen ? "closed" : "refused", event.reason);
      if (event.code !== 1003 && event.code !== 1013)
        setTimeout(() => this.connect(), RETRY_MS);
    };
  }

  schedule() {
    const draw = () => requestAnimationFrame(() => this.deliver());
    if (this.isCalm) setTimeout(draw, 250); else draw();
  }

  deliver() {
    const taken = this.pending.splice(0);
    let tick = 0;
    for (const data of taken) {
      const bundle = decode(data);
      tick = bundle.tick;
      this.onBundle(bundle);
    }
    if (tick) this.send({op: "ack", tick});
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN)
      this.socket.send(JSON.stringify(message));
  }
}
