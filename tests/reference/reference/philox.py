"""Philox4x32-10 (Salmon et al., SC 2011) and the numbers that particle filtering draws with."""

from __future__ import annotations

_LOW = (1 << 32) - 1
_DRAW, _FORK, _ROOT = 0, 1, 2
_RESAMPLING = (1 << 64) - 1


def philox4x32_10(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """The bijection of `counter` (four words) under `key` (two words)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & _LOW, (first >> 32) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _keyed(key: int, counter: int, use: int) -> int:
    out = philox4x32_10((counter & _LOW, counter >> 32, use, 0), (key & _LOW, key >> 32))
    return out[0] | out[1] << 32


def fork_key(parent: int, child: int) -> int:
    """The key of a child."""
    return _keyed(parent, child, _FORK)


def stream(seed: int, text: str) -> int:
    """The key of a problem: FNV-1a, 64 bits, of the seed's eight bytes, lowest first, and the text's."""
    key = 0xCBF29CE484222325
    for byte in seed.to_bytes(8, "little") + text.encode():
        key = (key ^ byte) * 0x100000001B3 % (1 << 64)
    return key


def resampling_draws(seed: int, text: str, round_index: int, count: int) -> list[float]:
    """The numbers of one round of particle filtering, from 0 to 1 (exclusive)."""
    key = fork_key(fork_key(stream(seed, text), _RESAMPLING), round_index)
    return [(_keyed(key, index, _DRAW) >> 11) / (1 << 53) for index in range(count)]
