"""Where the time of longwire goes: samples of perf in three cells, by what the code is for."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import machine
import report
from measure import load
from servers import LOAD_CORE, Failed, Running, all_servers, raise_file_limit

# mode, cell, options of the load
CELLS = [
    ("echo", "20 B, 100 c, d 16", ["--size", "20", "--connections", "100", "--depth", "16"]),
    ("fanout", "fan-out, 10,000 x 100 B", ["--size", "100", "--connections", "10000"]),
    ("echo", "1 MiB, 1 c, d 1", ["--size", "1048576", "--connections", "1"]),
]
TOP = 12

# What a function of the kernel is for, by its name: the first that fits.
KERNEL = [
    # The sampling clock is an interrupt: what happens while they are off is seen when they are on again.
    ("kernel: interrupts were off", r"irqrestore|unlock_irq|write_msr"),
    ("kernel: copying", r"copy|mem(cpy|set|move)|rep_(movs|stos)|clear_page|csum"),
    ("kernel: waiting, waking", r"epoll|^ep_|poll|wake|sched|enqueue|dequeue|update_curr|pick_|futex|switch|ttwu|hrtimer"),
    ("kernel: TCP/IP", r"tcp|ip_|inet|sk_|sock|skb|net|dev_|napi|loopback|nf_|qdisc|fib|dst_|eth_|backlog|softirq|local_bh"),
    ("kernel: memory", r"alloc|free|page|slab|kmem|fault|folio|memcg|mem_cgroup|obj_cgroup"),
    ("kernel: system calls", r"syscall|entry_|sys_|fdget|fget|fput|vfs|ksys|security|iov|import|rw_verify|audit"),
]

# What code of the program is for, by the file that it was written in: the first that fits.
USER = [
    ("unmask", r"core/src/ws/mask"),
    ("check UTF-8", r"core/src/ws/utf8|simdutf8"),
    ("encode", r"core/src/ws/connection/send|core/src/(sse|session|log)"),
    ("parse", r"core/src/ws|core/src/buf"),
    ("hub", r"runtime-tokio/src/(hub|gateway|readiness|timers)"),
    ("WebSocket of the runtime", r"runtime-tokio/"),
    ("tokio, mio", r"/(tokio|mio|socket2)-"),
]


def run(options, programs):
    if not shutil.which("perf") or not shutil.which("addr2line"):
        sys.exit("run: perf and addr2line are wanted (Debian: linux-perf, binutils)")
    raise_file_limit()
    found = [(title, *sample(programs, mode, cell)) for mode, title, cell in CELLS]
    text = "\n\n".join([report.environment({"machine": machine.describe(options)})[0], table(found)])
    print(text)
    if options.write:
        report.write({"where": text})
    return 0


def sample(programs, mode, options):
    """The shares by purpose and by function, and what a message cost meanwhile."""
    server = next(server for server in all_servers(programs) if server.key == "longwire")
    connections = int(options[options.index("--connections") + 1])
    with Running(server, programs) as running, tempfile.TemporaryDirectory() as folder:
        pid, data = running.process.pid, Path(folder, "perf.data")
        command = ["taskset", "-c", LOAD_CORE, programs.peers, "load", mode, "--addr", running.address, "--pid", pid,
                   "--seconds", "5", "--warm", "1", *options]
        with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) as busy:
            while len(list(Path(f"/proc/{pid}/fd").iterdir())) < connections:
                if busy.poll() is not None:
                    raise Failed("the load ended before it began")
                time.sleep(0.05)
            # Until all have had one whole message.
            time.sleep(1.5)
            subprocess.run(["perf", "record", "--quiet", "-e", "cpu-clock", "-F", "2999", "-p", str(pid), "-o", data,
                            "--", "sleep", "3"], check=True, stderr=subprocess.DEVNULL)
            busy.wait()
        samples = read(data)
        cost = load(mode, running, *options, seconds=2, warm=0.3)["cpu_us"]
    return (*grouped(samples, programs.bench_server), cost)


def read(data):
    """(address, symbol, file of the program, base of its mapping) of each sample."""
    script = ["perf", "script", "-i", data, "--show-mmap-events", "-F", "comm,event,ip,sym,dso"]
    text = subprocess.run([*map(str, script)], check=True, capture_output=True, text=True).stdout
    maps, samples = [], []
    for line in text.splitlines():
        if mapped := re.search(r"PERF_RECORD_MMAP2? .*\[(0x\w+)\((0x\w+)\) @ (0x\w+|0) .*\]: .* (/\S+)$", line):
            begin, length, offset = (int(number, 16) for number in mapped.groups()[:3])
            maps.append((begin, begin + length, offset, mapped[4]))
        elif sampled := re.search(r"\s([0-9a-f]+) (.*) \(([^()]*(?:\(deleted\))?)\)$", line):
            samples.append((int(sampled[1], 16), sampled[2], sampled[3]))
    return [(*place(address, maps), symbol, file) for address, symbol, file in samples]


def place(address, maps):
    """The address within a file that is mapped there, as an offset."""
    for begin, end, offset, file in maps:
        if begin <= address < end:
            return address - begin + offset, file
    return address, ""


def grouped(samples, program):
    purposes, functions = Counter(), Counter()
    inlined = inline_chains(program, {offset for offset, file, _, _ in samples if file == str(program)})
    for offset, file, symbol, shown in samples:
        if file == str(program):
            purpose, function = by_file(inlined.get(offset, []), symbol)
        elif shown.startswith("[") or shown.endswith(".ko") or file == "":
            purpose, function = by_name(symbol), symbol
        elif re.search(r"mem(cpy|move|set)", symbol):
            purpose, function = "libc: copying", symbol
        else:
            purpose, function = "libc: rest", symbol
        purposes[purpose] += 1
        functions[function] += 1
    return purposes, functions


def by_name(symbol):
    return next((purpose for purpose, pattern in KERNEL if re.search(pattern, symbol)), "kernel: rest")


def by_file(chain, symbol):
    """What is inlined belongs to the innermost function that is not the standard library's."""
    for function, file in chain:
        for purpose, pattern in USER:
            if re.search(pattern, file):
                return purpose, f"{short(function)}, {Path(file).name.split(':')[0]}"
    return "program: rest", symbol


