"""A trained run, ready to draw."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

from models import make_text_encoder, make_unet, make_vae
from sampling import GUIDANCE, STEPS, decode, sample
from state import State, load_weights
from tokenizer import Tokenizer

DRAW_BATCH = 25


@dataclass
class Networks:
    """Everything between a prompt and a picture."""

    tokenizer: Tokenizer
    text: CLIPTextModelWithProjection
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scaling_factor: float
    samples_seen: int

    def draw(
        self,
        captions: list[str],
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        image_condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Pictures `[captions, 3, 128, 128]` in [-1, 1]; batch k starts from the noise of seed k."""
        drawn = []
        for start in range(0, len(captions), DRAW_BATCH):
            span = slice(start, start + DRAW_BATCH)
            given = None if image_condition is None else image_condition[span]
            part = captions[span]
            latents = sample(self.unet, self.text, self.tokenizer, part, start // DRAW_BATCH, steps, guidance, given)
            drawn.append(decode(self.vae, latents, self.scaling_factor))
        return torch.cat(drawn)


def load_networks(state: State, unfinished: bool) -> Networks:
    """The finished networks of a run, or the averages of its newest checkpoint."""
    tokenizer = Tokenizer(state.tokenizer)
    text, unet = make_text_encoder(len(tokenizer)), make_unet()
    saved = torch.load(state.run / "unet.checkpoint", weights_only=True)
    if unfinished:
        text.load_state_dict(saved["ema_text"])
        unet.load_state_dict(saved["ema_unet"])
    else:
        load_weights(text, state.run / "text_encoder.safetensors")
        load_weights(unet, state.run / "unet.safetensors")
    vae = load_weights(make_vae(), state.vae / "vae.safetensors")
    for model in (text, unet, vae):
        model.eval().requires_grad_(False)
    factor = torch.load(state.run / "latents.pt")["scaling_factor"]
    return Networks(tokenizer, text, unet, vae, factor, saved["samples"])
