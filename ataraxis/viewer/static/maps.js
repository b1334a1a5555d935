// Maps: colours of the 256 values of a grey picture.

const STOPS = {
  "automatic contrast": ["#000000", "#ffffff"],
  viridis: ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779",
    "#6ece58", "#b5de2b", "#fde725"],
  inferno: ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925",
    "#fb9b06", "#f7d13d", "#fcffa4"],
};

// Pixels for values 0 to 255; `low` and `high` have the first and the last colour.
export function tableOf(name, low, high) {
  const table = new Uint32Array(256), parts = STOPS[name].map(
    s => [1, 3, 5].map(at => parseInt(s.slice(at, at + 2), 16)));
  for (let v = 0; v < 256; v++) {
    const place = Math.min(1, Math.max(0, (v - low) / Math.max(1, high - low))) * (parts.length - 1);
    const k = Math.min(parts.length - 2, Math.floor(place)), share = place - k;
    const [r, g, b] = [0, 1, 2].map(
      i => Math.round(parts[k][i] + share * (parts[k + 1][i] - parts[k][i])));
    table[v] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  }
  return table;
}
