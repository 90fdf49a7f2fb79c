"""What diffusers draws with LoRA, with a tiny autoencoder, and with a model of two text encoders: tests/data/checkpoints/.

    python tools/goldens/additions.py

The first two use the pipeline of pipeline.py, made anew from its seed. The LoRAs and the tiny autoencoder have the weights of
`formula.py`; `drawn.json.gz` names their tensors with shapes, `drawn.npz` has final latents and, for the autoencoder, pixels. `xl/` is a
whole folder of diffusers without its weights, which are the formula's too.
"""

import gzip
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTokenizer

import pipeline
from checkpoints import clip
from formula import fill, weight
from provenance import DATA, provenance

OUT = DATA / "checkpoints"
RANK = 3
RUN = {"prompt": "a red box", "negative": "blue", "seed": 7, "steps": 4, "guidance": 3.0, "width": 48, "height": 32}
XL_RUNS = [
    {"prompt": "a red box", "negative": "", "seed": 5, "steps": 3, "guidance": 5.0, "width": 32, "height": 48},
    {"prompt": "a red box", "negative": "blue", "seed": 6, "steps": 3, "guidance": 4.0, "width": 32, "height": 32},
]


def draw(drawing, run, kind, **options):
    drawing.set_progress_bar_config(disable=True)
    # Without a negative prompt diffusers is told None: only then it may take zeros.
    return drawing(
        run["prompt"], negative_prompt=run["negative"] or None, width=run["width"], height=run["height"],
        num_inference_steps=run["steps"], guidance_scale=run["guidance"], output_type=kind,
        generator=torch.Generator().manual_seed(run["seed"]), **options,
    ).images


def tiny_parts():
    """The networks of tests/data/tiny."""
    generator = torch.Generator().manual_seed(3)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, generator)
    scheduler = DDIMScheduler.from_pretrained(DATA / "tiny" / "scheduler")
    return {"text_encoder": text, "unet": unet, "vae": vae, "tokenizer": tokenizer, "scheduler": scheduler}


def stable_diffusion(parts):
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def layers(model, kinds):
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def pair(down, up, module, rank):
    """Names and shapes of two matrices for a layer."""
    of, to = module.weight.shape[1], module.weight.shape[0]
    taps = tuple(module.weight.shape[2:])
    return {down: (rank, of, *taps), up: (to, rank, *(1 for _ in taps))}


def loras(parts):
    """Tensors by name, and alphas as numbers, of LoRAs in the forms that are published."""
    unet, text = parts["unet"], parts["text_encoder"]
    projections = [name for name in layers(unet, torch.nn.Linear) if name.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v", "proj") or name.endswith("to_out.0")]
    every = layers(unet, (torch.nn.Linear, torch.nn.Conv2d))
    text_layers = {name: module for name, module in layers(text, torch.nn.Linear).items() if "self_attn" in name or "mlp" in name}
    kohya, locon, peft, older = {}, {}, {}, {}
    for at, (name, module) in enumerate(every.items()):
        flat = "lora_unet_" + name.replace(".", "_")
        if name in projections:
            kohya |= pair(f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", module, RANK) | {f"{flat}.alpha": 1.5}
            peft |= pair(f"unet.{name}.lora_A.weight", f"unet.{name}.lora_B.weight", module, RANK)
            older |= pair(f"unet.{name}.lora.down.weight", f"unet.{name}.lora.up.weight", module, RANK)
        if "transformer_blocks" not in name:
            # LoCon: convolutions of three taps and of one, with ranks that differ.
            locon |= pair(f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", module, 2 + at % 3) | {f"{flat}.alpha": 2.0}
    for name, module in text_layers.items():
        # transformers leaves out the prefix that the files of others have.
        path = f"text_model.{name.removeprefix('text_model.')}"
        flat = "lora_te_" + path.replace(".", "_")
        kohya |= pair(f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", module, RANK) | {f"{flat}.alpha": 1.5}
        peft |= pair(f"text_encoder.{path}.lora_A.weight", f"text_encoder.{path}.lora_B.weight", module, RANK)
    return {"kohya": (kohya, 0.8), "locon": (locon, 1.0), "peft": (peft, 0.5), "diffusers": (older, -0.7)}


def tensors_of(names):
    return {
        name: torch.tensor(shape) if isinstance(shape, float) else weight(name, shape) * 0.5 for name, shape in names.items()
    }


def with_lora(arrays):
    cases = {}
    for name, (names, strength) in loras(tiny_parts()).items():
        drawing = stable_diffusion(tiny_parts())
        with tempfile.TemporaryDirectory() as folder:
            save_file(tensors_of(names), Path(folder) / "lora.safetensors")
            drawing.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="it")
        drawing.set_adapters(["it"], [strength])
        arrays[f"{name}.latents"] = draw(drawing, RUN, "latent").numpy()
        cases[name] = {"run": RUN, "strength": strength, "tensors": list(names.items())}
    return cases


def with_tiny_autoencoder(arrays):
    vae = fill(AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ))
    drawing = stable_diffusion({**tiny_parts(), "vae": vae})
    arrays["taesd.pixels"] = np.asarray(draw(drawing, RUN, "pil")[0])
    with tempfile.TemporaryDirectory() as folder:
        vae.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
    names = {name: list(value.shape) for name, value in vae.state_dict().items()}
    return {"run": RUN, "config": config, "tensors": list(names.items())}


def xl(arrays):
    folder = OUT / "xl"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = pipeline.write_tokenizer(Path(scratch) / "tokenizer")
        first = CLIPTokenizer.from_pretrained(Path(scratch) / "tokenizer")
        second = CLIPTokenizer.from_pretrained(Path(scratch) / "tokenizer", pad_token="!")
    texts = clip(16, 2, "quick_gelu", vocabulary=vocabulary), clip(24, 3, "gelu", projected=True, vocabulary=vocabulary)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16), layers_per_block=1, cross_attention_dim=40, attention_head_dim=(1, 2, 2),
        norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.13025,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading",
    )
    drawing = StableDiffusionXLPipeline(
        vae, texts[0], texts[1], first, second, unet, scheduler, force_zeros_for_empty_prompt=True, add_watermarker=False,
    )
    drawing.save_pretrained(folder)
    names = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names[str(file.relative_to(folder))] = [(name, tensors.get_slice(name).get_shape()) for name in tensors.keys()]
        file.unlink()
    for model, name in ((texts[0], "text_encoder"), (texts[1], "text_encoder_2"), (unet, "unet"), (vae, "vae")):
        there = [n for file, tensors in names.items() if file.split("/")[0] == name for n, _ in tensors]
        fill(model, {n.removeprefix("text_model."): n for n in there} | {n: n for n in there})
    for at, run in enumerate(XL_RUNS):
        arrays[f"xl.latents.{at}"] = draw(drawing, run, "latent").numpy()
        arrays[f"xl.pixels.{at}"] = np.asarray(draw(drawing, run, "pil")[0])
    return {"runs": XL_RUNS, "files": names}


def main():
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    arrays = {}
    cases = {"loras": with_lora(arrays), "taesd": with_tiny_autoencoder(arrays), "xl": xl(arrays)}
    made = provenance("additions.py", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
    text = json.dumps({**made, **cases}, separators=(",", ":")) + "\n"
    (OUT / "drawn.json.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    np.savez_compressed(OUT / "drawn.npz", **arrays)


if __name__ == "__main__":
    main()