def inline_chains(program, offsets):
    """For each offset in the program the functions inlined there, innermost first, with their files."""
    if not offsets:
        return {}
    segments = subprocess.run(["readelf", "-lW", program], check=True, capture_output=True, text=True).stdout
    loads = [[int(number, 16) for number in match] for match in
             re.findall(r"LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+)", segments)]
    addresses = {}
    for offset in offsets:
        for begin, address, length in loads:
            if begin <= offset < begin + length:
                addresses[address + offset - begin] = offset
    text = subprocess.run(["addr2line", "-e", program, "-aifC"], input="\n".join(map(hex, addresses)),
                          check=True, capture_output=True, text=True).stdout
    chains, lines = {}, iter(text.splitlines())
    for line in lines:
        if line.startswith("0x"):
            chain = chains.setdefault(addresses.get(int(line, 16)), [])
        else:
            chain.append((line, next(lines, "")))
    return chains


def table(found):
    """Shares by purpose, then the functions with most of them."""
    names = [name for name, _ in sum((purposes for _, purposes, _, _ in found), Counter()).most_common()]
    names.sort(key=lambda name: (not name.startswith("kernel"), [-counts[name] for _, counts, _, _ in found]))
    lines = ["| share of the samples | " + " | ".join(title for title, *_ in found) + " |",
             "|---|" + "--:|" * len(found),
             "| us of server CPU a message or delivery | " + " | ".join(report.figure(cost) for *_, cost in found) + " |"]
    for name in names:
        shares = [counts[name] / max(1, counts.total()) for _, counts, _, _ in found]
        lines.append(f"| {name} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    lines += ["", "| | " + " | ".join(title for title, *_ in found) + " |", "|---|" + "---|" * len(found)]
    tops = [[f"`{short(name)}` {count / functions.total():.1%}" for name, count in functions.most_common(TOP)]
            for _, _, functions, _ in found]
    for n in range(TOP):
        lines.append(f"| {n + 1} | " + " | ".join(top[n] if n < len(top) else "" for top in tops) + " |")
    return "\n".join(lines)


def short(name):
    """A function's name without its generics, and its last two steps."""
    name = re.sub(r"\+0x\w+$", "", name)
    while (less := re.sub(r"<[^<>]*>", "", name)) != name:
        name = less
    return "::".join(name.split("::")[-2:]).replace("|", "")[:60]
