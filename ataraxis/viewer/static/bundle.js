// Bundle: what one message of the server carries; bundle.py is the other side.

export const STATE = 1, COLUMNS = 2, PICTURE = 3, BINS = 4;
const MAGIC = 0x31565841, VERSION = 1; // "AXV1"
const ARRAYS = [null, Int8Array, Uint8Array, Int16Array, Uint16Array, Int32Array,
  Uint32Array, Float32Array, Float64Array];
const text = new TextDecoder();

// Return {nowNs, tick, parts} of an ArrayBuffer; numbers are views into it.
export function decode(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 24 || view.getUint32(0, true) !== MAGIC)
    throw new Error("this is not a bundle");
  if (view.getUint16(4, true) !== VERSION) throw new Error("reload the page");
  const parts = [], count = view.getUint16(6, true);
  let at = 24;
  for (let k = 0; k < count; k++) {
    const kind = view.getUint8(at), flags = view.getUint8(at + 1);
    const panel = view.getUint16(at + 2, true), size = view.getUint32(at + 4, true);
    at += 8;
    parts.push({kind, flags, panel, ...READ[kind](buffer, view, at, size)});
    at += size + (8 - size % 8) % 8;
  }
  return {nowNs: view.getBigInt64(8, true), tick: Number(view.getBigUint64(16, true)),
    parts};
}

function readState(buffer, view, at, size) {
  return {state: JSON.parse(text.decode(new Uint8Array(buffer, at, size)))};
}

function readColumns(buffer, view, at) {
  const count = view.getUint32(at + 24, true), channels = view.getUint16(at + 28, true);
  const ArrayOf = ARRAYS[view.getUint8(at + 30)], values = count * channels;
  return {
    first: Number(view.getBigInt64(at, true)),
    timeNs: view.getBigInt64(at + 8, true),
    nsAColumn: view.getFloat64(at + 16, true), count, channels,
    low: new ArrayOf(buffer, at + 32, values),
    high: new ArrayOf(buffer, at + 32 + values * ArrayOf.BYTES_PER_ELEMENT, values),
  };
}

function readPicture(buffer, view, at, size) {
  return {
    sequence: Number(view.getBigInt64(at, true)),
    timeNs: view.getBigUint64(at + 8, true),
    width: view.getUint16(at + 16, true), height: view.getUint16(at + 18, true),
    encoding: view.getUint8(at + 20), channels: view.getUint8(at + 21),
    low: view.getFloat32(at + 24, true), high: view.getFloat32(at + 28, true),
    wholeWidth: view.getUint16(at + 32, true),
    wholeHeight: view.getUint16(at + 34, true),
    data: new Uint8Array(buffer, at + 40, size - 40),
  };
}

function readBins(buffer, view, at) {
  const count = view.getUint32(at + 16, true);
  return {first: view.getFloat64(at, true), step: view.getFloat64(at + 8, true),
    counts: new Uint32Array(buffer, at + 24, count)};
}

const READ = [null, readState, readColumns, readPicture, readBins];
