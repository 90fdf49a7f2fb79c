"""The two losses of the UNet's stage.

`VelocityLoss`: the squared velocity error at timesteps drawn from a density that grows with the noise. A whole caption
leaves one picture only, and what a picture is made of is decided where the noise is strong: below a third of the
timesteps the caption makes no difference to the error any more, there the UNet only learns to remove noise.

`CaptionLoss`: the contrastive loss of each caption against every training picture's cached image embedding. The text
encoder follows the UNet; this small pull keeps it beside the image tower, so that it stays CLIP's text encoder too.
"""

import math

import torch
from diffusers import UNet2DConditionModel
from torch.nn.functional import normalize

from captions import Caption
from data import BACKGROUND_NAMES
from lessons import Batch, Lessons
from models import WIDTH, make_scheduler

# Timesteps are this power of uniform numbers: 13% of them below 300, 57% above 600.
TIMESTEP_POWER = 0.6


class VelocityLoss:
    """Of batches of latents at random timesteps."""

    def __init__(self) -> None:
        self.alphas_cumprod = make_scheduler().alphas_cumprod

    def __call__(self, unet: UNet2DConditionModel, batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
        """The mean squared velocity error."""
        count, latents = len(batch.latents), batch.latents
        noise = torch.randn_like(latents)
        # One number out of each of `count` equal ranges: the same mean as uniform ones, with less variance.
        uniform = (torch.arange(count) + torch.rand(count)) / count
        timesteps = (uniform**TIMESTEP_POWER * len(self.alphas_cumprod)).long().clamp(max=len(self.alphas_cumprod) - 1)
        timesteps = timesteps[torch.randperm(count)]
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        predicted = unet(noisy, timesteps, hidden, class_labels=batch.labels).sample
        return (predicted - velocity).square().mean()


class CaptionLoss:
    """Of captions against all training pictures at once."""

    def __init__(self, lessons: Lessons, logit_scale: float) -> None:
        rows, columns = lessons.triples.T
        self.embeddings = lessons.conditions[columns, rows] / math.sqrt(WIDTH)
        self.logit_scale = torch.tensor(logit_scale)
        labels = lessons.pictures.labels
        self.looks = {
            "concept": _numbered([labels[row][0].name for row in rows.tolist()]),
            "style": _numbered([labels[row][1] for row in rows.tolist()]),
            "background": _numbered([BACKGROUND_NAMES[column] for column in columns.tolist()]),
        }

    def __call__(self, captions: list[Caption | None], text_embeds: torch.Tensor) -> torch.Tensor:
        """The mean over the captions that are not empty."""
        spoken = [number for number, c in enumerate(captions) if c]
        if not spoken:
            return text_embeds.sum() * 0
        logits = normalize(text_embeds[spoken], dim=-1) @ self.embeddings.T * self.logit_scale.exp()
        fits = torch.stack([self._fits(captions[number]) for number in spoken]).float()
        return -(fits * logits.log_softmax(1)).sum(1).div(fits.sum(1)).mean()

    def _fits(self, caption: Caption) -> torch.Tensor:
        """Which training pictures the caption is true of."""
        fits = torch.ones(len(self.embeddings), dtype=torch.bool)
        for name, (numbers, column) in self.looks.items():
            word = getattr(caption, name)
            if word is not None:
                fits &= column == numbers[word]
        return fits


def _numbered(words: list[str]) -> tuple[dict[str, int], torch.Tensor]:
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return numbers, torch.tensor([numbers[word] for word in words])
