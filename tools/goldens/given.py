"""What diffusers draws from a given picture: image to image and inpainting, with each sampler.

    python tools/goldens/given.py

given/picture.png, mask.png      what is given, larger than what is drawn: both are cut to its size by diffusers first
given/drawn.{json,npz}           final latents of the pipeline of pipeline.py, and of one whose UNet is shown the mask
given/inpainting/unet/           that UNet, of 9 channels
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageDraw
from transformers import CLIPTokenizer

import pipeline
from provenance import DATA, provenance, write_json
from samplers import CLASSES

OUT = DATA / "given"
ASKED = {"prompt": "a red box", "negative": "blue", "guidance": 2.5, "width": 32, "height": 32, "eta": None}


def runs() -> list[dict]:
    each = []
    for at, name in enumerate(["ddim", *CLASSES]):
        eta = 0.3 if name == "tcd" else None
        each.append({**ASKED, "kind": "picture", "sampler": name, "seed": 20 + at, "steps": 5, "strength": 0.6, "eta": eta})
        each.append({**ASKED, "kind": "mask", "sampler": name, "seed": 40 + at, "steps": 5, "strength": 0.8, "eta": eta})
    return each + [
        {**ASKED, "kind": "picture", "sampler": "ddim", "seed": 1, "steps": 4, "strength": 1.0, "eta": 0.5, "width": 48},
        {**ASKED, "kind": "picture", "sampler": "dpmpp-2m", "seed": 2, "steps": 7, "strength": 0.3, "guidance": 1.0},
        {**ASKED, "kind": "mask", "sampler": "euler-a", "seed": 3, "steps": 4, "strength": 1.0, "height": 48},
        {**ASKED, "kind": "shown", "sampler": "ddim", "seed": 4, "steps": 4, "strength": 1.0},
        {**ASKED, "kind": "shown", "sampler": "ddpm", "seed": 5, "steps": 5, "strength": 0.7, "width": 48},
        {**ASKED, "kind": "shown", "sampler": "unipc", "seed": 6, "steps": 5, "strength": 0.8, "guidance": 1.0},
    ]


def given() -> tuple[Image.Image, Image.Image]:
    """A picture with edges and slopes, and a mask with a slanted border."""
    width, height = 70, 54
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / 9) * np.cos(y / 7), 3 * x, 255 - 4 * y]
    picture = Image.fromarray(np.stack(waves, -1).clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(picture).rectangle([20, 12, 44, 30], fill=(220, 30, 40))
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).polygon([(14, 8), (56, 16), (40, 46), (22, 40)], fill=255)
    return picture, mask


def inpainting_unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=9, block_out_channels=(4, 8, 8), layers_per_block=1, cross_attention_dim=pipeline.WIDTH,
        attention_head_dim=2, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return pipeline.initialise(unet, torch.Generator().manual_seed(11))


def export(unet: UNet2DConditionModel) -> None:
    folder = OUT / "inpainting" / "unet"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(12)
    inputs = {
        "sample": torch.randn(1, 9, 8, 12, generator=generator), "timestep": torch.tensor([501]),
        "encoder_hidden_states": torch.randn(1, pipeline.CONTEXT, pipeline.WIDTH, generator=generator),
    }
    axes = {"sample": {0: "batch", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch", 1: "tokens"}}
    torch.onnx.export(
        pipeline.Unet(unet), tuple(inputs.values()), str(folder / "model.onnx"), opset_version=18, dynamo=False,
        input_names=list(inputs), output_names=["out_sample"], dynamic_axes=axes,
    )
    unet.save_config(folder)


def draw(parts: dict, shown: UNet2DConditionModel, config: dict, picture: Image.Image, mask: Image.Image) -> dict:
    arrays = {}
    for at, run in enumerate(runs()):
        scheduler = DDIMScheduler if run["sampler"] == "ddim" else CLASSES[run["sampler"]]
        kind = StableDiffusionImg2ImgPipeline if run["kind"] == "picture" else StableDiffusionInpaintPipeline
        networks = {**parts, "unet": shown} if run["kind"] == "shown" else parts
        drawing = kind(
            **networks, scheduler=scheduler.from_config(config), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )
        drawing.set_progress_bar_config(disable=True)
        size = run["width"], run["height"]
        fit = lambda image: VaeImageProcessor().resize(image, size[1], size[0], resize_mode="crop")
        more = {} if run["kind"] == "picture" else {"mask_image": fit(mask), "width": size[0], "height": size[1]}
        arrays[f"latents.{at}"] = drawing(
            run["prompt"], negative_prompt=run["negative"], image=fit(picture), strength=run["strength"],
            num_inference_steps=run["steps"], guidance_scale=run["guidance"], eta=run["eta"] or 0.0, output_type="latent",
            generator=torch.Generator().manual_seed(run["seed"]), **more,
        ).images.numpy()
    return arrays


def main() -> None:
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    picture, mask = given()
    picture.save(OUT / "picture.png", optimize=True)
    mask.save(OUT / "mask.png", optimize=True)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    shown = inpainting_unet()
    export(shown)
    config = json.loads((DATA / "tiny" / "scheduler" / "scheduler_config.json").read_text())
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer, "unet": unet}
    np.savez_compressed(OUT / "drawn.npz", **draw(parts, shown, config, picture, mask))
    made = provenance("given.py", "torch", "diffusers", "transformers", "pillow", "numpy")
    write_json("given/drawn.json", {**made, "scheduler": config, "runs": runs()})


if __name__ == "__main__":
    main()
