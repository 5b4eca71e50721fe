/**
 * Reads a longwire gateway from a browser, over whichever transport works, and publishes to it.
 * One ES module, no dependencies; it speaks `longwire.v1` (PROTOCOL.md, whose sections are cited below).
 *
 *     import { Subscriber, publish } from "/longwire.js";
 *
 *     const fleet = new Subscriber({ topics: ["fleet/**"] });
 *     fleet.addEventListener("event", ({ detail }) => console.log(detail.topic, detail.data));
 *     fleet.addEventListener("gap", ({ detail }) => console.warn("missing", detail.from, detail.to));
 *     fleet.switchTo("sse");   // goes on from the same cursor
 *     const sensor = new Publisher();
 *     await sensor.publish("fleet/7/cpu", 0.25);   // stored once, whatever happens to the connection meanwhile
 *
 * An event is handed to its listeners while the bytes that brought it are read, so a Subscriber has no queue. What a
 * Publisher was given waits in its outbox, which is bounded and has a policy.
 *
 * @typedef {"ws" | "sse" | "longpoll" | "poll"} Transport
 * @typedef {{ topic: string, at?: string, past?: string, key?: string, data?: any, bytes?: Uint8Array,
 *   content_type?: string }} LongwireEvent  Numbers are doubles: integers beyond 2^53 lose precision.
 * @typedef {{ from: string, to: string, reason: "evicted" | "slow" | "reset" | "conflated", skipped?: number }} Gap
 * @typedef {{ lag: number, limit: number, skipped: number }} Pressure  Section 5.1.
 * @typedef {"drop_oldest" | "conflate" | "disconnect"} Policy  What the server does when this reader is too far behind.
 * @typedef {{ name: "connecting" | "open" | "waiting" | "stopped", transport: Transport | "post", from?: string,
 *   delay?: number, firm?: boolean, code?: string, message?: string }} State
 *   `from` is where reading began or goes on: a cursor, `now` or `latest`. `delay` is in ms; `firm`: the server asked
 *   for it. `code` says why it waits or stopped: of section 9, or `closed`, `close_CODE`, `http_STATUS`, `unreachable`,
 *   `lost` (cut without a word), `silent`, `garbled` (no gateway speaks like that), `token` (its function failed).
 * @typedef {{ code: string, message?: string, permanent?: boolean, retry_after?: number, window?: number }} Ending
 * @typedef {string | (() => string | Promise<string>) | null} Token  A credential, or a function that fetches a fresh
 *   one whenever it is needed.
 */

/** @type {Transport[]} The best first. */
const LADDER = ["ws", "sse", "longpoll", "poll"];
const FIRST_WORD = 2_500; // ms until a transport that never worked is doubted
const OPEN_WITHIN = 10_000; // ms until a transport has said `hello` or given its first answer
const STABLE = 30_000; // ms after which a connection counts as good, and attempts are counted from zero (section 11.1)
const BACKOFF_BASE = 500; // ms
const BACKOFF_CAP = 30_000; // ms
const MAX_TOLD = 3_600_000; // ms, the longest that a server can make it wait
const STRIKES = 3; // losses in a row, after which a transport that once worked is left
const LOOK_UP = 300_000; // ms until a better transport is tried again; doubles up to LOOK_UP_CAP
const LOOK_UP_CAP = 3_600_000; // ms
const HEARTBEAT = 15_000; // ms, where `hello` says none
const LONG_POLL = 25; // s that a long poll may be held
const LONG_POLL_PACE = 100; // ms between long polls: meanwhile events gather, and the rate of requests is bounded
const POLL_GRACE = 10_000; // ms that the answer to a poll may be late
const BODY_WITHIN = 30_000; // ms for the body of a poll
const NUMBERS = 1_024; // the window of section 5.2
const MAX_SSE_EVENT = 4_194_304; // characters of one SSE event
const REMEMBERED = "longwire.transport"; // where what worked is kept, and `longwire.publisher`
const MAX_DELAY = 2 ** 31 - 1; // ms, the longest that setTimeout can wait
const COME_BACK_NEVER = new Set([1002, 1003, 1007, 1008, 1009]); // close codes of section 6
/** What an HTTP refusal says about the gateway, and not about the publication that was posted. */
const NOT_ITS_FAULT = new Set(["unauthorized", "draining", "unavailable", "too_many_connections", "internal", "request_timeout"]);

/** The end of a path that names a log. */
const LOG = /\/v1\/logs\/[a-z0-9][a-z0-9._-]{0,63}\/?$/;
/** The gateway that served this module. */
const HERE = new URL(".", import.meta.url);

/**
 * A subscription that lasts until `close()` or until the server refuses it for good.
 *
 * Events (each a `CustomEvent`; see `detail`):
 * - `event`: a {@link LongwireEvent}. With `past` it is part of the state, with `at` it is new.
 * - `gap`: a {@link Gap}. With reason `reset`, forget what you knew: the state follows.
 * - `pressure`: a {@link Pressure}. This reader is behind, and is about to lose events, or just has.
 * - `caughtup`: the past asked for has been delivered.
 * - `state`: a {@link State}, whenever the connection's state changes.
 * - `refused`: an `error` envelope: the server refused something, the connection goes on.
 */
export class Subscriber extends EventTarget {
  /** @type {string} `now` or `latest`: where to begin while there is no cursor. */
  #since;
  /** @type {string | null} */
  #cursor = null;
  /** @type {string | null} Where the gap ends that was told last; null when the cursor has moved since. */
  #gap = null;
  #connector;

