// The server on ws: `node server.mjs [--deflate] --addr 127.0.0.1:PORT`.

import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const options = process.argv.slice(2);
const [host, port] = options[options.indexOf("--addr") + 1].split(":");
const deflate = options.includes("--deflate");

const http = createServer();
const sockets = new WebSocketServer({
  server: http,
  maxPayload: 64 << 20,
  // Its default threshold leaves a message of 1 KiB uncompressed.
  perMessageDeflate: deflate && { threshold: 0 },
});
const readers = new Set();

sockets.on("connection", (socket, request) => {
  if (request.url === "/sub") {
    readers.add(socket);
    socket.on("close", () => readers.delete(socket));
  } else if (request.url === "/pub") {
    socket.on("message", (data) => {
      for (const reader of readers) {
        if (reader.readyState === WebSocket.OPEN) reader.send(data, { binary: false });
      }
    });
  } else {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  }
  socket.on("error", () => {});
});

http.listen({ host, port: Number(port), backlog: 4096 });
