"""What diffusers draws with unCLIP: tests/data/unclip/.

    python tools/goldens/unclip.py

Small networks whose weights follow from their names (formula.py), with the tokenizer of tests/data/tiny:

    drawn.json.gz   configurations, names and shapes of the weights, and what was asked for
    drawn.npz       the prior's output; StableUnCLIPPipeline's embeddings and final latents, and those of
                    StableUnCLIPImg2ImgPipeline from given/picture.png; the embeddings of UnCLIPPipeline's prior; latents drawn
                    from an embedding that a `text_proj` turns into what the UNet reads
    prior/          the same prior as a graph, by tools/export/unclip.py
    text_proj/      a small network of that kind as a graph: a linear layer cut into tokens, and a normalisation
"""

import gzip
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["ATEN_CPU_CAPABILITY"] = "default"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from diffusers import (  # noqa: E402
    AutoencoderKL, DDIMScheduler, DDPMScheduler, PriorTransformer, StableUnCLIPImg2ImgPipeline, StableUnCLIPPipeline,
    UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import (  # noqa: E402
    CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from formula import given, weight  # noqa: E402
from provenance import DATA, provenance  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "export"))
from components import Component  # noqa: E402
from export import check_graph, export_graph, write_json  # noqa: E402
from unclip import prior as prior_graph  # noqa: E402

OUT = DATA / "unclip"
CONTEXT, EMBEDDING, WIDTH, TOKENS = 77, 16, 24, 4
RUNS = [
    {"prompt": "a red box", "negative": "", "seed": 42, "steps": 3, "guidance": 1.0, "prior_steps": 4, "prior_guidance": 1.0, "noise_level": 0},
    {"prompt": "a small blue hat", "negative": "red", "seed": 7, "steps": 4, "guidance": 3.5, "prior_steps": 5, "prior_guidance": 4.0, "noise_level": 300},
]
VARIATIONS = [
    {"prompt": "", "negative": "", "seed": 3, "steps": 3, "guidance": 2.0, "noise_level": 0},
    {"prompt": "a hat", "negative": "red", "seed": 4, "steps": 3, "guidance": 1.0, "noise_level": 100},
]
KARLO = [
    {"prompt": "a red box", "seed": 11, "prior_steps": 6, "prior_guidance": 4.0},
    {"prompt": "", "seed": 12, "prior_steps": 3, "prior_guidance": 2.0},
]
PROJECTED = {"prompt": "a red box", "seed": 5, "steps": 3, "guidance": 2.0, "prior_steps": 4, "prior_guidance": 4.0, "norm": 4.0}


def text(kind, width, vocabulary):
    return kind._from_config(CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT, hidden_act="quick_gelu", projection_dim=width, bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
    ))


def networks(vocabulary):
    return {
        "prior_text_encoder": text(CLIPTextModelWithProjection, EMBEDDING, vocabulary),
        "prior": PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=EMBEDDING, num_embeddings=CONTEXT,
        ),
        "image_normalizer": StableUnCLIPImageNormalizer(EMBEDDING),
        "text_encoder": text(CLIPTextModel, WIDTH, vocabulary),
        "unet": UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=WIDTH, attention_head_dim=(1, 2),
            norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=True, class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * EMBEDDING,
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.4,
        ),
        "image_encoder": CLIPVisionModelWithProjection._from_config(CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16,
            projection_dim=EMBEDDING, hidden_act="quick_gelu",
        )),
    }


def number(name, shape):
    """A weight; statistics are a mean near 0 and a deviation near 1."""
    if name in ("clip_mean", "mean"):
        return weight(name, (EMBEDDING,)).reshape(shape)
    if name in ("clip_std", "std"):
        return weight(f"{name}.weight", (EMBEDDING,)).reshape(shape)
    return weight(name, shape)


def filled(models):
    """Gives each network the weights that its file's names have; returns configurations and names."""
    described = {}
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = json.loads((Path(folder) / "config.json").read_text())
            file = next(Path(folder).glob("*.safetensors"))
            with safe_open(file, "pt") as tensors:
                shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}
        for key, value in model.state_dict().items():
            there = next(full for full in shapes if full == key or full.endswith(f".{key}") and full.count(".") == key.count(".") + 1)
            value.copy_(number(there, shapes[there]))
        model.eval()
        described[name] = {"config": config, "file": file.name, "tensors": [[key, list(shape)] for key, shape in shapes.items()]}
    return described