  /**
   * Begins at once; listeners added in the same task miss nothing.
   * @param {object} options
   * @param {string[]} options.topics  patterns, such as `fleet/**`
   * @param {string | URL} [options.url]  the gateway, or with `v1/logs/NAME` behind it one of its other logs;
   *   default: the gateway that served this module
   * @param {string} [options.since]  `latest` (default), `now`, or a cursor from before
   * @param {Transport | "auto"} [options.transport]  `auto` (default) goes down the ladder
   * @param {Token} [options.token]
   * @param {number} [options.pollEvery]  ms between two polls of the transport `poll`; default 2000
   * @param {Policy} [options.policy]  default: the server's, which is `drop_oldest`
   * @param {Storage | null} [options.memory]  where the transport that worked is remembered from one page to the
   *   next, such as `localStorage`; default: nowhere
   */
  constructor({ topics, url = HERE, since = "latest", transport = "auto", token = null, pollEvery = 2_000, policy, memory = null }) {
    super();
    const query = [...topics].map((topic) => ["topic", topic]);
    if (policy !== undefined) query.push(["policy", policy]);
    if (since === "now" || since === "latest") this.#since = since;
    else [this.#since, this.#cursor] = ["latest", since];
    const options = { base: new URL(url, HERE), query, token, pollEvery, memory, remembered: REMEMBERED };
    this.#connector = new Connector(rungs(transport, LADDER), options, {
      since: () => this.#cursor ?? this.#since,
      // A change in the middle of the state would begin with it again.
      mayLookUp: () => this.#cursor !== null,
      receive: (envelope) => this.#receive(envelope),
      state: (state) => this.#emit("state", state),
    });
    this.#connector.run();
  }

  /** The position up to which everything was delivered, to begin from another time; null before the first. */
  get cursor() {
    return this.#cursor;
  }

  /** @returns {State} */
  get state() {
    return this.#connector.state;
  }

  /**
   * Drops the connection and goes on over another transport from the same cursor. A wait that the server asked for
   * is finished first. After `stopped` it does nothing.
   * @param {Transport | "auto"} transport
   */
  switchTo(transport) {
    this.#connector.switchTo(rungs(transport, LADDER));
  }

  /** Ends it for good. No event is delivered afterwards. */
  close() {
    this.#connector.close();
  }

  /** The table of section 2: first the event is handed over, then the cursor moves. What was told before is not told again. */
  #receive(envelope) {
    const { type, at, id, to, reason } = envelope;
    const isNew = at === undefined || isAhead(at, this.#cursor);
    if (type === "event" && isNew) {
      if (typeof envelope.bytes === "string") envelope.bytes = fromBase64(envelope.bytes);
      this.#emit("event", envelope);
    } else if (type === "gap" && reason === "reset") {
      this.#emit("gap", envelope);
      // What was known is void: a connection that ends before the state is whole begins with it again.
      [this.#since, this.#cursor, this.#gap] = ["latest", null, null];
    } else if (type === "gap" && to !== this.#gap && isAhead(to, this.#cursor)) {
      this.#emit("gap", envelope);
      this.#gap = to;
    } else if (type === "caught_up" && id === undefined) this.#emit("caughtup", envelope);
    else if (type === "error") this.#emit("refused", envelope);
    else if (type === "pressure") this.#emit("pressure", envelope);
    if (at !== undefined && isNew && (type === "event" || type === "caught_up" || type === "tick")) [this.#cursor, this.#gap] = [at, null];
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Whether a position lies behind nothing that the cursor covers; positions of two epochs lie on no one line. */
function isAhead(at, cursor) {
  if (cursor === null) return true;
  const [[epoch, seq], [epochOf, covered]] = [at.split("-"), cursor.split("-")];
  return epoch !== epochOf || seq.length > covered.length || (seq.length === covered.length && seq > covered);
}

/** The rungs of the ladder to use. */
function rungs(transport, ladder) {
  if (transport !== "auto" && !ladder.includes(transport)) throw new TypeError(`unknown transport ${transport}`);
  return transport === "auto" ? ladder : [transport];
}

/** Which transport to use: section 11.2. */
class Ladder {
  /** ms of silence after which something in between cuts connections; 0: nothing is known to. */
  idle = 0;
  #rungs;
  /** Those that have worked, and those that failed since one did. */
  #proven = new Set();
  #failed = new Set();
  #strikes = 0;
  /** ms of silence before the last cut; 0: there was none. */
  #suspect = 0;
  /** How many times in a row nothing better worked, and what was tried last. */
  #looked = 0;
  #tried = -1;

  /** @param {string[]} rungs  the best first @param {string | null} [memory] */
  constructor(rungs, memory) {
    const [rung = "", idle] = memory?.split(" ") ?? [];
    this.#rungs = rungs;
    this.rung = rungs.includes(rung) ? rung : rungs[0];
    if (this.rung !== rung) return;
    this.#proven.add(rung);
    this.idle = Number(idle) || 0;
  }

  /** What was learned, for the next start. */
  get memory() {
    return `${this.rung} ${Math.round(this.idle)}`;
  }

  /** Whether a rung is given all the time to open: it worked before, or there is none below. */
  isSure(rung) {
    return this.#proven.has(rung) || rung === this.#rungs.at(-1);
  }

  get everWorked() {
    return this.#proven.size > 0;
  }

  /** s that a long poll is held. */
  get wait() {
    return this.idle > 0 ? Math.max(1, Math.min(LONG_POLL, Math.floor(this.idle / 2_000))) : LONG_POLL;
  }

  opened(rung) {
    this.rung = rung;
    this.#proven.add(rung);
    this.#failed.clear();
    if (rung === this.#rungs[0]) [this.#looked, this.#tried] = [0, -1];
  }

  /** An attempt failed. @param {Ending} ending @returns {boolean} whether the next one is made at once */
  unopened(ending) {
    const whose = blame(ending);
    if (whose === "server") return false;
    if (whose !== "rung" && this.#proven.has(this.rung)) return this.#strike();
    return this.#descend() && whose !== "either";
  }

  /**
   * A connection ended that was silent for so long at its end. @param {Ending} ending
   * @param {{ quiet: number, stable: boolean, heartbeat: number }} how  ms
   * @returns {boolean} whether the next attempt is made at once
   */
  ended(ending, { quiet, stable, heartbeat }) {
    const foreign = ending.code.startsWith("http_");
    if (!foreign && !["lost", "silent", "garbled"].includes(ending.code)) {
      this.#suspect = this.#strikes = 0;
      return false;
    }
    if ((foreign || ending.code === "lost") && this.#isIdleCut(quiet)) {
      this.idle = quiet;
      this.#suspect = this.#strikes = 0;
      // The server's own heartbeat is too rare for what lies in between, and a stream cannot ask for more.
      return this.rung === "sse" && quiet <= heartbeat ? this.#descend() : true;
    }
    this.#suspect = quiet;
    if (!stable) return this.#strike();
    this.#strikes = 0;
    return false;
  }

  /** Twice in a row it was cut after the same silence; a long poll tells by itself how long it may be. */
  #isIdleCut(quiet) {
    const known = this.idle > 0 && quiet >= (this.idle * 3) / 4;
    if (quiet < 1_000 || (known && this.rung === "ws")) return false;
    if (this.rung === "longpoll") return quiet < this.wait * 1_000;
    return (this.rung === "ws" || this.rung === "sse") && Math.abs(quiet - this.#suspect) <= quiet / 8;
  }

  #strike() {
    this.#strikes += 1;
    if (this.#strikes >= STRIKES) this.#descend();
    return false;
  }

  /** To the next rung that has not failed. When all have, it was not the rung: to the best that ever worked. */
  #descend() {
    this.#failed.add(this.rung);
    this.#suspect = this.#strikes = 0;
    const below = this.#rungs.slice(this.#rungs.indexOf(this.rung));
    const next = [...below, ...this.#rungs].find((rung) => !this.#failed.has(rung));
    if (next === undefined) this.#failed.clear();
    this.rung = next ?? this.#rungs.find((rung) => this.#proven.has(rung)) ?? this.#rungs[0];
    return next !== undefined;
  }

  /** ms until a better rung is tried; undefined at the top. */
  get lookUpAfter() {
    if (this.rung === this.#rungs[0]) return undefined;
    const longest = Math.min(LOOK_UP_CAP, LOOK_UP * 2 ** this.#looked);
    return longest / 2 + (Math.random() * longest) / 2;
  }

  /** The better rung to try now: each in its turn. */
  lookUp() {
    this.#looked += 1;
    this.#tried = (this.#tried + 1) % this.#rungs.indexOf(this.rung);
    return this.#rungs[this.#tried];
  }
}

/** Whose fault an ending is. @param {Ending} ending */
function blame({ code }) {
  // Something has changed the request, or it is no gateway that speaks.
  if (["bad_request", "upgrade_required", "garbled"].includes(code)) return "rung";
  if (code === "lost" || code === "silent") return "unclear";
  if (!code.startsWith("http_")) return "server";
  return /^http_(408|429|5)/.test(code) ? "either" : "rung";
}

/** Whether the same would happen again. @param {Ending} ending @param {boolean} everWorked */
function isFinal({ code, permanent }, everWorked) {
  const inBetween = code === "bad_request" || code === "upgrade_required" || /^http_4(?!08|21|25|29)/.test(code);
  return inBetween ? !everWorked : permanent === true;
}

/**
 * One connection after another, never two attempts at once (section 11).
 * @typedef {{ base: URL, query: string[][], token: Token, pollEvery?: number, incarnation?: string,
 *   memory: Storage | null, remembered: string }} Options
 * @typedef {{ since: () => string, mayLookUp: () => boolean, receive: (envelope: any) => void, state: (state: State) => void,
 *   ready?: () => Promise<void>, began?: () => void, pump?: (link: Link) => AsyncGenerator<any, void> }} Hooks
 *   `began`: nothing was sent on this connection yet; `pump`: what a publisher sends
 */
class Connector {
  /** @type {State} */
  state;
  ladder;
  options;
  hooks;
  /** ms over which clients spread when a connection ends without a word (`hello`, section 5). */
  #spread = 0;
  #attempts = 0;
  /** The credential was refused, and another one is tried. */
  #refused = false;
  #closed = false;
  /** Aborted to end the connection, or the wait, that is under way. */
  #turn = new AbortController();
  /** @type {Link | null} The connection that is listened to. */
  #link = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lookUpTimer;
  /** `performance.now()` when a better rung is tried, also when there are other connections until then. */
  #lookUpAt = 0;

  /** @param {string[]} rungs @param {Options} options @param {Hooks} hooks */
  constructor(rungs, options, hooks) {
    this.options = options;
    this.hooks = hooks;
    this.ladder = new Ladder(rungs, attempt(() => options.memory?.getItem(options.remembered)));
    this.state = { name: "connecting", transport: /** @type {Transport} */ (this.ladder.rung) };
  }

  switchTo(rungs) {
    this.ladder = new Ladder(rungs);
    if (!this.state.firm) this.#turn.abort();
  }

  close() {
    this.#closed = true;
    this.#turn.abort();
  }

  async run() {
    await null; // listeners first
    while (!this.#closed) {
      await this.hooks.ready?.();
      if (this.#closed) break;
      const turn = (this.#turn = new AbortController());
      const [link, ending] = await this.#connect(turn.signal);
      if (turn.signal.aborted) continue;
      const wait = this.#judge(link, ending);
      if (wait === undefined) continue;
      const { code, message } = ending;
      this.#closed = wait === null;
      this.#become({ name: wait ? "waiting" : "stopped", transport: link.transport, ...wait, code, message });
      if (wait === null) return;
      await sleep(wait.delay, turn.signal);
    }
    this.#become({ name: "stopped", transport: this.state.transport, code: "closed" });
  }

  /** @param {AbortSignal} turn @returns {Promise<[Link, Ending]>} the connection that ended last, and how */
  async #connect(turn) {
    let link = (this.#link = new Link(this.ladder.rung, turn, this));
    this.#become({ name: "connecting", transport: link.transport, from: link.from });
    this.hooks.began?.();
    link.run();
    for (;;) {
      const ending = await link.ended;
      if (link === this.#link) {
        clearTimeout(this.#lookUpTimer);
        return [link, ending];
      }
      link = this.#link; // a look-up took over
    }
  }

  /**
   * What comes next. @param {Link} link @param {Ending} ending
   * @returns {{ delay: number, firm: boolean } | null | undefined} a wait; null: nothing; undefined: the next attempt
   */
  #judge(link, ending) {
    const stable = link.lived() >= STABLE;
    const quiet = performance.now() - link.heardAt;
    const now = link.openedAt === null ? this.ladder.unopened(ending) : this.ladder.ended(ending, { quiet, stable, heartbeat: link.heartbeat });
    if (now) return undefined;
    if (stable) this.#attempts = 0;
    // Once: a fresh credential that is refused as well is the end.
    const renewed = ending.code === "unauthorized" && typeof this.options.token === "function" && !this.#refused;
    if (renewed) this.#refused = true;
    else if (isFinal(ending, this.ladder.everWorked)) return null;
    return this.#backoff(renewed ? {} : ending, link.lived());
  }

  /** How long to wait (section 11.1), and whether the server asked for it. */
  #backoff({ retry_after = 0, window = 0 }, lived) {
    const own = Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** this.#attempts++);
    const after = Math.min(MAX_TOLD, retry_after);
    if (window > 0) this.#spread = Math.min(MAX_TOLD, window);
    const tooSoon = window > 0 ? 0 : Math.max(0, this.#spread - lived);
    const over = tooSoon > 0 ? own : Math.max(window > 0 ? Math.min(window, MAX_TOLD - after) : this.#spread, own);
    return { delay: Math.max(after, tooSoon) + Math.random() * over, firm: after + this.#spread > 0 };
  }

  /** The first word came. @param {Link} link */
  opened(link) {
    const before = this.#link;
    this.#link = link;
    this.#refused = false;
    this.ladder.opened(link.transport);
    attempt(() => this.options.memory?.setItem(this.options.remembered, this.ladder.memory));
    if (before !== link) {
      before?.end({ code: "closed" });
      this.hooks.began?.();
    }
    this.#become({ name: "open", transport: link.transport, from: link.from });
    this.#scheduleLookUp(link);
  }

  receive(envelope) {
    if (envelope.type === "hello" && envelope.window !== undefined) this.#spread = Math.min(MAX_TOLD, envelope.window);
    this.hooks.receive(envelope);
  }

  /** @param {Link} link */
  #scheduleLookUp(link) {
    clearTimeout(this.#lookUpTimer);
    const [after, now] = [this.ladder.lookUpAfter, performance.now()];
    if (after === undefined) this.#lookUpAt = 0;
    else if (this.#lookUpAt <= now) this.#lookUpAt = now + after;
    if (after !== undefined) this.#lookUpTimer = setTimeout(() => this.#lookUp(link), this.#lookUpAt - now);
  }

  /** Tries a better rung beside the connection that works; if it opens, it is the connection from then on. */
  async #lookUp(link) {
    if (!this.hooks.mayLookUp()) {
      this.#lookUpTimer = setTimeout(() => this.#lookUp(link), 1_000);
      return;
    }
    const better = new Link(this.ladder.lookUp(), link.turn, this);
    link.ended.then(() => better !== this.#link && better.end({ code: "closed" }));
    await better.run();
    if (link === this.#link && !link.signal.aborted) this.#scheduleLookUp(link);
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    this.hooks.state(state);
  }
}

/** Why something did not go: `code`, `permanent`, `retry_after` (ms) of section 9, or the `code` of a {@link State}. */
export class Refusal extends Error {
  /** @param {Ending} ending */
  constructor({ code, message, permanent, retry_after, window }) {
    super(message ?? code);
    this.name = "Refusal";
    this.code = code;
    this.permanent = permanent;
    this.retry_after = retry_after;
    this.window = window;
  }

  /** @param {Response} response  whose status is an error; a proxy's answer is not taken for the gateway's */
  static async from(response) {
    const body = await response.json().catch(() => null);
    if (typeof body?.code === "string" && typeof body.permanent === "boolean") return new Refusal(body);
    if (response.status === 401) return new Refusal({ code: "unauthorized", permanent: true });
    const seconds = Number(response.headers.get("Retry-After")) || undefined;
    return new Refusal({ code: `http_${response.status}`, retry_after: seconds && seconds * 1_000 });
  }
}

/**
 * Publishes one event (section 8.2), and does not try again. A typed array, `ArrayBuffer` or `Blob` is sent as opaque
 * bytes, anything else as JSON.
 * @param {string} topic
 * @param {any} data
 * @param {{ key?: string, contentType?: string, token?: string | null, url?: string | URL, signal?: AbortSignal,
 *   idempotencyKey?: string }} [options]  `contentType` is that of opaque bytes; `signal` ends the wait, by default
 *   after 10 s; what has an `idempotencyKey` is stored once, however often it is sent (section 5.2)
 * @returns {Promise<string>} the event's cursor
 * @throws {Refusal} when the gateway refuses it; otherwise what `fetch` throws
 */
export async function publish(topic, data, options) {
  return (await post(topic, data, options)).at;
}

/**
 * @param {string} topic
 * @param {any} data
 * @param {Parameters<typeof publish>[2]} [options]
 * @returns {Promise<{ at: string, pressure?: number }>}
 */
async function post(topic, data, { key, contentType, token = null, url = HERE, signal, idempotencyKey } = {}) {
  const levels = topic.split("/");
  // A URL would drop these levels, even encoded, and name another topic.
  if (levels.some((level) => level === "." || level === "..")) throw new TypeError(`topic ${topic} fits in no URL`);
  const target = resource(new URL(url, HERE), `topics/${levels.map(encodeURIComponent).join("/")}`);
  if (key !== undefined) target.searchParams.set("key", key);
  const opaque = isOpaque(data);
  const response = await fetch(target, {
    method: "POST",
    body: opaque ? /** @type {BodyInit} */ (data) : JSON.stringify(data),
    headers: {
      "Content-Type": opaque ? (contentType ?? "application/octet-stream") : "application/json",
      ...authorization(token),
      ...(idempotencyKey !== undefined && { "Idempotency-Key": `"${idempotencyKey}"` }),
    },
    signal: signal ?? AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw await Refusal.from(response);
  return response.json();
}

/**
 * A credential for the URL of one stream (section 8.4), for those who cannot send a header:
 * `new EventSource("/v1/stream?topic=fleet/**&ticket=" + (await ticket({ token })).ticket)`.
 * @param {{ token?: string | null, url?: string | URL, signal?: AbortSignal, subscribe?: string[], publish?: string[],
 *   lifetime?: number }} [options]  `subscribe`, `publish` and `lifetime` (ms) ask for less than the token gives
 * @returns {Promise<{ ticket: string, expires_in: number }>} it opens one stream, once, within `expires_in` ms
 * @throws {Refusal} when the gateway refuses it; otherwise what `fetch` throws
 */
export async function ticket({ token = null, url = HERE, signal = AbortSignal.timeout(10_000), ...less } = {}) {
  const base = new URL(url, HERE);
  base.pathname = base.pathname.replace(LOG, "/");
  const headers = { "Content-Type": "application/json", ...authorization(token) };
  const response = await fetch(new URL("v1/ticket", base), { method: "POST", body: JSON.stringify(less), headers, signal });
  if (!response.ok) throw await Refusal.from(response);
  return response.json();
}

/**
 * The URL of a gateway's resource, such as `stream`: of the log that `base` names, or else of the default log (section 1).
 * @param {URL} base @param {string} path
 */
function resource(base, path) {
  if (!LOG.test(base.pathname)) return new URL(`v1/${path}`, base);
  const url = new URL(base);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${path}`;
  url.search = url.hash = "";
  return url;
}

/** @typedef {{ n: number, topic: string, data: any, key?: string, contentType?: string, body: object, bytes: number,
 *   sent: boolean, refused: boolean, resolve: (_?: any) => void, reject: (why: Error) => void }} Waiting */

/**
 * Publishes over one connection, and again after it broke until it is acknowledged: stored once (section 5.2). Over
 * WebSocket; where that cannot be opened, by POST.
 *
 * Its events: `state`, a {@link State}, whenever the connection's state changes.
 */
export class Publisher extends EventTarget {
  /** Names this publisher, with the subject of its credential, for as long as it lives. */
  incarnation = Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
  /** What the outbox gave up, by policy. */
  dropped = 0;
  /** @type {Waiting[]} In the order of their numbers. */
  #outbox = [];
  #bytes = 0;
  #n = 0;
  #bounds;
  #connector;
  #maxInflight = 1;
  /** Nothing is sent before (`performance.now()`): what the server asked for. */
  #notBefore = 0;
  #closed = false;
  /** Called when there is something to do. */
  #wake = (_ = undefined) => {};

  /**
   * @param {object} [options]
   * @param {string | URL} [options.url]  the gateway; default: the one that served this module
   * @param {Token} [options.token]
   * @param {"ws" | "post" | "auto"} [options.transport]  `auto` (default): WebSocket, and POST where that fails
   * @param {"drop_oldest" | "drop_newest" | "conflate"} [options.policy]  what gives way when the outbox is full: the
   *   oldest publication, the new one (default), or an older one of the same topic and key, whenever there is one
   * @param {number} [options.maxWaiting]  publications in the outbox; default 1000
   * @param {number} [options.maxBytes]  of them, as they are sent; default 1 MiB
   * @param {Storage | null} [options.memory]  as for a {@link Subscriber}
   */
  constructor({ url = HERE, token = null, transport = "auto", policy = "drop_newest", maxWaiting = 1_000, maxBytes = 1_048_576, memory = null } = {}) {
    super();
    if (!["drop_oldest", "drop_newest", "conflate"].includes(policy)) throw new TypeError(`unknown policy ${policy}`);
    this.#bounds = { policy, maxWaiting, maxBytes };
    const { incarnation } = this;
    const options = { base: new URL(url, HERE), query: [["publisher", incarnation]], token, incarnation, memory, remembered: "longwire.publisher" };
    this.#connector = new Connector(rungs(transport, ["ws", "post"]), options, {
      since: () => "now",
      mayLookUp: () => true,
      ready: () => this.#hasWork(),
      began: () => this.#outbox.forEach((one) => (one.sent = false)),
      receive: (envelope) => this.#receive(envelope),
      state: (state) => this.#become(state),
      pump: (link) => this.#pump(link),
    });
    this.#connector.run();
  }

  /** Publications that were not acknowledged yet. */
  get waiting() {
    return this.#outbox.length;
  }

  /**
   * Puts a publication into the outbox.
   * @param {string} topic
   * @param {any} data  a typed array or `ArrayBuffer` is sent as opaque bytes, anything else as JSON
   * @param {{ key?: string, contentType?: string }} [options]
   * @returns {Promise<void>} kept once it is acknowledged
   * @throws {Refusal} when the gateway refuses it for good, or does not say when it would take it (`topics_full`); with
   *   code `dropped` when the outbox gave it up, `closed` when the publisher was closed before; a `TypeError` when it cannot be sent
   */
  async publish(topic, data, { key, contentType } = {}) {
    if (this.#closed) throw new Refusal({ code: "closed", permanent: true });
    if (data instanceof Blob || JSON.stringify(data) === undefined) throw new TypeError("neither JSON nor bytes");
    const body = isOpaque(data) ? { bytes: toBase64(data), ...(contentType && { content_type: contentType }) } : { data };
    const bytes = JSON.stringify(body).length + topic.length;
    const waiting = { n: 0, topic, key, data, contentType, body, bytes, sent: false, refused: false };
    if (!this.#makeRoom(waiting)) {
      this.dropped += 1;
      throw new Refusal({ code: "dropped", message: "the outbox is full", permanent: false });
    }
    await new Promise((resolve, reject) => {
      this.#n += 1;
      this.#outbox.push(Object.assign(waiting, { n: this.#n, resolve, reject }));
      this.#bytes += waiting.bytes;
      this.#wake();
    });
  }

  /** Ends the connection. What waits is rejected; to wait for it, await the promises of `publish` first. */
  close() {
    this.#connector.close();
    this.#giveUp({ code: "closed", permanent: true });
  }

  /** @param {Ending} why */
  #giveUp(why) {
    this.#closed = true;
    for (const waiting of this.#outbox.splice(0)) waiting.reject(new Refusal(why));
    this.#bytes = 0;
    this.#wake();
  }

  /** Whether there is room for one more, when the policy has had its way. A number given up leaves a hole. */
  #makeRoom({ topic, key, bytes }) {
    const { policy, maxWaiting, maxBytes } = this.#bounds;
    const full = () => this.#outbox.length >= maxWaiting || this.#bytes + bytes > maxBytes;
    if (bytes > maxBytes) return false;
    // What was sent may have been stored already; the newer one comes behind it, in order.
    const older = policy === "conflate" && this.#outbox.find((one) => !one.sent && one.topic === topic && one.key === key);
    if (older) this.#drop(older);
    while (policy === "drop_oldest" && full() && this.#outbox.length > 0) this.#drop(this.#outbox[0]);
    return !full();
  }

  #drop(waiting) {
    this.dropped += 1;
    this.#settle(waiting, new Refusal({ code: "dropped", message: "the outbox gave it up", permanent: false }));
  }

  /** @param {Waiting} waiting @param {Error} [refused] */
  #settle(waiting, refused) {
    const at = this.#outbox.indexOf(waiting);
    if (at < 0) return;
    this.#outbox.splice(at, 1);
    this.#bytes -= waiting.bytes;
    if (refused) waiting.reject(refused);
    else waiting.resolve();
    this.#wake();
  }

  /** A connection that has nothing to say is not made. */
  async #hasWork() {
    while (this.#outbox.length === 0 && !this.#closed) await new Promise((resolve) => (this.#wake = resolve));
  }

  #receive(envelope) {
    const { type, n } = envelope;
    if (type === "hello") {
      this.#maxInflight = envelope.limits?.max_inflight ?? NUMBERS;
      // `publisher_n` settles nothing: below it there may be what was refused, with a `nack` that was lost (section 5.2).
      this.#wake();
    } else if (type === "ack") {
      for (const one of this.#outbox.filter((one) => one.n <= n && one.sent)) this.#settle(one);
      this.#postpone(envelope.pressure);
    } else if (type === "nack") {
      const refused = this.#outbox.find((one) => one.n === n);
      if (refused) this.#refuse(refused, new Refusal(envelope));
      else this.#postpone(envelope.retry_after);
    }
  }

  /** What is refused for good, or without a time, is given back (section 5.2); the rest is sent again, no earlier than that. */
  #refuse(waiting, refusal) {
    if (refusal.permanent || refusal.retry_after === undefined) return this.#settle(waiting, refusal);
    Object.assign(waiting, { sent: false, refused: true });
    this.#postpone(refusal.retry_after);
  }

  #postpone(ms = 0) {
    this.#notBefore = Math.max(this.#notBefore, performance.now() + Math.min(MAX_TOLD, ms));
    this.#wake();
  }

  /** ms until anything may be sent. */
  #held() {
    return this.#notBefore - performance.now();
  }

  /**
   * What may be sent next. What was refused goes alone: an acknowledgement covers all numbers before its own, and one
   * that is still on its way must not cover what is sent again. Numbers stay within the window (section 5.2).
   */
  #next() {
    const next = this.#outbox.find((one) => !one.sent);
    if (next === undefined || this.#held() > 0 || next.n - this.#outbox[0].n >= NUMBERS) return undefined;
    const sent = this.#outbox.filter((one) => one.sent);
    const alone = next.refused || sent.some((one) => one.refused);
    return sent.length < (alone ? 1 : this.#maxInflight) ? next : undefined;
  }

  /** Hands out what is to be sent, as long as the link lives. @param {Link} link */
  async *#pump(link) {
    while (!link.signal.aborted) {
      const next = this.#next();
      if (next !== undefined) {
        next.sent = true;
        yield [next, (answer) => this.#receive({ n: next.n, ...answer })];
        continue;
      }
      const woken = this.#held() > 0 ? sleep(this.#held(), link.signal) : new Promise((resolve) => (this.#wake = resolve));
      await Promise.race([woken, aborted(link.signal)]);
    }
  }

  /** @param {State} state */
  #become(state) {
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
    if (state.name === "stopped") this.#giveUp({ code: state.code ?? "closed", message: state.message, permanent: true });
  }
}

/** One connection over one transport: it ends once, and delivers nothing after that. */
class Link {
  /** @type {number | null} `performance.now()` of its opening. */
  openedAt = null;
  /** `performance.now()` of the last sign of life. */
  heardAt = performance.now();
  /** ms: how often the server says something at least. */
  heartbeat = HEARTBEAT;
  /** @type {string | null} */
  token = null;
  /** @type {string | null} As `hello` named it. */
  session = null;
  /** Called once, when it is open. */
  onopen = () => {};
  /** @type {Promise<Ending>} See `run`. */
  ended = Promise.resolve({ code: "closed" });
  #owner;
  #stop = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchdog;
  /** @type {Ending} */
  #ending = { code: "closed" };

  /** @param {string} transport @param {AbortSignal} turn @param {Connector} owner */
  constructor(transport, turn, owner) {
    this.transport = /** @type {Transport | "post"} */ (transport);
    this.turn = turn;
    this.#owner = owner;
    this.from = owner.hooks.since();
    this.signal = AbortSignal.any([turn, this.#stop.signal]);
  }

  /** @returns {Promise<Ending>} when it has ended, whatever hangs */
  run() {
    this.ended = Promise.race([this.#work(), aborted(this.signal)]).then(() => {
      clearTimeout(this.#watchdog);
      return this.#ending;
    });
    return this.ended;
  }

  async #work() {
    this.endWithin(OPEN_WITHIN, "unreachable");
    try {
      await this.#authenticate();
      if (this.transport === "ws" || this.transport === "sse") this.#doubt();
      this.end(await TRANSPORTS[this.transport](this));
    } catch (error) {
      this.fail(error);
    }
  }

  async #authenticate() {
    const { token } = this.#owner.options;
    try {
      this.token = typeof token === "function" ? await token() : token;
    } catch (error) {
      throw new Refusal({ code: "token", message: String(error) });
    }
  }

  /**
   * When the first word does not come, a plain request tells whether it is the transport or the way. (A browser does not
   * tell when TCP and TLS stand.)
   */
  async #doubt() {
    const begun = performance.now();
    await sleep(FIRST_WORD, this.signal);
    if (this.openedAt !== null || this.signal.aborted) return;
    try {
      await this.ask();
      if (!this.#owner.ladder.isSure(this.transport)) this.end({ code: "silent", message: "there is no first word" });
      else if (this.openedAt === null) this.endWithin(begun + OPEN_WITHIN - performance.now(), "silent");
    } catch (error) {
      if (this.openedAt === null) this.fail(error);
    }
  }

  /** Asks for nothing by a plain poll, which nothing in between takes amiss. @throws {Refusal} what was wrong */
  async ask() {
    try {
      const response = await this.fetch(this.stream({ since: "now" }));
      await response.body?.cancel();
    } catch (error) {
      // A publisher's stream has no topic: so says a gateway, and nobody else.
      if (this.pump === undefined || !(error instanceof Refusal) || error.code !== "bad_request") throw error;
    }
  }

  /** The first ending counts. @param {Ending} ending */
  end(ending) {
    if (this.signal.aborted) return;
    this.#ending = ending;
    this.#stop.abort();
  }

  fail(error) {
    const garbled = error instanceof SyntaxError || error instanceof RangeError;
    this.end(error instanceof Refusal ? error : { code: garbled ? "garbled" : "lost", message: String(error) });
  }

  /** Something came: puts off the moment at which the connection counts as dead. @param {number} [within] ms */
  heard(within = this.openedAt === null ? undefined : Math.max(1_000, 2 * this.heartbeat)) {
    this.heardAt = performance.now();
    if (within !== undefined) this.endWithin(within, "silent");
  }

  /** @param {number} ms @param {string} code */
  endWithin(ms, code) {
    clearTimeout(this.#watchdog);
    const ending = { code, message: `nothing was heard for ${ms / 1_000} s` };
    this.#watchdog = setTimeout(() => this.end(ending), Math.min(ms, MAX_DELAY));
  }

  /** For how many ms it has been open. */
  lived() {
    return this.openedAt === null ? 0 : performance.now() - this.openedAt;
  }

  open() {
    if (this.signal.aborted || this.openedAt !== null) return;
    this.openedAt = performance.now();
    this.#owner.opened(this);
  }

  receive(envelope) {
    if (this.signal.aborted) return;
    const { type } = envelope;
    if (type === "bye") return this.end(envelope);
    if (type === "renew") return void this.renew();
    const isFirst = type === "hello" && this.openedAt === null;
    if (type === "hello") {
      this.session = envelope.session ?? null;
      this.heartbeat = envelope.heartbeat ?? HEARTBEAT;
      this.open();
      this.heard();
    }
    this.#owner.receive(envelope);
    if (isFirst) this.onopen();
  }

  /** The grant ends soon: a new token is sent, if there is one to ask for (section 5, `renew`). */
  async renew() {
    if (typeof this.#owner.options.token !== "function") return;
    try {
      await this.#authenticate();
      if (!this.signal.aborted) await this.renewWith(this.token);
    } catch {
      // Without a new token the server ends the connection, and the next one asks again.
    }
  }

  /** Beside a stream that only comes down: section 8.4. */
  async renewWith(token) {
    if (this.session === null) return;
    const url = resource(this.base, `session/${encodeURIComponent(this.session)}/auth`);
    await fetch(url, { method: "POST", headers: authorization(token), signal: this.signal });
  }

  get base() {
    return this.#owner.options.base;
  }

  get incarnation() {
    return this.#owner.options.incarnation;
  }

  get pollEvery() {
    return this.#owner.options.pollEvery ?? 0;
  }

  get ladder() {
    return this.#owner.ladder;
  }

  /** What a publisher sends. */
  get pump() {
    return this.#owner.hooks.pump;
  }

  /** The URL of the stream (section 8.1). @param {Record<string, string | number>} parameters */
  stream(parameters = { since: this.since() }) {
    const url = resource(this.base, "stream");
    for (const [name, value] of this.#owner.options.query) url.searchParams.append(name, value);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, String(value));
    return url;
  }

  since() {
    return this.#owner.hooks.since();
  }

  /**
   * @param {URL} url
   * @param {{ accept?: string, cache?: RequestCache }} [options]
   * @throws {Refusal} at any status but 2xx, and when there is no response
   */
  async fetch(url, { accept = "application/json", cache = "no-store" } = {}) {
    const headers = { Accept: accept, ...authorization(this.token) };
    const response = await fetch(url, { headers, cache, signal: this.signal }).catch((error) => {
      throw new Refusal({ code: "unreachable", message: String(error) });
    });
    if (!response.ok) throw await Refusal.from(response);
    return response;
  }
}

/** Section 6. @param {Link} link @returns {Promise<Ending>} */
async function overWebSocket(link) {
  const url = link.pump === undefined ? link.stream() : link.stream({});
  url.protocol = url.protocol.replace("http", "ws");
  const protocols = ["longwire.v1.json"];
  if (link.token) protocols.push(`longwire.token.${base64url(link.token)}`);
  const socket = new WebSocket(url, protocols);
  link.signal.addEventListener("abort", () => socket.close(), { once: true });
  const send = (envelope) => {
    // What is closing already has no use for it.
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(envelope));
  };
  link.renewWith = async (token) => send({ type: "auth", token });
  link.onopen = () => {
    keepAwake(link, send);
    if (link.pump !== undefined) publishOver(link, send).catch((error) => link.fail(error));
  };
  socket.onmessage = ({ data }) => {
    link.heard();
    try {
      link.receive(JSON.parse(data));
    } catch (error) {
      link.fail(error);
    }
  };
  const { code, reason } = await new Promise((resolve) => (socket.onclose = resolve));
  const message = `WebSocket closed with ${code}${reason && `: ${reason}`}`;
  if (code === 3000) return { code: "unauthorized", message, permanent: true };
  // 1005 and 1006 stand for a close without a word.
  if (code !== 1005 && code !== 1006) return { code: `close_${code}`, message, permanent: COME_BACK_NEVER.has(code) };
  // A browser hides why an upgrade was refused; a plain poll is told.
  if (link.openedAt === null) await link.ask();
  return { code: "lost", message };
}

/**
 * Something in between cuts what is silent for too long, and a browser has no Ping: a pattern is taken back that nobody
 * asked for, which changes nothing and is answered. @param {Link} link
 */
async function keepAwake(link, send) {
  const after = Math.max(1_000, link.ladder.idle / 2);
  for (let asked = 0; link.ladder.idle > 0 && !link.signal.aborted; ) {
    const wait = Math.max(asked, link.heardAt) + after - performance.now();
    if (wait > 0) await sleep(wait, link.signal);
    else {
      asked = performance.now();
      send({ type: "unsub", id: 0, topics: ["longwire.js/awake"] });
    }
  }
}

/** Sends what the publisher has, one envelope each; the answers come by `receive`. @param {Link} link */
async function publishOver(link, send) {
  for await (const [{ n, topic, key, body }] of link.pump(link)) {
    send({ type: "pub", n, topic, ...(key !== undefined && { key }), ...body });
  }
}

/** Section 8.2: one request after the other. @param {Link} link @returns {Promise<Ending>} */
async function overPost(link) {
  link.heard(MAX_DELAY); // only a request can be answered too late
  for await (const [{ n, topic, key, data, contentType }, settle] of link.pump(link)) {
    link.heard(OPEN_WITHIN);
    const idempotencyKey = `${link.incarnation}-${n}`;
    try {
      const { pressure } = await post(topic, data, { key, contentType, token: link.token, url: link.base, idempotencyKey, signal: link.signal });
      link.open();
      settle({ type: "ack", pressure });
    } catch (error) {
      if (!(error instanceof Refusal)) throw new Refusal({ code: "unreachable", message: String(error) });
      const { code, permanent, message, retry_after } = error;
      if (permanent === undefined || NOT_ITS_FAULT.has(code)) throw error;
      settle({ type: "nack", code, permanent, message, retry_after });
    }
    link.heard(MAX_DELAY);
  }
  return { code: "closed" };
}

/** Section 7, by `fetch`, since an `EventSource` can neither send a token nor tell a status. @param {Link} link */
async function overSse(link) {
  const response = await link.fetch(link.stream(), { accept: "text/event-stream" }).catch(async (error) => {
    // A browser does not tell whether there was a connection; a plain poll shows.
    if (error.code === "unreachable" && !link.signal.aborted) {
      await link.ask();
      throw new Refusal({ code: "lost", message: error.message });
    }
    throw error;
  });
  const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
  if (!isStream || response.body === null) throw new SyntaxError("not an SSE stream");
  const parser = new SseParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { code: "lost", message: "the stream ended" };
    link.heard();
    for (const { data } of parser.push(value)) link.receive(JSON.parse(data));
  }
}

/** Section 8.1. @param {Link} link @param {boolean} held  whether the server may hold a request; otherwise: a poll */
async function overPolls(link, held) {
  let behind = true;
  for (let first = true; ; first = false) {
    const since = link.since();
    const wait = held && !first ? link.ladder.wait : 0;
    // Without `since` the state is cacheable. The first request is not held, so that its answer opens the transport.
    const url = link.stream({ ...(since !== "latest" && { since }), ...(wait > 0 && { wait }) });
    const asked = performance.now();
    if (!first) link.heard(wait * 1_000 + POLL_GRACE);
    const response = await link.fetch(url, { cache: since === "latest" ? "default" : "no-store" }).catch((error) => {
      // What was not refused at once was held, and cut.
      if (error.code !== "unreachable" || wait === 0 || performance.now() - asked < 1_000) throw error;
      throw new Refusal({ code: "lost", message: error.message });
    });
    link.heard(BODY_WITHIN);
    const text = await response.text();
    const { gap, pressure, events, next, more = false } = text ? JSON.parse(text) : { events: [], next: response.headers.get("Longwire-Next") };
    if (!Array.isArray(events) || typeof next !== "string") throw new SyntaxError("not the answer of a gateway");
    link.open();
    if (gap) link.receive({ type: "gap", ...gap });
    if (pressure) link.receive({ type: "pressure", ...pressure });
    for (const event of events) link.receive(event);
    link.receive({ type: behind && !more ? "caught_up" : "tick", at: next });
    behind &&= more;
    // Whoever does not hold a request that may be held must not be hammered.
    const isHeld = held && (first || events.length > 0 || performance.now() - asked > 1_000);
    const pause = more ? 0 : isHeld ? LONG_POLL_PACE : link.pollEvery;
    link.heard(pause + POLL_GRACE);
    await sleep(pause, link.signal);
    if (link.signal.aborted) return { code: "closed" };
  }
}

/** @type {Record<Transport | "post", (link: Link) => Promise<Ending>>} */
const TRANSPORTS = {
  ws: overWebSocket,
  sse: overSse,
  longpoll: (link) => overPolls(link, true),
  poll: (link) => overPolls(link, false),
  post: overPost,
};

/**
 * Reads `text/event-stream` (WHATWG HTML section 9.2.6) from pieces of text cut anywhere. The byte order mark is
 * the decoder's business; `id` and `retry` are left out, as envelopes carry the cursor, and `bye` the delay.
 */
export class SseParser {
  #line = "";
  #type = "";
  #data = "";
  #hasData = false;
  #afterCr = false;

  /** @param {string} text @returns {Generator<{ type: string, data: string }>} */
  *push(text) {
    // The LF of a CRLF that was cut in two.
    let start = this.#afterCr && text.startsWith("\n") ? 1 : 0;
    if (text !== "") this.#afterCr = text.endsWith("\r");
    const ends = /\r\n?|\n/g;
    ends.lastIndex = start;
    for (let end = ends.exec(text); end !== null; end = ends.exec(text)) {
      const line = this.#line + text.slice(start, end.index);
      start = ends.lastIndex;
      this.#line = "";
      const event = this.#take(line);
      if (event !== null) yield event;
    }
    this.#line += text.slice(start);
    if (this.#line.length + this.#data.length > MAX_SSE_EVENT) throw new RangeError("SSE event above 4 MiB");
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "event") this.#type = value;
    if (name === "data") {
      this.#data += this.#hasData ? `\n${value}` : value;
      this.#hasData = true;
    }
    return null; // a comment has an empty name, and is ignored as any unknown field
  }

  #dispatch() {
    const event = this.#hasData ? { type: this.#type || "message", data: this.#data } : null;
    [this.#type, this.#data, this.#hasData] = ["", "", false];
    return event;
  }
}

/** What a storage says, which a browser may refuse. */
function attempt(use) {
  try {
    return use();
  } catch {
    return null;
  }
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function aborted(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Ends after `ms`, or when the signal is aborted. @returns {Promise<void>} */
function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, MAX_DELAY));
    signal.addEventListener("abort", done);
  });
}

/** @returns {Record<string, string>} */
function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Whether it is sent as it is, and not as JSON. */
function isOpaque(data) {
  return data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob;
}

function toBase64(data) {
  const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Unpadded base64url of the text's UTF-8. */
function base64url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
