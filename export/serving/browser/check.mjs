// node check.mjs URL CHROMIUM SCREENSHOT IMAGE ...
// Opens the page in Chromium and prints its detections as JSON. Run by check.py.

import { chromium } from "playwright-core";

const [url, executablePath, screenshot, ...pictures] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
try {
  const page = await browser.newPage();
  const problems = [];
  const elsewhere = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(url)) elsewhere.push(request.url());
  });
  await page.goto(url);
  await page.waitForFunction(() => window.ready, undefined, { timeout: 120_000 });
  const status = () => page.textContent("#status");
  const ready = await status();
  if (!ready.startsWith("Ready")) throw new Error(ready);
  const found = [];
  const seconds = [];
  for (const picture of pictures) {
    await page.evaluate(() => delete window.detections);
    await page.setInputFiles("#file", picture);
    await page.waitForFunction(
      () => window.detections || /cannot read|failed/.test(document.getElementById("status").textContent),
      undefined,
      { timeout: 120_000 },
    );
    const detections = await page.evaluate(() => window.detections);
    if (!detections) throw new Error(await status());
    found.push(detections);
    seconds.push(await status());
  }
  await page.screenshot({ path: screenshot, fullPage: true });
  const threads = await page.evaluate(() => window.threads);
  console.log(JSON.stringify({ found, seconds, threads, problems, elsewhere }));
} finally {
  await browser.close();
}
