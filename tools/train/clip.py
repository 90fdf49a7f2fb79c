"""The contrastive pair: a text encoder and an image encoder that put a caption beside the pictures it is true of.

    batch = 32 concepts x 2 styles x 2 backgrounds, so that every picture meets another that only its style, and one that
            only its background, tells from it
    loss  = cross entropy over captions and over pictures; every picture that a caption fits is a right answer

The UNet's stage trains the text encoder further (`losses.py` keeps it in reach, `refit.py` fits its projection again);
the image tower stays as it is from here on.
"""

import math
import random
import time

import torch
from torch.nn.functional import interpolate, normalize
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from captions import Caption, caption
from data import BACKGROUND_NAMES, BACKGROUND_RGB, Pictures, load_pictures
from models import WIDTH, make_image_encoder, make_text_encoder
from state import Checkpoint, LossLog, State, StopRequest, load_weights, save_weights
from tokenizer import Tokenizer

LEARNING_RATE = 1e-3
WARM_UP_STEPS = 40
WEIGHT_DECAY = 0.05
CONCEPTS_PER_BATCH = 32
STYLES_PER_CONCEPT = BACKGROUNDS_PER_CONCEPT = 2
# ln(1 / 0.07), CLIP's own start, and its ceiling of 100.
LOGIT_SCALE_START = 2.6593
LOGIT_SCALE_MAX = math.log(100)
CHECKPOINT_SECONDS = 180
IMAGE_SIZE_PX = 64


class ContrastiveBatches:
    """Random batches of captioned pictures, at the image encoder's size."""

    def __init__(self, pictures: Pictures, rng: random.Random) -> None:
        self.premultiplied = premultiply(pictures.rgba)
        self.labels, self.rng = pictures.labels, rng
        self.triples = set(pictures.triples(held=False))
        self.rows: dict[str, list[int]] = {}
        for row, (concept, _) in enumerate(pictures.labels):
            self.rows.setdefault(concept.name, []).append(row)

    def draw(self) -> tuple[torch.Tensor, list[Caption], torch.Tensor]:
        """Pictures `[n, 3, 64, 64]`, a caption each, and which caption fits which picture, bool `[captions, pictures]`."""
        chosen = []
        for name in self.rng.sample(sorted(self.rows), min(CONCEPTS_PER_BATCH, len(self.rows))):
            rows = self.rng.sample(self.rows[name], STYLES_PER_CONCEPT)
            columns = self.rng.sample(range(len(BACKGROUND_NAMES)), BACKGROUNDS_PER_CONCEPT)
            chosen += [(row, column) for row in rows for column in columns if (row, column) in self.triples]
        looks = [(*self.labels[row], BACKGROUND_NAMES[column]) for row, column in chosen]
        captions = [caption(*look, self.rng) for look in looks]
        fits = torch.tensor([[c.fits(o.name, s, b) for o, s, b in looks] for c in captions])
        rows, columns = map(list, zip(*chosen, strict=True))
        return compose_small(self.premultiplied[rows], torch.tensor(columns)), captions, fits


def premultiply(rgba: torch.Tensor) -> torch.Tensor:
    """RGBA uint8 `[n, 4, 128, 128]` -> premultiplied float `[n, 4, 64, 64]`, bicubic as CLIP's image processor resizes."""
    small = []
    for part in rgba.split(256):
        alpha = part[:, 3:].float() / 255
        whole = torch.cat([part[:, :3].float() * alpha, alpha], 1)
        small.append(interpolate(whole, size=IMAGE_SIZE_PX, mode="bicubic", antialias=True))
    return torch.cat(small)


