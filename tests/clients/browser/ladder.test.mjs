/**
 * Which transport longwire.js uses: the tables of PROTOCOL.md section 11.2, row by row, in virtual time.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { AT, chance, event, hello, pass, requests, settle, sockets, subscribe } from "./scripted.mjs";

const nothingNew = [204, null, { "Longwire-Next": AT(1) }];

/** The rungs that are tried, with how long it waited before each. */
function watch(subscriber) {
  const tried = [];
  let waited;
  subscriber.addEventListener("state", ({ detail }) => {
    if (detail.name === "connecting") tried.push(waited === undefined ? `${detail.transport} at once` : `${detail.transport} later`);
    waited = detail.name === "waiting" ? detail.delay : undefined;
  });
  return tried;
}

/** Down to long polls, where WebSocket and SSE are refused by something in between. */
async function onLongPoll() {
  const { subscriber, seen } = await subscribe({ since: AT(1) });
  sockets[0].end(1006);
  await settle();
  requests[0].answer(...nothingNew);
  await settle();
  requests[1].answer(403, "no streams here");
  await settle();
  requests[2].answer(...nothingNew);
  await pass(100);
  return { subscriber, seen };
}

test("no connection: the same rung, after the wait", async () => {
  for (const rung of ["ws", "sse"]) {
    const { subscriber } = await subscribe({ memory: { getItem: () => null, setItem() {} } });
    const tried = watch(subscriber);
    if (rung === "sse") {
      sockets.at(-1).end(1006);
      await settle();
      requests.at(-1).answer(...nothingNew);
      await settle();
      requests.at(-1).fail(); // the stream, and then the question whether it is the way
    } else sockets.at(-1).end(1006);
    await settle();
    requests.at(-1).fail();
    await settle();
    assert.deepEqual([subscriber.state.name, subscriber.state.code], ["waiting", "unreachable"]);
    await pass(500);
    assert.equal(tried.at(-1), `${rung} later`);
    subscriber.close();
  }
});

test("a refusal of the server, or a close code: the same, or none", async () => {
  const { subscriber } = await subscribe();
  const tried = watch(subscriber);
  for (let time = 0; time < 4; time++) {
    sockets.at(-1).end(1006);
    await settle();
    requests.at(-1).answer(503, { code: "draining", message: "", permanent: false, retry_after: 10 });
    await settle();
    assert.equal(subscriber.state.code, "draining");
    await pass(10_000);
  }
  for (const code of [1000, 1001, 1011, 1013]) {
    sockets.at(-1).say(hello);
    sockets.at(-1).end(code);
    await settle();
    assert.equal(subscriber.state.code, `close_${code}`);
    await pass(30_000);
  }
  for (let time = 0; time < 4; time++) {
    sockets.at(-1).say(hello, { type: "bye", code: "draining", permanent: false, message: "", retry_after: 10 });
    await pass(30_010);
  }
  assert.deepEqual(new Set(tried), new Set(["ws later"]));
});

test("an answer that is no gateway's, what is garbled, a request that was changed: the next rung, at once", async () => {
  for (const break_ of [
    (request) => request.answer(403, "<h1>a proxy</h1>"),
    (request) => request.answer(200, "<h1>a portal</h1>"),
    (request) => request.answer(400, { code: "bad_request", message: "", permanent: true }),
    (request) => request.answer(426, { code: "upgrade_required", message: "", permanent: true }),
  ]) {
    const { subscriber } = await subscribe();
    const tried = watch(subscriber);
    sockets.at(-1).end(1006);
    await settle();
    break_(requests.at(-1)); // what a WebSocket is not told
    await settle();
    if (tried.length === 0) requests.at(-1).answer(...nothingNew);
    await settle();
    break_(requests.at(-1)); // the stream
    await settle();
    break_(requests.at(-1)); // the long poll
    await settle();
    assert.deepEqual(tried, ["sse at once", "longpoll at once", "poll at once"]);
    subscriber.close();
  }
});

test("cut without a word: the next rung at once; where it has worked, the third time, after the wait", async () => {
  const { subscriber } = await subscribe();
  const tried = watch(subscriber);
  sockets[0].say(hello);
  for (let time = 0; time < 3; time++) {
    sockets.at(-1).end(1006);
    await settle();
    if (time > 0) requests.at(-1).answer(...nothingNew);
    await settle();
    await pass(5_000);
  }
  assert.deepEqual(tried, ["ws later", "ws later", "sse later"]);
  const unproven = await subscribe();
  const rungs = watch(unproven.subscriber);
  sockets.at(-1).end(1006);
  await settle();
  requests.at(-1).answer(...nothingNew);
  await settle();
  assert.deepEqual(rungs, ["sse at once"]);
});

