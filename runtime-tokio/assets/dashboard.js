/**
 * The dashboard: the devices of `fleet/**` and `device/**`, live, over whichever transport is chosen.
 *
 * A device is `fleet/{device}/{metric}` or `device/{device}/{metric}`, with a number or an object of numbers. Where
 * the data has a `seq`, which its device counts up by one, the page counts what was lost and what was repeated, so
 * that a switch of transports, or a restart of the network, can be seen to cost nothing.
 */
import { Subscriber } from "/longwire.js";

const TOPICS = ["fleet/**", "device/**"];
/** Another log than the default one: `?log=NAME` in the address of this page. */
const NAMED = new URLSearchParams(window.location.search).get("log");
const LOG = NAMED === null ? undefined : `v1/logs/${encodeURIComponent(NAMED)}`;
const MAX_DEVICES = 2_000; // further ones are not shown
const MAX_SERIES = 6; // a device; further ones are not shown
const HISTORY = 120; // values of a sparkline
const SCALE = 30; // values that fill its width until there are more
const JOURNAL = 7; // lines
const PAINT_EVERY = 100; // ms
const QUIET_AFTER = 10_000; // ms without an event
const RATE_OVER = 5; // s over which events a second are averaged
const NAMES = { ws: "WebSocket", sse: "SSE", longpoll: "long poll", poll: "poll" };

const $ = (id) => document.getElementById(id);
const count = new Intl.NumberFormat("en");

// ---- What is known ----

/**
 * Totals over all devices. `told`: events missing by their `seq`, where the server had told of a gap. `pressure`: how often
 * it said that this page is too far behind.
 */
const totals = { lost: 0, repeated: 0, gaps: 0, told: 0, events: 0, reconnects: 0, pressure: 0 };
/** @type {Map<string, Device>} by `fleet/{device}` or `device/{device}`; at most MAX_DEVICES */
const devices = new Map();
/** Devices whose tile is out of date; at most as many as there are devices. */
const changed = new Set();
let resets = 0;

class Device {
  /** @type {Map<string, { label: string, unit: string, values: number[], row?: Row }>} */
  series = new Map();
  /** @type {Map<string, Counter>} by topic and key */
  counters = new Map();
  lost = 0;
  repeated = 0;
  seenAt = 0;
  visible = false;
  /** The reset after which it was last seen. */
  era = resets;
  tile = null;

  constructor(id) {
    this.id = id;
    const [root, ...name] = id.split("/");
    this.name = name.join("/");
    // The order of the page: the real machine, real or emulated boards, the simulated fleet.
    this.kind = this.name === "this-machine" ? "machine" : root === "device" ? "board" : "simulated";
    this.rank = ["machine", "board", "simulated"].indexOf(this.kind);
  }

  /** @param {import("/longwire.js").LongwireEvent} event @param {string} metric */
  take(event, metric) {
    this.seenAt = performance.now();
    this.era = resets;
    const counter = this.#counter(event);
    const { lost, repeated, told } = counter.count(event, totals.gaps);
    this.lost += lost;
    this.repeated += repeated;
    totals.lost += lost;
    totals.repeated += repeated;
    totals.told += told;
    if (repeated === 0) for (const [name, value] of figures(metric, event.data)) this.#note(name, value);
  }

  #counter({ topic, key = "" }) {
    const id = `${topic}\n${key}`;
    let counter = this.counters.get(id);
    if (counter === undefined) {
      counter = new Counter();
      if (this.counters.size < MAX_SERIES) this.counters.set(id, counter);
    }
    return counter;
  }

  #note(name, value) {
    let series = this.series.get(name);
    if (series === undefined) {
      if (this.series.size === MAX_SERIES) return;
      series = { ...describe(name), values: [] };
      this.series.set(name, series);
    }
    series.values.push(value);
    if (series.values.length > HISTORY) series.values.shift();
  }
}

/** Follows the `seq` of one topic and key, and says what each event proves lost or repeated. */
class Counter {
  #seq = null;
  #at = null;
  /** The cursor of the event with which the device began to count. */
  #beganAt = null;
  #gaps = 0;

