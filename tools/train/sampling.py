"""Drawing with the networks as they stand: DDIM with classifier-free guidance."""

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModelWithProjection

from models import LATENT_CHANNELS, LATENT_SIZE, WIDTH, make_scheduler
from tokenizer import Tokenizer

STEPS = 8
GUIDANCE = 2.0


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    text: CLIPTextModelWithProjection,
    tokenizer: Tokenizer,
    captions: list[str],
    seed: int = 0,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    image_condition: torch.Tensor | None = None,
) -> torch.Tensor:
    """Latents of unit variance `[captions, 4, 16, 16]`; `image_condition` `[captions, 128]` or None for text alone."""
    count = len(captions)
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator)
    hidden = text(tokenizer([""] * count + captions)).last_hidden_state
    labels = torch.zeros(2 * count, WIDTH)
    if image_condition is not None:
        labels[count:] = image_condition
    for timestep in scheduler.timesteps:
        uncond, cond = unet(torch.cat([latents, latents]), timestep, hidden, class_labels=labels).sample.chunk(2)
        noise_pred = uncond + guidance * (cond - uncond)
        latents = scheduler.step(noise_pred, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor, scaling_factor: float) -> torch.Tensor:
    """Pictures `[n, 3, 128, 128]` in [-1, 1]."""
    return torch.cat([vae.decode(part / scaling_factor).sample for part in latents.split(16)]).clamp(-1, 1)


def save_sheet(pictures: torch.Tensor, columns: int, path) -> None:
    """Pictures `[n, 3, h, w]` in [-1, 1] as one PNG, row by row."""
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for number, picture in enumerate(pixels):
        y, x = number // columns * height, number % columns * width
        sheet[y : y + height, x : x + width] = picture
    Image.fromarray(sheet).save(path)
