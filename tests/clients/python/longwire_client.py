"""A client of longwire.v1, written from core/PROTOCOL.md alone, over other people's libraries.

    python longwire_client.py sub URL PATTERN... --transport ws --since latest --count 10 --form cbor
    python longwire_client.py pub URL TOPIC DATA --transport http

`sub` prints one JSON object a line for each event: topic, at, data (and key, or bytes and content_type, where the
event has them). What is no event (hello, caught_up, gap, ...) goes to standard error, also as JSON lines.
Sections named in comments are those of PROTOCOL.md.
"""

import argparse
import base64
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import cbor2
import httpx
import httpx_sse
import websockets.exceptions
import websockets.sync.client

Envelope = dict[str, Any]

# Section 4: the field numbers and type codes of the CBOR form.
FIELDS = (
    "type topic at key data bytes content_type n since topics id past from to reason code message permanent "
    "retry_after window session heartbeat lease limits level token within"
).split()
LIMITS = "max_message max_topics max_inflight".split()
TYPES = {1: "sub", 2: "unsub", 3: "pub", 4: "auth"} | dict(
    enumerate("hello event caught_up ack nack gap tick renew bye error".split(), start=16)
)
CODES = {name: code for code, name in TYPES.items()}

# Section 6: close codes after which coming back makes no sense.
FINAL_CLOSE_CODES = {1002, 1003, 1007, 1008, 1009, 3000}


class Refused(Exception):
    """The server said no (section 9), by a status, an envelope or a close code."""

    def __init__(self, refusal: Envelope):
        super().__init__(f"{refusal.get('code')}: {refusal.get('message')}")
        self.refusal = refusal
        self.permanent = bool(refusal.get("permanent"))


def encode(envelope: Envelope, form: str) -> str | bytes:
    """One envelope as a frame: text in the JSON form, bytes in the CBOR form. `type` is its first field."""
    if form == "json":
        opaque = envelope.get("bytes")
        if opaque is not None:
            envelope = envelope | {"bytes": base64.b64encode(opaque).decode()}
        return json.dumps(envelope)
    return cbor2.dumps({FIELDS.index(k): CODES[v] if k == "type" else v for k, v in envelope.items()})


def decode(frame: str | bytes, form: str) -> Envelope:
    """The inverse of `encode`; fields that are not known are left out (section 4)."""
    if form == "json":
        if not isinstance(frame, str):
            raise ValueError("a binary frame on a JSON connection")
        envelope = json.loads(frame)
        if "bytes" in envelope:
            envelope["bytes"] = base64.b64decode(envelope["bytes"], validate=True)
    else:
        if not isinstance(frame, bytes):
            raise ValueError("a text frame on a CBOR connection")
        coded = cbor2.loads(frame)
        envelope = {FIELDS[k]: v for k, v in coded.items() if k < len(FIELDS)}
        envelope["type"] = TYPES.get(envelope["type"], "unknown")
        if "limits" in envelope:
            envelope["limits"] = {LIMITS[k]: v for k, v in envelope["limits"].items() if k < len(LIMITS)}
    if next(iter(envelope)) != "type":
        raise ValueError("the first field is not `type`")
    return envelope


