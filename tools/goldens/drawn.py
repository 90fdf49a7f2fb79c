"""What diffusers draws with each sampler, and with a network that is told the guidance scale.

    python tools/goldens/drawn.py

tiny/reference/samplers.{json,npz}: the pipeline of pipeline.py, whose scheduler is read by another class for each run.
topologies/lcm/drawn.{json,npz}: the same text encoder and decoder with the UNet of the topology
`lcm`, which has `time_cond_proj_dim`, and LCM's scheduler. Final latents alone. The networks are made anew from their
seeds, so they are those of the two other scripts.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

import pipeline
import topologies
from provenance import DATA, provenance, write_json
from samplers import CLASSES

ASKED = {"prompt": "a red box", "negative": "blue", "width": 32, "height": 32}
RUNS = [
    {**ASKED, "sampler": name, "seed": 7 + at, "steps": 4, "guidance": 2.5, "eta": 0.3 if name == "tcd" else None}
    for at, name in enumerate(CLASSES)
]
LCM_RUNS = [
    {**ASKED, "sampler": "lcm", "seed": 1, "steps": 4, "guidance": 8.5, "eta": None},
    {**ASKED, "sampler": "lcm", "seed": 2, "steps": 1, "guidance": 1.0, "eta": None},
    {**ASKED, "sampler": "lcm", "seed": 3, "steps": 3, "guidance": 0.0, "eta": None, "width": 64},
    {**ASKED, "sampler": "dpmpp-2m", "seed": 4, "steps": 5, "guidance": 3.0, "eta": None},
]


def draw(parts: dict, scheduler_config: dict, runs: list[dict]) -> dict[str, np.ndarray]:
    arrays = {}
    for at, run in enumerate(runs):
        drawing = StableDiffusionPipeline(
            **parts, scheduler=CLASSES[run["sampler"]].from_config(scheduler_config), safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        )
        drawing.set_progress_bar_config(disable=True)
        latents = drawing(
            run["prompt"], negative_prompt=run["negative"], width=run["width"], height=run["height"],
            num_inference_steps=run["steps"], guidance_scale=run["guidance"], eta=run["eta"] or 0.0, output_type="latent",
            generator=torch.Generator().manual_seed(run["seed"]),
        ).images
        arrays[f"latents.{at}"] = latents.numpy()
    return arrays


def main() -> None:
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    told = topologies.lcm(torch.Generator().manual_seed(5))["unet"].module.model
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer}
    made = provenance("drawn.py", "torch", "diffusers", "transformers", "numpy")
    tiny = dict(DDIMScheduler.from_pretrained(DATA / "tiny" / "scheduler").config)
    lcm = {**topologies.SCHEDULER, "_class_name": "LCMScheduler"}
    assert LCMScheduler.from_config(lcm).config["original_inference_steps"] == 50
    for name, parts, config, runs in [
        ("tiny/reference/samplers", {**parts, "unet": unet}, tiny, RUNS),
        ("topologies/lcm/drawn", {**parts, "unet": told}, lcm, LCM_RUNS),
    ]:
        np.savez_compressed(DATA / f"{name}.npz", **draw(parts, config, runs))
        write_json(f"{name}.json", {**made, "scheduler": config, "runs": runs})


if __name__ == "__main__":
    main()