test("no first word within 2.5 s, though a plain request is answered: the next rung, at once", async () => {
  const { subscriber } = await subscribe({ since: AT(1) });
  const tried = watch(subscriber);
  for (const rung of ["sse", "longpoll"]) {
    await pass(2_499);
    assert.equal(tried.includes(`${rung} at once`), false);
    await pass(1);
    const question = requests.at(-1);
    assert.equal(question.url.searchParams.get("since"), "now");
    question.answer(...nothingNew);
    await settle();
    assert.equal(tried.at(-1), `${rung} at once`);
  }
  assert.ok(sockets[0].closed);
  assert.ok(requests[1].signal.aborted);
  // Plain polls are all the same: nothing is asked beside them, and they have 10 s.
  const before = requests.length;
  await pass(9_999);
  assert.equal(requests.length, before);
  assert.equal(subscriber.state.name, "connecting");
  await pass(1);
  assert.deepEqual([subscriber.state.name, subscriber.state.code], ["waiting", "unreachable"]);
});

test("no first word: a way that is slow is not the transport's fault", async () => {
  const { subscriber } = await subscribe();
  await pass(2_500);
  await pass(5_000);
  sockets[0].say(hello); // before the question was answered
  assert.equal(subscriber.state.name, "open");
  requests[0].answer(...nothingNew);
  await pass(10_000);
  assert.deepEqual([subscriber.state.name, subscriber.state.transport], ["open", "ws"]);
});

test("no first word where a rung has worked, or is the only one: 10 s in all", async () => {
  for (const options of [{ transport: "ws" }, { memory: { getItem: () => "ws 0", setItem() {} } }]) {
    const { subscriber } = await subscribe(options);
    await pass(2_500);
    requests.at(-1).answer(...nothingNew);
    await pass(7_499);
    assert.equal(subscriber.state.name, "connecting");
    await pass(1);
    assert.deepEqual([subscriber.state.name, subscriber.state.code], ["waiting", "silent"]);
    subscriber.close();
  }
});

test("a proxy whose server is away: the next rung after the wait; where it has worked, the third time", async () => {
  for (const status of [408, 429, 502]) {
    const { subscriber } = await subscribe();
    const tried = watch(subscriber);
    sockets.at(-1).end(1006);
    await settle();
    requests.at(-1).answer(status, "away", { "Retry-After": "2" });
    await settle();
    assert.equal(subscriber.state.delay, 2_250);
    await pass(2_250);
    requests.at(-1).stream().say(hello, event(1));
    await settle();
    requests.at(-1).fail();
    subscriber.switchTo("sse");
    await settle();
    assert.deepEqual(tried, ["sse later", "sse at once"]);
    subscriber.close();
  }
  const { subscriber } = await subscribe({ memory: { getItem: () => "sse 0", setItem() {} } });
  const tried = watch(subscriber);
  for (let time = 0; time < 3; time++) {
    requests.at(-1).answer(502, "away");
    await pass(10_000);
  }
  assert.deepEqual(tried, ["sse later", "sse later", "longpoll later"]);
});

test("when all have failed it begins with the best that ever worked, after the wait; or stops, if none has, for good", async () => {
  for (const [memory, last] of [["longpoll 0", "longpoll later"], [null, "stopped"]]) {
    const { subscriber } = await subscribe({ memory: { getItem: () => memory, setItem() {} } });
    const tried = watch(subscriber);
    for (let time = 0; time < 12 && subscriber.state.name !== "stopped" && tried.length < 5; time++) {
      if (subscriber.state.transport === "ws") sockets.at(-1).end(1006);
      else requests.at(-1).answer(403, "<h1>no</h1>");
      await settle();
      if (subscriber.state.transport === "ws") requests.at(-1).answer(403, "<h1>no</h1>");
      await settle();
      if (subscriber.state.name === "waiting") await pass(60_000);
    }
    assert.equal(subscriber.state.name === "stopped" ? "stopped" : tried.find((one) => one.endsWith("later")), last);
    subscriber.close();
  }
});

test("what failed before something worked is tried again when that fails", async () => {
  const { subscriber } = await onLongPoll();
  const tried = watch(subscriber);
  for (let time = 0; time < 3; time++) {
    requests.at(-1).answer(502, "away");
    await pass(5_000);
    if (time === 2) break;
    requests.at(-1).answer(...nothingNew);
    await pass(100);
  }
  requests.at(-1).answer(403, "no");
  await settle();
  assert.deepEqual(tried, ["longpoll later", "longpoll later", "poll later", "ws at once"]);
});

