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
 *     await publish("fleet/7/cpu", 0.25);
 *
 * Nothing waits in this module: an event is handed to its listeners while the bytes that brought it are read,
 * so there is no queue to bound.
 *
 * @typedef {"ws" | "sse" | "longpoll" | "poll"} Transport
 * @typedef {{ topic: string, at?: string, past?: string, key?: string, data?: any, bytes?: Uint8Array,
 *   content_type?: string }} LongwireEvent  Numbers are doubles: integers beyond 2^53 lose precision.
 * @typedef {{ from: string, to: string, reason: "evicted" | "slow" | "reset" }} Gap
 * @typedef {{ name: "connecting" | "open" | "waiting" | "stopped", transport: Transport, from?: string,
 *   delay?: number, firm?: boolean, code?: string, message?: string }} State
 *   `from` is where reading began or goes on: a cursor, `now` or `latest`. `delay` is in ms; `firm`: the server asked
 *   for it. `code` says why it waits or stopped: of section 9, or `closed`, `lost`, `silent`, `http_STATUS`.
 * @typedef {{ code: string, message?: string, permanent?: boolean, retry_after?: number, window?: number }} Ending
 */

/** @type {Transport[]} The best first. */
const LADDER = ["ws", "sse", "longpoll", "poll"];
const OPEN_WITHIN = 5_000; // ms until a transport has said `hello` or given its first answer
const STABLE = 30_000; // ms after which a connection counts as good, and attempts are counted from zero (section 11)
const BACKOFF_BASE = 500; // ms
const BACKOFF_CAP = 30_000; // ms
const STRIKES = 3; // losses in a row, after which a transport that once worked is left
const LOOK_UP = 60_000; // ms until better transports are tried again; doubles up to LOOK_UP_CAP
const LOOK_UP_CAP = 960_000; // ms
const LONG_POLL = 25; // s that a long poll may be held
const LONG_POLL_PACE = 100; // ms between long polls: meanwhile events gather, and the rate of requests is bounded
const BODY_WITHIN = 30_000; // ms for the body of a poll
const MAX_SSE_EVENT = 4_194_304; // characters of one SSE event
const MAX_DELAY = 2 ** 31 - 1; // ms, the longest that setTimeout can wait
const COME_BACK_NEVER = new Set([1002, 1003, 1007, 1008, 1009, 3000]); // close codes of section 6

/** The gateway that served this module. */
const HERE = new URL(".", import.meta.url);

/**
 * A subscription that lasts until `close()` or until the server refuses it for good.
 *
 * Events (each a `CustomEvent`; see `detail`):
 * - `event`: a {@link LongwireEvent}. With `past` it is part of the state, with `at` it is new.
 * - `gap`: a {@link Gap}. With reason `reset`, forget what you knew: the state follows.
 * - `caughtup`: the past asked for has been delivered.
 * - `state`: a {@link State}, whenever the connection's state changes.
 * - `refused`: an `error` envelope: the server refused something, the connection goes on.
 */
export class Subscriber extends EventTarget {
  #options;
  /** `now` or `latest`: where to begin while there is no cursor. */
  #since;
  #cursor = null;
  /** @type {State} */
  #state;
  /** @type {Transport | null} The one transport to use; null: the ladder. */
  #pinned;
  #rung = 0;
  #strikes = 0;
  #attempts = 0;
  #lookIn = LOOK_UP;
  #proven = new Set();
  #closed = false;
  /** Aborted to end the connection, or the wait, that is under way. */
  #turn = new AbortController();

