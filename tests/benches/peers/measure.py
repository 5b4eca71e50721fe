"""The parts of the benchmark. Each yields rows: part, server, cell, and either figures or an error."""

import json
import subprocess
import time
from contextlib import ExitStack

from servers import LOAD_CORE, Failed, Running

# size:connections:messages in flight on each
ECHO = ["20:100:1", "20:100:16", "20:1000:1", "1024:100:16", "16384:100:1", "1048576:1:1"]
# size:connections:messages a second
LATENCY = ["20:100:20000", "1024:100:20000"]
# readers:size:burst
FANOUT = ["1000:100:1", "1000:1024:1", "10000:100:1", "10000:1024:1", "1000:100:16", "10000:100:16"]
SSE = ["1000:100:1", "10000:100:1", "1000:100:16", "10000:100:16"]
# connections
IDLE = ["10000", "19000"]
# connections:messages in flight on each
DEFLATE = ["100:1", "100:16"]
DEFLATE_SIZE = 1024
DEFLATE_IDLE = ["2000"]

CELLS = {"echo": ECHO, "idle": IDLE, "fanout": FANOUT, "sse": SSE, "deflate": DEFLATE, "deflate-idle": DEFLATE_IDLE,
         "latency": LATENCY}
QUICK = {"echo": ["20:100:1", "20:100:16", "1048576:1:1"], "idle": ["2000"], "fanout": ["1000:100:1", "1000:100:16"],
         "sse": ["1000:100:1"], "deflate": ["100:16"], "deflate-idle": ["200"], "latency": ["20:100:20000"]}
# Whether it works at all, in builds without optimisation.
SMOKE = {"echo": ["20:5:4", "70000:2:2"], "idle": ["20"], "fanout": ["20:100:4"], "sse": ["20:100:4"],
         "deflate": ["5:4"], "deflate-idle": ["20"], "latency": ["20:5:500"]}
# Rounds of each cell. Opening 10,000 readers takes longer than measuring them.
ROUNDS = {"fanout": 2, "sse": 2}
USUAL_ROUNDS = 3
# Those that can be asked for.
PARTS = [part for part in CELLS if part != "deflate-idle"]


def load(mode, running, *options, seconds=None, warm=None, timeout=120):
    """What the load printed."""
    command = ["taskset", "-c", LOAD_CORE, running.programs.peers, "load", mode, "--addr", running.address]
    for pid in running.pids():
        command += ["--pid", pid]
    for name, value in (("--seconds", seconds), ("--warm", warm)):
        command += [name, value] if value is not None else []
    command = [*map(str, command), *map(str, options)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"the load is not done after {timeout} s") from late
    if done.returncode:
        dead = f"; the server: {running.said()}" if running.process.poll() is not None else ""
        raise Failed((done.stderr.strip() or f"the load: status {done.returncode}")[-300:] + dead)
    return json.loads(done.stdout)


