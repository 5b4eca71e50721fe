/**
 * The rules of longwire.js against scripted sockets, in virtual time: `node --test`. The sections cited are those of
 * PROTOCOL.md. Which transport it uses is in ladder.test.mjs.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SseParser, publish, ticket } from "../../../runtime-tokio/assets/longwire.js";
import { AT, GATEWAY, chance, event, hello, numbers, pass, publisher, requests, settle, sockets, subscribe, welcome } from "./scripted.mjs";

test("section 2: the cursor moves by the table, and the next connection begins there", async () => {
  const { subscriber, seen } = await subscribe({ transport: "ws" });
  assert.equal(sockets[0].url.href, "ws://gateway.test/v1/stream?topic=fleet%2F**&since=latest");
  const past = { type: "event", topic: "fleet/7/cpu", past: AT(1), data: "state" };
  sockets[0].say(hello, past);
  assert.equal(subscriber.cursor, null);
  const steps = [
    [{ type: "caught_up", at: AT(5) }, 5],
    [event(7), 7],
    [{ type: "gap", from: AT(7), to: AT(9), reason: "slow" }, 7],
    [past, 7],
    [{ type: "something", at: AT(8) }, 7],
    [{ type: "tick", at: AT(12) }, 12],
  ];
  for (const [envelope, cursor] of steps) {
    sockets[0].say(envelope);
    assert.equal(subscriber.cursor, AT(cursor), envelope.type);
  }
  sockets[0].end(1006);
  await pass(500);
  assert.equal(sockets[1].url.searchParams.get("since"), AT(12));
  const names = seen.map(([name, what]) => `${name} ${what ?? ""}`.trim());
  assert.deepEqual(names, ["event state", "caughtup", "event 7", "gap slow", "event state"]);
});

test("a cursor from before is where it begins", async () => {
  await subscribe({ transport: "ws", since: AT(3) });
  assert.equal(sockets[0].url.searchParams.get("since"), AT(3));
});

test("section 1: a URL names a log, or else the gateway of the default log", async () => {
  for (const [url, base] of [
    [GATEWAY, "/v1"],
    ["http://gateway.test/below/", "/below/v1"],
    ["http://gateway.test/v1/logs/telemetry", "/v1/logs/telemetry"],
    ["http://gateway.test/below/v1/logs/a.b/?x=y#z", "/below/v1/logs/a.b"],
    ["http://gateway.test//v1/logs/a", "//v1/logs/a"],
  ]) {
    await subscribe({ transport: "ws", url });
    assert.equal(sockets.at(-1).url.href, `ws://gateway.test${base}/stream?topic=fleet%2F**&since=latest`);
    const done = publish("fleet/a b", 1, { url });
    assert.equal(requests.at(-1).url.href, `http://gateway.test${base}/topics/fleet/a%20b`);
    requests.at(-1).answer(200, { at: AT(1) });
    await done;
  }
});

test("the cursor is set after the event was handed over", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  let during;
  subscriber.addEventListener("event", () => (during = subscriber.cursor));
  sockets[0].say(hello, event(1), event(2));
  assert.equal(during, AT(1));
});

test("a switch carries the cursor over, and nothing of the older connection is delivered after it", async () => {
  const { subscriber, seen } = await subscribe({ transport: "ws" });
  sockets[0].say(hello, event(1));
  const states = [];
  subscriber.addEventListener("state", ({ detail }) => states.push(detail));
  subscriber.switchTo("sse");
  sockets[0].say(event(2));
  assert.ok(sockets[0].closed);
  await settle();
  assert.equal(requests[0].url.searchParams.get("since"), AT(1));
  requests[0].stream().say(hello, event(2));
  await settle();
  assert.deepEqual(seen, [["event", 1], ["event", 2]]);
  assert.deepEqual(states, [
    { name: "connecting", transport: "sse", from: AT(1) },
    { name: "open", transport: "sse", from: AT(1) },
  ]);
});

test("a switch by a listener, in the middle of an answer, counts from the event handed over", async () => {
  const { subscriber, seen } = await subscribe({ transport: "poll", since: AT(0) });
  subscriber.addEventListener("event", () => subscriber.switchTo("ws"), { once: true });
  requests[0].answer(200, { events: [event(1), event(2)], next: AT(2) });
  await settle();
  assert.deepEqual(seen, [["event", 1]]);
  assert.equal(sockets[0].url.searchParams.get("since"), AT(1));
});

test("section 11: after 2 heartbeats of silence the connection is left", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  sockets[0].say(hello);
  await pass(19_999);
  sockets[0].say({ type: "tick", at: AT(1) });
  await pass(19_999);
  assert.equal(subscriber.state.name, "open");
  await pass(1);
  assert.equal(subscriber.state.name, "waiting");
  assert.equal(subscriber.state.code, "silent");
  assert.ok(sockets[0].closed);
});

test("section 11: full jitter between 0 and 0.5 s x 2^attempt, at most 30 s; one attempt at a time", async () => {
  chance.is = 0.999;
  const { subscriber } = await subscribe({ transport: "poll" });
  for (const cap of [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
    requests.at(-1).fail();
    await settle();
    assert.equal(subscriber.state.delay, 0.999 * cap);
    const before = requests.length;
    await pass(Math.floor(0.999 * cap) - 1);
    assert.equal(requests.length, before);
    await pass(2);
    assert.equal(requests.length, before + 1);
  }
});

test("section 11: attempts are counted from zero only after 30 s", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  const delays = [];
  for (const lived of [0, 29_000, 30_000, 0]) {
    sockets.at(-1).say(hello);
    for (let second = 0; second < lived; second += 1_000) {
      await pass(1_000);
      sockets.at(-1).say({ type: "tick", at: AT(1) });
    }
    sockets.at(-1).end(1006);
    await settle();
    delays.push(subscriber.state.delay);
    await pass(5_000);
  }
  assert.deepEqual(delays, [250, 500, 250, 500]);
});

test("bye: the server's delay and window override the backoff, also for a switch", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  const bye = { type: "bye", code: "draining", permanent: false, message: "soon back", retry_after: 4_000, window: 2_000 };
  sockets[0].say(hello, bye);
  await settle();
  assert.deepEqual(subscriber.state, { name: "waiting", transport: "ws", delay: 5_000, firm: true, code: "draining", message: "soon back" });
  subscriber.switchTo("poll");
  await pass(4_999);
  assert.equal(requests.length, 0);
  await pass(1);
  assert.equal(requests.length, 1);
});

test("what is permanent stops it: close codes of section 6, bye, refusals", async () => {
  for (const code of [1002, 1003, 1007, 1008, 1009, 3000]) {
    const { subscriber } = await subscribe({ transport: "ws" });
    sockets.at(-1).say(hello);
    sockets.at(-1).end(code);
    await settle();
    assert.equal(subscriber.state.name, "stopped", String(code));
  }
  for (const code of [1000, 1001, 1006, 1011, 1013]) {
    const { subscriber } = await subscribe({ transport: "ws" });
    sockets.at(-1).say(hello);
    sockets.at(-1).end(code);
    await settle();
    assert.equal(subscriber.state.name, "waiting", String(code));
  }
  const bye = { type: "bye", code: "unauthorized", permanent: true, message: "who are you?" };
  const first = await subscribe({ transport: "sse" });
  requests.at(-1).stream().say(bye);
  await settle();
  assert.deepEqual(first.subscriber.state, { name: "stopped", transport: "sse", code: "unauthorized", message: "who are you?" });
  const second = await subscribe({ transport: "poll" });
  requests.at(-1).answer(400, { code: "bad_topic", message: "no", permanent: true });
  await settle();
  assert.equal(second.subscriber.state.code, "bad_topic");
  const third = await subscribe({ transport: "poll" });
  requests.at(-1).answer(403, "<h1>a proxy</h1>");
  await settle();
  assert.deepEqual([third.subscriber.state.name, third.subscriber.state.code], ["stopped", "http_403"]);
  const fourth = await subscribe({ transport: "poll" });
  requests.at(-1).answer(204, null, { "Longwire-Next": AT(1) });
  await pass(2_000);
  requests.at(-1).answer(403, "<h1>a proxy</h1>");
  await settle();
  assert.equal(fourth.subscriber.state.name, "waiting", "where it worked before it may work again");
});

test("a refused upgrade, which browsers hide, is explained by a poll", async () => {
  const { subscriber } = await subscribe({ transport: "ws", token: "wrong" });
  sockets[0].end(1006);
  await settle();
  requests[0].answer(401, { code: "unauthorized", message: "no", permanent: true });
  await settle();
  assert.equal(subscriber.state.name, "stopped");
  assert.equal(subscriber.state.code, "unauthorized");
});

test("section 8.1: polls go on from `next`, and from Longwire-Next at 204; the state is asked for without `since`", async () => {
  const { subscriber, seen } = await subscribe({ transport: "poll", pollEvery: 1_000 });
  assert.equal(requests[0].url.search, "?topic=fleet%2F**");
  requests[0].answer(200, { events: [{ type: "event", topic: "a", past: AT(2), data: "state" }], next: AT(4) });
  await settle();
  assert.equal(subscriber.cursor, AT(4));
  await pass(1_000);
  assert.equal(requests[1].url.searchParams.get("since"), AT(4));
  requests[1].answer(204, null, { "Longwire-Next": AT(6) });
  await settle();
  assert.equal(subscriber.cursor, AT(6));
  await pass(1_000);
  requests[2].answer(200, { gap: { from: AT(6), to: AT(8), reason: "evicted" }, events: [event(9)], next: AT(10) });
  await settle();
  assert.equal(subscriber.cursor, AT(10));
  assert.deepEqual(seen, [["event", "state"], ["caughtup", undefined], ["gap", "evicted"], ["event", 9]]);
});

test("rare polls are no silence", async () => {
  const { subscriber } = await subscribe({ transport: "poll", since: AT(0), pollEvery: 60_000 });
  requests[0].answer(204, null, { "Longwire-Next": AT(0) });
  await pass(59_999);
  assert.equal(subscriber.state.name, "open");
  await pass(1);
  assert.equal(requests.length, 2);
});

test("a poll that was cut is followed by the next at once", async () => {
  await subscribe({ transport: "poll", since: AT(0) });
  requests[0].answer(200, { events: [event(1), event(2)], next: AT(2), more: true });
  await settle();
  await pass(0);
  assert.equal(requests[1].url.searchParams.get("since"), AT(2));
});

test("a long poll is held for 25 s after its first answer, and not repeated fast when nobody holds it", async () => {
  const { subscriber } = await subscribe({ transport: "longpoll", since: AT(1) });
  assert.equal(requests[0].url.searchParams.get("wait"), null);
  requests[0].answer(204, null, { "Longwire-Next": AT(1) });
  await settle();
  assert.equal(subscriber.state.name, "open");
  await pass(100);
  assert.equal(requests[1].url.searchParams.get("wait"), "25");
  await pass(25_000);
  assert.equal(subscriber.state.name, "open");
  requests[1].answer(204, null, { "Longwire-Next": AT(2) });
  await settle();
  await pass(100);
  requests[2].answer(204, null, { "Longwire-Next": AT(2) }); // at once: a proxy that does not hold
  await settle();
  await pass(1_999);
  assert.equal(requests.length, 3);
  await pass(1);
  assert.equal(requests.length, 4);
});

test("a token goes by subprotocol or by header, and is asked for again when the grant ends", async () => {
  let number = 0;
  const { subscriber } = await subscribe({ transport: "ws", token: async () => `tökén${++number}` });
  const offered = (text) => `longwire.token.${Buffer.from(text).toString("base64url")}`;
  assert.deepEqual(sockets[0].protocols, ["longwire.v1.json", offered("tökén1")]);
  sockets[0].say(hello, { type: "renew", within: 5_000 });
  await settle();
  assert.deepEqual(sockets[0].sent, [{ type: "auth", token: "tökén2" }]);
  sockets[0].end(3000);
  await settle();
  assert.equal(subscriber.state.name, "waiting");
  await pass(500);
  assert.deepEqual(sockets[1].protocols, ["longwire.v1.json", offered("tökén3")]);
  await subscribe({ transport: "sse", token: "abc" });
  assert.equal(requests.at(-1).headers.Authorization, "Bearer abc");
});

test("close ends it: no event, no attempt", async () => {
  const { subscriber, seen } = await subscribe({ transport: "ws" });
  sockets[0].say(hello);
  subscriber.close();
  sockets[0].say(event(1));
  await pass(120_000);
  assert.deepEqual(seen, []);
  assert.equal(sockets.length, 1);
  assert.equal(subscriber.state.name, "stopped");
});

test("bytes are decoded from base64", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  let bytes;
  subscriber.addEventListener("event", ({ detail }) => (bytes = detail.bytes));
  sockets[0].say(hello, { type: "event", topic: "a", at: AT(1), bytes: "AP8B" });
  assert.deepEqual(bytes, Uint8Array.of(0, 255, 1));
});

test("section 8.2: publish", async () => {
  const done = publish("fleet/a b/ü", { x: 1 }, { url: GATEWAY, key: "k&1", token: "t" });
  assert.equal(requests[0].url.href, "http://gateway.test/v1/topics/fleet/a%20b/%C3%BC?key=k%261");
  assert.equal(requests[0].method, "POST");
  assert.equal(requests[0].body, '{"x":1}');
  assert.deepEqual(requests[0].headers, { "Content-Type": "application/json", Authorization: "Bearer t" });
  requests[0].answer(200, { at: AT(8) });
  assert.equal(await done, AT(8));
  const refused = publish("a", Uint8Array.of(1), { url: GATEWAY });
  assert.equal(requests[1].headers["Content-Type"], "application/octet-stream");
  requests[1].answer(507, { code: "topics_full", message: "full", permanent: false, retry_after: 9 });
  await assert.rejects(refused, { name: "Refusal", code: "topics_full", permanent: false, retry_after: 9 });
  await assert.rejects(publish("a/../b", 1, { url: GATEWAY }), TypeError);
});

test("WHATWG 9.2.6: every split of an event stream gives the same events", () => {
  const wire =
    ": comment\r\nevent: tick\rdata: {\r\ndata:\"a\":  1}\r\n\r\nid: 1\ndata\n\n\rdata:x\r\rretry: 5\nevent: none\n\n" +
    "unknown: y\ndata:  two spaces\n\ndata: not dispatched";
  const whole = [...new SseParser().push(wire)];
  assert.deepEqual(whole, [
    { type: "tick", data: '{\n"a":  1}' },
    { type: "message", data: "" },
    { type: "message", data: "x" },
    { type: "message", data: " two spaces" },
  ]);
  const read = (pieces) => {
    const parser = new SseParser();
    return pieces.flatMap((piece) => [...parser.push(piece)]);
  };
  for (let i = 0; i <= wire.length; i++) {
    for (let k = i; k <= wire.length; k++) {
      assert.deepEqual(read([wire.slice(0, i), wire.slice(i, k), wire.slice(k)]), whole, `split at ${i} and ${k}`);
    }
  }
  assert.deepEqual(read([...wire]), whole);
});

test("an SSE event has a bound", () => {
  const parser = new SseParser();
  const piece = "x".repeat(1_048_576);
  for (let i = 0; i < 4; i++) [...parser.push(piece)];
  assert.throws(() => [...parser.push(piece)], RangeError);
});

test("section 5.2: a publication is sent again until it is acknowledged, under the same number", async () => {
  const { publisher: own, put, fates } = await publisher();
  assert.equal(sockets.length, 0, "a connection that has nothing to say is not made");
  put(1);
  put({ two: 2 }, "a/b", { key: "k" });
  put(new Uint8Array([0, 255]), "t", { contentType: "x/y" });
  await settle();
  assert.equal(sockets[0].url.href, `ws://gateway.test/v1/stream?publisher=${own.incarnation}`);
  assert.match(own.incarnation, /^[0-9a-f]{16}$/);
  sockets[0].say(welcome());
  await settle();
  assert.deepEqual(sockets[0].sent, [
    { type: "pub", n: 1, topic: "t", data: 1 },
    { type: "pub", n: 2, topic: "a/b", key: "k", data: { two: 2 } },
  ]);
  sockets[0].say({ type: "ack", n: 1, level: "ring" });
  await settle();
  assert.deepEqual(sockets[0].sent[2], { type: "pub", n: 3, topic: "t", bytes: "AP8=", content_type: "x/y" });
  assert.deepEqual(fates, { 1: "taken" });
  sockets[0].end(1006);
  await pass(500);
  // 2 was taken and its acknowledgement lost, or refused and the refusal lost: only the gateway knows.
  sockets[1].say(welcome({ publisher_n: 3 }));
  await settle();
  assert.deepEqual(numbers(sockets[1]), [2, 3]);
  sockets[1].say({ type: "ack", n: 3, level: "ring" });
  await settle();
  assert.deepEqual([fates, own.waiting], [{ 1: "taken", 2: "taken", 3: "taken" }, 0]);
});

test("section 5.2: what is refused for now is sent again, alone, and not before its time", async () => {
  const { put, fates } = await publisher();
  put(1);
  put(2);
  put(3);
  await settle();
  sockets[0].say(welcome());
  await settle();
  sockets[0].say({ type: "nack", n: 1, code: "over_quota", permanent: false, message: "", retry_after: 700 });
  await pass(699);
  assert.deepEqual(numbers(sockets[0]), [1, 2]);
  await pass(1);
  assert.deepEqual(numbers(sockets[0]), [1, 2], "2 is still on its way");
  sockets[0].say({ type: "ack", n: 2, level: "ring" });
  await settle();
  assert.deepEqual([numbers(sockets[0]), fates], [[1, 2, 1], { 2: "taken" }]);
  sockets[0].say({ type: "nack", n: 1, code: "forbidden", permanent: true, message: "" });
  await settle();
  assert.deepEqual([numbers(sockets[0]), fates], [[1, 2, 1, 3], { 1: "forbidden", 2: "taken" }]);
  // A refusal outlives the connection: `publisher_n` does not say that 3 was taken.
  sockets[0].say({ type: "nack", n: 3, code: "over_quota", permanent: false, message: "", retry_after: 1_000 });
  sockets[0].end(1006);
  await pass(500);
  sockets[1].say(welcome({ publisher_n: 3 }));
  await pass(1_000);
  assert.deepEqual(numbers(sockets[1]), [3]);
});

test("section 5.3: pressure in an acknowledgement is waited for", async () => {
  const { put } = await publisher();
  put(1);
  await settle();
  sockets[0].say(welcome(), { type: "ack", n: 1, level: "ring" });
  await settle();
  sockets[0].say({ type: "ack", n: 1, level: "ring", pressure: 300 });
  put(2);
  await pass(299);
  assert.deepEqual(numbers(sockets[0]), [1]);
  await pass(1);
  assert.deepEqual(numbers(sockets[0]), [1, 2]);
});

test("an outbox that is full does what its policy says", async () => {
  for (const [policy, kept, lost] of [
    ["drop_newest", [1, 2], [3, 4]],
    ["drop_oldest", [3, 4], [1, 2]],
    ["conflate", [2, 4], [1, 3]],
  ]) {
    const { publisher: own, put, fates } = await publisher({ policy, maxWaiting: 2 });
    put(1, "a");
    put(2, "b");
    put(3, "a");
    put(4, "a");
    await settle();
    assert.deepEqual([Object.keys(fates).map(Number), own.dropped, own.waiting], [lost, 2, 2], policy);
    const socket = sockets.at(-1);
    socket.say(welcome());
    await settle();
    assert.deepEqual(socket.sent.map(({ data }) => data), kept, policy);
  }
  const { put, fates } = await publisher({ maxBytes: 10 });
  put("0123456789");
  put(undefined);
  await settle();
  assert.deepEqual(fates, { 1: "dropped", 2: "TypeError" });
});

test("section 11.2: where WebSocket cannot be opened a publisher posts, each under its key, and looks up again", async () => {
  const { publisher: own, put, fates } = await publisher();
  put("x", "a b/c", { key: "k" });
  put(2);
  await settle();
  sockets[0].end(1006);
  await settle();
  assert.equal(requests[0].url.pathname, "/v1/stream", "is it the transport or the way?");
  requests[0].answer(400, { code: "bad_request", message: "no topic", permanent: true });
  await settle();
  assert.equal(requests.length, 2, "one request after the other");
  assert.equal(requests[1].url.pathname, "/v1/topics/a%20b/c");
  assert.equal(requests[1].headers["Idempotency-Key"], `"${own.incarnation}-1"`);
  requests[1].answer(200, { at: AT(1), pressure: 300 });
  await pass(299);
  assert.deepEqual([fates, requests.length], [{ 1: "taken" }, 2]);
  await pass(1);
  requests[2].answer(429, { code: "over_quota", message: "", permanent: false, retry_after: 1_500 });
  await pass(1_499);
  assert.equal(requests.length, 3);
  await pass(1);
  assert.equal(requests[3].headers["Idempotency-Key"], `"${own.incarnation}-2"`);
  requests[3].fail();
  await pass(1_000);
  assert.equal(requests[4].headers["Idempotency-Key"], `"${own.incarnation}-2"`);
  requests[4].answer(503, { code: "draining", message: "", permanent: false, retry_after: 2_000 });
  await pass(2_500);
  requests[5].answer(200, { at: AT(2) });
  await settle();
  assert.deepEqual(fates, { 1: "taken", 2: "taken" });
  await pass(225_000);
  assert.equal(sockets.length, 2, "a better transport is tried again");
  put(3);
  await settle();
  assert.equal(requests[6].headers["Idempotency-Key"], `"${own.incarnation}-3"`, "meanwhile the present one goes on");
  sockets[1].say(welcome());
  await settle();
  assert.ok(requests[6].signal.aborted);
  assert.deepEqual(numbers(sockets[1]), [3], "what was on its way is sent again under the same number");
});

test("section 5.2: what is refused without a time is given back, and holds up nothing", async () => {
  const { put, fates } = await publisher();
  put(1);
  put(2);
  await settle();
  sockets[0].say(welcome());
  await settle();
  sockets[0].say({ type: "nack", n: 1, code: "topics_full", permanent: false, message: "" }, { type: "ack", n: 2, level: "ring" });
  put(3);
  await settle();
  assert.deepEqual([numbers(sockets[0]), fates], [[1, 2, 3], { 1: "topics_full", 2: "taken" }]);
  const posting = await publisher({ transport: "post" });
  posting.put(1);
  await settle();
  requests[0].answer(507, { code: "topics_full", permanent: false, message: "" });
  await settle();
  assert.deepEqual(posting.fates, { 1: "topics_full" });
});

test("section 5.2: numbers stay within the gateway's window", async () => {
  const { put } = await publisher({ maxWaiting: 5_000 });
  for (let n = 1; n <= 1_100; n++) put(n);
  await settle();
  sockets[0].say(welcome({ limits: { max_inflight: 1_024 } }));
  await settle();
  // Of all that was sent only the first one's answer is missing.
  for (let n = 2; n <= 1_024; n++) sockets[0].say({ type: "nack", n, code: "forbidden", permanent: true, message: "" });
  await settle();
  assert.equal(Math.max(...numbers(sockets[0])), 1_024);
  sockets[0].say({ type: "ack", n: 1, level: "ring" });
  await settle();
  assert.equal(Math.max(...numbers(sockets[0])), 1_100);
});

test("a publisher that is refused for good gives everything back", async () => {
  const { put, fates } = await publisher({ transport: "post" });
  put(1);
  put(2);
  await settle();
  requests[0].answer(401, { code: "unauthorized", message: "", permanent: true });
  await settle();
  put(3);
  await settle();
  assert.deepEqual(fates, { 1: "unauthorized", 2: "unauthorized", 3: "closed" });
});

test("section 5.1: the policy is asked for, and pressure is told, in line or by a poll", async () => {
  const { subscriber } = await subscribe({ policy: "conflate", transport: "poll", since: AT(1) });
  const told = [];
  subscriber.addEventListener("pressure", ({ detail }) => told.push([detail.lag, detail.limit, detail.skipped]));
  assert.equal(requests[0].url.searchParams.get("policy"), "conflate");
  requests[0].answer(200, { pressure: { lag: 5, limit: 8, skipped: 0 }, events: [event(2)], next: AT(2) });
  await settle();
  subscriber.switchTo("ws");
  await settle();
  sockets[0].say(hello, { type: "pressure", lag: 6, limit: 8, skipped: 1 });
  assert.deepEqual(told, [[5, 8, 0], [6, 8, 1]]);
});

test("section 11.1: after a loss without a word clients spread over the window of hello", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  sockets[0].say({ ...hello, window: 8_000 });
  await pass(8_000);
  sockets[0].end(1006);
  await settle();
  assert.equal(subscriber.state.delay, 4_000);
  await pass(4_000);
  sockets[1].end(1006);
  await settle();
  requests[0].fail();
  await settle();
  assert.equal(subscriber.state.delay, 8_500, "the window, and half of our own second");
  await pass(8_500);
  sockets[2].say({ ...hello, window: 8_000 });
  await pass(3_000);
  sockets[2].end(1006);
  await settle();
  assert.equal(subscriber.state.delay, 6_000, "five seconds of the window are left, and half of our own two");
});

test("section 8.4: over SSE a grant is renewed beside the stream", async () => {
  const tokens = ["first", "second"];
  await subscribe({ transport: "sse", token: () => tokens.shift() });
  const stream = requests[0].stream();
  stream.say({ ...hello, session: "s/1" }, { type: "renew", within: 1_000 });
  await settle();
  assert.equal(requests[1].url.pathname, "/v1/session/s%2F1/auth");
  assert.deepEqual([requests[1].method, requests[1].headers.Authorization], ["POST", "Bearer second"]);
});

test("section 11, step 6: what was told before is not told again, events and gaps", async () => {
  const { subscriber, seen } = await subscribe({ transport: "ws", since: AT(9) });
  const gap = { type: "gap", from: AT(10), to: AT(12), reason: "evicted" };
  sockets[0].say(hello, event(8), event(9), event(10), event(10), gap, gap, { type: "gap", from: AT(2), to: AT(9), reason: "slow" });
  sockets[0].say({ type: "tick", at: AT(3) });
  assert.equal(subscriber.cursor, AT(10));
  sockets[0].end(1006);
  await pass(500);
  sockets[1].say(hello, gap, event(13), { ...event(1), at: "0000000000000001-1" });
  assert.deepEqual(seen.map(([, what]) => what), [10, "evicted", 13, 1]);
});

test("section 5: after a reset reading goes on from the state, also when the connection ends before it is whole", async () => {
  const { subscriber, seen } = await subscribe({ transport: "ws", since: AT(9) });
  sockets[0].say(hello, { type: "gap", from: AT(9), to: AT(3), reason: "reset" });
  assert.equal(subscriber.cursor, null);
  sockets[0].end(1006);
  await pass(500);
  assert.equal(sockets[1].url.searchParams.get("since"), "latest");
  sockets[1].say(hello, { type: "caught_up", at: AT(3) });
  assert.equal(subscriber.cursor, AT(3));
  assert.deepEqual(seen, [["gap", "reset"], ["caughtup", undefined]]);
});

test("section 11.1: a server can make it wait for an hour at most", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  sockets[0].say(hello, { type: "bye", code: "draining", permanent: false, message: "", retry_after: 1e12, window: 1e12 });
  await settle();
  assert.equal(subscriber.state.delay, 3_600_000 + 250);
});

test("section 11.1: the window of a bye is kept", async () => {
  const { subscriber } = await subscribe({ transport: "ws" });
  sockets[0].say(hello, { type: "bye", code: "draining", permanent: false, message: "", window: 8_000 });
  await pass(4_000);
  sockets[1].say(hello);
  sockets[1].end(1006);
  await settle();
  assert.equal(subscriber.state.delay, 8_500);
});

test("section 11, step 5: a credential that is refused is renewed once, if there is somebody to ask", async () => {
  const { subscriber } = await subscribe({ transport: "poll", token: async () => "t" });
  const no = { code: "unauthorized", message: "no", permanent: true };
  requests[0].answer(401, no);
  await settle();
  assert.equal(subscriber.state.name, "waiting");
  await pass(500);
  requests[1].answer(401, no);
  await settle();
  assert.deepEqual([subscriber.state.name, subscriber.state.code], ["stopped", "unauthorized"]);
  const grown = await subscribe({ transport: "poll", token: () => "t", since: AT(1) });
  for (let time = 0; time < 2; time++) {
    requests.at(-1).answer(401, no);
    await pass(5_000);
    requests.at(-1).answer(204, null, { "Longwire-Next": AT(1) });
    await pass(2_000);
  }
  assert.equal(grown.subscriber.state.name, "open", "what is granted and ends is renewed each time");
  for (const body of [no, "<h1>a proxy that looks at credentials</h1>"]) {
    const fixed = await subscribe({ transport: "poll", token: "t" });
    requests.at(-1).answer(401, body);
    await settle();
    assert.deepEqual([fixed.subscriber.state.name, fixed.subscriber.state.code], ["stopped", "unauthorized"]);
  }
});

test("section 8.4: a ticket, of the gateway whatever the log", async () => {
  const got = ticket({ url: "http://gateway.test/below/v1/logs/telemetry", token: "t", subscribe: ["a/**"] });
  assert.equal(requests[0].url.href, "http://gateway.test/below/v1/ticket");
  assert.deepEqual([requests[0].method, requests[0].headers.Authorization, requests[0].body], ["POST", "Bearer t", '{"subscribe":["a/**"]}']);
  requests[0].answer(200, { ticket: "x", expires_in: 10_000 });
  assert.deepEqual(await got, { ticket: "x", expires_in: 10_000 });
  const refused = ticket({ url: GATEWAY });
  requests[1].answer(401, { code: "unauthorized", message: "no", permanent: true });
  await assert.rejects(refused, { name: "Refusal", code: "unauthorized" });
});
