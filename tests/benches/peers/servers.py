"""The servers that are compared: how each is started, what it can take part in, and what its row is called."""

import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# What tests/setup/peers installs.
OTHERS = ROOT / "tests/.setup/peers"

SERVER_CORE, LOAD_CORE = "0", "1"


class Programs:
    """Where the two programs are that are built here."""

    def __init__(self, profile):
        self.profile, folder = profile, "debug" if profile == "dev" else profile
        # In release apart from the builds of the program, from which it differs by its debug information.
        self.target = ROOT / ("target" if profile == "dev" else "target/peers")
        self.peers = HERE / "target" / folder / "peers"
        self.bench_server = self.target / folder / "examples/bench-server"

    def build(self):
        """In the profile that is written down; in release the first time takes minutes."""
        cargo = ["cargo", "build", "--quiet", "--profile", self.profile]
        subprocess.run([*cargo, "--manifest-path", HERE / "Cargo.toml"], check=True)
        environment = dict(os.environ)
        if self.profile == "release":
            environment["CARGO_PROFILE_RELEASE_DEBUG"] = "line-tables-only"
        example = ["-p", "longwire", "--example", "bench-server", "--target-dir", self.target]
        subprocess.run([*cargo, *example], cwd=ROOT, env=environment, check=True)


@dataclass
class Server:
    """`parts` are those of the benchmark in which it takes part; `kind` is ours, floor, rust or other."""

    key: str
    title: str
    kind: str
    command: list
    parts: set
    # Arguments of the load: other paths than /sub and /pub, and than /echo.
    fanout: list = field(default_factory=list)
    idle: list = field(default_factory=list)
    # Whether the work is done by processes that the first one starts.
    workers: bool = False
    # Whether there is an /echo beside the readers.
    probe: bool = True
    # A library's name in Cargo.lock, if it is not the key.
    package: str = ""


def ours(programs):
    server, echo = programs.bench_server, {"echo", "latency"}
    yield Server("longwire", "longwire, `serve`", "ours", [server, "--api", "serve"], echo | {"idle", "fanout"})
    yield Server("longwire-task", "longwire, `serve` in a task each", "ours", [server, "--api", "task"], echo | {"idle"})
    yield Server("longwire-async", "longwire, `recv` and `send`", "ours", [server, "--api", "async"], echo | {"idle"})
    yield Server("longwire-stream", "longwire, `Stream` and `Sink`", "ours", [server, "--api", "stream"], echo)
    yield Server("longwire-sse", "longwire, SSE", "ours", [server, "--api", "serve"], {"sse"},
                 ["--sse", "--sub", "/sse"])
    yield Server("longwire-reader", "longwire, reader of the hub", "ours", [server, "--api", "serve"], {"idle"},
                 idle=["--path", "/sub", "--silent"])
    yield Server("longwire-deflate", "longwire", "ours", [server, "--api", "serve", "--deflate"], {"deflate"})


