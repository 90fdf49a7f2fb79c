"""The trained models that ship beside `emoji.tintype`, as folders that `tintype import` takes.

    python tools/export/beside.py unclip --state DIR --out FOLDER    # prior, text_proj and image encoder; the rest is emoji.tintype's
    python tools/export/beside.py pixels --state DIR --out FOLDER    # the UNet of pixels, with the names of its classes

Then `tintype import FOLDER -o models/emoji-unclip.tintype`, or `models/emoji-pixels.tintype`.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMPipeline

import unclip
from components import Component
from export import check_graph, export_graph, write_image_processor, write_json, write_reference

# Of tools/train, which `components` has put on the path.
from concepts import load_concepts
from embeddings import PRIOR_GUIDANCE, PRIOR_STEPS
from models import CONTEXT, WIDTH, ImageTokens, make_image_encoder, make_pixel_scheduler, make_prior, make_prior_scheduler
from pixel_unet import GUIDANCE as PIXEL_GUIDANCE
from pixel_unet import SIZE_PX as PIXEL_SIZE_PX
from pixel_unet import STEPS as PIXEL_STEPS
from pixel_unet import load_pixel_unet
from sampling import GUIDANCE, STEPS
from state import State, load_weights

LICENCES = json.loads((Path(__file__).parents[2] / "models" / "source" / "tintype.json").read_text())["licences"]
# What keeps the file below 3 MB at the least cost to its pictures.
PIXEL_PRECISION = {"f16": ["conv_in", "conv_out", "conv_shortcut"], "channel_error_max": 0.0103}


def export_unclip(state: State, out: Path) -> None:
    """Prior, `text_proj` and image encoder."""
    prior = load_weights(make_prior(), state.run / "prior.safetensors").eval()
    tokens = load_weights(ImageTokens(), state.run / "tokens.safetensors").eval()
    tower = load_weights(make_image_encoder(), state.run / "vision.safetensors").eval()
    rows = {0: "batch_size"}
    text_proj = Component(
        "text_proj", tokens, {"_class_name": "ImageTokens", "clip_embeddings_dim": WIDTH, "tokens": CONTEXT},
        lambda batch, _: {"image_embeddings": torch.randn(batch, WIDTH)}, ["encoder_hidden_states"],
        {"image_embeddings": rows, "encoder_hidden_states": rows},
    )
    for component in (unclip.prior(prior), text_proj, unclip.image_encoder(tower)):
        folder = out / component.name
        folder.mkdir(parents=True, exist_ok=True)
        export_graph(component, folder / "model.onnx", "f32")
        write_json(folder / "config.json", component.config)
        write_reference(component, folder / "reference.npz")
        print(f"{component.name}: differs from torch by {check_graph(component, folder / 'model.onnx'):.1e}", flush=True)
    unclip.write_statistics(out, "prior", prior.clip_mean, prior.clip_std)
    write_image_processor(out / "image_encoder")
    make_prior_scheduler().save_pretrained(out / "prior_scheduler")
    write_json(out / "model_index.json", {"_class_name": "UnCLIPPipeline"})
    defaults = {"default_steps": STEPS, "default_guidance": GUIDANCE, "default_prior_steps": PRIOR_STEPS}
    norm = {"default_prior_guidance": PRIOR_GUIDANCE, "embedding_norm": math.sqrt(WIDTH)}
    write_tintype(out, "emoji-unclip", {"base": "emoji.tintype", **defaults, **norm})


def export_pixels(state: State, out: Path) -> None:
    """The UNet, its scheduler and the names of its classes, in English and Korean."""
    concepts = load_concepts(state.concepts)
    unet, _ = load_pixel_unet(state, len(concepts) + 1, unfinished=False)
    DDIMPipeline(unet, make_pixel_scheduler()).save_pretrained(out)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 3, PIXEL_SIZE_PX, PIXEL_SIZE_PX, generator=generator).mul(2).round() / 2
    inputs = {"sample": sample, "timestep": torch.tensor([501]), "class_labels": torch.tensor([1])}
    with torch.no_grad():
        arrays = inputs | {"out_sample": unet(*inputs.values()).sample}
    np.savez_compressed(out / "unet" / "reference.npz", **{name: x.numpy() for name, x in arrays.items()})
    names = [{"name": c.name, "aliases": sorted({*c.en, *c.ko} - {c.name})} for c in concepts]
    classes = {"null": len(concepts), "names": names}
    defaults = {"default_steps": PIXEL_STEPS, "default_guidance": PIXEL_GUIDANCE}
    write_tintype(out, "emoji-pixels", {**defaults, **PIXEL_PRECISION, "classes": classes})


def write_tintype(out: Path, name: str, more: dict) -> None:
    provenance = {"recipe": "tools/train", "export": "tools/export", "pretrained_weights": "none"}
    content = {"name": name, "sampler": "ddim", **more, "licences": LICENCES, "provenance": provenance}
    write_json(out / "tintype.json", content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("unclip", "pixels"))
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"unclip": export_unclip, "pixels": export_pixels}[options.model](State(options.state, options.concepts), options.out)


if __name__ == "__main__":
    main()
