"""Pixel diffusion: networks, and whole pictures by diffusers' pipelines: tests/data/pixels/.

    python tools/goldens/pixels.py

`networks.json.gz` has each network's configuration and the names and shapes of its weights, which are `formula.py`'s, `runs.json`
the pictures that are drawn with them. `networks.npz` and `runs.npz` are what torch and diffusers make of them; pictures before
they are rounded. `onnx/` is a network as `tools/export/pixels.py` exports it.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UnCLIPScheduler, UNet2DModel

from checkpoints import saved
from formula import fill, given
from provenance import DATA, provenance, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))
from pixels import export  # noqa: E402

OUT = DATA / "pixels"
SIZE = (8, 12)
# Of a small picture, and the side of a large one.
SMALL, LARGE = (5, 7), 16
# What diffusers called the projections of attention before its version 0.15.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def unet(levels, **options):
    small = {"sample_size": SIZE, "layers_per_block": 1, "norm_num_groups": 4, "block_out_channels": (8, 16, 16)}
    small["block_out_channels"] = small["block_out_channels"][: len(levels)]
    return UNet2DModel(
        down_block_types=tuple(f"{down}" for down, _ in levels), up_block_types=tuple(up for _, up in reversed(levels)),
        **(small | options),
    )


PLAIN, ATTENDING = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
RESIDUAL = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")


def upsampler(**options):
    """As Karlo's, which is shown a small picture behind the noisy one."""
    options |= {"in_channels": 6, "sample_size": LARGE, "resnet_time_scale_shift": "scale_shift", "add_attention": False}
    return unet([RESIDUAL, RESIDUAL, RESIDUAL], **options)


def networks() -> dict[str, UNet2DModel]:
    """What UNet2DModel can be: as the first DDPM models were, with classes, as Karlo's upsampler is, and the rest."""
    return {
        "ddpm": unet(
            [PLAIN, ATTENDING, PLAIN], attention_head_dim=None, flip_sin_to_cos=False, freq_shift=1, downsample_padding=0,
            norm_eps=1e-6,
        ),
        "classes": unet([PLAIN, ATTENDING], attention_head_dim=4, num_class_embeds=5, layers_per_block=2),
        "super_res_first": upsampler(out_channels=6),
        "super_res_last": upsampler(out_channels=3),
        "resnet": unet(
            [ATTENDING, PLAIN], downsample_type="resnet", upsample_type="resnet", resnet_time_scale_shift="scale_shift",
            class_embed_type="timestep", center_input_sample=True,
        ),
        "identity": unet([PLAIN, ATTENDING], mid_block_type=None, class_embed_type="identity", time_embedding_dim=24),
        "groups": unet([PLAIN, ATTENDING], attn_norm_num_groups=2, resnet_time_scale_shift="scale_shift", num_class_embeds=3),
    }


def labels(config) -> torch.Tensor | None:
    """What `tests/pixels.rs` tells a network of the class."""
    if config.class_embed_type == "identity":
        return given("class_labels", (1, config.time_embedding_dim))
    return torch.tensor([2]) if config.class_embed_type or config.num_class_embeds else None


LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
# Scheduler, what is asked of the pipeline, and the network.
RUNS = [
    ("ddpm", {**LINEAR, "prediction_type": "epsilon"}, {"steps": 5, "seed": 3}, "ddpm"),
    ("ddpm", {**COSINE, "prediction_type": "v_prediction", "variance_type": "fixed_large"}, {"steps": 6, "seed": 4}, "ddpm"),
    ("ddpm", {**COSINE, "prediction_type": "sample", "clip_sample": False}, {"steps": 4, "seed": 2**33 + 5}, "ddpm"),
    ("ddim", {**LINEAR, "prediction_type": "epsilon"}, {"steps": 5, "seed": 6, "eta": 0.0}, "ddpm"),
    ("ddim", {**LINEAR, "prediction_type": "epsilon", "clip_sample": False}, {"steps": 5, "seed": 7, "eta": 1.0}, "ddpm"),
    ("ddim", {**COSINE, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, {"steps": 4, "seed": 8, "eta": 0.0}, "ddpm"),
    ("ddim", {**COSINE, "prediction_type": "sample"}, {"steps": 4, "seed": 9, "eta": 1.0}, "ddpm"),
    ("ddim", {**COSINE, "prediction_type": "v_prediction"}, {"steps": 5, "seed": 10, "label": 2, "guidance": 3.0}, "classes"),
    ("ddpm", {**LINEAR, "prediction_type": "epsilon"}, {"steps": 5, "seed": 11, "label": 1, "guidance": 2.0}, "classes"),
    ("ddim", {**COSINE, "prediction_type": "v_prediction"}, {"steps": 3, "seed": 12, "label": None, "guidance": 3.0}, "classes"),
]
NULL_CLASS = 4
# Which of the runs is explained, and at how many timesteps noise is put over its picture.
EXPLAINED, NOISED = 7, 5
SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}


def drawn(model: UNet2DModel, scheduler, run: dict) -> np.ndarray:
    """The picture of a run before it is rounded, -1 to 1."""
    generator = torch.Generator().manual_seed(run["seed"])
    if "label" in run:
        return guided(model, scheduler, run, generator)[0].numpy()
    last = []
    step = scheduler.step

    def watched(*args, **options):
        result = step(*args, **options)
        last[:] = [result.prev_sample]
        return result

    options = {"num_inference_steps": run["steps"], "generator": generator}
    if "eta" in run:
        pipeline = DDIMPipeline(model, scheduler)
        # The pipeline makes a scheduler of its own.
        step = pipeline.scheduler.step
        options["eta"] = run["eta"]
    else:
        pipeline = DDPMPipeline(model, scheduler)
    pipeline.scheduler.step = watched
    pipeline.set_progress_bar_config(disable=True)
    pipeline(output_type="np", **options)
    return last[0].numpy()


