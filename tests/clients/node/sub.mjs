// A subscriber over the npm libraries `ws` and `eventsource`, with the command line of ../python/longwire_client.py:
//
//     node sub.mjs sub URL PATTERN... --transport ws|sse --since latest --count 10 --form json
//
// Prints one JSON object a line for each event (topic, at, data); everything else goes to standard error. The exit
// code is 0 after `count` events and 1 when the server ended the connection or refused it. It does not come back by
// itself on `ws`; an EventSource does.

import { parseArgs } from "node:util";
import { EventSource } from "eventsource";
import WebSocket from "ws";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    transport: { type: "string", default: "ws" },
    since: { type: "string", default: "latest" },
    count: { type: "string", default: "0" },
    form: { type: "string", default: "json" },
  },
});
const [command, base, ...patterns] = positionals;
if (command !== "sub" || !base || patterns.length === 0 || options.form !== "json") {
  console.error("usage: node sub.mjs sub URL PATTERN... [--transport ws|sse] [--since S] [--count N] [--form json]");
  process.exit(2);
}

const url = new URL("/v1/stream", base);
url.search = [...patterns.map((p) => ["topic", p]), ["since", options.since]]
  .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
  .join("&");

let left = Number(options.count);

function end(code, why) {
  if (why) console.error(JSON.stringify({ type: "end", why }));
  process.exit(code);
}

function take(text) {
  const envelope = JSON.parse(text);
  if (envelope.type !== "event") {
    console.error(text);
    return;
  }
  const { topic, at, past, key, data, bytes } = envelope;
  console.log(JSON.stringify({ topic, at: at ?? past, key, data, bytes }));
  left -= 1;
  if (left === 0) end(0);
}

const transports = {
  ws() {
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, ["longwire.v1.json"]);
    socket.on("message", (message, binary) => (binary ? end(1, "a binary frame") : take(message.toString())));
    socket.on("unexpected-response", (_request, response) => end(1, `status ${response.statusCode}`));
    socket.on("error", (error) => end(1, String(error)));
    socket.on("close", (code) => end(1, `close ${code}`));
  },
  sse() {
    const source = new EventSource(url);
    for (const name of ["message", "hello", "caught_up", "gap", "tick", "renew", "bye"]) {
      source.addEventListener(name, (event) => {
        take(event.data);
        if (name === "bye") end(1, "bye");
      });
    }
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) end(1, "the EventSource stopped");
    });
  },
};

if (!(options.transport in transports)) end(2, `no transport ${options.transport}`);
transports[options.transport]();
