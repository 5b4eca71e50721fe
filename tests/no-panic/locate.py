#!/usr/bin/env python3
"""Lists the lines of source from which a linked program may still panic, and the functions that they ended up in.

Each place that can panic owns a `core::panic::Location` in read-only memory: address and length of the file's name,
line, column, as four words. The linker keeps those that are referred to, and only those. Who refers to one loads its
address in two halves, by MOVW and MOVT (Armv7-M, encodings T3 and T1).
"""

import re
import struct
import sys


class Elf:
    """As much of a 32-bit little-endian ELF file as is needed here."""

    def __init__(self, data):
        assert data[:6] == b"\x7fELF\x01\x01", "not a 32-bit little-endian ELF file"
        self.data = data
        (offset,) = struct.unpack_from("<I", data, 32)
        size, count = struct.unpack_from("<HH", data, 46)
        self.sections = [struct.unpack_from("<10I", data, offset + n * size) for n in range(count)]

    def loaded(self):
        """(address, bytes) of the sections that lie in memory and have content."""
        for _, kind, flags, address, start, length, *_ in self.sections:
            if kind == 1 and flags & 2:
                yield address, self.data[start : start + length]

    def functions(self):
        """(name, address, length)"""
        for _, kind, _, _, start, length, link, *_ in self.sections:
            if kind != 2:  # SHT_SYMTAB
                continue
            names = self.sections[link][4]
            for at in range(start, start + length, 16):
                name, address, size, info, _, _ = struct.unpack_from("<IIIBBH", self.data, at)
                if info & 15 == 2 and size:
                    text = self.data[names + name : self.data.index(b"\0", names + name)]
                    yield text.decode(), address & ~1, size

    def read(self, address, length):
        for start, data in self.loaded():
            if start <= address and address + length <= start + len(data):
                return data[address - start : address - start + length]
        return b""


def locations(elf):
    """The panic locations, by address."""
    found = {}
    for start, data in elf.loaded():
        for at in range(-start % 4, len(data) - 15, 4):
            name, length, line, column = struct.unpack_from("<4I", data, at)
            if 3 < length < 4096 and 0 < line < 1 << 20 and 0 < column < 1 << 12:
                file = elf.read(name, length)
                if file.endswith(b".rs") and file.isascii():
                    found[start + at] = f"{short(file.decode())}:{line}:{column}"
    return found


def short(file):
    return re.sub(r"^.*/registry/src/[^/]*/", "", file)


def constants(code):
    """The addresses that Thumb code puts together from two halves."""
    low, at = {}, 0
    while at + 4 <= len(code):
        first, second = struct.unpack_from("<HH", code, at)
        if first >> 11 not in (0b11101, 0b11110, 0b11111):
            at += 2
            continue
        at += 4
        half = (first & 15) << 12 | (first >> 10 & 1) << 11 | (second >> 12 & 7) << 8 | second & 255
        register = second >> 8 & 15
        if first & 0xFBF0 == 0xF240 and second < 0x8000:
            low[register] = half
        elif first & 0xFBF0 == 0xF2C0 and second < 0x8000:
            yield half << 16 | low.get(register, 0)


def demangle(name):
    """Rust's legacy scheme, roughly; anything else as it is."""
    if not name.startswith("_ZN"):
        return name
    parts, rest = [], name[3:]
    while match := re.match(r"\d+", rest):
        end = match.end() + int(match[0])
        parts.append(rest[match.end() : end])
        rest = rest[end:]
    text = "::".join(parts[:-1])
    for code, char in {"$LT$": "<", "$GT$": ">", "$u20$": " ", "$RF$": "&", "..": "::"}.items():
        text = text.replace(code, char)
    return text


def main():
    elf = Elf(open(sys.argv[1], "rb").read())
    where = locations(elf)
    users = {}
    for name, address, length in elf.functions():
        for constant in constants(elf.read(address, length)):
            if constant in where:
                users.setdefault(constant, set()).add(demangle(name))
    for address, place in sorted(where.items(), key=lambda item: item[1]):
        print(f"    {place}  in {', '.join(sorted(users.get(address, {'?'})))}")
    if not where:
        print("    (nowhere that has a location: an intrinsic of the compiler's own)")


main()