class Stream:
    """A subscription that outlives its connections, and the rules of its cursor (sections 2 and 11)."""

    def __init__(self, url: str, patterns: list[str], since: str = "latest", form: str = "json", token: str | None = None):
        self.base = url.rstrip("/")
        self.patterns = patterns
        # Where the next connection begins: what the caller wants, and then the cursor.
        self.since = since
        self.form = form
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.attempt = 0
        self.window = 0  # ms, as the server said it last

    def target(self, **parameters: object) -> str:
        # Section 8.1; a space is %20, since the page does not say that `+` is one.
        pairs = [("topic", p) for p in self.patterns] + [("since", self.since)] + list(parameters.items())
        return f"{self.base}/v1/stream?" + "&".join(f"{k}={quote(str(v), safe='')}" for k, v in pairs)

    def moved(self, envelope: Envelope) -> Envelope:
        """Moves the cursor by the table of section 2, and passes the envelope on."""
        if envelope["type"] in ("event", "caught_up", "tick") and "at" in envelope:
            self.since = envelope["at"]
        return envelope

    def connect(self, transport: str) -> Iterator[Envelope]:
        """The envelopes of one connection, until it ends. The cursor moves when the next one is asked for."""
        connection = {"ws": self.websocket, "sse": self.sse, "longpoll": self.longpoll, "poll": self.poll}[transport]
        for envelope in connection():
            yield envelope
            # Handed over before the cursor moves: whoever stops in between gets it again (section 11, step 2).
            self.moved(envelope)
            if envelope["type"] == "bye":
                raise Refused(envelope)

    def websocket(self) -> Iterator[Envelope]:
        url = "ws" + self.target().removeprefix("http")
        subprotocol = f"longwire.v1.{self.form}"
        patience = 30.0
        try:
            with websockets.sync.client.connect(
                url, subprotocols=[subprotocol], additional_headers=self.headers, max_size=None
            ) as socket:
                if socket.subprotocol != subprotocol:
                    raise ValueError(f"the server chose {socket.subprotocol!r}")
                while True:
                    envelope = decode(socket.recv(timeout=patience), self.form)
                    if envelope["type"] == "hello":
                        patience = 2 * envelope["heartbeat"] / 1000
                    yield envelope
        except websockets.exceptions.InvalidStatus as error:
            raise refusal(error.response.status_code, error.response.body) from error
        except websockets.exceptions.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            if code in FINAL_CLOSE_CODES:
                raise Refused({"code": f"close {code}", "permanent": True}) from closed

    def sse(self) -> Iterator[Envelope]:
        with httpx.Client(headers=self.headers, timeout=httpx.Timeout(60)) as client:
            with httpx_sse.connect_sse(client, "GET", self.target()) as source:
                if source.response.status_code != 200:
                    raise refusal(source.response.status_code, source.response.read())
                for event in source.iter_sse():
                    if not event.data:
                        continue  # `retry:` alone: WHATWG dispatches nothing, this library does
                    envelope = decode(event.data, "json")
                    name = "message" if envelope["type"] == "event" else envelope["type"]
                    if event.event != name:
                        raise ValueError(f"{envelope['type']} arrived as SSE event {event.event!r}")
                    if "at" in envelope and event.id != envelope["at"]:
                        raise ValueError(f"id {event.id!r} is not the envelope's at {envelope['at']!r}")
                    yield envelope

    def longpoll(self) -> Iterator[Envelope]:
        return self.polls(wait=25)

    def poll(self) -> Iterator[Envelope]:
        return self.polls(wait=0)

    def polls(self, wait: int) -> Iterator[Envelope]:
        with httpx.Client(headers=self.headers, timeout=httpx.Timeout(wait + 30)) as client:
            while True:
                response = client.get(self.target(wait=wait) if wait else self.target())
                if response.status_code == 204:
                    self.since = response.headers["Longwire-Next"]
                elif response.status_code == 200:
                    answer = response.json()
                    if "gap" in answer:
                        yield {"type": "gap"} | answer["gap"]
                    for envelope in answer["events"]:
                        yield decode(json.dumps(envelope), "json")
                    self.since = answer["next"]
                    if answer["events"]:
                        continue
                else:
                    raise refusal(response.status_code, response.content)
                if not wait:
                    time.sleep(0.05)  # the interval of plain polling

    def follow(self, transport: str) -> Iterator[Envelope]:
        """All envelopes, over as many connections as it takes (section 11, step 5)."""
        while True:
            opened, hint = None, {}
            try:
                for envelope in self.connect(transport):
                    opened = opened or time.monotonic()
                    if envelope["type"] == "hello":
                        self.window = envelope.get("window", self.window)
                    yield envelope
            except Refused as refused:
                if refused.permanent:
                    raise
                hint = refused.refusal
            except (OSError, TimeoutError, httpx.TransportError) as error:
                hint = {}
                print(json.dumps({"type": "lost", "message": str(error)}), file=sys.stderr)
            lived = 0 if opened is None else time.monotonic() - opened
            self.attempt = 0 if lived > 30 else self.attempt + 1
            time.sleep(self.delay(hint, lived))

    def delay(self, hint: Envelope, lived: float) -> float:
        """Section 11.1, in seconds."""
        own = min(30.0, 0.5 * 2**self.attempt)
        after = hint.get("retry_after", 0) / 1000
        self.window = hint.get("window") or self.window
        left = 0 if hint.get("window") else self.window / 1000 - lived
        if left > 0:
            return max(after, left) + random.uniform(0, own)
        return after + random.uniform(0, max(self.window / 1000, own))