test("cut three times before it has lived for 30 s: the next rung; a connection that has lived counts for nothing", async () => {
  const { subscriber } = await subscribe();
  const tried = watch(subscriber);
  for (const lived of [0, 0, 30_000, 0, 0, 0]) {
    assert.equal(subscriber.state.transport, "ws");
    sockets.at(-1).say(hello);
    for (let past = 0; past < lived; past += 10_000) {
      await pass(10_000);
      sockets.at(-1).say({ type: "tick", at: AT(1) });
    }
    sockets.at(-1).end(1006);
    await pass(10_000);
  }
  assert.equal(tried.at(-1), "sse later");
});

test("cut twice after the same silence: on WebSocket the same rung at once, and something is said after half of it", async () => {
  const memory = new Map();
  const { subscriber, seen } = await subscribe({ memory: { getItem: (k) => memory.get(k) ?? null, setItem: (k, v) => memory.set(k, v) } });
  const tried = watch(subscriber);
  for (const silence of [8_000, 8_900]) {
    sockets.at(-1).say(hello);
    await pass(silence);
    sockets.at(-1).end(1006);
    await settle();
    if (silence === 8_000) await pass(5_000);
  }
  assert.deepEqual(tried, ["ws later", "ws at once"]);
  sockets[2].say(hello);
  assert.equal(memory.get("longwire.transport"), "ws 8900");
  await pass(4_449);
  assert.equal(sockets[2].sent.length, 0);
  await pass(1);
  assert.deepEqual(sockets[2].sent.map(({ type }) => type), ["unsub"]);
  sockets[2].say({ type: "caught_up", id: 0, at: AT(4) });
  assert.deepEqual([seen, subscriber.cursor], [[], AT(4)], "its answer is no news");
  await pass(4_450);
  assert.equal(sockets[2].sent.length, 2);
  // It did not help: no reason to hurry.
  for (let time = 2; time < 4; time++) {
    await pass(4_450);
    sockets[time].end(1006);
    await pass(5_000);
    sockets[time + 1].say(hello);
    await pass(4_450);
  }
  assert.deepEqual(tried.slice(2), ["ws later", "ws later"]);
});

test("cut twice after silences that differ: no pattern", async () => {
  const { subscriber } = await subscribe();
  const tried = watch(subscriber);
  for (const silence of [8_000, 9_200]) {
    sockets.at(-1).say(hello);
    await pass(silence);
    sockets.at(-1).end(1006);
    await pass(5_000);
  }
  assert.deepEqual(tried, ["ws later", "ws later"]);
});

test("cut twice after the same silence: SSE is left at once when the heartbeat is no shorter", async () => {
  for (const [heartbeat, next] of [[10_000, "longpoll at once"], [5_000, "sse at once"]]) {
    const { subscriber } = await subscribe({ memory: { getItem: () => "sse 0", setItem() {} }, since: AT(1) });
    const tried = watch(subscriber);
    for (let time = 0; time < 2; time++) {
      const stream = requests.at(-1).stream();
      stream.say({ ...hello, heartbeat });
      await pass(6_000);
      stream.end();
      await settle();
      if (time === 0) await pass(5_000);
    }
    assert.equal(tried.at(-1), next);
    subscriber.close();
  }
});

test("a long poll that fails before its time, once: it is held for half as long from then on", async () => {
  const { subscriber } = await onLongPoll();
  const tried = watch(subscriber);
  assert.equal(requests.at(-1).url.searchParams.get("wait"), "25");
  await pass(10_000);
  requests.at(-1).fail();
  await settle();
  assert.deepEqual(tried, ["longpoll at once"]);
  requests.at(-1).answer(...nothingNew);
  await pass(100);
  assert.equal(requests.at(-1).url.searchParams.get("wait"), "5");
  await pass(3_000);
  requests.at(-1).answer(504, "the proxy's patience");
  await settle();
  requests.at(-1).answer(...nothingNew);
  await pass(100);
  assert.equal(requests.at(-1).url.searchParams.get("wait"), "1");
});

test("what worked, and the silence that was learned, are remembered", async () => {
  const stored = new Map();
  const memory = { getItem: (name) => stored.get(name) ?? null, setItem: (name, value) => stored.set(name, value) };
  stored.set("longwire.transport", "longpoll 9000");
  const { subscriber } = await subscribe({ memory, since: AT(1) });
  requests[0].answer(...nothingNew);
  await pass(100);
  assert.equal(requests[1].url.searchParams.get("wait"), "4");
  assert.equal(stored.get("longwire.transport"), "longpoll 9000");
  subscriber.close();
  for (const broken of ["", "carrier pigeon", "ws x"]) {
    stored.set("longwire.transport", broken);
    const { subscriber } = await subscribe({ memory });
    assert.equal(subscriber.state.transport, "ws");
    subscriber.close();
  }
  const refusing = { getItem: () => { throw new Error("denied"); }, setItem: () => { throw new Error("denied"); } };
  const denied = await subscribe({ memory: refusing });
  sockets.at(-1).say(hello);
  assert.equal(denied.subscriber.state.name, "open");
});

