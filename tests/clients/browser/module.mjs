/**
 * Uses longwire.js, from a page of the gateway at URL, on its log `other`: COUNT numbers are published while WebSockets are
 * cut, and then no longer let through, and read by a subscriber that goes through the same. Then a quiet connection is
 * kept awake, a poll is told of pressure (on the log `small`, with --max-lag-events=200), and a ticket is asked for.
 * Prints one JSON object with what was seen; whether every number is stored once, the caller looks up in the log itself.
 * Exit code 0 only if all was acknowledged and the page had nothing to complain about, but for the WebSockets that could
 * not be opened.
 */
import { command, withPage } from "./browser.mjs";

const usage = "node module.mjs URL COUNT [--timeout SECONDS]";
const { positionals, values } = command(usage, 2, {});
const [url, count] = positionals;

let seen = null;
const problems = await withPage({ deadline: Number(values.timeout ?? 60) * 1_000 }, async (page) => {
  await page.goto(url, { waitUntil: "load" });
  seen = await page.evaluate(use, Number(count));
});
// What a browser says of a WebSocket that was refused (404), and of the question whether it is the way (400).
const real = problems.filter((text) => !/WebSocket connection to .* failed|status of 40[04]/.test(text));
console.log(JSON.stringify({ ...seen, problems: real }));
process.exitCode = real.length === 0 ? 0 : 1;

/** Runs in the page. */
async function use(count) {
  const { Publisher, Subscriber, publish, ticket } = await import("/longwire.js");
  const url = "v1/logs/other";
  const until = (target, name, wanted) =>
    new Promise((resolve) => {
      target.addEventListener(name, function check({ detail }) {
        if (!wanted(detail)) return;
        target.removeEventListener(name, check);
        resolve(detail);
      });
    });

  // The page's WebSockets, so that they can be cut; and what is said over them.
  const sockets = new Set();
  const said = { sent: [], heard: [] };
  const Real = window.WebSocket;
  let blocked = false;
  window.WebSocket = class extends Real {
    constructor(to, protocols) {
      super(blocked ? new URL("/nowhere", to) : to, protocols);
      sockets.add(this);
      this.addEventListener("message", ({ data }) => said.heard.push(data));
    }
    send(text) {
      said.sent.push(text);
      super.send(text);
    }
  };
  const cut = () => sockets.forEach((socket) => socket.close());

  const subscriber = new Subscriber({ topics: ["numbers/**"], url, since: "latest", policy: "conflate" });
  const [numbers, lost, over, refused] = [[], [], [], []];
  subscriber.addEventListener("event", ({ detail }) => numbers.push(detail.data));
  subscriber.addEventListener("gap", ({ detail }) => lost.push(detail));
  subscriber.addEventListener("refused", ({ detail }) => refused.push(detail));
  subscriber.addEventListener("state", ({ detail }) => detail.name === "open" && over.push(detail.transport));
  await until(subscriber, "caughtup", () => true);

  const publisher = new Publisher({ url });
  const publishedOver = [];
  publisher.addEventListener("state", ({ detail }) => detail.name === "open" && publishedOver.push(detail.transport));
  const all = [];
  const give = (from, to) => {
    for (let n = from; n < to; n++) all.push(publisher.publish(`numbers/${n % 7}`, n));
  };
  const third = Math.floor(count / 3);
  give(0, third);
  await all[0];
  cut(); // in the middle of the acknowledgements
  give(third, 2 * third);
  await all[third];
  if (subscriber.state.name !== "open") await until(subscriber, "state", ({ name }) => name === "open");
  blocked = true;
  cut();
  give(2 * third, count);
  await Promise.all(all);
  while (numbers.length < count) await until(subscriber, "event", () => true);

  // Something in between is known to cut what is silent for 2 s: it is not silent for so long.
  blocked = false;
  said.sent.length = said.heard.length = 0;
  const memory = { getItem: () => "ws 2000", setItem() {} };
  const awake = new Subscriber({ topics: ["quiet"], url, memory });
  awake.addEventListener("refused", ({ detail }) => refused.push(detail));
  await until(awake, "state", ({ name }) => name === "open");
  const answered = () => said.heard.filter((text) => JSON.parse(text).id === 0).length;
  while (answered() < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  awake.close();

  // A poll is cut at 1,000 events, and what is left is more than half of the bound.
  const small = "v1/logs/small";
  const since = await publish("first", 0, { url: small });
  const many = new Publisher({ url: small, maxWaiting: 2_000 });
  await Promise.all(Array.from({ length: 1_150 }, (_, n) => many.publish("n", n)));
  const behind = new Subscriber({ topics: ["n"], url: small, since, transport: "poll" });
  const pressure = await until(behind, "pressure", () => true);
  behind.close();
  many.close();

  // A ticket for those who cannot send a header.
  const { ticket: text } = await ticket().catch(({ code }) => ({ ticket: code }));
  const result = { numbers, gaps: lost.length, over, publishedOver, refused, pressure, ticket: text };
  subscriber.close();
  publisher.close();
  return result;
}
