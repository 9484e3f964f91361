// A recording from the microphone; it is released at the end, whatever happens.

import { resample } from "./audio.js";

const LONGEST = 600; // seconds

export class Recorder {
  #stream = null;
  #context = null;
  #parts = [];
  #length = 0;

  // Starts; `onLevel(level, seconds)` hears how loud it is, `onFull()` that no more is kept.
  async start({ onLevel, onFull }) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Recording needs https or localhost, and a browser with a microphone.");
    }
    const audio = {
      channelCount: 1,
      echoCancellation: false,
      noiseSuppression: false,
      autoGainControl: false,
    };
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new Error(refusal(error));
    }
    try {
      this.#context = new AudioContext();
      await this.#context.audioWorklet.addModule(new URL("recorder_worklet.js", import.meta.url));
      const node = new AudioWorkletNode(this.#context, "recorder", { channelCount: 1 });
      node.port.onmessage = ({ data }) => {
        this.#parts.push(data);
        this.#length += data.length;
        const seconds = this.#length / this.#context.sampleRate;
        onLevel(data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0), seconds);
        if (seconds > LONGEST) onFull();
      };
      // Its output is silence; without a destination nothing would run.
      this.#context.createMediaStreamSource(this.#stream).connect(node);
      node.connect(this.#context.destination);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  // Ends; returns the samples at 16 kHz.
  async stop() {
    const rate = this.#context.sampleRate;
    this.release();
    const samples = new Float32Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      samples.set(part, at);
      at += part.length;
    }
    if (!samples.length) throw new Error("The microphone gave no sound.");
    return resample(samples, rate);
  }

  release() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context?.state !== "closed") this.#context?.close();
    this.#stream = null;
  }
}

function refusal(error) {
  if (error.name === "NotAllowedError") return "The browser was not allowed to use the microphone.";
  if (error.name === "NotFoundError") return "No microphone was found.";
  return `The microphone cannot be used: ${error.message}`;
}
