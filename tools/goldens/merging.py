"""What diffusers draws where tokens of self-attention are merged: tests/data/tiny/reference/merged.{json,npz}.

    python tools/goldens/merging.py

The pipeline of pipeline.py, whose UNet `tomesd`, the published code of the paper, patches: self-attention on the largest maps,
with the first token of each square of four as the one that others are merged into. Final latents alone.
"""

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

RUNS = [
    {**ASKED, "sampler": "ddim", "seed": 7, "steps": 5, "guidance": 3.5, "eta": None, "token_merging": 0.5},
    {**ASKED, "sampler": "dpmpp-2m", "seed": 8, "steps": 4, "guidance": 1.0, "eta": None, "token_merging": 0.75, "width": 48},
    {**ASKED, "sampler": "euler", "seed": 9, "steps": 4, "guidance": 2.5, "eta": None, "token_merging": 0.3},
]


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
        tomesd.apply_patch(drawing, ratio=run["token_merging"], use_rand=False)
        latents = drawing(
            run["prompt"], negative_prompt=run["negative"], width=run["width"], height=run["height"],
            num_inference_steps=run["steps"], guidance_scale=run["guidance"], output_type="latent",
            generator=torch.Generator().manual_seed(run["seed"]),
        ).images
        tomesd.remove_patch(drawing)
        arrays[f"latents.{at}"] = latents.numpy()
    np.savez_compressed(DATA / "tiny" / "reference" / "merged.npz", **arrays)
    sources = provenance("merging.py", "torch", "diffusers", "transformers", "tomesd", "numpy")
    write_json("tiny/reference/merged.json", {**sources, "runs": RUNS})


if __name__ == "__main__":
    main()
