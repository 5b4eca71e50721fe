"""Tables of Markdown out of rows, and the README that they stand in."""

import re
from statistics import median

from machine import BUSY
from servers import ROOT, all_servers

README = ROOT / "tests/benches/README.md"

# Whose figure a ratio is relative to: the first that was measured.
REFERENCE = {"echo": "longwire", "latency": "longwire", "fanout": "longwire", "sse": "longwire-sse",
             "deflate": "longwire-deflate", "idle": "longwire"}


def figure(value):
    """Three digits, and no more than that."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(cell):
    number = int(cell)
    return f"{number >> 20} MiB" if number >= 1 << 20 else f"{number >> 10} KiB" if number >= 1024 else f"{number} B"


class Part:
    """The rows of one part."""

    def __init__(self, name, results):
        self.name = name
        self.rows = [row for row in results["rows"] if row["part"] == name]
        seen = {row["server"] for row in self.rows}
        self.servers = [server for server in all_servers() if server.key in seen]
        self.cells = list(dict.fromkeys(row["cell"] for row in self.rows))

    def of(self, server, cell):
        return [row for row in self.rows if row["server"] == server.key and row["cell"] == cell]

    def median(self, server, cell, name):
        """Of what was measured; none if any round of it failed."""
        rows = self.of(server, cell)
        if not rows or any("error" in row for row in rows):
            return None
        values = [row[name] for row in rows if name in row]
        return median(values) if values else None

    def reference(self):
        wanted = [server for server in self.servers if server.key == REFERENCE.get(self.name)]
        return (wanted or self.servers)[0]

    def mean(self, server, cell, name):
        """For what is counted in clock ticks, of which one round has too few."""
        values = [row[name] for row in self.of(server, cell)]
        return sum(values) / len(values)

    def text(self, server, cell, show):
        """What `show` makes of it, or that it failed, or that there is none."""
        rows = self.of(server, cell)
        if any("error" in row for row in rows):
            return "**error**"
        return show() if rows else "–"

    def table(self, heading, title, show):
        lines = [f"| {heading} | " + " | ".join(title(cell) for cell in self.cells) + " |",
                 "|---|" + "--:|" * len(self.cells)]
        for server in self.servers:
            cells = [self.text(server, cell, lambda cell=cell: show(server, cell)) for cell in self.cells]
            lines.append(f"| {server.title} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def with_ratio(self, name):
        """The median, and how many times the reference's it is."""
        reference = self.reference()

        def show(server, cell):
            value, other = self.median(server, cell, name), self.median(reference, cell, name)
            if value is None:
                return "–"
            return figure(value) + (f" ({value / other:.2f})" if other else "")
        return show

    def rate(self, server, cell):
        """Thousands a second, and how busy the two cores were: who is near 100 % was the bottleneck."""
        value, at_server, at_load = (self.median(server, cell, name) for name in
                                     ("per_second", "server_share", "load_share"))
        return f"{figure(value / 1000)} ({at_server:.0%}, {at_load:.0%})"

    def best_others(self, name):
        """What the cheapest of each kind takes, relative to the reference."""
        lines, reference = [], self.reference()
        if reference.kind != "ours":
            return lines
        for kind, title in (("floor", "lowest floor"), ("rust", "cheapest other library in Rust"),
                            ("other", "cheapest in another language")):
            ratios = []
            for cell in self.cells:
                ours = self.median(reference, cell, name)
                found = [self.median(server, cell, name) for server in self.servers if server.kind == kind]
                found = [value for value in found if value is not None]
                ratios.append(f"**{min(found) / ours:.2f}**" if found and ours else "–")
            if any(ratio != "–" for ratio in ratios):
                lines.append(f"| {title} | " + " | ".join(ratios) + " |")
        return lines

    def spread(self, name):
        found = []
        for server in self.servers:
            for cell in self.cells:
                values = [row[name] for row in self.of(server, cell) if name in row]
                if len(values) > 1 and median(values):
                    found.append((max(values) - min(values)) / median(values))
        if not found:
            return ""
        return (f"Medians of {max(len(self.of(s, c)) for s in self.servers for c in self.cells)} rounds; between the "
                f"highest and the lowest lie {median(found):.0%} of it in the middle, {max(found):.0%} at worst.")

    def errors(self):
        lines = {}
        for row in self.rows:
            if "error" in row:
                message = re.sub(r"\s+", " ", row["error"])
                lines.setdefault(f"- error: {row['server']}, {row['cell']}: {message}")
        return "\n".join(lines)


def echo(results):
    part = Part("echo", results)

    def title(cell):
        bytes_, connections, depth = cell.split(":")
        return f"{size(bytes_)}, {int(connections):,} c, d {depth}"

    def inside(server, cell):
        return f"{part.mean(server, cell, 'user_us') * 1000:,.0f}, {part.median(server, cell, 'sends'):.2f}"
    cost = part.table("us of server CPU a message (times the first line)", title, part.with_ratio("cpu_us"))
    return [
        "`c` connections with `d` messages in flight on each.",
        "\n".join([cost, *part.best_others("cpu_us")]),
        part.spread("cpu_us"),
        part.table("thousand messages a second (server's core busy, load's core busy)", title, part.rate),
        part.table("of the CPU in user space, ns a message; segments that TCP sent a message", title, inside),
        part.errors(),
    ]


