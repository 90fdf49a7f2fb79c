"""Weights and inputs that follow from their names, so that no test needs a file of them.

A number is a hash of its tensor's name and its place, as a float32 from -1 to 1 with 24 bits: `tests/checkpoint/formula.rs`
computes the same bits. Matrices are scaled to keep activations near 1, what scales a normalisation lies near 1, biases near 0.
"""

import numpy as np
import torch


def unit(name: str, count: int) -> np.ndarray:
    """`count` numbers from -1 to 1."""
    start = 0x811C9DC5
    for byte in name.encode():
        start = (start ^ byte) * 0x01000193 & 0xFFFFFFFF
    x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(start)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)


def weight(name: str, shape) -> torch.Tensor:
    """A weight of a network."""
    shape = tuple(shape)
    u = unit(name, int(np.prod(shape, dtype=np.int64)))
    if len(shape) > 1:
        values = u * np.float32(np.sqrt(3.0 / np.prod(shape[1:], dtype=np.int64)))
    elif name.endswith(".weight"):
        values = np.float32(1) + np.float32(0.25) * u
    else:
        values = np.float32(0.125) * u
    return torch.from_numpy(values.reshape(shape))


def given(name: str, shape) -> torch.Tensor:
    """An input of a network, of about unit variance."""
    return torch.from_numpy((unit(name, int(np.prod(shape))) * np.float32(1.75)).reshape(shape))


def fill(model: torch.nn.Module, names: dict[str, str] | None = None) -> torch.nn.Module:
    """Give a model the weights of its own names, or of those that a file gives them."""
    state = {key: weight((names or {}).get(key, key), value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()
