// Theme: light or dark, and the colours that canvases take from it.

const probe = document.createElement("canvas").getContext("2d",
  {willReadFrequently: true});

let root = document.documentElement;

// Take the colours from another element: the widget's, in a notebook.
export function setRoot(element) { root = element; }

export const isDark = () => root.dataset.theme !== "light";

export function startTheme(chosen) {
  const dark = chosen ? chosen === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "dark" : "light";
}

export function toggleTheme() {
  startTheme(isDark() ? "light" : "dark");
  return root.dataset.theme;
}

export function colour(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

// The four bytes of a CSS colour, as ImageData has them.
export function pixel(css) {
  probe.clearRect(0, 0, 1, 1);
  probe.fillStyle = css;
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
  return (a << 24 | b << 16 | g << 8 | r) >>> 0;
}

// Channel k of n: even lightness in OKLCH, so that no hue is darker than another.
export function channelColour(k, n) {
  const hue = 165 + 155 * (n > 1 ? k / (n - 1) : 0.25);
  return isDark() ? `oklch(0.78 0.105 ${hue})` : `oklch(0.48 0.115 ${hue})`;
}
