"""What diffusers draws where deep features of the UNet are used again: tests/data/tiny/reference/cached.{json,npz}.

    python tools/goldens/caching.py

The pipeline of pipeline.py. What the last resnet of the UNet's last block reads from below is what the layer before it makes; in
steps that are no multiple of `feature_cache` a hook puts there what it made in the last step that was. Final latents alone.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

import pipeline
from drawn import ASKED
from provenance import DATA, provenance, write_json
from samplers import CLASSES

RUNS = [
    {**ASKED, "sampler": "ddim", "seed": 7, "steps": 5, "guidance": 3.5, "eta": None, "feature_cache": 2},
    {**ASKED, "sampler": "dpmpp-2m", "seed": 8, "steps": 7, "guidance": 2.5, "eta": None, "feature_cache": 3, "width": 48},
    {**ASKED, "sampler": "euler-a", "seed": 9, "steps": 4, "guidance": 1.0, "eta": None, "feature_cache": 4},
]


class Again:
    """Puts the output of a module in place of its own in steps between those of a multiple."""

    def __init__(self, every: int):
        self.every, self.step, self.output = every, 0, None

    def __call__(self, _module, _given, output):
        if self.step % self.every == 0:
            self.output = output
        self.step += 1
        return self.output


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    config = dict(DDIMScheduler.from_pretrained(DATA / "tiny" / "scheduler").config)
    arrays, classes = {}, {"ddim": DDIMScheduler, **CLASSES}
    for at, run in enumerate(RUNS):
        drawing = StableDiffusionPipeline(
            vae, text, tokenizer, unet, classes[run["sampler"]].from_config(config), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )
        drawing.set_progress_bar_config(disable=True)
        again = Again(run["feature_cache"])
        hook = unet.up_blocks[-1].attentions[-2].register_forward_hook(again)
        latents = drawing(
            run["prompt"], negative_prompt=run["negative"], width=run["width"], height=run["height"],
            num_inference_steps=run["steps"], guidance_scale=run["guidance"], output_type="latent",
            generator=torch.Generator().manual_seed(run["seed"]),
        ).images
        hook.remove()
        assert again.step == run["steps"]
        arrays[f"latents.{at}"] = latents.numpy()
    np.savez_compressed(DATA / "tiny" / "reference" / "cached.npz", **arrays)
    write_json("tiny/reference/cached.json", {**provenance("caching.py", "torch", "diffusers", "transformers", "numpy"), "runs": RUNS})


if __name__ == "__main__":
    main()
