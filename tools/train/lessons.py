"""What the UNet learns from: cached latents, captions and image embeddings of every picture on every background.

    80% of the samples see a caption only (one in ten of them an empty one), 8% an image embedding and the caption,
    12% an image embedding alone: one network serves text-to-image and image variations
"""

import random
from dataclasses import dataclass

import torch

from captions import Caption, caption
from clip import image_conditions
from data import BACKGROUND_NAMES, compose, load_pictures
from models import make_vae
from state import State, load_weights

IMAGE_ALONE, IMAGE_AND_CAPTION, CAPTION_DROPPED = 0.12, 0.08, 0.10


@dataclass
class Batch:
    """`latents` `[n, 4, 16, 16]` of unit variance, `captions` (None: empty), `labels` `[n, 128]` (zeros: no image)."""

    latents: torch.Tensor
    captions: list[Caption | None]
    labels: torch.Tensor

    @property
    def texts(self) -> list[str]:
        return [c.text if c else "" for c in self.captions]


class Lessons:
    """The training triples of a run."""

    def __init__(self, state: State) -> None:
        cached, self.pictures = cache_latents(state), load_pictures(state)
        self.latents = cached["latents"] * cached["scaling_factor"]
        self.conditions = image_conditions(state, self.pictures)
        self.triples = torch.tensor(self.pictures.triples(held=False))

    def draw(self, count: int, rng: random.Random) -> Batch:
        """A random batch; `rng` composes the captions, torch's generator picks the triples."""
        rows, columns = self.triples[torch.randint(len(self.triples), (count,))].T
        captions, labels = [], torch.zeros(count, self.conditions.shape[-1])
        for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            draw = rng.random()
            if draw < IMAGE_ALONE + IMAGE_AND_CAPTION:
                labels[number] = self.conditions[column, row]
            silent = draw < IMAGE_ALONE or rng.random() < CAPTION_DROPPED
            look = (*self.pictures.labels[row], BACKGROUND_NAMES[column])
            captions.append(None if silent else caption(*look, rng))
        return Batch(self.latents[columns, rows], captions, labels)


@torch.no_grad()
def cache_latents(state: State) -> dict:
    """Encode every picture on every background once.

    `latents`: `[10, pictures, 4, 16, 16]` as the encoder gives them; `scaling_factor`: 1 / their standard deviation.
    """
    path = state.run / "latents.pt"
    if not path.exists():
        vae = load_weights(make_vae(), state.vae / "vae.safetensors").eval()
        rgba = load_pictures(state).rgba
        latents = []
        for background in range(len(BACKGROUND_NAMES)):
            parts = (compose(part, torch.full((len(part),), background)) for part in rgba.split(32))
            latents.append(torch.cat([vae.encode(part).latent_dist.mode() for part in parts]))
        stacked = torch.stack(latents)
        temporary = path.with_suffix(".part")
        torch.save({"latents": stacked, "scaling_factor": 1 / stacked.std().item()}, temporary)
        temporary.rename(path)
    return torch.load(path)
