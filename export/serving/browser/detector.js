// Runs a TFLite file of kind "detections", made by `ssd-keras export tflite`.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

/**
 * Loads the LiteRT runtime and a detector.
 *
 * @param {string} url URL of the TFLite file.
 * @param {string} wasm URL of the folder with the runtime's files.
 * @returns {Promise<Detector>}
 * @throws {Error} If the file cannot be loaded or is of another kind.
 */
export async function loadDetector(url, wasm = "./node_modules/@litertjs/core/wasm/") {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const file = new Uint8Array(await response.arrayBuffer());
  const description = readDescription(file, url);
  if (description.kind !== "detections") {
    throw new Error(`${url} is of kind "${description.kind}": export it with --kind=detections`);
  }
  const threads = await loadRuntime(wasm);
  const model = await loadAndCompile(file, {
    accelerator: "wasm", // the GPU accelerator lacks the suppression operator
    cpuOptions: { numThreads: threads ? navigator.hardwareConcurrency || 1 : 1 },
  });
  return new Detector(model, description, threads);
}

/**
 * Loads the LiteRT runtime, with threads if possible. Threads need relaxed SIMD in the browser, and
 * two HTTP headers that isolate the page from other sites (see serve.py).
 *
 * @returns {Promise<boolean>} Whether threads are available.
 */
async function loadRuntime(wasm) {
  if (globalThis.crossOriginIsolated) {
    try {
      await loadLiteRt(wasm, { threads: true });
      return true;
    } catch (error) {
      console.warn(`threads are not available: ${error.message}`);
    }
  }
  await loadLiteRt(wasm);
  return false;
}

export class Detector {
  constructor(model, description, threads) {
    const input = model.getInputDetails()[0];
    this.model = model;
    this.description = description; // labels, thresholds and config, see export_tflite
    this.threads = threads; // whether several threads are used
    this.size = input.shape[1];
    this.array = input.dtype === "uint8" ? Uint8ClampedArray : Float32Array;
  }

  /**
   * Detects on one image.
   *
   * @param {{data: Uint8ClampedArray, width: number, height: number}} picture RGBA, as ImageData.
   * @returns {Promise<{label: string, score: number, box: number[]}[]>} In descending order of score.
   *     Boxes are [ymin, xmin, ymax, xmax], as fractions of the image.
   */
  async detect(picture) {
    const pixels = this.array.from(resize(picture, this.size)); // Uint8ClampedArray rounds
    const values = this.array === Float32Array ? pixels : new Uint8Array(pixels.buffer);
    const image = new Tensor(values, [1, this.size, this.size, 3]);
    const outputs = await this.model.run({ image });
    const found = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      found[name] = await tensor.data();
      tensor.delete();
    }
    image.delete();
    return Array.from({ length: Number(found.num_detections[0]) }, (_, i) => ({
      label: this.description.labels[Number(found.detection_classes[i]) - 1],
      score: found.detection_scores[i],
      box: Array.from(found.detection_boxes.subarray(4 * i, 4 * i + 4)),
    }));
  }
}

/**
 * Resizes an image to a square by bilinear interpolation between pixel centers, without
 * antialiasing, as in training and evaluation. A canvas would apply the browser's own filter.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} picture RGBA, as ImageData.
 * @param {number} size Edge of the square in pixels.
 * @returns {Float32Array} [size, size, 3], RGB 0..255.
 */
export function resize({ data, width, height }, size) {
  const out = new Float32Array(size * size * 3);
  const columns = axis(width, size);
  let at = 0;
  for (const [top, bottom, down] of axis(height, size)) {
    for (const [left, right, along] of columns) {
      for (let channel = 0; channel < 3; channel++) {
        const pixel = (y, x) => data[4 * (y * width + x) + channel];
        const upper = pixel(top, left) + (pixel(top, right) - pixel(top, left)) * along;
        const lower = pixel(bottom, left) + (pixel(bottom, right) - pixel(bottom, left)) * along;
        out[at++] = upper + (lower - upper) * down;
      }
    }
  }
  return out;
}

/** For each pixel of a resized axis: its two neighbors on the original axis, and the weight of the second. */
function axis(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const place = ((i + 0.5) * from) / to - 0.5;
    const before = Math.floor(place);
    return [Math.max(before, 0), Math.min(before + 1, from - 1), place - before];
  });
}

/**
 * Reads detector.json, which export_tflite stored in a zip archive at the end of the TFLite file.
 *
 * @param {Uint8Array} file Content of the TFLite file.
 * @param {string} name Name of the file, for the error message.
 * @returns {Object} Kind, precision, labels, thresholds and config.
 * @throws {Error} If the file was not made by export_tflite.
 */
export function readDescription(file, name = "the file") {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const text = (start, length) => new TextDecoder().decode(file.subarray(start, start + length));
  let end = file.length - 22; // start of the zip end record, which has no comment
  if (end >= 0 && view.getUint32(end, true) === 0x06054b50) {
    let at = view.getUint32(end + 16, true);
    for (let entries = view.getUint16(end + 10, true); entries > 0; entries--) {
      const [length, extra, comment] = [28, 30, 32].map((k) => view.getUint16(at + k, true));
      if (text(at + 46, length) === "detector.json") {
        const [bytes, header] = [24, 42].map((k) => view.getUint32(at + k, true));
        const skip = view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
        return JSON.parse(text(header + 30 + skip, bytes)); // stored, not compressed
      }
      at += 46 + length + extra + comment;
    }
  }
  throw new Error(`${name} contains no detector.json: it must be made by ssd-keras export tflite`);
}
