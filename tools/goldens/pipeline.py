"""A whole Stable Diffusion pipeline with small random weights: tests/data/tiny/, and what diffusers draws with it.

    python tools/goldens/pipeline.py

The architecture is that of Stable Diffusion 1 (cross attention with convolutional projections, an autoencoder with
attention in the middle, CLIP's text encoder), so narrow that a test can import and run it in a moment. The tokenizer
has CLIP's 256 bytes and no merges. Weights have the scale that keeps activations near 1, biases and norms are not
trivial: a transposed weight, a dropped bias or a missing norm shows.

    tiny/            the folder that optimum would write
    tiny/reference/  <component>.npz: inputs and torch's outputs; pipeline.npz: diffusers' latents and pictures
"""

import json
import shutil

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from provenance import DATA, provenance, write_json

OUT = DATA / "tiny"
CONTEXT = 77
WIDTH = 16
RUNS = [
    {"prompt": "a red box", "negative": "", "seed": 42, "steps": 4, "guidance": 1.0, "eta": 0.0, "width": 32, "height": 32},
    {"prompt": "a red box", "negative": "blue", "seed": 7, "steps": 5, "guidance": 3.5, "eta": 0.0, "width": 48, "height": 32},
    {"prompt": "", "negative": "", "seed": 2**32 + 1, "steps": 3, "guidance": 2.0, "eta": 0.6, "width": 16, "height": 48},
]


def initialise(model, generator):
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            module.weight.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            module.weight.normal_(1, 0.2, generator=generator)
            module.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(module, torch.nn.Embedding):
            module.weight.normal_(0, 0.5, generator=generator)
    return model.eval()


def write_tokenizer(folder):
    """CLIP's byte-level vocabulary without merges: each of 256 bytes, alone and at the end of a word."""
    folder.mkdir(parents=True)
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = [chr(b) for b in keep] + [chr(256 + i) for i in range(256 - len(keep))]
    tokens = characters + [c + "</w>" for c in characters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "bos_token": "<|startoftext|>"}
    config |= {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def build(vocabulary, generator):
    text = CLIPTextModel._from_config(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=CONTEXT, hidden_act="quick_gelu", projection_dim=WIDTH,
            bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16, 16), layers_per_block=1, cross_attention_dim=WIDTH,
        attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.4,
    )
    return [initialise(model, generator) for model in (text, unet, vae)]


class Text(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        output = self.model(input_ids=input_ids)
        return output.last_hidden_state, output.pooler_output


class Unet(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample).latent_dist.parameters


def export(name, module, inputs, outputs, config):
    folder = OUT / name
    folder.mkdir(parents=True)
    maps = {n: {0: "batch", 2: "height", 3: "width"} for n, x in inputs.items() if x.dim() == 4}
    rows = {n: {0: "batch"} for n, x in inputs.items() if x.dim() != 4 and n != "timestep"}
    torch.onnx.export(
        module, tuple(inputs.values()), str(folder / "model.onnx"), opset_version=18, dynamo=False,
        input_names=list(inputs), output_names=outputs, dynamic_axes=maps | rows,
    )
    config.save_pretrained(folder) if hasattr(config, "save_pretrained") else config.save_config(folder)
    for stray in folder.glob("*.safetensors"):
        stray.unlink()
    results = module(*inputs.values())
    results = results if isinstance(results, tuple) else (results,)
    arrays = {n: x.numpy() for n, x in [*inputs.items(), *zip(outputs, results)]}
    np.savez_compressed(OUT / "reference" / f"{name}.npz", **arrays)


def draw_runs(pipeline, runs):
    """Final latents and pixels of every run, by the names that the tests look for."""
    arrays = {}
    for at, run in enumerate(runs):
        draw = lambda kind: pipeline(
            run["prompt"], negative_prompt=run["negative"], width=run["width"], height=run["height"], eta=run["eta"],
            num_inference_steps=run["steps"], guidance_scale=run["guidance"], output_type=kind,
            generator=torch.Generator().manual_seed(run["seed"]),
        ).images
        arrays[f"latents.{at}"] = draw("latent").numpy()
        arrays[f"pixels.{at}"] = np.asarray(draw("pil")[0])
    return arrays


def main():
    torch.set_grad_enabled(False)
    generator = torch.Generator().manual_seed(3)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "reference").mkdir(parents=True)
    vocabulary = write_tokenizer(OUT / "tokenizer")
    text, unet, vae = build(vocabulary, generator)
    tokenizer = CLIPTokenizer.from_pretrained(OUT / "tokenizer")
    ids = tokenizer("a small red box", padding="max_length", return_tensors="pt").input_ids
    states = torch.randn(1, CONTEXT, WIDTH, generator=generator)
    latents = torch.randn(1, 4, 8, 12, generator=generator)
    picture = torch.rand(1, 3, 32, 48, generator=generator) * 2 - 1
    export("text_encoder", Text(text), {"input_ids": ids}, ["last_hidden_state", "pooler_output"], text.config)
    inputs = {"sample": latents, "timestep": torch.tensor([501]), "encoder_hidden_states": states}
    export("unet", Unet(unet), inputs, ["out_sample"], unet)
    export("vae_decoder", Decoder(vae), {"latent_sample": latents}, ["sample"], vae)
    export("vae_encoder", Encoder(vae), {"sample": picture}, ["latent_parameters"], vae)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
    )
    scheduler.save_pretrained(OUT / "scheduler")
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    (OUT / "model_index.json").write_text(json.dumps({"_class_name": "OnnxStableDiffusionPipeline"}, indent=2) + "\n")
    np.savez_compressed(OUT / "reference" / "pipeline.npz", **draw_runs(pipeline, RUNS))
    write_json("tiny/reference/pipeline.json", {**provenance("pipeline.py", "torch", "diffusers", "transformers", "onnx", "numpy"), "runs": RUNS})


if __name__ == "__main__":
    main()