def rust(programs):
    def peer(key, title, library, parts, *options, fanout=(), kind="rust", package=""):
        command = [programs.peers, "serve", library, *options]
        return Server(key, title, kind, command, set(parts), list(fanout), package=package or library)

    every = ("echo", "idle", "latency")
    sse = ("--sse", "--sub", "/sse")
    yield peer("floor-epoll", "floor, epoll", "floor-epoll", (*every, "fanout"), kind="floor")
    yield peer("floor-sse", "floor, epoll, SSE", "floor-epoll", ("sse",), kind="floor", fanout=sse)
    yield peer("floor-tokio", "floor, tokio", "floor-tokio", every, kind="floor")
    yield peer("fastwebsockets", "fastwebsockets", "fastwebsockets", every)
    yield peer("tokio-websockets", "tokio-websockets", "tokio-websockets", every)
    yield peer("tokio-websockets-fanout", "tokio-websockets, broadcast channel", "tokio-websockets", ("fanout",))
    yield peer("sockudo", "sockudo-ws", "sockudo", ("echo",), package="sockudo-ws")
    yield peer("sockudo-batch", "sockudo-ws, batched", "sockudo", every, "--batch", package="sockudo-ws")
    yield peer("sockudo-fanout", "sockudo-ws, its publish", "sockudo", ("fanout",), package="sockudo-ws")
    yield peer("yawc", "yawc", "yawc", ("echo",))
    yield peer("yawc-batch", "yawc, batched", "yawc", every, "--batch")
    yield peer("tungstenite", "tungstenite", "tungstenite", ("echo",), package="tokio-tungstenite")
    yield peer("tungstenite-batch", "tungstenite, batched", "tungstenite", every, "--batch", package="tokio-tungstenite")
    yield peer("tungstenite-fanout", "tungstenite, broadcast channel", "tungstenite", ("fanout",),
               package="tokio-tungstenite")
    yield peer("soketto", "soketto", "soketto", every)
    yield peer("axum", "axum", "axum", ("echo",))
    yield peer("axum-batch", "axum, batched", "axum", every, "--batch")
    yield peer("axum-fanout", "axum, broadcast channel", "axum", ("fanout",))
    yield peer("axum-sse", "axum, SSE, broadcast channel", "axum", ("sse",), fanout=sse)
    for mode, title in (("shared", "no takeover, shared"), ("takeover", "context takeover")):
        yield peer(f"yawc-deflate-{mode}", f"yawc, {title}", "yawc", ("deflate",), "--batch", "--deflate", mode)
        yield peer(f"sockudo-deflate-{mode}", f"sockudo-ws, {title}", "sockudo", ("deflate",), "--batch", "--deflate", mode,
                   package="sockudo-ws")


def others():
    """Servers that are not written in Rust. They need tests/setup/peers."""
    every = {"echo", "idle", "latency"}
    uws = OTHERS / "uwebsockets/server"
    if uws.exists():
        yield Server("uwebsockets", "uWebSockets (C++)", "other", [uws], every | {"fanout"})
        for mode in ("shared", "dedicated"):
            yield Server(f"uwebsockets-deflate-{mode}", f"uWebSockets (C++), {mode}", "other",
                         [uws, "--deflate", mode], {"deflate"})
    node = OTHERS / "node/server.mjs"
    if node.exists():
        yield Server("ws", "ws (Node)", "other", ["node", node], every | {"fanout"})
        yield Server("ws-deflate", "ws (Node)", "other", ["node", node, "--deflate"], {"deflate"})
    nchan = OTHERS / "nchan"
    if nchan.exists():
        yield Server("nchan", "nginx with nchan", "other", [nchan], {"fanout"}, workers=True, probe=False)
        yield Server("nchan-sse", "nginx with nchan, SSE", "other", [nchan], {"sse"}, ["--sse", "--sub", "/sse"],
                     workers=True, probe=False)


def all_servers(programs=Programs("release")):
    return [*ours(programs), *rust(programs), *others()]


class Failed(Exception):
    """A server or a load failed; what it said."""


class Running:
    """A server on its core, for as long as a `with` block; `programs` has the load for it."""

    def __init__(self, server, programs):
        self.server, self.programs = server, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self):
        self.words = tempfile.TemporaryFile()
        command = [*map(str, self.server.command), "--addr", self.address]
        try:
            self.process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *command], stdin=subprocess.DEVNULL,
                                            stdout=self.words, stderr=self.words)
        except OSError as error:
            raise Failed(str(error)) from error
        try:
            self.wait_until_open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_open(self):
        for _ in range(250):
            if self.process.poll() is not None:
                raise Failed(f"did not start: {self.said()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                # nginx listens before it has a worker: a shell, its first process, the worker.
                if not self.server.workers or len(self.pids()) >= 3:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise Failed("does not listen after 5 s")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.words.close()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def said(self):
        self.words.seek(0)
        return self.words.read().decode(errors="replace").strip()[-200:] or f"status {self.process.poll()}"

    def pids(self):
        """Its process, and those that it started if they do the work."""
        found = [str(self.process.pid)]
        for pid in found if self.server.workers else []:
            found += Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return found

    def resident(self):
        """Bytes of memory that are resident, of all its processes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024
        return total


def raise_file_limit():
    """A connection is a file. What is started inherits it."""
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
