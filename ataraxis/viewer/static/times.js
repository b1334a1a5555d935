// Times of a recording: since its beginning, as exactly as the span needs.

const pad = (n, wide = 2) => String(n).padStart(wide, "0");

// A time in ns as "1:02:03.250"; `stepNs` is how far apart such times are.
export function timeText(ns, stepNs) {
  const sign = ns < 0 ? "−" : "", all = Math.abs(ns);
  const places = Math.min(9, Math.max(0, Math.ceil(-Math.log10(stepNs / 1e9) - 1e-9)));
  const unit = 10 ** (9 - places), rounded = Math.round(all / unit) * unit;
  const seconds = Math.floor(rounded / 1e9), rest = Math.round((rounded - seconds * 1e9) / unit);
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  const fraction = places ? `.${pad(rest, places)}` : "";
  if (hours) return `${sign}${hours}:${pad(minutes)}:${pad(seconds % 60)}${fraction}`;
  if (minutes) return `${sign}${minutes}:${pad(seconds % 60)}${fraction}`;
  return `${sign}${seconds}${fraction} s`;
}

// The distance of marks, ns, so that at most `count` are in a span.
const STEPS = [1, 2, 5];
const LONG = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200];

export function stepOf(spanNs, count) {
  const least = spanNs / count;
  for (let power = 1; power <= 1e9; power *= 10)
    for (const step of STEPS) if (step * power >= least && step * power <= 5e9) return step * power;
  for (const seconds of LONG) if (seconds * 1e9 >= least) return seconds * 1e9;
  return Math.ceil(least / 864e11) * 864e11;
}

// The wall time of the beginning, and so many ns behind it, in UTC.
export function wallText(beginMs, ns) {
  return beginMs == null ? "" : new Date(beginMs + ns / 1e6).toISOString().slice(0, 19).replace("T", " ") + " UTC";
}