  /**
   * Begins at once; listeners added in the same task miss nothing.
   * @param {object} options
   * @param {string[]} options.topics  patterns, such as `fleet/**`
   * @param {string | URL} [options.url]  the gateway; default: the one that served this module
   * @param {string} [options.since]  `latest` (default), `now`, or a cursor from before
   * @param {Transport | "auto"} [options.transport]  `auto` (default) goes down the ladder
   * @param {string | (() => string | Promise<string>) | null} [options.token]  a credential, or a function that
   *   fetches a fresh one whenever it is needed
   * @param {number} [options.pollEvery]  ms between two polls of the transport `poll`; default 2000
   */
  constructor({ topics, url = HERE, since = "latest", transport = "auto", token = null, pollEvery = 2_000 }) {
    super();
    this.#options = { base: new URL(url, HERE), topics: [...topics], token, pollEvery };
    if (since === "now" || since === "latest") this.#since = since;
    else [this.#since, this.#cursor] = ["latest", since];
    this.#pinned = pinned(transport);
    this.#state = { name: "connecting", transport: this.#pinned ?? LADDER[0] };
    this.#run();
  }

  /** The position up to which everything was delivered, to begin from another time; null before the first. */
  get cursor() {
    return this.#cursor;
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /**
   * Drops the connection and goes on over another transport from the same cursor. A wait that the server asked for
   * is finished first. After `stopped` it does nothing.
   * @param {Transport | "auto"} transport
   */
  switchTo(transport) {
    this.#pinned = pinned(transport);
    this.#rung = this.#attempts = this.#strikes = 0;
    if (!this.#state.firm) this.#turn.abort();
  }

  /** Ends it for good. No event is delivered afterwards. */
  close() {
    this.#closed = true;
    this.#turn.abort();
  }

  /** One connection after another, never two attempts at once (section 11). */
  async #run() {
    await null; // listeners first
    while (!this.#closed) {
      const turn = (this.#turn = new AbortController());
      const transport = this.#pinned ?? LADDER[this.#rung];
      this.#become({ name: "connecting", transport, from: this.#cursor ?? this.#since });
      const link = this.#link(transport, turn.signal);
      const ending = await link.run();
      if (turn.signal.aborted) continue;
      if (ending.permanent && !this.#mayRenew(ending, link)) {
        this.#closed = true;
        this.#become({ name: "stopped", transport, code: ending.code, message: ending.message });
        return;
      }
      this.#judge(transport, link, ending);
      const wait = this.#backoff(ending);
      this.#become({ name: "waiting", transport, ...wait, code: ending.code, message: ending.message });
      await sleep(wait.delay, turn.signal);
    }
    this.#become({ name: "stopped", transport: this.#state.transport, code: "closed" });
  }

  /** @param {Transport} transport @param {AbortSignal} turn */
  #link(transport, turn) {
    let lookUp = 0;
    turn.addEventListener("abort", () => clearTimeout(lookUp));
    const link = new Link(transport, turn, this.#options, {
      since: () => this.#cursor ?? this.#since,
      opened: (from) => {
        this.#proven.add(transport);
        this.#become({ name: "open", transport, from });
        if (this.#pinned === null && this.#rung > 0) lookUp = setTimeout(() => this.#lookUp(turn), this.#lookIn);
      },
      ended: () => clearTimeout(lookUp),
      receive: (envelope) => this.#receive(envelope, link),
    });
    return link;
  }

  /** The table of section 2: first the event is handed over, then the cursor moves. */
  #receive(envelope, link) {
    const { type, at } = envelope;
    if (type === "event") {
      if (typeof envelope.bytes === "string") envelope.bytes = fromBase64(envelope.bytes);
      this.#emit("event", envelope);
    } else if (type === "gap") this.#emit("gap", envelope);
    else if (type === "caught_up") this.#emit("caughtup", envelope);
    else if (type === "error") this.#emit("refused", envelope);
    else if (type === "renew") link.renew();
    // A listener may have switched or closed: what is left of this connection no longer counts.
    if (at !== undefined && (type === "event" || type === "caught_up" || type === "tick")) this.#cursor = at;
  }

  /** A grant that was good and ended is worth another attempt when there is somebody to ask for the next token. */
  #mayRenew(ending, link) {
    return ending.code === "unauthorized" && link.openedAt !== null && typeof this.#options.token === "function";
  }

  /** Keeps or leaves the rung. What the server itself said is no fault of the transport. */
  #judge(transport, link, ending) {
    if (link.openedAt !== null && performance.now() - link.openedAt >= STABLE) {
      this.#attempts = this.#strikes = 0;
      if (this.#rung === 0) this.#lookIn = LOOK_UP;
    }
    if (this.#pinned !== null || ending.permanent !== undefined) return;
    this.#strikes += 1;
    if (this.#strikes < (this.#proven.has(transport) ? STRIKES : 1)) return;
    this.#strikes = 0;
    this.#rung += 1;
    // All of them failed, so it was not the transport: begin again with the best that ever worked.
    if (this.#rung === LADDER.length) this.#rung = Math.max(0, LADDER.findIndex((name) => this.#proven.has(name)));
  }

  /** Section 11, step 5: what the server asked for, otherwise full jitter. */
  #backoff({ retry_after = 0, window = 0 }) {
    const asked = retry_after + Math.random() * window;
    const cap = Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** this.#attempts);
    this.#attempts += 1;
    return asked > 0 ? { delay: asked, firm: true } : { delay: Math.random() * cap, firm: false };
  }

  /** Tries the better rungs beside the connection that works, and moves to the first that opens. */
  async #lookUp(turn) {
    this.#lookIn = Math.min(LOOK_UP_CAP, this.#lookIn * 2);
    for (let rung = 0; rung < this.#rung; rung++) {
      const probe = new Link(LADDER[rung], turn, this.#options, {
        since: () => "now",
        opened: () => probe.end({ code: "closed" }),
        ended: () => {},
        receive: () => {},
      });
      await probe.run();
      if (turn.aborted) return;
      if (probe.openedAt !== null) {
        [this.#rung, this.#strikes] = [rung, 0];
        this.#turn.abort();
        return;
      }
    }
  }

  /** @param {State} state */
  #become(state) {
    this.#state = state;
    this.#emit("state", state);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** What a server refused: `code`, `permanent`, `retry_after` (ms) of section 9. */
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
    const seconds = Number(response.headers.get("Retry-After")) || undefined;
    return new Refusal({ code: `http_${response.status}`, retry_after: seconds && seconds * 1_000 });
  }
}

