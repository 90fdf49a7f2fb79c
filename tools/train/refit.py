"""The last step for the text encoder: its projection, fitted once more to the frozen image tower.

The UNet's stage trains the text encoder with the projection held still. Here everything but the projection and the
temperature is held still, and the contrastive loss is taken against the cached embeddings of all training pictures.
"""

import math
import random

import torch

from clip import LEARNING_RATE, LOGIT_SCALE_MAX
from lessons import Lessons
from losses import CaptionLoss
from models import make_text_encoder
from state import LossLog, State, load_weights, save_weights
from tokenizer import Tokenizer

STEPS = 600
BATCH = 128
LOG_STEPS = 50


def refit_text(state: State) -> None:
    """Write `text_encoder.safetensors` and the temperature beside it."""
    target = state.run / "text_encoder.safetensors"
    if target.exists():
        return
    torch.manual_seed(0)
    lessons, tokenizer, rng = Lessons(state), Tokenizer(state.tokenizer), random.Random(0)
    text = load_weights(make_text_encoder(len(tokenizer)), state.run / "text_encoder.unet.safetensors").eval()
    text.requires_grad_(False)
    projection = text.text_projection.weight.requires_grad_(True)
    caption_loss = CaptionLoss(lessons, torch.load(state.run / "clip.done")["logit_scale"])
    scale = caption_loss.logit_scale.requires_grad_(True)
    optimizer = torch.optim.AdamW([projection, scale], LEARNING_RATE, weight_decay=0.0)
    log = LossLog(state.run / "refit.csv", ["step", "loss"])
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * step / STEPS))
        batch = lessons.draw(BATCH, rng)
        loss = caption_loss(batch.captions, text(tokenizer(batch.texts)).text_embeds)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scale.data.clamp_(max=LOGIT_SCALE_MAX)
        if step % LOG_STEPS == 0:
            log.add("refit", step=step, loss=loss.item())
    torch.save({"logit_scale": scale.item()}, state.run / "refit.done")
    save_weights(text, target)