def refusal(status: int, body: bytes | None) -> Refused:
    """Section 9: a refusal as an HTTP response. Without the JSON it came from something in between."""
    try:
        return Refused(json.loads(body or b""))
    except ValueError:
        return Refused({"code": f"status {status}", "permanent": 400 <= status < 500})


def publish_http(url: str, topic: str, data: Any, form: str = "json", key: str | None = None, token: str | None = None) -> str:
    """Publishes by POST (section 8.2); the event's cursor. `data` of type bytes goes as they are."""
    if isinstance(data, bytes):
        content, content_type = data, "application/octet-stream"
    elif form == "json":
        content, content_type = json.dumps(data).encode(), "application/json"
    else:
        content, content_type = cbor2.dumps(data), "application/cbor"
    headers = {"Content-Type": content_type} | ({"Authorization": f"Bearer {token}"} if token else {})
    target = f"{url.rstrip('/')}/v1/topics/{quote(topic, safe='/')}" + (f"?key={quote(key, safe='')}" if key else "")
    response = httpx.post(target, content=content, headers=headers)
    if response.status_code != 200:
        raise refusal(response.status_code, response.content)
    return response.json()["at"]


def publish_ws(url: str, publications: list[Envelope], form: str = "json", token: str | None = None) -> None:
    """Publishes on one WebSocket and waits until each is taken (section 5); the first `nack` is raised.

    A publication is a dictionary of topic, key (optional), and data or bytes.
    """
    parts = urlsplit(url)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with websockets.sync.client.connect(
        f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/v1/stream",
        subprotocols=[f"longwire.v1.{form}"],
        additional_headers=headers,
    ) as socket:
        hello = decode(socket.recv(timeout=30), form)
        in_flight = hello["limits"]["max_inflight"]
        taken = 0
        for n, publication in enumerate(publications, start=1):
            socket.send(encode({"type": "pub", "n": n} | publication, form))
            while n - taken >= in_flight or (n == len(publications) and taken < n):
                answer = decode(socket.recv(timeout=30), form)
                if answer["type"] == "ack":
                    taken = max(taken, answer["n"])
                elif answer["type"] in ("nack", "bye", "error"):
                    raise Refused(answer)


def printable(envelope: Envelope) -> str:
    """An event as a line: topic, at (or, of a state, past), and its value; byte strings by section 4.1."""
    line = {"topic": envelope["topic"], "at": envelope.get("at") or envelope["past"]}
    if "key" in envelope:
        line["key"] = envelope["key"]
    if "bytes" in envelope:
        line["bytes"] = base64.b64encode(envelope["bytes"]).decode()
        line["content_type"] = envelope.get("content_type", "application/octet-stream")
    else:
        line["data"] = envelope["data"]
    return json.dumps(line, default=lambda value: base64.urlsafe_b64encode(value).decode().rstrip("="))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("sub")
    sub.add_argument("url")
    sub.add_argument("pattern", nargs="+")
    sub.add_argument("--transport", choices=["ws", "sse", "longpoll", "poll"], default="ws")
    sub.add_argument("--since", default="latest")
    sub.add_argument("--count", type=int, default=0, help="stop after so many events; 0: never")
    pub = commands.add_parser("pub")
    pub.add_argument("url")
    pub.add_argument("topic")
    pub.add_argument("data", help="JSON")
    pub.add_argument("--key")
    pub.add_argument("--transport", choices=["ws", "http"], default="http")
    for command in (sub, pub):
        command.add_argument("--form", choices=["json", "cbor"], default="json")
        command.add_argument("--token")
    options = parser.parse_args()
    try:
        if options.command == "sub":
            subscribe(options)
        elif options.transport == "http":
            print(publish_http(options.url, options.topic, json.loads(options.data), options.form, options.key, options.token))
        else:
            publication = {"topic": options.topic} | ({"key": options.key} if options.key else {})
            publish_ws(options.url, [publication | {"data": json.loads(options.data)}], options.form, options.token)
    except Refused as refused:
        print(json.dumps({"type": "refused"} | refused.refusal), file=sys.stderr)
        return 1
    return 0


def subscribe(options: argparse.Namespace) -> None:
    stream = Stream(options.url, options.pattern, options.since, options.form, options.token)
    events = 0
    for envelope in stream.follow(options.transport):
        if envelope["type"] != "event":
            print(json.dumps(envelope), file=sys.stderr, flush=True)
            continue
        print(printable(envelope), flush=True)
        events += 1
        if events == options.count:
            return


if __name__ == "__main__":
    sys.exit(main())