class Bench:
    """What to measure with, and where the rows go."""

    def __init__(self, options, programs, servers, rows):
        self.options, self.programs, self.servers, self.rows = options, programs, servers, rows
        self.cells = SMOKE if options.smoke else QUICK if options.quick else CELLS

    def run(self, part):
        servers = [server for server in self.servers if part in server.parts]
        cells = self.options.cells or self.cells[part]
        if part == "idle":
            self.one_by_one(part, servers, cells, self.idle)
        elif part in ("fanout", "sse"):
            self.in_turns(part, servers, cells, self.fanout, fresh=True)
        elif part == "deflate":
            self.in_turns(part, servers, cells, self.deflate)
            self.one_by_one("deflate-idle", servers, self.cells["deflate-idle"], self.deflate_idle)
        else:
            self.in_turns(part, servers, cells, getattr(self, part))

    def in_turns(self, part, servers, cells, measure, fresh=False):
        """Servers take turns within a cell, each round beginning with another, so that what the machine does
        meanwhile meets all of them. They keep running for the cell, or are `fresh` for each measurement."""
        for cell in cells:
            with ExitStack() as stack:
                running = {}
                for repetition in range(self.rounds(part)):
                    at = repetition % max(1, len(servers))
                    for server in servers[at:] + servers[:at]:
                        with ExitStack() as short:
                            def start(server=server, short=short):
                                if fresh:
                                    return short.enter_context(Running(server, self.programs))
                                if server.key not in running:
                                    running[server.key] = stack.enter_context(Running(server, self.programs))
                                return running[server.key]
                            self.row(part, server, cell, repetition, lambda: measure(start(), cell))

    def one_by_one(self, part, servers, cells, measure):
        """Once each: memory does not vary as time does."""
        for cell in cells:
            for server in servers:
                def started(server=server, cell=cell):
                    with Running(server, self.programs) as running:
                        return measure(running, cell)
                self.row(part, server, cell, 0, started)

    def row(self, part, server, cell, repetition, figures):
        row = {"part": part, "server": server.key, "cell": cell, "repetition": repetition}
        try:
            row |= figures()
        except (Failed, OSError, ValueError) as error:
            row["error"] = str(error)
        self.rows.append(row)
        shown = row.get("error") or " ".join(
            f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float)
        )
        print(f"{part:12} {cell:16} {server.key:24} {shown}", flush=True)

    def rounds(self, part):
        once = self.options.smoke or self.options.quick
        return self.options.reps or (1 if once else ROUNDS.get(part, USUAL_ROUNDS))

    def seconds(self, usual):
        return self.options.seconds or (0.1 if self.options.smoke else 0.3 if self.options.quick else usual)

    def echo(self, running, cell):
        size, connections, depth = cell.split(":")
        # What compiles itself while it runs has to warm up.
        warm = 1.0 if running.server.kind == "other" and not self.options.smoke else 0.2
        return load("echo", running, "--size", size, "--connections", connections, "--depth", depth,
                    seconds=self.seconds(0.8), warm=warm)

    def latency(self, running, cell):
        size, connections, rate = cell.split(":")
        return load("rate", running, "--size", size, "--connections", connections, "--rate", rate,
                    seconds=self.seconds(1.5), warm=0.4)

    def fanout(self, running, cell):
        readers, size, burst = cell.split(":")
        probe = ["--probe"] if running.server.probe else []
        return load("fanout", running, "--connections", readers, "--size", size, "--burst", burst, *probe,
                    *running.server.fanout, seconds=self.seconds(1.5), warm=0.3)

    def deflate(self, running, cell):
        connections, depth = cell.split(":")
        return load("echo", running, "--kind", "deflate", "--size", DEFLATE_SIZE, "--connections", connections,
                    "--depth", depth, seconds=self.seconds(0.8), warm=0.3)

    def idle(self, running, cell):
        return memory(running, int(cell), "--size", "1024", steps=running.server.idle)

    def deflate_idle(self, running, cell):
        return memory(running, int(cell), "--kind", "deflate", "--size", DEFLATE_SIZE)


def memory(running, connections, *options, steps=()):
    """What a server keeps resident for connections: when they are open, when each has echoed once, when all are gone."""
    # What is made at the first connection is not the connections'.
    load("echo", running, *options, seconds=0.05, warm=0)
    time.sleep(0.3)
    base = running.resident()
    command = ["taskset", "-c", LOAD_CORE, running.programs.peers, "load", "idle", "--addr", running.address,
               "--connections", connections, *options, *steps]
    with subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as client:
        found = {}
        for step in ("open",) if "--silent" in steps else ("open", "echoed"):
            if client.stdout.readline().strip() != step:
                raise Failed(client.stderr.read().strip()[-300:] or "the load ended")
            time.sleep(0.5)
            found[step] = running.resident()
            client.stdin.write("\n")
            client.stdin.flush()
        client.communicate()
    time.sleep(1.0)
    result = {f"{step}_bytes": (resident - base) / connections for step, resident in found.items()}
    return result | {"base_kb": base / 1024, "closed_kb": running.resident() / 1024}
