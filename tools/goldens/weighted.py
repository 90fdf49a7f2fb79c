"""Prompts in A1111's syntax and clip skip, by torch, transformers and diffusers: tests/data/weighted/.

    python tools/goldens/weighted.py

weighted.json    prompts and the weights that they are read to; runs
weighted.npz     embedding.N: the embedding of prompt N by the text encoder of pipeline.py
                 latents.N: final latents of run N, with clip skip (pipeline.py's pipeline) or a weighted prompt (the UNet of
                 given.py, which takes any number of tokens)

The syntax is read here by a regular expression over the whole prompt, as its documentation describes it.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from transformers import CLIPTokenizer

import given
import pipeline
from provenance import DATA, provenance, write_json

OUT = DATA / "weighted"
ROOM = pipeline.CONTEXT - 2
TOKENS = re.compile(r"\\[()\[\]\\]|\(|\[|:([+-]?[.\d]+)\)|\)|\]|[^\\()\[\]:]+|\\|:")
PROMPTS = [
    "", "a red box", "a (red) box", "a (red:1.4) [box]", "((a)) [[b]] (c:0.5)", "(red:-0.5) box", "open (paren",
    r"\(a\) \[b\] \\ (c:1.2)", "one BREAK two", "BREAK one", "one BREAK", "BREAK", "(one BREAK two:1.3) three", "a:b (c:d) 3:2",
    "a long prompt of more than seventy-five bytes, (which are the tokens here:1.2), and so of two chunks, each read by itself",
    "x" * 75, "x" * 76, "x" * 150 + "(y:1.5)", "(" + "z" * 160 + ":0.8)", "딸기 (딸기:1.3)",
]
RUNS = [
    {"prompt": "a red box", "negative": "blue", "seed": 1, "steps": 3, "guidance": 3.0, "syntax": "plain", "clip_skip": 1},
    {"prompt": "a red box", "negative": "blue", "seed": 2, "steps": 3, "guidance": 3.0, "syntax": "plain", "clip_skip": 2},
    {"prompt": PROMPTS[14], "negative": "(blue:1.3)", "seed": 3, "steps": 3, "guidance": 3.0, "syntax": "a1111", "clip_skip": 0},
    {"prompt": "(red:1.3) box", "negative": PROMPTS[17], "seed": 4, "steps": 3, "guidance": 2.0, "syntax": "a1111", "clip_skip": 0},
]


def read(prompt: str) -> list[tuple[str | None, float]]:
    """Texts with their weights; None for a break."""
    parts, opened = [], {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for part in parts[start:]:
            part[1] *= factor

    for match in TOKENS.finditer(prompt):
        token = match[0]
        if token in opened:
            opened[token].append(len(parts))
        elif match[1] is not None and opened["("]:
            multiply(opened["("].pop(), float(match[1]))
        elif token == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif token == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        elif token[0] == "\\" and len(token) == 2:
            parts.append([token[1], 1.0])
        else:
            for at, text in enumerate(re.split(r"\s*\bBREAK\b\s*", token)):
                if at:
                    parts.append([None, 1.0])
                parts.append([text, 1.0])
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    merged = []
    for text, weight in parts:
        if text is not None and merged and merged[-1][0] is not None and merged[-1][1] == weight:
            merged[-1][0] += text
        elif text != "":
            merged.append([text, 1.0 if text is None else weight])
    return [tuple(part) for part in merged]


def chunks(tokenizer: CLIPTokenizer, prompt: str) -> list[list[tuple[int, float]]]:
    done, chunk = [], []
    parts = read(prompt)
    for text, weight in parts:
        if text is None:
            done.append(chunk)
            chunk = []
            continue
        for token in tokenizer(text, add_special_tokens=False).input_ids:
            if len(chunk) == ROOM:
                done.append(chunk)
                chunk = []
            chunk.append((token, weight))
    if chunk or not done:
        done.append(chunk)
    return done


def embed(tokenizer: CLIPTokenizer, text_encoder, prompt: str, count: int = 0) -> torch.Tensor:
    all_chunks = chunks(tokenizer, prompt)
    all_chunks += [[]] * (count - len(all_chunks))
    states = []
    for chunk in all_chunks:
        ids = [tokenizer.bos_token_id, *(token for token, _ in chunk), tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (pipeline.CONTEXT - len(ids))
        weights = [1.0, *(weight for _, weight in chunk)]
        weights = torch.tensor(weights + [1.0] * (pipeline.CONTEXT - len(weights)))
        z = text_encoder(torch.tensor([ids]))[0]
        weighted = z * weights[None, :, None]
        states.append(weighted * (z.mean() / weighted.mean()))
    return torch.cat(states, 1)


def main() -> None:
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    # diffusers 0.42.1 looks for the final normalisation where transformers had it before 5.
    object.__setattr__(text, "text_model", text)
    scheduler = DDIMScheduler.from_config(json.loads((DATA / "tiny" / "scheduler" / "scheduler_config.json").read_text()))
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    arrays = {f"embedding.{at}": embed(tokenizer, text, prompt)[0].numpy() for at, prompt in enumerate(PROMPTS)}
    picture, mask = (image.resize((32, 32)) for image in given.given())
    picture.save(OUT / "picture.png", optimize=True)
    mask.point(lambda v: 255 * (v >= 128)).save(OUT / "mask.png", optimize=True)
    for at, run in enumerate(RUNS):
        asked = {"num_inference_steps": run["steps"], "guidance_scale": run["guidance"], "width": 32, "height": 32}
        asked |= {"output_type": "latent", "generator": torch.Generator().manual_seed(run["seed"])}
        if run["syntax"] == "plain":
            drawing = StableDiffusionPipeline(**parts, unet=unet)
            asked |= {"prompt": run["prompt"], "negative_prompt": run["negative"], "clip_skip": run["clip_skip"]}
        else:
            drawing = StableDiffusionInpaintPipeline(**parts, unet=given.inpainting_unet())
            count = max(len(chunks(tokenizer, run[key])) for key in ("prompt", "negative"))
            both = [embed(tokenizer, text, run[key], count) for key in ("prompt", "negative")]
            asked |= {"prompt_embeds": both[0], "negative_prompt_embeds": both[1], "image": picture, "strength": 1.0}
            asked |= {"mask_image": mask.point(lambda v: 255 * (v >= 128))}
        drawing.set_progress_bar_config(disable=True)
        arrays[f"latents.{at}"] = drawing(**asked).images.numpy()
    np.savez_compressed(OUT / "weighted.npz", **arrays)
    made = provenance("weighted.py", "torch", "diffusers", "transformers", "numpy")
    prompts = [{"prompt": prompt, "parts": read(prompt)} for prompt in PROMPTS]
    write_json("weighted/weighted.json", {**made, "prompts": prompts, "runs": RUNS})


if __name__ == "__main__":
    main()
