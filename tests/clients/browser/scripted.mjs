/**
 * What the tests of longwire.js share: a scripted WebSocket, a scripted fetch, virtual time, and chance that can be set.
 */
import { afterEach, beforeEach, mock } from "node:test";
import { Publisher, Subscriber } from "../../../runtime-tokio/assets/longwire.js";

export const AT = (n) => `9f86d081884c7d65-${n}`;
export const GATEWAY = "http://gateway.test/";
export const hello = { type: "hello", session: "s", heartbeat: 10_000, lease: null, limits: {} };
export const event = (n) => ({ type: "event", topic: "fleet/7/cpu", at: AT(n), data: n });

/** Every socket and every request that the client opened, oldest first. */
export let sockets;
export let requests;
let subscribers;
/** What Math.random() says. */
export const chance = { is: 0.5 };

class ScriptedSocket {
  closed = false;
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, sent: [] });
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  /** The server's side. */
  say(...envelopes) {
    for (const envelope of envelopes) this.onmessage({ data: JSON.stringify(envelope) });
  }
  end(code) {
    this.onclose({ code, reason: "" });
  }
}

function scriptedFetch(url, { headers = {}, signal, method = "GET", body } = {}) {
  return new Promise((resolve, reject) => {
    const answer = (status, content, more = {}) =>
      resolve(new Response(content !== null && typeof content === "object" ? JSON.stringify(content) : content, { status, headers: more }));
    const stream = () => {
      let controller;
      const readable = new ReadableStream({ start: (c) => (controller = c) });
      resolve(new Response(readable, { headers: { "Content-Type": "text/event-stream" } }));
      signal.addEventListener("abort", () => controller.error(signal.reason));
      const bytes = new TextEncoder();
      return {
        say: (...envelopes) => {
          for (const e of envelopes) controller.enqueue(bytes.encode(`event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`));
        },
        end: () => controller.close(),
      };
    };
    signal?.addEventListener("abort", () => reject(signal.reason));
    requests.push({ url: new URL(url), headers, signal, method, body, answer, stream, fail: () => reject(new TypeError("no network")) });
  });
}

beforeEach(() => {
  [sockets, requests, subscribers, chance.is] = [[], [], [], 0.5];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(performance, "now", () => Date.now());
  mock.method(Math, "random", () => chance.is);
  globalThis.WebSocket = ScriptedSocket;
  globalThis.fetch = scriptedFetch;
});

afterEach(() => {
  for (const subscriber of subscribers) subscriber.close();
  mock.timers.reset();
  mock.restoreAll();
});

/** Lets everything happen that needs no time. */
export async function settle() {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
}

export async function pass(ms) {
  await settle();
  mock.timers.tick(ms);
  await settle();
}

export async function subscribe(options) {
  const subscriber = new Subscriber({ topics: ["fleet/**"], url: GATEWAY, ...options });
  subscribers.push(subscriber);
  const seen = [];
  for (const name of ["event", "gap", "caughtup", "refused"]) {
    subscriber.addEventListener(name, ({ detail }) => seen.push([name, detail.data ?? detail.reason ?? detail.code]));
  }
  await settle();
  return { subscriber, seen };
}

/** A publisher, and what became of its publications: n -> "taken" or the code of the refusal. */
export async function publisher(options) {
  const publisher = new Publisher({ url: GATEWAY, ...options });
  subscribers.push(publisher);
  const fates = {};
  let n = 0;
  const put = (data, topic = "t", more = {}) => {
    const own = ++n;
    publisher.publish(topic, data, more).then(
      () => (fates[own] = "taken"),
      (error) => (fates[own] = error.code ?? error.name),
    );
  };
  await settle();
  return { publisher, put, fates };
}

export const welcome = (more = {}) => ({ ...hello, limits: { max_inflight: 2 }, ...more });
export const numbers = (socket) => socket.sent.map(({ n }) => n);
