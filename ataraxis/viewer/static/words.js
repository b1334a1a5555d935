// Words: numbers as people read them.

const commas = new Intl.NumberFormat("en-US");

export const whole = n => commas.format(Math.round(n));

export function digits(n, count = 3) {
  if (!Number.isFinite(n)) return "–";
  if (n === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(n)));
  if (size >= 7 || size < -4) return n.toExponential(count - 1);
  return commas.format(Number(n.toPrecision(Math.max(count, size + 1))));
}

export function bytes(n) {
  if (n == null) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (n < 1000) return `${digits(n)} ${unit}`;
    n /= 1000;
  }
  return `${digits(n)} TB`;
}

export function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 120) return `${digits(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// 1:02:03 or 2:03.
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds)), two = n => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

export const plural = (n, noun) => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`;

// A round number at or below n: 1, 2 or 5 times a power of ten.
export function round125(n) {
  const power = 10 ** Math.floor(Math.log10(n)), rest = n / power;
  return (rest >= 5 ? 5 : rest >= 2 ? 2 : 1) * power;
}

// The newest `most` events of each name, in order: a frequent one displaces no other.
export function newestOfEach(events, most) {
  const found = new Map();
  return [...events].reverse().filter(({name}) => {
    found.set(name, (found.get(name) ?? 0) + 1);
    return found.get(name) <= most;
  }).reverse();
}

// Whether a stream holds the offsets of another host's clock: shown if it is asked for.
export const isClock = name => name.startsWith("clock.");

// How often each name occurs among events.
export function countNames(events) {
  const found = new Map();
  for (const {name} of events) found.set(name, (found.get(name) ?? 0) + 1);
  return found;
}
