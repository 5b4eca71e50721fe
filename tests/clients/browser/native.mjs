/**
 * Subscribes with the browser's own WebSocket and EventSource, in a page of the gateway, without longwire.js. Prints
 * one JSON object a line: {"transport":...,"ready":true} when a subscription is open, then for each event
 * {"transport":...,"topic":...,"at":...,"data":...}. Ends with exit code 0 when each of the two had COUNT events.
 */
import { command, withPage } from "./browser.mjs";

const usage = "node native.mjs URL TOPIC COUNT [--since now|latest|CURSOR] [--timeout SECONDS]";
const { positionals, values } = command(usage, 3, { since: { type: "string", default: "now" } });
const [url, topic, number] = positionals;

const problems = await withPage({ deadline: Number(values.timeout ?? 60) * 1_000 }, async (page) => {
  await page.exposeFunction("report", (line) => console.log(JSON.stringify(line)));
  await page.goto(url, { waitUntil: "load" });
  await page.evaluate(subscribe, topic, Number(number), values.since);
});
for (const problem of problems) console.error(problem);
process.exitCode = problems.length === 0 ? 0 : 1;

/** Runs in the page. */
async function subscribe(topic, number, since) {
  const stream = new URL("/v1/stream", location.href);
  stream.searchParams.set("topic", topic);
  stream.searchParams.set("since", since);

  /** Collects until `number` events came; what fails makes the whole script fail. */
  const collect = (transport, listen) =>
    new Promise((resolve, reject) => {
      let seen = 0;
      const take = async (text) => {
        const { type, topic, at, past, data, bytes } = JSON.parse(text);
        if (type === "hello") window.report({ transport, ready: true });
        if (type === "bye" || type === "error") reject(new Error(`${transport}: ${text}`));
        if (type !== "event" || seen === number) return;
        seen += 1;
        const last = seen === number;
        await window.report({ transport, topic, at, past, data, bytes });
        if (last) resolve();
      };
      listen(take, (why) => reject(new Error(`${transport}: ${why}`)));
    });

  const overWebSocket = collect("ws", (take, fail) => {
    const url = new URL(stream);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, ["longwire.v1.json"]);
    socket.onmessage = ({ data }) => take(data);
    socket.onclose = ({ code }) => fail(`closed with ${code}`);
  });
  const overSse = collect("sse", (take, fail) => {
    const source = new EventSource(stream);
    source.onmessage = ({ data }) => take(data);
    for (const name of ["hello", "bye"]) source.addEventListener(name, ({ data }) => take(data));
    source.onerror = () => fail("the stream broke");
  });
  await Promise.all([overWebSocket, overSse]);
}
