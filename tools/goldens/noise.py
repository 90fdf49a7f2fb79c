"""Goldens of torch's CPU generator: tests/data/noise.json, noise-default.npy, noise-avx2.npy.

    python tools/goldens/noise.py

torch's portable path and its AVX2 path round differently, so each is recorded: torch picks the path once per process,
which is why this script runs itself again per path. A case is a seed and the sizes of successive `torch.randn` calls on
one generator. Of a long call only some values are kept: `kept` below, and its twin in tests/sampler.rs.
"""

import os
import subprocess
import sys

import numpy as np
import torch

from provenance import DATA, provenance, write_json

SEEDS = [0, 1, 42, 1234567890, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**63 + 12345, 2**64 - 1]
CALLS = [
    [1],
    [2],
    [15],
    [16],
    [17],
    [100],
    [4 * 64 * 64],
    # An odd number of small draws leaves the second normal of a pair waiting, across a large draw too.
    [3, 16, 2, 17, 1, 5],
    # A sampler with eta > 0: the latents, then noise per step.
    [24, 24, 24],
]
PATHS = ["default", "avx2"]


def kept(size: int) -> list[int]:
    """The indices of a call's values that the golden holds: all of a short call; both ends and a sample of a long one."""
    return [i for i in range(size) if size <= 128 or i < 16 or i >= size - 16 or i % 251 == 0]


def draw() -> np.ndarray:
    values = []
    for seed in SEEDS:
        for sizes in CALLS:
            generator = torch.Generator("cpu").manual_seed(seed)
            for size in sizes:
                values.append(torch.randn(size, generator=generator).numpy()[kept(size)])
    return np.concatenate(values)


def main() -> None:
    if len(sys.argv) == 2:
        path = sys.argv[1]
        capability = torch.backends.cpu.get_cpu_capability()
        assert capability.lower() == path, f"this machine runs torch's {capability} path, not {path}"
        np.save(DATA / f"noise-{path}.npy", draw())
        return
    for path in PATHS:
        subprocess.run([sys.executable, __file__, path], check=True, env={**os.environ, "ATEN_CPU_CAPABILITY": path})
    cases = [{"seed": seed, "calls": sizes} for seed in SEEDS for sizes in CALLS]
    write_json("noise.json", {**provenance("noise.py", "torch", "numpy"), "cases": cases})


if __name__ == "__main__":
    main()
