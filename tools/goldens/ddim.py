"""Goldens of diffusers.DDIMScheduler: schedule.json, alphas_cumprod.npy, timesteps.npy, ddim.json, ddim.npy.

    python tools/goldens/ddim.py

A trajectory needs a model. Here it is a formula (`model_output`), repeated in tests/sampler.rs, whose operations are
each rounded once, in a defined order: both sides evaluate it to the same bits. The initial sample is a formula too, so
that only a trajectory with eta > 0 depends on the noise generator; those take torch's portable path, on which this
script insists.

torch's x86 builds take square roots from Intel's MKL, which misses the nearest float32 for one argument in a few; its
ARM builds, like every C compiler, round correctly. So that the goldens do not carry one vendor's error, they are made
with the square root of `exact_square_root`. The scheduler is otherwise as installed; what the replacement changes is
measured, held below 1e-4, and recorded.
"""

import contextlib
import itertools
import os
from unittest import mock

os.environ["ATEN_CPU_CAPABILITY"] = "default"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import DDIMScheduler  # noqa: E402

from provenance import DATA, provenance, write_json  # noqa: E402

SHAPE = (1, 2, 3, 4)
SIZE = 24
SEED = 42
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
ZERO_SNR = {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
TRAINED = {"num_train_timesteps": 20, "trained_betas": [round(0.01 + 0.02 * i**1.5 / 10, 4) for i in range(20)]}

BETAS = [
    {},
    STABLE_DIFFUSION,
    {"beta_schedule": "squaredcos_cap_v2"},
    ZERO_SNR,
    {"rescale_betas_zero_snr": True, "prediction_type": "sample"},
    {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True, "prediction_type": "sample"},
    {**STABLE_DIFFUSION, "num_train_timesteps": 1},
    {**STABLE_DIFFUSION, "num_train_timesteps": 77},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
    TRAINED,
]


@contextlib.contextmanager
def exact_square_root():
    """Makes `x.sqrt()` and `x ** 0.5` of float32 tensors round correctly: a root in float64 is close enough for that."""
    power = torch.Tensor.__pow__

    def sqrt(x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return torch.from_numpy(np.asarray(np.sqrt(x.double().numpy()), dtype=np.float32))

    def pow(x: torch.Tensor, exponent: float) -> torch.Tensor:
        return sqrt(x) if exponent == 0.5 else power(x, exponent)

    with mock.patch.object(torch.Tensor, "sqrt", sqrt), mock.patch.object(torch.Tensor, "__pow__", pow):
        yield


def initial_sample() -> torch.Tensor:
    """Multiples of 1/512 within +-1.96, exact in float32."""
    return torch.tensor([((i * 7919 + 104729) % 2001 - 1000) / 512 for i in range(SIZE)]).reshape(SHAPE)


def model_output(sample: torch.Tensor, timestep: int) -> torch.Tensor:
    flat = sample.flatten()
    return ((flat * 0.5 + torch.roll(flat, -1) * 0.25) + (timestep - 500) / 4096).reshape(SHAPE)


def trajectory(config: dict, steps: int, eta: float, clipped: bool) -> np.ndarray | None:
    """The sample after half of the steps and after all, `[2, SIZE]`; None where diffusers itself ends in NaN."""
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator("cpu").manual_seed(SEED)
    sample, kept = initial_sample(), []
    for i, t in enumerate(scheduler.timesteps.tolist()):
        output = model_output(sample, t)
        sample = scheduler.step(
            output, t, sample, eta=eta, use_clipped_model_output=clipped, generator=generator
        ).prev_sample
        if i == steps // 2:
            kept.append(sample.flatten().numpy())
    kept.append(sample.flatten().numpy())
    kept = np.stack(kept)
    return kept if np.isfinite(kept).all() else None


def cases():
    for spacing, prediction, offset in itertools.product(SPACINGS, PREDICTIONS, [0, 1]):
        config = {**STABLE_DIFFUSION, "timestep_spacing": spacing, "prediction_type": prediction, "steps_offset": offset}
        for eta, steps in itertools.product([0.0, 0.5, 1.0], [1, 3, 7, 16, 50, 1000]):
            if (spacing, offset, steps) != ("leading", 1, 1000):  # starts at timestep 1000, an index error
                yield config, steps, eta, False
    for spacing, one in itertools.product(SPACINGS, [False, True]):
        config = {**ZERO_SNR, "timestep_spacing": spacing, "set_alpha_to_one": one}
        for eta, steps in itertools.product([0.0, 0.5, 1.0], [1, 8, 16, 50]):
            yield config, steps, eta, False
    limits = [
        {"clip_sample": True},
        {"clip_sample": True, "clip_sample_range": 0.4},
        {"thresholding": True},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.37, "sample_max_value": 100.0, "clip_sample": True},
        {"thresholding": True, "dynamic_thresholding_ratio": 1.0, "sample_max_value": 0.5},
    ]
    for limit, prediction, clipped in itertools.product(limits, PREDICTIONS, [False, True]):
        config = {**STABLE_DIFFUSION, **limit, "prediction_type": prediction, "set_alpha_to_one": True}
        yield config, 7, 0.5, clipped
        yield config, 20, 0.0, clipped
    # The defaults of the class, and the beta schedules.
    for betas, steps in itertools.product([{}, {"prediction_type": "sample"}, BETAS[2], BETAS[4], BETAS[5]], [5, 50]):
        yield betas, steps, 0.0, False
        yield betas, steps, 0.5, False
    yield TRAINED, 7, 0.0, False
    yield {**STABLE_DIFFUSION, "num_train_timesteps": 77, "timestep_spacing": "trailing"}, 10, 0.5, False


def fnv1a(values: list[int]) -> int:
    """FNV-1a, 32 bits, over little-endian u32."""
    state = 0x811C9DC5
    for byte in np.asarray(values, dtype="<u4").tobytes():
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def timestep_hashes() -> np.ndarray:
    """One hash of the list per spacing and number of steps, `[3, 1000]`. An entry of -1 at the end is left out."""
    rows = []
    for spacing in SPACINGS:
        scheduler = DDIMScheduler(timestep_spacing=spacing)
        row = []
        for steps in range(1, 1001):
            scheduler.set_timesteps(steps)
            timesteps = scheduler.timesteps.tolist()
            surplus = timesteps[steps:]
            assert surplus in ([], [-1]) and min(timesteps[:steps]) >= 0
            row.append(fnv1a(timesteps[:steps]))
        rows.append(row)
    return np.array(rows, dtype=np.uint32)


def timestep_lists() -> list[dict]:
    lists = []
    for spacing, steps, offset in itertools.product(SPACINGS, [1, 3, 4, 7, 16, 50, 61], [0, 1]):
        scheduler = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps.tolist()[:steps]
        lists.append({"spacing": spacing, "steps": steps, "steps_offset": offset, "timesteps": timesteps})
    return lists


def main() -> None:
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    origin = provenance("ddim.py", "diffusers", "torch", "numpy")
    configs, runs, values, nan, difference = [], [], [], 0, 0.0
    for config, steps, eta, clipped in cases():
        installed = trajectory(config, steps, eta, clipped)
        with exact_square_root():
            kept = trajectory(config, steps, eta, clipped)
        if kept is None or installed is None:
            nan += 1
            continue
        difference = max(difference, (np.abs(kept - installed) / np.maximum(1, np.abs(kept))).max().item())
        if config not in configs:
            configs.append(config)
        runs.append({"config": configs.index(config), "steps": steps, "eta": eta, "clipped": clipped})
        values.append(kept)
    assert difference < 1e-4
    notes = {"seed": SEED, "left_out_as_nan": nan, "largest_difference_with_the_installed_square_root": difference}
    write_json("ddim.json", {**origin, **notes, "configs": configs, "cases": runs})
    values = np.stack(values)
    np.save(DATA / "ddim.npy", values.reshape(-1))
    with exact_square_root():
        alphas_cumprod = [DDIMScheduler(**betas).alphas_cumprod.numpy() for betas in BETAS]
    np.save(DATA / "alphas_cumprod.npy", np.concatenate(alphas_cumprod))
    np.save(DATA / "timesteps.npy", timestep_hashes().reshape(-1))
    write_json("schedule.json", {**origin, "betas": BETAS, "timesteps": timestep_lists()})
    print(f"{len(runs)} trajectories, {nan} left out as NaN, largest magnitude {np.abs(values).max():.3g}")
    print(f"largest difference with the installed square root: {difference:.3g}")


if __name__ == "__main__":
    main()
