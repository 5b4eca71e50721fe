/**
 * Opens the dashboard of a gateway and waits until it shows the devices; with --switch it goes through all four
 * transports, and each has to go on from the cursor of the one before. Saves a picture, prints one JSON object with
 * the page's own counts and the problems seen. Exit code 0 only if there were none: no error of the page or its
 * console, nothing lost, nothing repeated, everything in time.
 */
import { command, withPage } from "./browser.mjs";

const usage =
  "node dashboard.mjs URL OUT.png [--switch] [--devices N] [--dark] [--width PX] [--height PX] [--timeout SECONDS]";
const { positionals, values } = command(usage, 2, {
  switch: { type: "boolean", default: false },
  devices: { type: "string", default: "1" },
  dark: { type: "boolean", default: false },
  width: { type: "string", default: "1280" },
  height: { type: "string", default: "900" },
});
const [url, picture] = positionals;

let stats = null;
const switches = [];
const problems = await withPage(
  {
    width: Number(values.width),
    height: Number(values.height),
    scheme: values.dark ? "dark" : "light",
    deadline: Number(values.timeout ?? 60) * 1_000,
  },
  async (page, problems) => {
    await page.goto(url, { waitUntil: "load" });
    const shown = (n) => window.longwireStats?.devices >= n && document.querySelectorAll(".tile path[d]").length > 0;
    const opened = performance.now();
    let shownAfter = null;
    try {
      await page.waitForFunction(shown, {}, Number(values.devices));
      shownAfter = Math.round(performance.now() - opened);
      if (values.switch) await throughAll(page, problems);
    } finally {
      // Also when something failed: counts and picture then show what.
      stats = { ...(await page.evaluate(() => window.longwireStats)), shown_after_ms: shownAfter };
      if (stats.lost > 0) problems.push(`${stats.lost} events lost`);
      if (stats.repeated > 0) problems.push(`${stats.repeated} events repeated`);
      await page.screenshot({ path: picture });
    }
  },
);
console.log(JSON.stringify({ ...stats, switches, problems }));
process.exitCode = problems.length === 0 ? 0 : 1;

/** By keyboard, as people do who use no mouse: the arrow keys of the radio group. */
async function throughAll(page, problems) {
  await page.focus('input[name="transport"]:checked');
  for (const transport of ["ws", "sse", "longpoll", "poll"]) {
    await page.keyboard.press("ArrowRight");
    const isOpen = (name) => window.longwireStats.state === "open" && window.longwireStats.transport === name;
    await page.waitForFunction(isOpen, {}, transport);
    // Long enough on each that every device reports, on average, once over it.
    const { from, events, devices } = await page.evaluate(() => window.longwireStats);
    await page.waitForFunction((least) => window.longwireStats.events >= least, {}, events + devices);
    const { cursor, lost, repeated } = await page.evaluate(() => window.longwireStats);
    switches.push({ transport, from, cursor, events, lost, repeated });
    if (!/^[0-9a-f]{16}-[0-9]+$/.test(from)) problems.push(`${transport} began at ${from}, not at a cursor`);
  }
}
