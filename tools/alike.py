"""Says how alike two pictures are, and fails where that is too little: tools/alike.py A B (--decibels X | --same)

A and B name A.png and A.npy, as `tintype generate` writes them with --output A.png --save-latents A.npy. With --decibels
the peak signal-to-noise ratio of the pixels has to be X at least; with --same pixels and latents are equal to the last
bit. It needs nothing but Python.
"""

import argparse
import math
import struct
import sys
import zlib
from array import array
from pathlib import Path


def pixels(path: Path) -> tuple[tuple[int, int], bytes]:
    """Width, height, and the bytes of an 8-bit RGB picture that is not interlaced."""
    data, at, packed, header = path.read_bytes(), 8, b"", None
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        header = struct.unpack(">IIBBBBB", body) if kind == b"IHDR" else header
        packed += body if kind == b"IDAT" else b""
        at += length + 12
    if header is None or header[2:] != (8, 2, 0, 0, 0):
        sys.exit(f"{path}: not an 8-bit RGB picture without interlacing")
    width, height = header[:2]
    lines, stride = zlib.decompress(packed), 3 * width
    above, rows = bytearray(stride), bytearray()
    for start in range(0, height * (stride + 1), stride + 1):
        line = bytearray(lines[start + 1 : start + 1 + stride])
        unfilter(lines[start], line, above)
        rows += line
        above = line
    return (width, height), bytes(rows)


def unfilter(kind: int, line: bytearray, above: bytearray) -> None:
    """Undoes the filter of a line in place (PNG specification, section 9.2)."""
    for i in range(len(line)):
        left, up, corner = line[i - 3] if i >= 3 else 0, above[i], above[i - 3] if i >= 3 else 0
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda value: abs(guess - value))
        line[i] = (line[i] + (0, left, up, (left + up) // 2, nearest)[kind]) & 0xFF


def latents(path: Path) -> array:
    """The numbers of a .npy file of little-endian float32."""
    data = path.read_bytes()
    if data[:7] != b"\x93NUMPY\x01" or b"'<f4'" not in data[:128]:
        sys.exit(f"{path}: not a .npy file, version 1, of float32")
    values = array("f")
    values.frombytes(data[10 + int.from_bytes(data[8:10], "little") :])
    return values


def decibels(a: bytes, b: bytes) -> float:
    """The peak signal-to-noise ratio of bytes."""
    error = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    return 10 * math.log10(255**2 / error) if error else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("a")
    parser.add_argument("b")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--decibels", type=float)
    wanted.add_argument("--same", action="store_true")
    arguments = parser.parse_args()
    names = arguments.a, arguments.b
    (size_a, a), (size_b, b) = (pixels(Path(f"{name}.png")) for name in names)
    if size_a != size_b:
        sys.exit(f"{names[0]} is {size_a} px, {names[1]} {size_b}")
    before, after = (latents(Path(f"{name}.npy")) for name in names)
    apart = max(abs(x - y) for x, y in zip(before, after, strict=True))
    ratio = decibels(a, b)
    differing = sum(x != y for x, y in zip(a, b))
    print(f"{names[0]} and {names[1]}: {ratio:.1f} dB, {differing} of {len(a)} bytes differ, latents by {apart:.2g}")
    if arguments.same and (a != b or before.tobytes() != after.tobytes()):
        sys.exit("they are not the same")
    if arguments.decibels and not ratio >= arguments.decibels:
        sys.exit(f"less than {arguments.decibels} dB")


if __name__ == "__main__":
    main()
