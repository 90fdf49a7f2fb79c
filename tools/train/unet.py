"""The denoiser: a UNet over cached latents, with the text encoder trained along at a fifth of the rate.

    loss = velocity loss + 0.005 * caption loss (losses.py), over batches of lessons.py
"""

import torch
from safetensors.torch import load_file

from captions import plain_english, plain_korean
from data import BACKGROUND_NAMES, load_pictures
from lessons import Lessons, cache_latents
from losses import CaptionLoss, VelocityLoss
from models import make_text_encoder, make_unet
from networks import load_networks
from sampling import save_sheet
from state import State, save_weights
from tokenizer import Tokenizer
from trainee import BATCH, Stage, Trainee
from workers import run_workers

LEARNING_RATE = 1e-3
TEXT_RATE = 0.2
CAPTION_WEIGHT = 0.005
EXPOSURES_PER_PICTURE = 450


def train_unet(state: State, samples: int | None, workers: int) -> bool:
    """Train until `samples` pictures were seen in all (default: 450 for each), resuming; True when finished."""
    if (state.run / "unet.safetensors").exists():
        return True
    cache_latents(state)
    return run_workers(workers, state.run / "unet.meeting", _train_rank, state, samples)


def _train_rank(rank: int, workers: int, state: State, samples: int | None) -> bool:
    """One of the processes: all hold the same weights and see different batches; rank 0 logs and saves."""
    lessons, tokenizer = Lessons(state), Tokenizer(state.tokenizer)
    total = samples or EXPOSURES_PER_PICTURE * len(lessons.pictures.labels)
    torch.manual_seed(0)
    unet, text = make_unet(), make_text_encoder(len(tokenizer))
    text.load_state_dict(load_file(state.run / "text_encoder.clip.safetensors"))
    text.text_projection.requires_grad_(False)
    trainee = Trainee({"unet": LEARNING_RATE, "text": LEARNING_RATE * TEXT_RATE}, unet=unet, text=text)
    velocity_loss = VelocityLoss()
    caption_loss = CaptionLoss(lessons, torch.load(state.run / "clip.done")["logit_scale"])

    def losses(rng) -> tuple[torch.Tensor, list[float]]:
        batch = lessons.draw(BATCH // workers, rng)
        read = text(tokenizer(batch.texts))
        loss = velocity_loss(unet, batch, read.last_hidden_state)
        distance = caption_loss(batch.captions, read.text_embeds)
        return loss + CAPTION_WEIGHT * distance, [loss.item(), distance.item()]

    stage = Stage(state.run, "unet", ("velocity_error", "caption_loss"), total)
    finished = stage.train(trainee, losses, rank, workers)
    if finished and rank == 0:
        save_weights(trainee.averages["text"], state.run / "text_encoder.unet.safetensors")
        save_weights(trainee.averages["unet"], state.run / "unet.safetensors")
    return finished


def preview(state: State) -> None:
    """A sheet of 48 held-out prompts, every third in Korean, from the newest checkpoint: `preview.png`."""
    networks, pictures = load_networks(state, unfinished=True), load_pictures(state)
    held = pictures.triples(held=True)
    words = [(*pictures.labels[row], BACKGROUND_NAMES[column]) for row, column in held[:: -(-len(held) // 48)]]
    captions = [(plain_korean if number % 3 == 2 else plain_english)(*w) for number, w in enumerate(words)]
    save_sheet(networks.draw(captions), 12, state.run / "preview.png")
    print("\n".join(captions))
