// Clips as the model hears them: 16 kHz mono, and WAV files of 16 bits made of them.

export const RATE = 16000;

// Samples of any audio that the browser reads.
export async function decode(blob, name) {
  const bytes = await blob.arrayBuffer();
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error(`${name} is no audio that this browser reads. Use WAV, FLAC, MP3, OGG or M4A.`);
  }
  return mono(buffer);
}

function mono(buffer) {
  const channels = buffer.numberOfChannels;
  if (channels === 1) return buffer.getChannelData(0).slice();
  const mixed = new Float32Array(buffer.length);
  for (let channel = 0; channel < channels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mixed.length; i += 1) mixed[i] += samples[i] / channels;
  }
  return mixed;
}

// Samples of another rate at 16 kHz, by the browser's own resampler.
export async function resample(samples, rate) {
  if (rate === RATE) return samples;
  const length = Math.max(1, Math.round((samples.length * RATE) / rate));
  const context = new OfflineAudioContext(1, length, RATE);
  const buffer = context.createBuffer(1, samples.length, rate);
  buffer.copyToChannel(samples, 0);
  const source = context.createBufferSource();
  source.buffer = buffer;
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

// A WAV file: 16 kHz, mono, 16 bits.
export function wav(samples) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const ascii = (at, text) => [...text].forEach((c, i) => bytes.setUint8(at + i, c.charCodeAt(0)));
  ascii(0, "RIFF");
  bytes.setUint32(4, 36 + 2 * samples.length, true);
  ascii(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true);
  bytes.setUint16(22, 1, true);
  bytes.setUint32(24, RATE, true);
  bytes.setUint32(28, 2 * RATE, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  ascii(36, "data");
  bytes.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    const bounded = Math.max(-1, Math.min(1, sample));
    bytes.setInt16(44 + 2 * i, Math.round(bounded * 32767), true);
  });
  return new Blob([bytes], { type: "audio/wav" });
}

// The largest sample of each of `count` stretches, for the drawing of a waveform.
export function peaks(samples, count) {
  const size = Math.max(1, Math.ceil(samples.length / count));
  return Float32Array.from({ length: Math.ceil(samples.length / size) }, (_, i) => {
    let most = 0;
    for (const sample of samples.subarray(i * size, (i + 1) * size)) {
      if (Math.abs(sample) > Math.abs(most)) most = sample;
    }
    return most;
  });
}

export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// The base64 text of a blob.
export async function base64(blob) {
  return (await dataUrl(blob)).split(",", 2)[1];
}
