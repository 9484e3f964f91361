// The log-mel spectrogram that the model hears: 80 mel bands, windows of 25 ms, Whisper's scale.

import { RATE } from "./audio.js";

const BANDS = 80;
const WINDOW = 400;
const SIZE = 512; // of the transform: the next power of two
const HOP = 160;
const MOST_COLUMNS = 2000;

// Returns {columns, values}: values [columns, bands] between 0 and 1.
export function logMel(samples) {
  const hop = Math.max(HOP, Math.ceil(samples.length / MOST_COLUMNS));
  const columns = Math.max(1, Math.ceil(samples.length / hop));
  const filters = melFilters();
  const values = new Float32Array(columns * BANDS);
  const real = new Float64Array(SIZE);
  const imaginary = new Float64Array(SIZE);
  let loudest = -Infinity;
  for (let column = 0; column < columns; column += 1) {
    const start = column * hop - WINDOW / 2;
    real.fill(0);
    imaginary.fill(0);
    for (let i = 0; i < WINDOW; i += 1) {
      const fade = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW);
      real[i] = fade * (samples[start + i] ?? 0);
    }
    transform(real, imaginary);
    filters.forEach((filter, band) => {
      let power = 0;
      filter.weights.forEach((weight, i) => {
        const bin = filter.first + i;
        power += weight * (real[bin] ** 2 + imaginary[bin] ** 2);
      });
      const value = Math.log10(Math.max(power, 1e-10));
      values[column * BANDS + band] = value;
      loudest = Math.max(loudest, value);
    });
  }
  // As in Whisper, what is 80 dB below the loudest is silence.
  values.forEach((value, i) => {
    values[i] = Math.max(value - loudest + 8, 0) / 8;
  });
  return { columns, values };
}

// Draws it, low bands at the bottom.
export function drawSpectrogram(canvas, { columns, values }) {
  const image = new ImageData(columns, BANDS);
  for (let column = 0; column < columns; column += 1) {
    for (let band = 0; band < BANDS; band += 1) {
      const at = 4 * ((BANDS - 1 - band) * columns + column);
      image.data.set(heat(values[column * BANDS + band]), at);
    }
  }
  canvas.width = columns;
  canvas.height = BANDS;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Draws [time, rows] of weights, each time step on a scale of its own; row 0 at the bottom.
export function drawWeights(canvas, weights) {
  const rows = weights[0].length;
  const image = new ImageData(weights.length, rows);
  weights.forEach((step, column) => {
    const most = Math.max(...step);
    step.forEach((weight, row) => {
      image.data.set(heat(weight / most), 4 * ((rows - 1 - row) * weights.length + column));
    });
  });
  canvas.width = weights.length;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const STOPS = [
  [13, 8, 28],
  [52, 20, 84],
  [112, 38, 116],
  [178, 54, 106],
  [232, 92, 84],
  [252, 158, 106],
  [255, 226, 178],
];

function heat(value) {
  const place = Math.max(0, Math.min(1, value)) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  const mixed = STOPS[low].map((from, i) => from + (place - low) * (STOPS[low + 1][i] - from));
  return [...mixed, 255];
}

let made = null;

// Triangles of equal area on Slaney's mel scale.
function melFilters() {
  if (made) return made;
  const step = Math.log(6.4) / 27;
  const toMel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + Math.log(hz / 1000) / step);
  const toHz = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp(step * (mel - 15)));
  const top = toMel(RATE / 2);
  const edges = Array.from({ length: BANDS + 2 }, (_, i) => toHz((top * i) / (BANDS + 1)));
  made = Array.from({ length: BANDS }, (_, band) => {
    const [low, middle, high] = edges.slice(band, band + 3);
    const first = Math.floor((low * SIZE) / RATE);
    const last = Math.ceil((high * SIZE) / RATE);
    const weights = [];
    for (let bin = first; bin <= last; bin += 1) {
      const hz = (bin * RATE) / SIZE;
      const rise = Math.min((hz - low) / (middle - low), (high - hz) / (high - middle));
      weights.push((2 * Math.max(0, rise)) / (high - low));
    }
    return { first, weights };
  });
  return made;
}

// The discrete Fourier transform in place, by halves.
function transform(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i += 1) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let length = 2; length <= SIZE; length <<= 1) {
    const half = length >> 1;
    for (let k = 0; k < half; k += 1) {
      const cosine = Math.cos((-2 * Math.PI * k) / length);
      const sine = Math.sin((-2 * Math.PI * k) / length);
      for (let low = k; low < SIZE; low += length) {
        const high = low + half;
        const x = real[high] * cosine - imaginary[high] * sine;
        const y = real[high] * sine + imaginary[high] * cosine;
        real[high] = real[low] - x;
        imaginary[high] = imaginary[low] - y;
        real[low] += x;
        imaginary[low] += y;
      }
    }
  }
}
