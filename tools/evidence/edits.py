"""Edits of bytes that know nothing of any format. The last argument is other evidence of the kind."""

import random
from collections.abc import Callable, Sequence

from tools.evidence.target import Target

Operation = Callable[[random.Random, bytearray, Target, bytes], None]


def flip(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """One bit."""
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_byte(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """One byte."""
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def insert(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """Some bytes more."""
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 1, 1, 2, 4, 55)))


def delete(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """Some bytes less."""
    at, size = rng.randrange(len(data)), rng.choice((1, 1, 1, 2, 4, 55, 256))
    del data[at : at + size]


def double(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """A range once more."""
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 55, 256))
    data[at:at] = data[at : at + size]


def swap(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """Two ranges in each other's place."""
    size = rng.choice((1, 1, 2, 4, 8, 48, 55))
    if len(data) > 2 * size:
        a, b = sorted(rng.sample(range(len(data) - size), 2))
        b = max(b, a + size)
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def cut(rng: random.Random, data: bytearray, _target: Target, _other: bytes) -> None:
    """The end away, or something behind it."""
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    else:
        data += rng.randbytes(rng.choice((1, 1, 2, 96)))


def splice(rng: random.Random, data: bytearray, _target: Target, other: bytes) -> None:
    """A range of other evidence, at the same place or another, or all of it."""
    if rng.random() < 0.02:
        data[:] = other
        return
    at, size = rng.randrange(min(len(data), len(other))), rng.choice((1, 8, 48, 96, 256, 1024))
    to = at if rng.random() < 0.7 else rng.randrange(len(data))
    data[to : to + size] = other[at : at + size]


PLAIN: Sequence[Operation] = (*(flip,) * 4, *(set_byte,) * 2, *(insert,) * 2, *(delete,) * 2, double, swap, cut)
"""As often as they are used."""