test("a better rung is looked for after 2.5 to 5 minutes, then later and later, each in its turn", async () => {
  const { subscriber } = await onLongPoll();
  chance.is = 0;
  let [socketsBefore, now] = [sockets.length, 0];
  const looked = [];
  // With `held` the long poll is answered each second, so that it never falls silent.
  for (let second = 1; second <= 2_700 && looked.length < 4; second++) {
    requests.filter((one) => one.url.searchParams.has("wait") && !one.answered).forEach((one) => {
      one.answered = true;
      one.answer(...nothingNew);
    });
    now += 1;
    await pass(1_000);
    const streams = requests.filter((one) => one.headers.Accept === "text/event-stream" && !one.signal.aborted);
    if (sockets.length > socketsBefore) {
      looked.push(["ws", now]);
      socketsBefore = sockets.length;
      sockets.at(-1).end(1006);
      await settle();
      requests.at(-1).answer(403, "no");
    } else if (streams.length > 0) {
      looked.push(["sse", now]);
      streams[0].answer(403, "no");
    }
    await settle();
    assert.equal(subscriber.state.name, "open");
  }
  const [first, second, third, fourth] = looked;
  assert.deepEqual(looked.map(([rung]) => rung), ["ws", "sse", "ws", "sse"]);
  // The first was drawn with a chance of one half: 225 s; the others at the least: 300, 600, 1200 s.
  for (const [got, expected] of [[first[1], 225], [second[1] - first[1], 300], [third[1] - second[1], 600], [fourth[1] - third[1], 1_200]]) {
    assert.ok(Math.abs(got - expected) <= 3, `${got} for ${expected}`);
  }
});

test("connections that end in between do not put it off", async () => {
  const { subscriber } = await onLongPoll();
  for (let time = 0; time < 22; time++) {
    await pass(9_000);
    requests.at(-1).answer(503, { code: "draining", message: "", permanent: false });
    await pass(1_000);
    for (let wait = 0; wait < 40 && subscriber.state.name === "waiting"; wait++) await pass(1_000);
    requests.at(-1).answer(...nothingNew);
    await pass(100);
    if (sockets.length > 1) return;
  }
  assert.fail("nobody looked up");
});

test("a better rung that opens takes over from the cursor; nothing is lost or told twice", async () => {
  const { subscriber, seen } = await subscribe({ since: AT(0) });
  sockets[0].end(1006);
  await settle();
  requests[0].answer(...nothingNew);
  await settle();
  const stream = requests[1].stream();
  stream.say({ ...hello, heartbeat: 1_000_000 }, event(1));
  await pass(225_000);
  assert.equal(sockets.length, 2);
  assert.equal(sockets[1].url.searchParams.get("since"), AT(1));
  stream.say(event(2));
  await settle();
  assert.equal(subscriber.state.transport, "sse");
  sockets[1].say({ ...hello, heartbeat: 1_000_000 }, event(2), event(3));
  assert.ok(requests[1].signal.aborted);
  assert.equal(subscriber.state.transport, "ws");
  await pass(900_000);
  assert.deepEqual([sockets.length, requests.length], [2, 2], "at the top nobody looks up");
  assert.deepEqual(seen.map(([, data]) => data), [1, 2, 3]);
});

test("a better rung that does not open changes nothing, and nobody looks while the cursor is not known", async () => {
  const { subscriber, seen } = await subscribe();
  sockets[0].end(1006);
  await settle();
  requests[0].answer(...nothingNew);
  await settle();
  const stream = requests[1].stream();
  stream.say({ ...hello, heartbeat: 1_000_000 });
  await pass(400_000);
  assert.equal(sockets.length, 1);
  stream.say(event(1));
  await pass(1_000);
  assert.equal(sockets.length, 2);
  await pass(10_000);
  assert.ok(sockets[1].closed);
  stream.say(event(2));
  await settle();
  assert.deepEqual([subscriber.state.name, subscriber.state.transport], ["open", "sse"]);
  assert.deepEqual(seen.map(([, data]) => data), [1, 2]);
});

test("a connection that ends while a better rung is tried ends that as well: never two attempts at once", async () => {
  const { subscriber } = await subscribe({ since: AT(0) });
  sockets[0].end(1006);
  await settle();
  requests[0].answer(...nothingNew);
  await settle();
  const stream = requests[1].stream();
  stream.say({ ...hello, heartbeat: 1_000_000 }, event(1));
  await pass(225_000);
  stream.end();
  await settle();
  assert.ok(sockets[1].closed);
  sockets[1].say(hello);
  assert.equal(subscriber.state.name, "waiting");
});