def guided(model, scheduler, run, generator) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The picture, and what was predicted of it in each step.

    diffusers has no pipeline for this: its networks and schedulers, and guidance between the class and none.
    """
    scheduler.set_timesteps(run["steps"])
    sample = torch.randn(1, model.config.in_channels, *model.config.sample_size, generator=generator)
    label, originals = NULL_CLASS if run["label"] is None else run["label"], []
    for t in scheduler.timesteps:
        uncond, cond = (model(sample, t, torch.tensor([class_label])).sample for class_label in (NULL_CLASS, label))
        step = scheduler.step(uncond + run["guidance"] * (cond - uncond), t, sample, generator=generator)
        sample = step.prev_sample
        originals.append(step.pred_original_sample)
    return sample, originals


def explained(model, scheduler, run) -> dict[str, np.ndarray]:
    """What `explain` shows of a run: the picture under the noise of the seed, and what was predicted in each step."""
    picture, originals = guided(model, scheduler, run, torch.Generator().manual_seed(run["seed"]))
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(run["seed"]))
    timesteps = [1000 * (at + 1) // NOISED - 1 for at in range(NOISED)]
    noised = [scheduler.add_noise(picture, noise, torch.tensor([timestep])) for timestep in timesteps]
    shown = {f"original.{at}": x for at, x in enumerate(originals)} | {f"noised.{at}": x for at, x in enumerate(noised)}
    return {name: x.numpy() for name, x in shown.items()}


# Scheduler, what is asked, and the network of all steps but the last. At timestep 999 a prediction is divided by 5e-5 and then
# clipped: with these seeds all of it is, so that no rounding is made 20000 times as large.
UPSCALED = [
    ({"variance_type": "learned_range", "prediction_type": "epsilon"}, {"steps": 4, "seed": 13}, "super_res_first"),
    ({"variance_type": "fixed_small_log", "prediction_type": "epsilon"}, {"steps": 3, "seed": 15}, "super_res_last"),
]


def upscaled(first, last, scheduler, run) -> np.ndarray:
    """The last stage of `UnCLIPPipeline`, by its networks and its scheduler."""
    generator = torch.Generator().manual_seed(run["seed"])
    small = given("small", (1, 3, *SMALL)) / 2
    scheduler.set_timesteps(run["steps"])
    sample = torch.randn(1, 3, LARGE, LARGE, generator=generator)
    beside = torch.nn.functional.interpolate(small, size=[LARGE, LARGE], mode="bicubic", align_corners=False, antialias=True)
    timesteps = list(scheduler.timesteps)
    for t, previous in zip(timesteps, [*timesteps[1:], None], strict=True):
        network = last if previous is None else first
        noise_pred = network(torch.cat([sample, beside], dim=1), t).sample
        sample = scheduler.step(noise_pred, t, sample, prev_timestep=previous, generator=generator).prev_sample
    return sample.numpy()


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    OUT.mkdir(exist_ok=True)
    cases, arrays, models = {}, {}, {}
    for name, model in networks().items():
        model = fill(model)
        tensors, config = saved(model)
        if name == "ddpm":
            renamed = {key: key for key in tensors}
            for today, then in OLD_NAMES.items():
                renamed = {key: old.replace(f".{today}.", f".{then}.") for key, old in renamed.items()}
            fill(model, renamed)
            tensors = {renamed[key]: shape for key, shape in tensors.items()}
        cases[name] = {"config": config, "tensors": list(tensors.items())}
        sample = given("sample", (1, model.config.in_channels, *SIZE))
        arrays[name] = model(sample, torch.tensor([501]), labels(model.config)).sample.numpy()
        models[name] = model
    made = provenance("pixels.py", "torch", "diffusers", "safetensors", "numpy")
    text = json.dumps({**made, "networks": cases}, separators=(",", ":")) + "\n"
    (OUT / "networks.json.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    np.savez_compressed(OUT / "networks.npz", **arrays)
    runs, pictures = [], {}
    for at, (sampler, config, run, network) in enumerate(RUNS):
        scheduler = SCHEDULERS[sampler](**config)
        runs.append({"network": network, "sampler": sampler, **run, "scheduler": dict(scheduler.config)})
        pictures[str(at)] = drawn(models[network], scheduler, run)
    sampler, config, run, network = RUNS[EXPLAINED]
    pictures |= explained(models[network], SCHEDULERS[sampler](**config), run)
    large = []
    for at, (config, run, network) in enumerate(UPSCALED):
        scheduler = UnCLIPScheduler(**config)
        large.append({"network": network, **run, "scheduler": dict(scheduler.config)})
        pictures[f"upscaled.{at}"] = upscaled(models[network], models["super_res_last"], scheduler, run)
    write_json("pixels/runs.json", {**made, "null_class": NULL_CLASS, "runs": runs, "explained": EXPLAINED, "upscaled": large})
    np.savez_compressed(OUT / "runs.npz", **pictures)
    small = {"block_out_channels": (4, 8), "norm_num_groups": 2, "attention_head_dim": 4}
    graph = unet(
        [ATTENDING, RESIDUAL], downsample_type="resnet", resnet_time_scale_shift="scale_shift", num_class_embeds=3, **small
    )
    export(fill(graph), OUT / "onnx" / "unet")


if __name__ == "__main__":
    main()
