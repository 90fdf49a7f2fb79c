"""What diffusers draws where time is saved for another picture: tests/data/tiny/reference/{cached,merged}.{json,npz}.

    python tools/goldens/approximations.py

The pipeline of pipeline.py; final latents alone. `cached`: what the last resnet of the UNet's last block reads from below is what the
layer before it makes; in steps that are no multiple of `feature_cache` a hook puts there what it made in the last step that was.
`merged`: `tomesd`, the published code of the paper, patches the UNet: self-attention on the largest maps, with the first token of
each square of four as the one that others are merged into.
"""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import tomesd
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPTokenizer

import pipeline
from drawn import ASKED
from provenance import DATA, provenance, write_json
from samplers import CLASSES

CACHED = [
    {**ASKED, "sampler": "ddim", "seed": 7, "steps": 5, "guidance": 3.5, "eta": None, "feature_cache": 2},
    {**ASKED, "sampler": "dpmpp-2m", "seed": 8, "steps": 7, "guidance": 2.5, "eta": None, "feature_cache": 3, "width": 48},
    {**ASKED, "sampler": "euler-a", "seed": 9, "steps": 4, "guidance": 1.0, "eta": None, "feature_cache": 4},
]
MERGED = [
    {**ASKED, "sampler": "ddim", "seed": 7, "steps": 5, "guidance": 3.5, "eta": None, "token_merging": 0.5},
    {**ASKED, "sampler": "dpmpp-2m", "seed": 8, "steps": 4, "guidance": 1.0, "eta": None, "token_merging": 0.75, "width": 48},
    {**ASKED, "sampler": "euler", "seed": 9, "steps": 4, "guidance": 2.5, "eta": None, "token_merging": 0.3},
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


@contextlib.contextmanager
def caching(drawing: StableDiffusionPipeline, run: dict):
    again = Again(run["feature_cache"])
    hook = drawing.unet.up_blocks[-1].attentions[-2].register_forward_hook(again)
    yield
    hook.remove()
    assert again.step == run["steps"]


@contextlib.contextmanager
def merging(drawing: StableDiffusionPipeline, run: dict):
    tomesd.apply_patch(drawing, ratio=run["token_merging"], use_rand=False)
    yield
    tomesd.remove_patch(drawing)


def write(name: str, runs: list[dict], saving) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    config = dict(DDIMScheduler.from_pretrained(DATA / "tiny" / "scheduler").config)
    arrays, classes = {}, {"ddim": DDIMScheduler, **CLASSES}
    for at, run in enumerate(runs):
        drawing = StableDiffusionPipeline(
            vae, text, tokenizer, unet, classes[run["sampler"]].from_config(config), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )
        drawing.set_progress_bar_config(disable=True)
        with saving(drawing, run):
            latents = drawing(
                run["prompt"], negative_prompt=run["negative"], width=run["width"], height=run["height"],
                num_inference_steps=run["steps"], guidance_scale=run["guidance"], output_type="latent",
                generator=torch.Generator().manual_seed(run["seed"]),
            ).images
        arrays[f"latents.{at}"] = latents.numpy()
    np.savez_compressed(DATA / "tiny" / "reference" / f"{name}.npz", **arrays)
    sources = provenance("approximations.py", "torch", "diffusers", "transformers", "tomesd", "numpy")
    write_json(f"tiny/reference/{name}.json", {**sources, "runs": runs})


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    write("cached", CACHED, caching)
    write("merged", MERGED, merging)


if __name__ == "__main__":
    main()
