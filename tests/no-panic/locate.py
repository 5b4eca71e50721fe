#!/usr/bin/env python3
"""Lists the lines of source from which a linked program may still panic.

Each place that can panic owns a `core::panic::Location` in read-only memory: address and length of the file's name,
line, column, as four words. The linker keeps those that are referred to, and only those.
"""

import struct
import sys


def segments(elf):
    """What is loaded: (address, bytes) of a 32-bit little-endian ELF file."""
    assert elf[:6] == b"\x7fELF\x01\x01", "not a 32-bit little-endian ELF file"
    (offset,) = struct.unpack_from("<I", elf, 28)
    size, count = struct.unpack_from("<HH", elf, 42)
    for n in range(count):
        kind, start, address, _, length = struct.unpack_from("<5I", elf, offset + n * size)
        if kind == 1:  # PT_LOAD
            yield address, elf[start : start + length]


def locations(elf):
    loaded = list(segments(elf))

    def text(address, length):
        for start, data in loaded:
            if start <= address and address + length <= start + len(data):
                return data[address - start : address - start + length]
        return b""

    for start, data in loaded:
        for at in range(-start % 4, len(data) - 15, 4):
            name, length, line, column = struct.unpack_from("<4I", data, at)
            if 3 < length < 4096 and 0 < line < 1 << 20 and 0 < column < 1 << 12:
                file = text(name, length)
                if file.endswith(b".rs") and file.isascii():
                    yield file.decode(), line, column


found = sorted(set(locations(open(sys.argv[1], "rb").read())))
for file, line, column in found:
    print(f"    {file}:{line}:{column}")
if not found:
    print("    (nowhere that has a location: an overflow or `unreachable` inside of the compiler's own library)")