/**
 * Publishes one event (section 8.2). A typed array, `ArrayBuffer` or `Blob` is sent as opaque bytes, anything else as
 * JSON.
 * @param {string} topic
 * @param {any} data
 * @param {{ key?: string, contentType?: string, token?: string | null, url?: string | URL, signal?: AbortSignal }}
 *   [options]  `contentType` is that of opaque bytes; `signal` ends the wait, by default after 10 s
 * @returns {Promise<string>} the event's cursor
 * @throws {Refusal} when the gateway refuses it; otherwise what `fetch` throws
 */
export async function publish(topic, data, { key, contentType, token = null, url = HERE, signal } = {}) {
  const levels = topic.split("/");
  // A URL would drop these levels, even encoded, and name another topic.
  if (levels.some((level) => level === "." || level === "..")) throw new TypeError(`topic ${topic} fits in no URL`);
  const target = new URL(`v1/topics/${levels.map(encodeURIComponent).join("/")}`, new URL(url, HERE));
  if (key !== undefined) target.searchParams.set("key", key);
  const opaque = data instanceof ArrayBuffer || ArrayBuffer.isView(data) || data instanceof Blob;
  const response = await fetch(target, {
    method: "POST",
    body: opaque ? data : JSON.stringify(data),
    headers: {
      "Content-Type": opaque ? (contentType ?? "application/octet-stream") : "application/json",
      ...authorization(token),
    },
    signal: signal ?? AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw await Refusal.from(response);
  return (await response.json()).at;
}

/** One connection over one transport: it ends once, and delivers nothing after that. */
class Link {
  /** @type {number | null} `performance.now()` of its opening. */
  openedAt = null;
  /** @type {string | null} */
  token = null;
  /** Sends an envelope, where the transport can. */
  send = (_envelope) => {};
  #transport;
  #options;
  #on;
  #from;
  #stop = new AbortController();
  #watchdog = 0;
  #patience = OPEN_WITHIN;
  /** @type {Ending} */
  #ending = { code: "closed" };

  constructor(transport, turn, options, on) {
    this.#transport = transport;
    this.#options = options;
    this.#on = on;
    this.#from = on.since();
    this.pollEvery = options.pollEvery;
    this.signal = AbortSignal.any([turn, this.#stop.signal]);
  }

  /** @returns {Promise<Ending>} when it has ended, whatever hangs */
  async run() {
    const aborted = new Promise((resolve) => this.signal.addEventListener("abort", resolve, { once: true }));
    this.heard();
    await Promise.race([this.#work(), aborted]);
    clearTimeout(this.#watchdog);
    this.#on.ended();
    return this.#ending;
  }

  async #work() {
    try {
      await this.#authenticate();
      this.end(await TRANSPORTS[this.#transport](this));
    } catch (error) {
      this.end(error instanceof Refusal ? error : { code: "lost", message: String(error) });
    }
  }

  async #authenticate() {
    const { token } = this.#options;
    this.token = typeof token === "function" ? await token() : token;
  }

  /** The first ending counts. @param {Ending} ending */
  end(ending) {
    if (this.signal.aborted) return;
    this.#ending = ending;
    this.#stop.abort();
  }

  /** Puts off the moment at which the connection counts as dead. @param {number} [within] ms */
  heard(within = this.#patience) {
    clearTimeout(this.#watchdog);
    const silent = { code: "silent", message: `nothing was heard for ${within / 1_000} s` };
    this.#watchdog = setTimeout(() => this.end(silent), Math.min(within, MAX_DELAY));
  }

  open() {
    if (this.signal.aborted || this.openedAt !== null) return;
    this.openedAt = performance.now();
    this.#on.opened(this.#from);
  }

  receive(envelope) {
    if (this.signal.aborted) return;
    if (envelope.type === "hello") {
      if (envelope.heartbeat > 0) this.#patience = 2 * envelope.heartbeat;
      this.heard();
      this.open();
    }
    if (envelope.type === "bye") this.end(envelope);
    else this.#on.receive(envelope);
  }

  /** The grant ends soon: a new token is sent, if there is one to ask for (section 5, `renew`). */
  async renew() {
    if (typeof this.#options.token !== "function") return;
    try {
      await this.#authenticate();
      if (!this.signal.aborted) this.send({ type: "auth", token: this.token });
    } catch {
      // Without a new token the server ends the connection, and the next one asks again.
    }
  }

  /** The URL of the stream (section 8.1). @param {Record<string, string | number>} parameters */
  stream(parameters = { since: this.#on.since() }) {
    const url = new URL("v1/stream", this.#options.base);
    for (const topic of this.#options.topics) url.searchParams.append("topic", topic);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, String(value));
    return url;
  }

  since() {
    return this.#on.since();
  }

  /**
   * @param {URL} url
   * @param {{ accept?: string, cache?: RequestCache }} [options]
   * @throws {Refusal} at any status but 2xx
   */
  async fetch(url, { accept = "application/json", cache = "no-store" } = {}) {
    const headers = { Accept: accept, ...authorization(this.token) };
    const response = await fetch(url, { headers, cache, signal: this.signal });
    if (!response.ok) throw await Refusal.from(response);
    return response;
  }
}

/** Section 6. @param {Link} link @returns {Promise<Ending>} */
async function overWebSocket(link) {
  const url = link.stream();
  url.protocol = url.protocol.replace("http", "ws");
  const protocols = ["longwire.v1.json"];
  if (link.token) protocols.push(`longwire.token.${base64url(link.token)}`);
  const socket = new WebSocket(url, protocols);
  link.signal.addEventListener("abort", () => socket.close(), { once: true });
  link.send = (envelope) => socket.send(JSON.stringify(envelope));
  socket.onmessage = ({ data }) => {
    link.heard();
    try {
      link.receive(JSON.parse(data));
    } catch (error) {
      link.end({ code: "bad_message", message: String(error) });
    }
  };
  const { code, reason } = await new Promise((resolve) => (socket.onclose = resolve));
  // A browser hides why an upgrade was refused; a plain poll is told, by a Refusal.
  if (link.openedAt === null) await (await link.fetch(link.stream({ since: "now" }))).body?.cancel();
  const message = `WebSocket closed with ${code}${reason && `: ${reason}`}`;
  if (code === 3000) return { code: "unauthorized", message, permanent: true };
  return { code: "lost", message, permanent: COME_BACK_NEVER.has(code) || undefined };
}

/** Section 7, by `fetch`, since an `EventSource` can neither send a token nor tell a status. @param {Link} link */
async function overSse(link) {
  const response = await link.fetch(link.stream(), { accept: "text/event-stream" });
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new TypeError("not an SSE stream");
  const parser = new SseParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { code: "lost", message: "the stream ended" };
    link.heard();
    for (const { data } of parser.push(value)) link.receive(JSON.parse(data));
  }
}

/** Section 8.1. @param {Link} link @param {number} wait  s that the server may hold a request; 0: a poll */
async function overPolls(link, wait) {
  let behind = true;
  for (let first = true; ; first = false) {
    const since = link.since();
    // Without `since` the state is cacheable. The first request is not held, so that its answer opens the transport.
    const url = link.stream({ ...(since !== "latest" && { since }), ...(wait > 0 && !first && { wait }) });
    const asked = performance.now();
    const response = await link.fetch(url, { cache: since === "latest" ? "default" : "no-store" });
    link.heard(BODY_WITHIN);
    const text = await response.text();
    link.open();
    const { gap, events, next, more = false } = text ? JSON.parse(text) : { events: [], next: response.headers.get("Longwire-Next") };
    if (!Array.isArray(events) || typeof next !== "string") throw new TypeError("not the answer of a gateway");
    if (gap) link.receive({ type: "gap", ...gap });
    for (const event of events) link.receive(event);
    link.receive({ type: behind && !more ? "caught_up" : "tick", at: next });
    behind &&= more;
    // Whoever does not hold a request that may be held must not be hammered.
    const held = wait > 0 && (first || events.length > 0 || performance.now() - asked > 1_000);
    const pause = more ? 0 : held ? LONG_POLL_PACE : link.pollEvery;
    link.heard(pause + wait * 1_000 + OPEN_WITHIN);
    await sleep(pause, link.signal);
    if (link.signal.aborted) return { code: "closed" };
  }
}

/** @type {Record<Transport, (link: Link) => Promise<Ending>>} */
const TRANSPORTS = {
  ws: overWebSocket,
  sse: overSse,
  longpoll: (link) => overPolls(link, LONG_POLL),
  poll: (link) => overPolls(link, 0),
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

/** @param {Transport | "auto"} transport @returns {Transport | null} */
function pinned(transport) {
  if (transport === "auto") return null;
  if (!LADDER.includes(transport)) throw new TypeError(`unknown transport ${transport}`);
  return transport;
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

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Unpadded base64url of the text's UTF-8. */
function base64url(text) {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