  /** @param {number} gaps  how many gaps the server has told so far */
  count({ at, past, data }, gaps) {
    const none = { lost: 0, repeated: 0, told: 0 };
    const seq = Number.isSafeInteger(data?.seq) ? data.seq : null;
    const [before, sameAt, gapTold] = [this.#seq, at !== undefined && at === this.#at, gaps > this.#gaps];
    this.#gaps = gaps;
    if (past !== undefined) {
      // Part of the state: where counting begins.
      [this.#seq, this.#at] = [seq, null];
      return none;
    }
    if (sameAt) return { ...none, repeated: 1 };
    this.#at = at;
    if (seq === null) return none;
    const restarted = seq <= 1 && at !== this.#beganAt;
    if (seq <= 1) this.#beganAt = at;
    if (before === null || restarted) {
      this.#seq = seq;
      return none;
    }
    if (seq <= before) return { ...none, repeated: 1 };
    this.#seq = seq;
    const missing = seq - before - 1;
    return gapTold ? { ...none, told: missing } : { ...none, lost: missing };
  }

  forget() {
    this.#seq = this.#at = this.#beganAt = null;
  }
}

/** The numbers in an event's data, by name. A percentage speaks for its whole metric. */
function* figures(metric, data) {
  if (typeof data === "number") yield [metric, data];
  if (data === null || typeof data !== "object" || Array.isArray(data)) return;
  if (typeof data.percent === "number") return yield [`${metric} percent`, data.percent];
  const prefix = metric === "telemetry" ? "" : `${metric} `;
  for (const [field, value] of Object.entries(data)) {
    if (typeof value === "number" && field !== "seq") yield [prefix + field, value];
  }
}

/** Unit and label from a name such as `network received_bytes_per_second`. */
function describe(name) {
  const units = [
    [/[ _](bytes_)?per_(second|s)$/, "B/s"],
    [/[ _]bytes$/, "B"],
    [/[ _]percent$/, "%"],
    [/[ _](celsius|c)$/, "°C"],
    [/[ _](milliseconds|ms)$/, "ms"],
    [/[ _](seconds|s)$/, "s"],
  ];
  const [ending, unit] = units.find(([pattern]) => pattern.test(name)) ?? [/$^/, ""];
  const known = { temperature: "°C", humidity: "%", battery: "%", uptime: "s", "stack free": "B" };
  const label = name.replace(ending, "").replaceAll("_", " ");
  return { label, unit: unit || (known[label] ?? "") };
}

function reading(value, unit) {
  if (unit === "B" || unit === "B/s") {
    let [scaled, prefix] = [value, ""];
    for (const next of ["k", "M", "G", "T"]) if (Math.abs(scaled) >= 1_000) [scaled, prefix] = [scaled / 1_000, next];
    return `${scaled.toFixed(prefix ? 1 : 0)} ${prefix}${unit}`;
  }
  const text = Number.isInteger(value) && unit !== "°C" && unit !== "%" ? count.format(value) : value.toFixed(1);
  return unit === "%" || unit === "" ? text + unit : `${text} ${unit}`;
}

// ---- Tiles ----

/** @typedef {{ path: SVGPathElement, value: Text }} Row */

const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const device = devices.get(target.dataset.id);
      if (device === undefined) continue;
      device.visible = isIntersecting;
      if (isIntersecting) changed.add(device);
    }
    paintSoon();
  },
  { rootMargin: "200px" },
);

const byName = new Intl.Collator("en", { numeric: true });
const inOrder = (a, b) => a.rank - b.rank || byName.compare(a.name, b.name);

/** Tiles for devices that have none, each in its place. */
function addTiles() {
  const fresh = [...changed].filter((device) => device.tile === null).sort(inOrder);
  let next = $("fleet").firstElementChild;
  for (const device of fresh) {
    while (next !== null && inOrder(devices.get(next.dataset.id), device) < 0) next = next.nextElementSibling;
    const tile = $("tile").content.firstElementChild.cloneNode(true);
    tile.dataset.id = device.id;
    tile.dataset.kind = device.kind;
    tile.querySelector("h3").textContent = device.name;
    device.tile = tile;
    $("fleet").insertBefore(tile, next);
    sight.observe(tile);
  }
}

