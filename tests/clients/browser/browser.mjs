/** What the scripts of this folder share: a headless Chromium that leaves nothing behind, and bounded waits. */
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";

/** The browser named by `CHROMIUM`, or else the first of the usual names in `PATH`. */
function executable() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  for (const name of ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]) {
    for (const folder of folders) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // the next one
      }
    }
  }
  throw new Error("no Chromium in PATH; set CHROMIUM to its path");
}

/** ms to say what went wrong, after a wait has failed. */
const GRACE = 5_000;

/**
 * Opens a page, hands it to `use`, and ends the browser whatever happens.
 * @param {{ width?: number, height?: number, scheme?: "light" | "dark", deadline: number }} options
 *   `deadline`: ms for any one wait, and with GRACE for everything together
 * @param {(page: import("puppeteer-core").Page, problems: string[]) => Promise<void>} use
 *   `problems` collects what the page complains about
 * @returns {Promise<string[]>} the problems; a failure of `use` is one of them
 */
export async function withPage({ width = 1280, height = 900, scheme = "light", deadline }, use) {
  const problems = [];
  const userDataDir = mkdtempSync(join(tmpdir(), "longwire-browser-"));
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
  // Without a sandbox, since containers often forbid it: only pages of the gateway under test are opened.
  const args = [...quiet, "--no-sandbox", "--disable-gpu", "--disable-quic"];
  let browser;
  let timer;
  try {
    browser = await puppeteer.launch({ executablePath: executable(), headless: true, userDataDir, args });
    const page = await browser.newPage();
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    page.setDefaultTimeout(deadline);
    page.on("pageerror", (error) => problems.push(`page error: ${error.message ?? error}`));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warn") {
        problems.push(`console ${message.type()}: ${message.text()} (${message.location().url ?? ""})`);
      }
    });
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not done within ${deadline / 1_000} s`)), deadline + GRACE);
    });
    await Promise.race([use(page, problems), late]);
  } catch (error) {
    problems.push(String(error.message ?? error));
  } finally {
    clearTimeout(timer);
    await browser?.close();
    rmSync(userDataDir, { recursive: true, force: true, maxRetries: 5 });
  }
  return problems;
}

/** Command line arguments, or the usage and exit code 2. */
export function command(usage, positionals, options) {
  try {
    const parsed = parseArgs({ allowPositionals: true, options: { timeout: { type: "string" }, ...options } });
    if (parsed.positionals.length !== positionals) throw new Error(`expected ${positionals} arguments`);
    return parsed;
  } catch (error) {
    console.error(`${error.message}\nusage: ${usage}`);
    process.exit(2);
  }
}