class TextProj(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.norm = torch.nn.Linear(EMBEDDING, TOKENS * WIDTH), torch.nn.LayerNorm(WIDTH)
        for key, value in self.state_dict().items():
            value.copy_(weight(f"text_proj.{key}", value.shape))

    def forward(self, image_embeddings):
        return self.norm(self.proj(image_embeddings).reshape(-1, TOKENS, WIDTH))


def export(component, config):
    folder = OUT / component.name
    folder.mkdir(parents=True, exist_ok=True)
    export_graph(component, folder / "model.onnx", "f32")
    write_json(folder / "config.json", config)
    print(component.name, (folder / "model.onnx").stat().st_size, f"{check_graph(component, folder / 'model.onnx'):.1e}")


def noted(prior):
    """Keeps what the prior's output becomes."""
    kept, process = [], prior.post_process_latents

    def post_process_latents(latents):
        kept.append(process(latents))
        return kept[-1]

    prior.post_process_latents = post_process_latents
    return kept


class Stop(Exception):
    pass


class Stopper:
    def __call__(self, **_):
        raise Stop


def main():
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    OUT.mkdir(exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "tiny/tokenizer")
    models = networks(len(tokenizer))
    described = filled(models)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    unclip = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    ddpm = DDPMScheduler.from_config(unclip.config)
    arrays = {}

    inputs = {
        "hidden_states": given("hidden_states", (1, EMBEDDING)), "timestep": torch.tensor([501]),
        "proj_embedding": given("proj_embedding", (1, EMBEDDING)),
        "encoder_hidden_states": given("encoder_hidden_states", (1, CONTEXT, EMBEDDING)),
        "attention_mask": torch.arange(CONTEXT)[None] < 9,
    }
    arrays["prior"] = models["prior"](**inputs).predicted_image_embedding.numpy()

    shared = {key: models[key] for key in ("image_normalizer", "text_encoder", "unet", "vae")}
    drawing = StableUnCLIPPipeline(
        prior_tokenizer=tokenizer, prior_text_encoder=models["prior_text_encoder"], prior=models["prior"], prior_scheduler=ddpm,
        image_noising_scheduler=noising, tokenizer=tokenizer, scheduler=scheduler, **shared,
    )
    drawing.set_progress_bar_config(disable=True)
    embeddings = noted(models["prior"])
    for at, run in enumerate(RUNS):
        arrays[f"latents.{at}"] = drawing(
            run["prompt"], negative_prompt=run["negative"], num_inference_steps=run["steps"], guidance_scale=run["guidance"],
            prior_num_inference_steps=run["prior_steps"], prior_guidance_scale=run["prior_guidance"], noise_level=run["noise_level"],
            generator=torch.Generator().manual_seed(run["seed"]), output_type="latent",
        ).images.numpy()

    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    variation = StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor, image_encoder=models["image_encoder"], image_noising_scheduler=noising, tokenizer=tokenizer,
        scheduler=scheduler, **shared,
    )
    variation.set_progress_bar_config(disable=True)
    picture = Image.open(DATA / "given/picture.png").convert("RGB")
    arrays["picture"] = models["image_encoder"](processor(picture, return_tensors="pt").pixel_values).image_embeds.numpy()
    for at, run in enumerate(VARIATIONS):
        arrays[f"variation.{at}"] = variation(
            picture, run["prompt"], negative_prompt=run["negative"], num_inference_steps=run["steps"],
            guidance_scale=run["guidance"], noise_level=run["noise_level"], generator=torch.Generator().manual_seed(run["seed"]),
            output_type="latent",
        ).images.numpy()

    karlo = UnCLIPPipeline(
        prior=models["prior"], decoder=None, text_encoder=models["prior_text_encoder"], tokenizer=tokenizer, text_proj=Stopper(),
        super_res_first=None, super_res_last=None, prior_scheduler=unclip, decoder_scheduler=None, super_res_scheduler=None,
    )
    karlo.set_progress_bar_config(disable=True)
    for run in [*KARLO, PROJECTED]:
        try:
            karlo(
                run["prompt"], prior_num_inference_steps=run["prior_steps"], prior_guidance_scale=run["prior_guidance"],
                generator=(generator := torch.Generator().manual_seed(run["seed"])),
            )
        except Stop:
            pass
    for at, embedding in enumerate(embeddings[: len(RUNS)]):
        arrays[f"embedding.{at}"] = embedding.numpy()
    for at, embedding in enumerate(embeddings[len(RUNS) : -1]):
        arrays[f"karlo.{at}"] = embedding.numpy()

    projection, run = TextProj().eval(), PROJECTED
    embedding = torch.nn.functional.normalize(embeddings[-1], dim=-1) * run["norm"]
    empty = tokenizer("", padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids
    states = [models["text_encoder"](empty).last_hidden_state, projection(embedding)]
    scheduler.set_timesteps(run["steps"])
    latents = torch.randn((1, 4, 8, 8), generator=generator)
    nothing = torch.zeros(1, 2 * EMBEDDING)
    for t in scheduler.timesteps:
        uncond, cond = (models["unet"](latents, t, told, class_labels=nothing).sample for told in states)
        latents = scheduler.step(uncond + run["guidance"] * (cond - uncond), t, latents).prev_sample
    arrays["projected"] = latents.numpy()

    del models["prior"].post_process_latents
    export(component := prior_graph(models["prior"]), component.config)
    rows = {0: "batch_size"}
    export(Component(
        "text_proj", projection, {}, lambda batch, _: {"image_embeddings": torch.randn(batch, EMBEDDING)}, ["encoder_hidden_states"],
        {"image_embeddings": rows, "encoder_hidden_states": rows},
    ), {"clip_embeddings_dim": EMBEDDING})

    configs = {
        "scheduler": scheduler, "image_noising_scheduler": noising, "prior_scheduler": ddpm,
    }
    golden = {
        **provenance("unclip.py", "torch", "diffusers", "transformers", "onnx", "numpy"), "networks": described,
        "schedulers": {name: {"_class_name": type(one).__name__, **one.config} for name, one in configs.items()},
        "unclip_scheduler": {"_class_name": "UnCLIPScheduler", **unclip.config}, "processor": processor.to_dict(),
        "runs": RUNS, "variations": VARIATIONS, "karlo": KARLO, "projected": PROJECTED,
    }
    packed = gzip.compress((json.dumps(golden, separators=(",", ":"), default=str) + "\n").encode(), compresslevel=9, mtime=0)
    (OUT / "drawn.json.gz").write_bytes(packed)
    np.savez_compressed(OUT / "drawn.npz", **arrays)


if __name__ == "__main__":
    main()
