"""XXH64 in Python, from its specification, and what it is for: sealing an altered `.plan` file."""

from __future__ import annotations

import struct

P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MASK = 2**64 - 1


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & MASK


def _round(lane: int, value: int) -> int:
    return _rotate((lane + value * P2) & MASK, 31) * P1 & MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    stripes = len(data) // 32 * 32
    if stripes:
        lanes = [seed + P1 + P2 & MASK, seed + P2 & MASK, seed, seed - P1 & MASK]
        for values in struct.iter_unpack("<4Q", data[:stripes]):
            lanes = [_round(lane, value) for lane, value in zip(lanes, values)]
        result = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            result = ((result ^ _round(0, lane)) * P1 + P4) & MASK
    else:
        result = seed + P5 & MASK
    result = result + len(data) & MASK
    for at in range(stripes, len(data) - 7, 8):
        value = int.from_bytes(data[at : at + 8], "little")
        result = (_rotate(result ^ _round(0, value), 27) * P1 + P4) & MASK
    tail = data[len(data) // 8 * 8 :]
    if len(tail) >= 4:
        value = int.from_bytes(tail[:4], "little")
        result = (_rotate(result ^ value * P1 & MASK, 23) * P2 + P3) & MASK
        tail = tail[4:]
    for byte in tail:
        result = _rotate(result ^ byte * P5 & MASK, 11) * P1 & MASK
    result = (result ^ result >> 33) * P2 & MASK
    result = (result ^ result >> 29) * P3 & MASK
    return result ^ result >> 32


HEADER = struct.Struct("<8sIIQQ32s64s6Q")
"""magic, format, header bytes, file bytes, checksum, version, kernel digest; offset and size of
meta and of annotations; offset of the blob table, number of blobs: csrc/runtime/plan_file.h."""


def sealed(plan: bytes) -> bytes:
    """The file with its size and checksum set right."""
    head = plan[:16] + struct.pack("<Q", len(plan))
    return head + struct.pack("<Q", xxh64(plan[32:], xxh64(head))) + plan[32:]
