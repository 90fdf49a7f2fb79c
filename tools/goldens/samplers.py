"""Goldens of the samplers beside DDIM: samplers.json, samplers.npy.

    python tools/goldens/samplers.py

Each case is a scheduler configuration as a model may bring it, a class of diffusers that reads it by `from_config`, and
a number of steps. The model is the formula of ddim.py, at whatever timestep it is asked, and square roots are rounded
as there, for the reasons given there. Noise takes torch's portable path.

Of each case samplers.npy has: the deviation of the initial noise; for each step the timestep, one value of what the
model is given, and the sample after the step; and the original sample that the model saw half-way. Where diffusers does
not return one (TCD, DPM-Solver++, UniPC) the latter is left out.
"""

import itertools
import os

os.environ["ATEN_CPU_CAPABILITY"] = "default"

import diffusers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from ddim import STABLE_DIFFUSION, TRAINED, exact_square_root  # noqa: E402
from provenance import DATA, provenance, write_json  # noqa: E402

SHAPE = (1, 2, 2, 4)
SIZE = 16
SEED = 42
CLASSES = {
    "ddpm": diffusers.DDPMScheduler,
    "lcm": diffusers.LCMScheduler,
    "tcd": diffusers.TCDScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler-a": diffusers.EulerAncestralDiscreteScheduler,
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
DISTILLED, RELATIVE, SOLVERS = ["lcm", "tcd"], ["euler", "euler-a"], ["dpmpp-2m", "unipc"]
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
SD = {k: v for k, v in STABLE_DIFFUSION.items() if k.startswith("beta")}
# Files as Stable Diffusion 1.5, 2.1 and SDXL-Turbo have them, and one of this project's own model.
PUBLISHED = [
    {
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **SD, "num_train_timesteps": 1000, "clip_sample": False,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
    },
    {
        "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", **SD, "num_train_timesteps": 1000, "clip_sample": False,
        "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "v_prediction", "trained_betas": None,
    },
    {
        "_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0", **SD, "clip_sample": False,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "trailing",
        "trained_betas": None, "use_karras_sigmas": False,
    },
    {
        "_class_name": "DDIMScheduler", **SD, "clip_sample": False, "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    },
    {
        "_class_name": "UniPCMultistepScheduler", **SD, "solver_type": "bh1", "solver_order": 2, "predict_x0": True,
        "disable_corrector": [], "solver_p": None, "timestep_spacing": "linspace", "use_karras_sigmas": True,
    },
    {
        "_class_name": "DPMSolverMultistepScheduler", **SD, "algorithm_type": "dpmsolver++", "solver_type": "heun",
        "lower_order_final": True, "variance_type": None, "timestep_spacing": "leading", "steps_offset": 1,
    },
]


def initial_sample() -> torch.Tensor:
    """Multiples of 1/512 within +-1.96, exact in float32."""
    return torch.tensor([((i * 7919 + 104729) % 2001 - 1000) / 512 for i in range(SIZE)]).reshape(SHAPE)


def model_output(sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    flat = sample.flatten()
    shift = (timestep.to(torch.float32) - 500) / 4096
    return ((flat * 0.5 + torch.roll(flat, -1) * 0.25) + shift).reshape(SHAPE)


def trajectory(name: str, config: dict, steps: int, eta: float | None) -> np.ndarray | None:
    """What the head of this file says of a case; None where diffusers itself ends in NaN."""
    scheduler = CLASSES[name].from_config(config)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    generator = torch.Generator("cpu").manual_seed(SEED)
    sigma = torch.as_tensor(scheduler.init_noise_sigma, dtype=torch.float32)
    sample, kept, seen = initial_sample() * sigma, [sigma.item()], None
    options = {} if name in SOLVERS else {"generator": generator}
    if eta is not None:
        options["eta"] = eta
    for i, t in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(sample, t)
        result = scheduler.step(model_output(given, t), t, sample, **options)
        sample = result.prev_sample
        if i == steps // 2:
            seen = result.get("pred_original_sample", result.get("denoised"))
        kept += [t.item(), given.flatten()[0].item(), *sample.flatten().tolist()]
    kept += [] if seen is None else seen.flatten().tolist()
    kept = np.array(kept, dtype=np.float32)
    return kept if np.isfinite(kept).all() else None


def common(name: str):
    """Spacings, predictions, offsets, zero terminal SNR, betas, files of other classes."""
    is_distilled = name in DISTILLED
    spacings = [None] if is_distilled else SPACINGS
    predictions = PREDICTIONS[:2] if name == "euler-a" else PREDICTIONS
    for spacing, prediction in itertools.product(spacings, predictions):
        config = {**SD, "prediction_type": prediction}
        if spacing:
            config["timestep_spacing"] = spacing
        for steps in [1, 2, 3, 4, 8] if is_distilled else [1, 4, 7]:
            yield config, steps
        if spacing == "leading":
            yield {**config, "steps_offset": 1}, 5
        if name in [*RELATIVE, *SOLVERS] or prediction != "epsilon":
            yield {**config, "rescale_betas_zero_snr": True}, 4
    for betas in [{}, {"beta_schedule": "squaredcos_cap_v2"}, {**SD, "beta_schedule": "linear"}]:
        yield betas, 5
    trained = {**TRAINED, "original_inference_steps": 10} if is_distilled else TRAINED
    yield trained, 4
    for config in PUBLISHED:
        if name not in ["ddpm", *DISTILLED] or not config.get("rescale_betas_zero_snr") or config["prediction_type"] != "epsilon":
            yield config, 4
    yield PUBLISHED[0], 12 if name in DISTILLED else 25


def limits():
    yield {"clip_sample": True}
    yield {"clip_sample": True, "clip_sample_range": 0.4}
    yield {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}
    yield {"thresholding": True, "dynamic_thresholding_ratio": 0.37, "sample_max_value": 100.0, "clip_sample": True}


def own(name: str):
    """What one sampler has and others have not."""
    linspace = {**SD, "timestep_spacing": "linspace"}
    if name in ["ddpm", "lcm", *SOLVERS]:
        for limit, prediction in itertools.product(limits(), PREDICTIONS):
            yield {**SD, **limit, "prediction_type": prediction}, 4
    if name == "ddpm":
        for kind in ["fixed_small_log", "fixed_large", None]:
            yield {**SD, "variance_type": kind, "steps_offset": 1}, 4
    if name in DISTILLED:
        for steps, original in [(20, 20), (7, 100), (1, 1), (3, 7)]:
            yield {**SD, "original_inference_steps": original, "timestep_scaling": 5.0}, steps
    if name in ["euler", *SOLVERS]:
        for spacing, prediction in itertools.product(SPACINGS, PREDICTIONS[:2]):
            karras = {**SD, "timestep_spacing": spacing, "prediction_type": prediction, "use_karras_sigmas": True}
            yield karras, 6
            yield {**karras, "rescale_betas_zero_snr": True}, 5
        for steps in [1, 2, 20]:
            yield {**linspace, "use_karras_sigmas": True}, steps
        yield {**linspace, "use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, 5
        yield {**linspace, "use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}, 5
        yield {**linspace, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 5
        yield {**linspace, "final_sigmas_type": "sigma_min"}, 5
        yield {**linspace, "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"}, 16
    if name in SOLVERS:
        for order, prediction in itertools.product([1, 2, 3], PREDICTIONS):
            solver = {**linspace, "solver_order": order, "prediction_type": prediction}
            for kind in ["midpoint", "heun"] if name == "dpmpp-2m" else ["bh1", "bh2"]:
                ends = {"final_sigmas_type": "sigma_min"} if kind == "bh1" else {}
                yield {**solver, "solver_type": kind, **ends}, 6
                yield {**solver, "solver_type": kind, "final_sigmas_type": "sigma_min", "lower_order_final": False}, 5
            yield solver, 3
        yield {**linspace, "solver_order": 3}, 20
    if name == "dpmpp-2m":
        yield {**linspace, "algorithm_type": "deis", "solver_type": "logrho", "final_sigmas_type": "sigma_min"}, 5
        yield {**linspace, "euler_at_final": True, "lower_order_final": False}, 5
        yield {**linspace, "lower_order_final": False}, 16
    if name == "unipc":
        yield {**linspace, "disable_corrector": [0, 2]}, 6
        yield {**linspace, "solver_type": "logrho", "solver_order": 3, "disable_corrector": [1]}, 6


def cases():
    for name in CLASSES:
        etas = [0.3, 0.0, 1.0] if name == "tcd" else [None]
        for (config, steps), eta in itertools.product([*common(name), *own(name)], etas):
            yield name, config, steps, eta


def main() -> None:
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    configs, runs, values, nan = [], [], [], []
    for name, config, steps, eta in cases():
        with exact_square_root():
            kept = trajectory(name, config, steps, eta)
        if kept is None:
            nan.append([name, config, steps])
            continue
        if config not in configs:
            configs.append(config)
        case = {"sampler": name, "config": configs.index(config), "steps": steps}
        case |= {} if eta is None else {"eta": eta}
        if case not in runs:
            runs.append(case)
            values.append(kept)
    origin = provenance("samplers.py", "diffusers", "torch", "numpy")
    write_json("samplers.json", {**origin, "seed": SEED, "configs": configs, "cases": runs})
    np.save(DATA / "samplers.npy", np.concatenate(values))
    print(f"{len(runs)} cases, {sum(map(len, values))} values, largest {max(np.abs(v).max() for v in values):.3g}")
    print(f"left out as NaN: {nan}")


if __name__ == "__main__":
    main()