def latency(results):
    part = Part("latency", results)

    def title(cell):
        bytes_, connections, rate = cell.split(":")
        return f"{size(bytes_)}, {connections} c, {int(rate):,}/s: p50, p99, p99.9"

    def show(server, cell):
        return ", ".join(f"{part.median(server, cell, name):,.0f}" for name in ("p50", "p99", "p999"))
    return [part.table("us from when a message was due to its echo", title, show), part.spread("p99"), part.errors()]


def deliveries(name, results):
    part = Part(name, results)

    def title(cell):
        readers, bytes_, burst = cell.split(":")
        return f"{int(readers):,} x {size(bytes_)}" + (f", bursts of {burst}" if burst != "1" else "")

    def meanwhile(server, cell):
        found = [part.median(server, cell, name) for name in ("echo_p50", "echo_p99")]
        return "–" if None in found else ", ".join(figure(value / 1000) for value in found)

    def sends(server, cell):
        return f"{part.median(server, cell, 'sends'):.2f}; {figure(part.median(server, cell, 'round_p50') / 1000)}"
    cost = part.table("us of server CPU a delivery (times the first line)", title, part.with_ratio("cpu_us"))
    return [
        "\n".join([cost, *part.best_others("cpu_us")]),
        part.spread("cpu_us"),
        part.table("thousand deliveries a second (server's core busy, load's core busy)", title, part.rate),
        part.table("sends a delivery; ms until the last reader has a burst, p50", title, sends),
        part.table("an echo on the same server meanwhile, ms: p50, p99", title, meanwhile),
        part.errors(),
    ]


def idle_table(part, heading):
    def show(server, cell):
        opened, echoed, base, closed = (part.median(server, cell, name) for name in
                                        ("open_bytes", "echoed_bytes", "base_kb", "closed_kb"))
        echoed = "–" if echoed is None else f"{echoed:,.0f}"
        return f"{opened:,.0f}; {echoed}; {base:,.0f} to {closed:,.0f} kB"
    return part.table(heading, lambda cell: f"{int(cell):,} connections", show)


def idle(results):
    part = Part("idle", results)
    heading = "bytes a connection; after one echo of 1 KiB on each; server before any and after all have closed"
    return [idle_table(part, heading), part.errors()]


def deflate(results):
    part, memory = Part("deflate", results), Part("deflate-idle", results)

    def title(cell):
        connections, depth = cell.split(":")
        return f"{connections} c, d {depth}"
    cost = part.table("us of server CPU a message (times the first line)", title, part.with_ratio("cpu_us"))
    found = ["\n".join([cost, *part.best_others("cpu_us")]), part.spread("cpu_us"), part.errors()]
    if memory.rows:
        heading = "bytes a connection; after one echo on each; server before any and after all have closed"
        found += [idle_table(memory, heading), memory.errors()]
    return found


def environment(results):
    about = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    quick = " **A quick run: nothing to quote.**" if about["quick"] else ""
    if about["load"] > BUSY:
        quick += " **The machine was busy with other work.**"
    absent = f" Not measured, because tests/setup/peers has not run: {', '.join(about['absent'])}." if about["absent"] else ""
    # Runs from before it was noted are without.
    command = f" by `{about['command']}`" if "command" in about else ""
    return [f"{about['date']}{command}, longwire at {about['commit']}; {about['cpu']}, {about['kernel']}, load average "
            f"{about['load']} before; rustc {about['rustc']}, fat LTO, one codegen unit, the target's baseline.{quick}",
            f"Versions: {versions}.{absent}"]


MAKERS = {
    "echo": echo,
    "idle": idle,
    "fanout": lambda results: deliveries("fanout", results),
    "sse": lambda results: deliveries("sse", results),
    "deflate": deflate,
    "latency": latency,
}


def tables(results):
    """The text of each part that was measured, by name."""
    measured = {row["part"] for row in results["rows"]}
    found = {name: make(results) for name, make in MAKERS.items() if name in measured}
    about = environment(results)
    if len(found) == len(MAKERS):
        found = {"environment": about} | found
    else:
        # Beside tables of another run each says where it comes from.
        found = {name: [about[0], *texts] for name, texts in found.items()}
    return {name: "\n\n".join(text for text in texts if text) for name, texts in found.items()}


def write(texts):
    """Puts them between their marks in the README."""
    page = README.read_text()
    for name, text in texts.items():
        begin, end = f"<!-- peers: {name} -->", f"<!-- end of {name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise SystemExit(f"run: {README} has no place for {name}: {begin} ... {end}")
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    README.write_text(page)
