"""Bytes that both ends can make and check: a random block by seed, each with its number in front."""

import hashlib
import random

BLOCK = 1 << 18


def chunks(total, seed):
    block = bytearray(random.Random(seed).randbytes(BLOCK))
    number = 0
    while total > 0:
        block[:8] = number.to_bytes(8, "big")
        yield bytes(block[:total]) if total < BLOCK else bytes(block)
        total -= BLOCK
        number += 1


def digest(total, seed):
    d = hashlib.sha256()
    for chunk in chunks(total, seed):
        d.update(chunk)
    return d.hexdigest()
