"""The machine, its load, and the versions of what is measured."""

import datetime
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from servers import HERE, OTHERS, ROOT, all_servers

# A load average above which other work takes part in the figures.
BUSY = 0.5


def check():
    """Ends the program if it cannot measure here."""
    if not {0, 1} <= os.sched_getaffinity(0):
        sys.exit("run: two cores are wanted, one for the servers and one for the load")
    for tool in ("cargo", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"run: {tool} is missing")
    if (busy := os.getloadavg()[0]) > BUSY:
        print(f"run: load average {busy:.1f}: other work takes part in these figures\n", file=sys.stderr)


def describe(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["tests/benches/peers/run", *sys.argv[1:]]),
        "cpu": f"{os.cpu_count()} cores, {cpu[1] if cpu else platform.machine()}",
        "kernel": f"Linux {platform.release().split('-')[0]}",
        "rustc": said("rustc", "--version").split()[1],
        "load": round(os.getloadavg()[0], 2),
        "quick": options.quick or options.smoke,
        "commit": said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "versions": versions(),
        "absent": sorted({"uWebSockets", "ws", "nchan"} - installed()),
    }


def installed():
    """Which of the servers that are not written in Rust there are."""
    return {folder for folder, file in (("uWebSockets", "uwebsockets/server"), ("ws", "node/server.mjs"), ("nchan", "nchan"))
            if (OTHERS / file).exists()}


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def versions():
    """Of the libraries, from the lock file; of the others, from what tests/setup/peers wrote down."""
    wanted = {server.package for server in all_servers() if server.kind == "rust"} | {"tokio"}
    packages = tomllib.loads((HERE / "Cargo.lock").read_text())["package"]
    found = {package["name"]: package["version"] for package in packages if package["name"] in wanted}
    if (OTHERS / "versions").exists():
        found |= dict(line.split("=", 1) for line in (OTHERS / "versions").read_text().split("\n") if "=" in line)
    return dict(sorted(found.items()))
