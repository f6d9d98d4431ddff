import { loadDetector } from "./detector.js";

const COLORS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000"];
const [MAX_PIXELS, MAX_SIDE] = [4096 * 4096, 8192]; // limits of a canvas on iOS and old devices
const element = (id) => document.getElementById(id);
const status = element("status");
const canvas = element("picture");
const context = canvas.getContext("2d", { willReadFrequently: true });

let detector = null;
let shown = null; // the image and its detections

function showStatus(message) {
  status.textContent = message;
}

/** Resizes the canvas. Returns false if the canvas is unusable, because the browser's limit is exceeded. */
function fits({ width, height }) {
  canvas.width = width;
  canvas.height = height;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data[3] > 0;
}

async function open(file) {
  if (!detector) return;
  let bitmap;
  try {
    // Rotates the image by its EXIF orientation, but keeps its colors as stored, as in training.
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(file, options);
    if (!fits(bitmap)) {
      const { width, height } = bitmap;
      const scale = Math.min(Math.sqrt(MAX_PIXELS / (width * height)), MAX_SIDE / Math.max(width, height), 1);
      const [resizeWidth, resizeHeight] = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
      bitmap = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
    }
  } catch {
    return showStatus(`This browser cannot read ${file.name} as an image.`);
  }
  showStatus("Detecting ...");
  await new Promise((resolve) => setTimeout(resolve)); // lets the browser show the status
  try {
    if (!fits(bitmap)) throw new Error("the image is too large for this browser");
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const start = performance.now();
    const found = await detector.detect(pixels);
    shown = { bitmap, found, milliseconds: performance.now() - start };
  } catch (error) {
    return showStatus(`Detection failed: ${error.message}`);
  }
  draw();
  window.detections = shown.found; // read by check.mjs
}

function draw() {
  element("least-value").value = Number(element("least").value).toFixed(2);
  if (!shown) return;
  const { bitmap, found, milliseconds } = shown;
  const visible = found.filter(({ score }) => score >= Number(element("least").value));
  context.drawImage(bitmap, 0, 0);
  const unit = Math.max(1, Math.max(bitmap.width, bitmap.height) / 400);
  context.lineWidth = 2 * unit;
  context.font = `${11 * unit}px system-ui, sans-serif`;
  context.textBaseline = "top";
  const rows = visible.map(({ label, score, box }) => {
    const [ymin, xmin, ymax, xmax] = box;
    const [x, y] = [xmin * bitmap.width, ymin * bitmap.height];
    const [width, height] = [(xmax - xmin) * bitmap.width, (ymax - ymin) * bitmap.height];
    const words = `${label} ${score.toFixed(2)}`;
    const labels = detector.description.labels;
    context.strokeStyle = context.fillStyle = COLORS[labels.indexOf(label) % COLORS.length];
    context.strokeRect(x, y, width, height);
    const top = Math.max(0, y - 14 * unit);
    context.fillRect(x - unit, top, context.measureText(words).width + 4 * unit, 14 * unit);
    context.fillStyle = "white";
    context.fillText(words, x + unit, top + unit);
    const row = document.createElement("tr");
    for (const value of [label, score.toFixed(3), ...box.map((edge) => edge.toFixed(3))]) {
      row.insertCell().textContent = value;
    }
    return row;
  });
  element("found").tBodies[0].replaceChildren(...rows);
  element("found").hidden = !rows.length;
  showStatus(`${rows.length} objects in ${milliseconds.toFixed(0)} ms.`);
}

element("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0]));
element("least").addEventListener("input", draw);
const drop = element("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // the browser would open the image instead of the page
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

try {
  const url = new URLSearchParams(location.search).get("model") ?? "detector.tflite";
  detector = await loadDetector(url);
  window.threads = detector.threads; // read by check.mjs
  showStatus(`Ready. Classes: ${detector.description.labels.join(", ")}.`);
} catch (error) {
  showStatus(`The detector could not be loaded: ${error.message}`);
}
window.ready = true;
