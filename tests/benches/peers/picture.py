"""The picture in the README of the project: CPU of an echo, beside other servers, in every cell."""

from html import escape

from machine import BUSY
from report import Part, figure, size
from servers import ROOT

PATH = ROOT / "tests/benches/echo.svg"

# What stands in the picture: a name, and the servers of which the cheapest in a cell counts.
ROWS = [
    ("longwire", ["longwire"]),
    ("uWebSockets (C++)", ["uwebsockets"]),
    ("fastwebsockets", ["fastwebsockets"]),
    ("tokio-websockets", ["tokio-websockets"]),
    ("sockudo-ws", ["sockudo", "sockudo-batch"]),
    ("yawc", ["yawc", "yawc-batch"]),
    ("tungstenite", ["tungstenite", "tungstenite-batch"]),
    ("axum", ["axum", "axum-batch"]),
    ("soketto", ["soketto"]),
]
FLOOR = "floor-tokio"

COLUMNS, PANEL, ROW, LEFT, TOP, GAP = 3, 210, 18, 150, 64, 30
# Times the floor at the two ends of a panel, on a logarithmic scale.
LOWEST, HIGHEST, TICKS = 0.7, 32, (1, 2, 4, 8, 16)

STYLE = """
text{fill:#1f2328;font:12px system-ui,sans-serif}.s{fill:#59636e;font-size:11px}.t{font-weight:600}
.g{stroke:#d1d9e0;stroke-width:1}.f{stroke:#59636e;stroke-width:1.5}.p{fill:#8b949e}.u{fill:#0072b2}.us{font-weight:600;fill:#0072b2}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.s{fill:#9198a1}.g{stroke:#3d444d}.f{stroke:#9198a1}.p{fill:#9198a1}
.u,.us{fill:#56b4e9}}
"""


def across(ratio):
    """Where a ratio lies in a panel, from 0 to 1."""
    from math import log
    return (log(min(max(ratio, LOWEST), HIGHEST)) - log(LOWEST)) / (log(HIGHEST) - log(LOWEST))


def write(results):
    part = Part("echo", results)
    named = {server.key: server for server in part.servers}
    rows = [(name, [named[key] for key in keys if key in named]) for name, keys in ROWS]
    rows = [(name, found) for name, found in rows if found]
    cells = [cell for cell in part.cells if FLOOR in named and part.median(named[FLOOR], cell, "cpu_us")]
    if not rows or not cells:
        print("no picture: it wants echo cells with the floor on tokio")
        return
    panels = [panel(part, named[FLOOR], rows, cell) for cell in cells]
    step = TOP + len(rows) * ROW
    height = 74 + -(-len(panels) // COLUMNS) * step
    width = LEFT + COLUMNS * (PANEL + GAP)
    about = results["machine"]
    notes = [about["cpu"], about["date"]]
    if about["quick"]:
        notes.append("a quick run")
    if about["load"] > BUSY:
        notes.append(f"the machine was busy with other work (load average {about['load']})")
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(words(part, named[FLOOR], rows, cells))}">',
        f"<style>{STYLE}</style>",
        '<text x="8" y="20" class="t">Server CPU of one echoed WebSocket message, in microseconds</text>',
        '<text x="8" y="37" class="s">To the left is cheaper. The line is the floor, an echo without a library on tokio; '
        "the scale is logarithmic, in times the floor.</text>",
        '<text x="8" y="53" class="s">One server thread; the cheapest way of each library; c connections with d messages in '
        f'flight on each. {escape(", ".join(notes))}.</text>',
    ]
    for number, lines in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        x, y = LEFT + column * (PANEL + GAP), 60 + row * step
        out.append(f'<g transform="translate({x},{y})">')
        out += lines
        if column == 0:
            out += [f'<text x="-12" y="{place(n) + 4}" text-anchor="end" class="{"us" if n == 0 else ""}">{escape(name)}'
                    "</text>" for n, (name, _) in enumerate(rows)]
        out.append("</g>")
    PATH.write_text("\n".join([*out, "</svg>", ""]))
    print(f"written: {PATH}")


def place(row):
    return 44 + row * ROW


def cheapest(part, servers, cell):
    found = [value for value in (part.median(server, cell, "cpu_us") for server in servers) if value is not None]
    return min(found) if found else None


def panel(part, floor, rows, cell):
    base = part.median(floor, cell, "cpu_us")
    bytes_, connections, depth = cell.split(":")
    bottom = place(len(rows)) - 8
    out = [f'<text y="16" class="t">{size(bytes_)}, {int(connections):,} c, d {depth}</text>',
           f'<text x="{PANEL}" y="16" class="s" text-anchor="end">floor {figure(base)}</text>']
    for tick in TICKS:
        x = round(across(tick) * PANEL, 1)
        out.append(f'<path class="{"f" if tick == 1 else "g"}" d="M{x} 32V{bottom}"/>')
        out.append(f'<text x="{x}" y="28" class="s" text-anchor="middle">{tick}</text>')
    for number, (_, servers) in enumerate(rows):
        value = cheapest(part, servers, cell)
        y, own = place(number), "u" if number == 0 and servers[0].kind == "ours" else "p"
        if value is None:
            out.append(f'<text x="{round(across(1) * PANEL) + 8}" y="{y + 4}" class="s">no figure</text>')
            continue
        x = round(across(value / base) * PANEL, 1)
        # The figure stands where there is room for it.
        side = ("end", -8) if value / base > 9 else ("start", 8)
        out.append(f'<circle class="{own}" cx="{x}" cy="{y}" r="4.5"/>')
        out.append(f'<text x="{x + side[1]}" y="{y + 4}" text-anchor="{side[0]}" class="{"us" if own == "u" else "s"}">'
                   f"{figure(value)}</text>")
    return out


def words(part, floor, rows, cells):
    """The same for those who do not see it."""
    found = []
    for cell in cells:
        values = [(name, cheapest(part, servers, cell)) for name, servers in rows]
        values = [(name, value) for name, value in [("floor", part.median(floor, cell, "cpu_us")), *values] if value]
        found.append(f"{cell}: " + ", ".join(f"{name} {figure(value)}" for name, value in values))
    return "Microseconds of server CPU for each message, by size:connections:depth. " + "; ".join(found)
