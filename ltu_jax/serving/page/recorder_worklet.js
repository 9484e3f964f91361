// Hands the samples of its input to the page, in pieces of about a tenth of a second.

class RecorderProcessor extends AudioWorkletProcessor {
  #kept = new Float32Array(4096);
  #used = 0;

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    if (this.#used + samples.length > this.#kept.length) {
      this.port.postMessage(this.#kept.slice(0, this.#used));
      this.#used = 0;
    }
    this.#kept.set(samples, this.#used);
    this.#used += samples.length;
    return true;
  }
}

registerProcessor("recorder", RecorderProcessor);
