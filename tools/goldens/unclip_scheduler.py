"""Goldens of unCLIP's sampler: unclip.json, unclip.npy.

    python tools/goldens/unclip_scheduler.py

As samplers.py, with diffusers' UnCLIPScheduler and `prev_timestep` given as UnCLIPPipeline gives it. Where the variance is
learned, the model's output has the formula's negative behind it, within -1 and 1. unclip.npy has of each case, for each step,
the timestep and the sample after the step, and the original sample that the model saw half-way.
"""

import itertools
import os

os.environ["ATEN_CPU_CAPABILITY"] = "default"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import UnCLIPScheduler  # noqa: E402

from ddim import exact_square_root  # noqa: E402
from provenance import DATA, provenance, write_json  # noqa: E402
from samplers import SEED, initial_sample, model_output  # noqa: E402


def trajectory(config, steps):
    scheduler = UnCLIPScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator("cpu").manual_seed(SEED)
    sample, kept, seen = initial_sample(), [], None
    for i, t in enumerate(scheduler.timesteps):
        output = model_output(sample, t)
        if config["variance_type"] == "learned_range":
            output = torch.cat([output, -output.clamp(-1, 1)], dim=1)
        following = scheduler.timesteps[i + 1] if i + 1 < steps else None
        result = scheduler.step(output, t, sample, prev_timestep=following, generator=generator)
        sample = result.prev_sample
        if i == steps // 2:
            seen = result.pred_original_sample
        kept += [t.item(), *sample.flatten().tolist()]
    return [*kept, *seen.flatten().tolist()]


def main():
    cases, values = [], []
    grid = itertools.product(["fixed_small_log", "learned_range"], ["sample", "epsilon"], [None, 1.0, 5.0], [2, 7, 25])
    for variance, prediction, limit, steps in grid:
        config = {"_class_name": "UnCLIPScheduler", "variance_type": variance, "prediction_type": prediction}
        config |= {"clip_sample": limit is not None, "clip_sample_range": limit or 1.0}
        cases.append({"config": config, "steps": steps})
        values += trajectory(config, steps)
    # All timesteps of training: the next is always the one before.
    config = {"num_train_timesteps": 12, "variance_type": "fixed_small_log", "prediction_type": "sample"}
    cases.append({"config": config, "steps": 12})
    values += trajectory(config, 12)
    np.save(DATA / "unclip.npy", np.array(values, np.float32))
    write_json("unclip.json", {**provenance("unclip_scheduler.py", "torch", "diffusers", "numpy"), "seed": SEED, "cases": cases})


if __name__ == "__main__":
    with exact_square_root():
        main()