function addRow(device, series) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  row.querySelector(".label").textContent = series.label;
  device.tile.querySelector(".rows").append(row);
  return { path: row.querySelector("path"), value: row.querySelector(".value") };
}

function draw(device) {
  for (const series of device.series.values()) {
    series.row ??= addRow(device, series);
    series.row.value.textContent = reading(series.values.at(-1), series.unit);
    series.row.path.setAttribute("d", line(series));
  }
  note(device);
}

/** What a device's corner says: what went wrong, or how long it has been quiet. */
function note(device) {
  const quiet = performance.now() - device.seenAt;
  const words = device.kind === "machine" ? ["real"] : device.kind === "board" ? ["board"] : [];
  if (device.lost) words.push(`${count.format(device.lost)} lost`);
  if (device.repeated) words.push(`${count.format(device.repeated)} repeated`);
  if (quiet > QUIET_AFTER) words.push(`quiet for ${count.format(Math.floor(quiet / 1_000))} s`);
  device.tile.toggleAttribute("data-quiet", quiet > QUIET_AFTER);
  device.tile.toggleAttribute("data-bad", device.lost + device.repeated > 0);
  device.tile.querySelector(".note").textContent = words.join(", ");
}

/** The newest value at the right edge. A percentage of the machine's fills the height, others their own range. */
function line({ values, label, unit }) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (unit === "%" && ["cpu", "memory", "disk"].includes(label)) [low, high] = [0, 100];
  if (high - low < Math.abs(high) * 1e-3 || high === low) [low, high] = [low - 1, high + 1];
  const step = 120 / (Math.max(values.length, SCALE) - 1);
  const from = 120 - (values.length - 1) * step;
  const points = values.map((value, i) => {
    const y = 22 - ((value - low) / (high - low)) * 20;
    return `${(from + i * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  return values.length === 1 ? `M${points[0]}h0.1` : `M${points.join("L")}`;
}

let painting = false;

/** At most ten paints a second, none while the page is hidden, and only of tiles in sight. */
function paintSoon() {
  if (painting) return;
  painting = true;
  setTimeout(() => requestAnimationFrame(paint), PAINT_EVERY);
}

function paint() {
  painting = false;
  addTiles();
  for (const device of changed) if (device.visible) draw(device);
  changed.clear(); // a tile out of sight is drawn when it comes into sight
  for (const name of ["lost", "repeated", "gaps", "told", "reconnects", "events"]) {
    $(name).textContent = count.format(totals[name]);
  }
  for (const name of ["lost", "repeated"]) $(name).toggleAttribute("data-bad", totals[name] > 0);
  for (const name of ["gaps", "told"]) $(name).toggleAttribute("data-warn", totals[name] > 0);
  $("devices").textContent = count.format(devices.size);
  $("cursor").textContent = subscriber.cursor ?? "none yet";
  $("empty").hidden = devices.size > 0;
}

// ---- The connection ----

/** @type {Subscriber} */
let subscriber;

function onEvent({ detail: event }) {
  if (event.at !== undefined) totals.events += 1;
  const [root, name, ...metric] = event.topic.split("/");
  const id = `${root}/${name}`;
  let device = devices.get(id);
  if (device === undefined) {
    if (name === undefined || devices.size === MAX_DEVICES) return;
    device = new Device(id);
    devices.set(id, device);
  }
  device.take(event, metric.join("/"));
  changed.add(device);
  paintSoon();
}

function onGap({ detail: { from, to, reason } }) {
  totals.gaps += 1;
  journal(`gap told (${reason}): after ${from}, up to ${to}`, "gap");
  if (reason === "reset") {
    resets += 1;
    forget();
  }
  paintSoon();
}

function onPressure({ detail: { lag, limit } }) {
  totals.pressure += 1;
  journal(`this page is ${count.format(lag)} events behind; from ${count.format(limit)} on it may lose some`, "gap");
}

/** What comes next is no continuation of what came before: it proves nothing lost. */
function forget() {
  for (const device of devices.values()) for (const counter of device.counters.values()) counter.forget();
}

/** Devices that the state after a reset does not name are gone. */
function onCaughtUp() {
  for (const [id, device] of devices) {
    if (device.era === resets) continue;
    devices.delete(id);
    changed.delete(device);
    if (device.tile !== null) sight.unobserve(device.tile);
    device.tile?.remove();
  }
  paintSoon();
}

let waited = false;

function onState({ detail: state }) {
  const { name, transport, from, delay, code, message } = state;
  const over = NAMES[transport];
  const since = from === "latest" || from === "now" ? `from ${from}` : `continued from ${from}`;
  const texts = {
    connecting: `Connecting over ${over}`,
    open: `Open over ${over}, ${since}`,
    waiting: `Waiting ${((delay ?? 0) / 1_000).toFixed(1)} s after ${over} ended: ${code}`,
    stopped: `Stopped: ${message ?? code}`,
  };
  $("state").textContent = texts[name];
  $("state").dataset.state = name;
  if (name !== "connecting") journal(name === "open" ? `${over}, ${since}` : texts[name], name);
  if (name === "open" && waited) totals.reconnects += 1;
  if (name === "open" || name === "waiting") waited = name === "waiting";
  const denied = name === "stopped" && (code === "unauthorized" || code === "forbidden");
  const had = !$("credential").hidden;
  $("credential").hidden = !denied;
  if (denied && !had) $("token").focus();
  // A state too large for one answer: the devices appear as they report.
  if (name === "stopped" && code === "state_too_large") {
    forget();
    start({ since: "now" });
  }
  $("again").hidden = name !== "stopped" || denied || code === "closed";
  paintSoon();
}

function journal(text, kind) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  const [time, words] = [document.createElement("time"), document.createElement("span")];
  time.textContent = new Date().toLocaleTimeString("en-GB");
  words.textContent = text;
  item.append(time, words);
  $("journal").prepend(item);
  while ($("journal").childElementCount > JOURNAL) $("journal").lastElementChild.remove();
}

/** Storage, which a browser may refuse: then the page remembers nothing. */
function stored(storage, name, value) {
  try {
    if (value !== undefined) window[storage].setItem(`longwire.${name}`, value);
    return window[storage].getItem(`longwire.${name}`);
  } catch {
    return value ?? null;
  }
}

const chosen = () => new FormData($("transports")).get("transport");

/**
 * Begins, or goes on from where the last subscription stopped.
 * @param {{ typed?: string, since?: string }} [options]  `typed`: a new token
 */
function start({ typed, since = subscriber?.cursor ?? "latest" } = {}) {
  const token = stored("sessionStorage", "token", typed);
  subscriber = new Subscriber({ topics: TOPICS, url: LOG, since, transport: chosen(), token, pollEvery: 1_000 });
  subscriber.addEventListener("event", onEvent);
  subscriber.addEventListener("gap", onGap);
  subscriber.addEventListener("pressure", onPressure);
  subscriber.addEventListener("caughtup", onCaughtUp);
  subscriber.addEventListener("state", onState);
}

// ---- The page ----

$("transports").addEventListener("change", () => {
  if (subscriber.state.name === "stopped") start();
  else subscriber.switchTo(chosen());
});
$("credential").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const typed = $("token").value;
  $("token").value = "";
  start({ typed });
});
$("again").addEventListener("click", () => start());

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}

$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(stored("localStorage", "theme", next));
});
const saved = stored("localStorage", "theme");
setTheme(THEMES.includes(saved) ? saved : "system");

const arrivals = Array(RATE_OVER).fill(0);
let eventsBefore = 0;
setInterval(() => {
  arrivals.shift();
  arrivals.push(totals.events - eventsBefore);
  eventsBefore = totals.events;
  $("rate").textContent = count.format(Math.round(arrivals.reduce((sum, n) => sum + n) / RATE_OVER));
  for (const device of devices.values()) if (device.visible && device.tile !== null) note(device);
}, 1_000);

/** For tests, and for the curious at the console. */
Object.defineProperty(window, "longwireStats", {
  get: () => ({
    ...totals,
    devices: devices.size,
    names: [...devices.keys()],
    state: subscriber.state.name,
    transport: subscriber.state.transport,
    from: subscriber.state.from,
    cursor: subscriber.cursor,
  }),
});

start();
