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
const REMEMBERED = "longwire.transport"; // where the transport that worked is kept
const MAX_DELAY = 2 ** 31 - 1; // ms, the longest that setTimeout can wait
const COME_BACK_NEVER = new Set([1002, 1003, 1007, 1008, 1009, 3000]); // close codes of section 6

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
  /** ms over which clients spread when a connection ends without a word (`hello`, section 5). */
  #spread = 0;
  #proven = new Set();
  #closed = false;
  /** Aborted to end the connection, or the wait, that is under way. */
  #turn = new AbortController();

  /**
   * Begins at once; listeners added in the same task miss nothing.
   * @param {object} options
   * @param {string[]} options.topics  patterns, such as `fleet/**`
   * @param {string | URL} [options.url]  the gateway, or with `v1/logs/NAME` behind it one of its other logs;
   *   default: the gateway that served this module
   * @param {string} [options.since]  `latest` (default), `now`, or a cursor from before
   * @param {Transport | "auto"} [options.transport]  `auto` (default) goes down the ladder
   * @param {string | (() => string | Promise<string>) | null} [options.token]  a credential, or a function that
   *   fetches a fresh one whenever it is needed
   * @param {number} [options.pollEvery]  ms between two polls of the transport `poll`; default 2000
   * @param {Policy} [options.policy]  default: the server's, which is `drop_oldest`
   * @param {Storage | null} [options.memory]  where the transport that worked is remembered from one page to the
   *   next, such as `localStorage`; default: nowhere
   */
  constructor({ topics, url = HERE, since = "latest", transport = "auto", token = null, pollEvery = 2_000, policy, memory = null }) {
    super();
    const query = [...topics].map((topic) => ["topic", topic]);
    if (policy !== undefined) query.push(["policy", policy]);
    this.#options = { base: new URL(url, HERE), query, token, pollEvery, memory };
    if (since === "now" || since === "latest") this.#since = since;
    else [this.#since, this.#cursor] = ["latest", since];
    this.#pinned = pinned(transport);
    this.#rung = Math.max(0, LADDER.indexOf(memory?.getItem(REMEMBERED)));
    this.#state = { name: "connecting", transport: this.#pinned ?? LADDER[this.#rung] };
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
      const wait = this.#backoff(ending, link);
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
        if (this.#pinned === null) this.#options.memory?.setItem(REMEMBERED, transport);
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
    else if (type === "pressure") this.#emit("pressure", envelope);
    else if (type === "hello") this.#spread = envelope.window ?? 0;
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

  #backoff(ending, link) {
    this.#spread = ending.window || this.#spread;
    return backoff(ending, this.#attempts++, this.#spread, link.lived());
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

/**
 * How long to wait (section 11.1), and whether the server asked for it. `spread` is the window that it told last, `lived` for
 * how many ms the connection had lived.
 */
function backoff({ retry_after = 0, window = 0 }, attempts, spread, lived) {
  const own = Math.min(BACKOFF_CAP, BACKOFF_BASE * 2 ** attempts);
  const tooSoon = window > 0 ? 0 : Math.max(0, spread - lived);
  const over = tooSoon > 0 ? own : Math.max(spread, own);
  return { delay: Math.max(retry_after, tooSoon) + Math.random() * over, firm: retry_after + window > 0 };
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
export async function publish(topic, data, { key, contentType, token = null, url = HERE, signal, idempotencyKey } = {}) {
  const levels = topic.split("/");
  // A URL would drop these levels, even encoded, and name another topic.
  if (levels.some((level) => level === "." || level === "..")) throw new TypeError(`topic ${topic} fits in no URL`);
  const target = resource(new URL(url, HERE), `topics/${levels.map(encodeURIComponent).join("/")}`);
  if (key !== undefined) target.searchParams.set("key", key);
  const opaque = isOpaque(data);
  const response = await fetch(target, {
    method: "POST",
    body: opaque ? data : JSON.stringify(data),
    headers: {
      "Content-Type": opaque ? (contentType ?? "application/octet-stream") : "application/json",
      ...authorization(token),
      ...(idempotencyKey !== undefined && { "Idempotency-Key": `"${idempotencyKey}"` }),
    },
    signal: signal ?? AbortSignal.timeout(10_000),
  });
  if (!response.ok) throw await Refusal.from(response);
  return (await response.json()).at;
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

/** @typedef {{ n: number, topic: string, data: any, key?: string, contentType?: string, bytes: number, sent: boolean,
 *   resolve: () => void, reject: (why: Error) => void }} Waiting */

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
  #options;
  #bounds;
  #attempts = 0;
  #spread = 0;
  #maxInflight = 1;
  /** Nothing is sent before (`performance.now()`): what the server asked for. */
  #notBefore = 0;
  #closed = false;
  /** While this is in the future, POST is used (`performance.now()`). */
  #postUntil = 0;
  #lookIn = LOOK_UP;
  #strikes = 0;
  #proven = false;
  #turn = new AbortController();
  /** Called when there is something to do. */
  #wake = () => {};

  /**
   * @param {object} [options]
   * @param {string | URL} [options.url]  the gateway; default: the one that served this module
   * @param {string | (() => string | Promise<string>) | null} [options.token]  as for a {@link Subscriber}
   * @param {"ws" | "post" | "auto"} [options.transport]  `auto` (default): WebSocket, and POST where that fails
   * @param {"drop_oldest" | "drop_newest" | "conflate"} [options.policy]  what gives way when the outbox is full: the
   *   oldest publication, the new one (default), or an older one of the same topic and key, whenever there is one
   * @param {number} [options.maxWaiting]  publications in the outbox; default 1000
   * @param {number} [options.maxBytes]  of them, as they are sent; default 1 MiB
   */
  constructor({ url = HERE, token = null, transport = "auto", policy = "drop_newest", maxWaiting = 1_000, maxBytes = 1_048_576 } = {}) {
    super();
    if (!["auto", "ws", "post"].includes(transport)) throw new TypeError(`unknown transport ${transport}`);
    if (!["drop_oldest", "drop_newest", "conflate"].includes(policy)) throw new TypeError(`unknown policy ${policy}`);
    this.#options = { base: new URL(url, HERE), query: [["publisher", this.incarnation]], token, incarnation: this.incarnation };
    this.#bounds = { transport, policy, maxWaiting, maxBytes };
    this.#run();
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
   * @throws {Refusal} when the gateway refuses it for good, or with code `dropped` when the outbox gave it up,
   *   `closed` when the publisher was closed before; a `TypeError` when it cannot be sent
   */
  async publish(topic, data, { key, contentType } = {}) {
    if (this.#closed) throw new Refusal({ code: "closed", permanent: true });
    if (data instanceof Blob || JSON.stringify(data) === undefined) throw new TypeError("neither JSON nor bytes");
    const body = isOpaque(data) ? { bytes: toBase64(data), ...(contentType && { content_type: contentType }) } : { data };
    const waiting = { n: 0, topic, key, data, contentType, body, bytes: JSON.stringify(body).length + topic.length, sent: false };
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
    this.#closed = true;
    this.#turn.abort();
    this.#wake();
    for (const waiting of this.#outbox.splice(0)) waiting.reject(new Refusal({ code: "closed", permanent: true }));
    this.#bytes = 0;
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

  async #run() {
    await null; // listeners first
    while (!this.#closed) {
      if (this.#outbox.length === 0) {
        // A connection that has nothing to say is not made.
        await new Promise((resolve) => (this.#wake = resolve));
        continue;
      }
      const turn = (this.#turn = new AbortController());
      const { transport: wanted } = this.#bounds;
      const transport = wanted === "post" || performance.now() < this.#postUntil ? "post" : "ws";
      this.#become({ name: "connecting", transport });
      for (const waiting of this.#outbox) waiting.sent = false;
      const link = this.#link(transport, turn.signal);
      const ending = await link.run();
      if (turn.signal.aborted) continue;
      if (ending.permanent && !(ending.code === "unauthorized" && link.openedAt !== null && typeof this.#options.token === "function")) {
        this.#stop(transport, ending);
        return;
      }
      if (wanted === "auto") this.#judge(transport, link, ending);
      this.#spread = ending.window || this.#spread;
      const wait = backoff(ending, this.#attempts++, this.#spread, link.lived());
      this.#become({ name: "waiting", transport, ...wait, code: ending.code, message: ending.message });
      await sleep(wait.delay, turn.signal);
    }
  }

  #stop(transport, ending) {
    this.#closed = true;
    this.#become({ name: "stopped", transport, code: ending.code, message: ending.message });
    for (const waiting of this.#outbox.splice(0)) waiting.reject(new Refusal(ending));
    this.#bytes = 0;
  }

  /** @param {"ws" | "post"} transport @param {AbortSignal} turn */
  #link(transport, turn) {
    // From POST a better transport is tried again. What is on its way then is sent again, and stored once.
    const lookUp = transport === "post" && this.#bounds.transport === "auto" ? Math.max(1, this.#postUntil - performance.now()) : 0;
    const timer = lookUp && setTimeout(() => link.end({ code: "closed" }), lookUp);
    const link = new Link(transport, turn, this.#options, {
      since: () => "now",
      opened: () => this.#become({ name: "open", transport }),
      ended: () => clearTimeout(timer),
      receive: (envelope) => this.#receive(envelope, link),
    });
    link.pump = () => this.#pump(link);
    return link;
  }

  /** What could not be opened, and was not refused by the gateway itself, may be the network's doing. */
  #judge(transport, link, ending) {
    if (link.openedAt !== null && performance.now() - link.openedAt >= STABLE) this.#attempts = this.#strikes = 0;
    if (transport === "post") {
      if (link.openedAt === null) this.#postUntil = 0;
      return;
    }
    this.#proven ||= link.openedAt !== null;
    if (ending.permanent !== undefined || ++this.#strikes < (this.#proven ? STRIKES : 1)) return;
    this.#strikes = 0;
    this.#postUntil = performance.now() + this.#lookIn;
    this.#lookIn = Math.min(LOOK_UP_CAP, this.#lookIn * 2);
  }

  /** @param {Link} link */
  #receive(envelope, link) {
    const { type, n } = envelope;
    if (type === "hello") {
      this.#spread = envelope.window ?? 0;
      this.#maxInflight = envelope.limits?.max_inflight ?? Infinity;
      // `publisher_n` settles nothing: below it there may be what was refused, with a `nack` that was lost (section 5.2).
      this.#wake();
    } else if (type === "ack") {
      for (const one of this.#outbox.filter((one) => one.n <= n && one.sent)) this.#settle(one);
      this.#postpone(envelope.pressure);
    } else if (type === "nack") {
      const refused = this.#outbox.find((one) => one.n === n);
      if (refused) this.#refuse(refused, new Refusal(envelope));
      else this.#postpone(envelope.retry_after);
    } else if (type === "renew") link.renew();
  }

  /** What is refused for good is given back; the rest is sent again, no earlier than the gateway said. */
  #refuse(waiting, refusal) {
    if (refusal.permanent) this.#settle(waiting, refusal);
    else {
      Object.assign(waiting, { sent: false, refused: true });
      this.#postpone(refusal.retry_after ?? 1_000);
    }
  }

  #postpone(ms = 0) {
    this.#notBefore = Math.max(this.#notBefore, performance.now() + ms);
    this.#wake();
  }

  /**
   * What may be sent next. What was refused goes alone: an acknowledgement covers all numbers before its own, and one
   * that is still on its way must not cover what is sent again (section 5.2).
   */
  #next() {
    const sent = this.#outbox.filter((one) => one.sent);
    const next = this.#outbox.find((one) => !one.sent);
    const alone = next?.refused || sent.some((one) => one.refused);
    return sent.length < (alone ? 1 : this.#maxInflight) ? next : undefined;
  }

  /** Hands out what is to be sent, as long as the link lives. @param {Link} link */
  async *#pump(link) {
    while (!link.signal.aborted) {
      const next = this.#next();
      const wait = this.#notBefore - performance.now();
      if (next !== undefined && wait <= 0) {
        next.sent = true;
        const settle = (refused) => {
          if (refused) this.#refuse(next, refused);
          else this.#settle(next);
        };
        yield [next, settle];
      } else if (next !== undefined) await sleep(wait, link.signal);
      else {
        const woken = new Promise((resolve) => (this.#wake = resolve));
        await Promise.race([woken, aborted(link.signal)]);
      }
    }
  }

  #become(state) {
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/** One connection over one transport: it ends once, and delivers nothing after that. */
class Link {
  /** @type {number | null} `performance.now()` of its opening. */
  openedAt = null;
  /** @type {string | null} */
  token = null;
  /** @type {string | null} As `hello` named it. */
  session = null;
  /** What a publisher sends: see `Publisher`. */
  pump = null;
  /** Called once, when it is open. */
  onopen = () => {};
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
    this.heard();
    await Promise.race([this.#work(), aborted(this.signal)]);
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

  /** For how many ms it has been open. */
  lived() {
    return this.openedAt === null ? 0 : performance.now() - this.openedAt;
  }

  open() {
    if (this.signal.aborted || this.openedAt !== null) return;
    this.openedAt = performance.now();
    this.#on.opened(this.#from);
    this.onopen();
  }

  receive(envelope) {
    if (this.signal.aborted) return;
    if (envelope.type === "hello") {
      this.session = envelope.session ?? null;
      if (envelope.heartbeat > 0) this.#patience = 2 * envelope.heartbeat;
      this.heard();
    }
    if (envelope.type === "bye") this.end(envelope);
    else this.#on.receive(envelope);
    if (envelope.type === "hello") this.open();
  }

  /** The grant ends soon: a new token is sent, if there is one to ask for (section 5, `renew`). */
  async renew() {
    if (typeof this.#options.token !== "function") return;
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
    const url = resource(this.#options.base, `session/${encodeURIComponent(this.session)}/auth`);
    await fetch(url, { method: "POST", headers: authorization(token), signal: this.signal });
  }

  get base() {
    return this.#options.base;
  }

  get incarnation() {
    return this.#options.incarnation;
  }

  /** The URL of the stream (section 8.1). @param {Record<string, string | number>} parameters */
  stream(parameters = { since: this.#on.since() }) {
    const url = resource(this.#options.base, "stream");
    for (const [name, value] of this.#options.query) url.searchParams.append(name, value);
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
  const url = link.pump === null ? link.stream() : link.stream({});
  url.protocol = url.protocol.replace("http", "ws");
  const protocols = ["longwire.v1.json"];
  if (link.token) protocols.push(`longwire.token.${base64url(link.token)}`);
  const socket = new WebSocket(url, protocols);
  link.signal.addEventListener("abort", () => socket.close(), { once: true });
  const send = (envelope) => socket.send(JSON.stringify(envelope));
  link.renewWith = async (token) => send({ type: "auth", token });
  socket.onmessage = ({ data }) => {
    link.heard();
    try {
      link.receive(JSON.parse(data));
    } catch (error) {
      link.end({ code: "bad_message", message: String(error) });
    }
  };
  const closed = new Promise((resolve) => (socket.onclose = resolve));
  if (link.pump !== null) link.onopen = () => publishOver(link, send).catch((error) => link.end({ code: "lost", message: String(error) }));
  const { code, reason } = await closed;
  // A browser hides why an upgrade was refused; a plain poll is told, by a Refusal.
  if (link.openedAt === null && link.pump === null) await (await link.fetch(link.stream({ since: "now" }))).body?.cancel();
  const message = `WebSocket closed with ${code}${reason && `: ${reason}`}`;
  if (code === 3000) return { code: "unauthorized", message, permanent: true };
  return { code: "lost", message, permanent: COME_BACK_NEVER.has(code) || undefined };
}

/** Sends what the publisher has, one envelope each; the answers come by `receive`. @param {Link} link */
async function publishOver(link, send) {
  for await (const [{ n, topic, key, body }] of link.pump()) {
    send({ type: "pub", n, topic, ...(key !== undefined && { key }), ...body });
  }
}

/** Section 8.2: one request after the other. @param {Link} link @returns {Promise<Ending>} */
async function overPost(link) {
  link.heard(MAX_DELAY); // only a request can be answered too late
  for await (const [{ n, topic, key, data, contentType }, settle] of link.pump()) {
    link.heard(BODY_WITHIN);
    const idempotencyKey = `${link.incarnation}-${n}`;
    try {
      await publish(topic, data, { key, contentType, token: link.token, url: link.base, idempotencyKey, signal: link.signal });
      link.open();
      settle();
    } catch (error) {
      // Without a word from the gateway, or without a credential, nothing more can be sent.
      if (!(error instanceof Refusal) || error.permanent === undefined || error.code === "unauthorized") throw error;
      settle(error);
    }
    link.heard(MAX_DELAY);
  }
  return { code: "closed" };
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
    const { gap, pressure, events, next, more = false } = text ? JSON.parse(text) : { events: [], next: response.headers.get("Longwire-Next") };
    if (!Array.isArray(events) || typeof next !== "string") throw new TypeError("not the answer of a gateway");
    if (gap) link.receive({ type: "gap", ...gap });
    if (pressure) link.receive({ type: "pressure", ...pressure });
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

/** @type {Record<Transport | "post", (link: Link) => Promise<Ending>>} */
const TRANSPORTS = {
  ws: overWebSocket,
  sse: overSse,
  longpoll: (link) => overPolls(link, LONG_POLL),
  poll: (link) => overPolls(link, 0),
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

/** @param {Transport | "auto"} transport @returns {Transport | null} */
function pinned(transport) {
  if (transport === "auto") return null;
  if (!LADDER.includes(transport)) throw new TypeError(`unknown transport ${transport}`);
  return transport;
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