def compose_small(premultiplied: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
    """Premultiplied pictures on backgrounds (indices), float `[n, 3, 64, 64]` in [-1, 1]."""
    colour = BACKGROUND_RGB[backgrounds][:, :, None, None]
    return ((premultiplied[:, :3] + colour * (1 - premultiplied[:, 3:])) / 127.5 - 1).clamp(-1, 1)


def contrastive_loss(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy of `logits` `[captions, pictures]` against the rows and columns of `fits`."""
    target = fits.float()
    by_caption = target / target.sum(1, keepdim=True)
    by_picture = (target / target.sum(0, keepdim=True)).T
    return -((by_caption * logits.log_softmax(1)).sum(1).mean() + (by_picture * logits.T.log_softmax(1)).sum(1).mean()) / 2


def train_clip(state: State, minutes: float) -> bool:
    """Train both towers for `minutes` of wall time in all, resuming; True when finished."""
    if (state.run / "image_encoder.safetensors").exists():
        return True
    stop = StopRequest()
    batches, tokenizer = ContrastiveBatches(load_pictures(state), random.Random()), Tokenizer(state.tokenizer)
    torch.manual_seed(0)
    text, image = make_text_encoder(len(tokenizer)), make_image_encoder()
    scale = torch.nn.Parameter(torch.tensor(LOGIT_SCALE_START))
    parameters = [*text.parameters(), *image.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True)
    checkpoint, step, spent = Checkpoint(state.run, "clip"), 0, 0.0
    if saved := checkpoint.load():
        text.load_state_dict(saved["text"])
        image.load_state_dict(saved["image"])
        scale.data = saved["scale"]
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    log = LossLog(state.run / "clip.csv", ["step", "seconds", "loss", "accuracy"])
    started, last_save, before = time.time(), time.time(), spent

    def save() -> None:
        checkpoint.save(
            {"text": text.state_dict(), "image": image.state_dict(), "scale": scale.data, "step": step}
            | {"optimizer": optimizer.state_dict(), "spent": spent}
        )

    while spent < minutes * 60:
        rate = min(1, (step + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * spent / (minutes * 60)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        pictures, captions, fits = batches.draw()
        logits = similarity(text, image, tokenizer, captions, pictures) * scale.exp()
        loss = contrastive_loss(logits, fits)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scale.data.clamp_(max=LOGIT_SCALE_MAX)
        step, spent = step + 1, before + time.time() - started
        if step % 50 == 0:
            log.add("clip", step=step, seconds=spent, loss=loss.item(), accuracy=accuracy(logits, fits))
        if stop or time.time() - last_save > CHECKPOINT_SECONDS:
            save()
            last_save = time.time()
            if stop:
                return False
    save_weights(text, state.run / "text_encoder.clip.safetensors")
    torch.save({"logit_scale": scale.item(), "step": step, "seconds": spent}, state.run / "clip.done")
    save_weights(image, state.run / "image_encoder.safetensors")
    return True


def similarity(
    text: CLIPTextModelWithProjection,
    image: CLIPVisionModelWithProjection,
    tokenizer: Tokenizer,
    captions: list[Caption],
    pictures: torch.Tensor,
) -> torch.Tensor:
    """Cosine of every caption to every picture."""
    text_embeds = normalize(text(tokenizer([c.text for c in captions])).text_embeds, dim=-1)
    return text_embeds @ normalize(image(pictures).image_embeds, dim=-1).T


def accuracy(logits: torch.Tensor, fits: torch.Tensor) -> float:
    """Share of captions whose most similar picture is a right one."""
    return fits[torch.arange(len(fits)), logits.argmax(1)].float().mean().item()


@torch.no_grad()
def image_conditions(state: State, pictures: Pictures, tower: str = "image_encoder") -> torch.Tensor:
    """The embedding of every (background, picture) as networks take it: unit variance, `[10, pictures, 128]`."""
    image = load_weights(make_image_encoder(), state.run / f"{tower}.safetensors").eval()
    premultiplied = premultiply(pictures.rgba)
    rows = []
    for background in range(len(BACKGROUND_NAMES)):
        columns = torch.full((len(premultiplied),), background)
        parts = zip(premultiplied.split(256), columns.split(256), strict=True)
        rows.append(torch.cat([condition(image(compose_small(p, b)).image_embeds) for p, b in parts]))
    return torch.stack(rows)


def condition(image_embeds: torch.Tensor) -> torch.Tensor:
    """An image embedding as the UNet takes it: normalised, times the root of its width."""
    return normalize(image_embeds, dim=-1) * math.sqrt(WIDTH)
