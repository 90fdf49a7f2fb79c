"""The autoencoder: pictures to 4-channel latents at an eighth of the size, and back.

From random weights it stays grey for a long time, so that its encoder is first pulled towards the four strongest
principal components of 8x8 patches (whitened), a pull that fades over the first third:

    loss = L1 + 0.5 * L1 of the gradients + 1e-4 * KL + fading * (encoder mean - patch components)^2

It learns from 64 px pieces of every object icon: half crops, half whole pictures at half size. Once the latents are
cached the encoder must not change any more; `polish_decoder` goes on with the decoder alone.
"""

import json
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import avg_pool2d, unfold

from data import BACKGROUND_NAMES, compose, load_pictures, load_split
from models import LATENT_CHANNELS, make_vae
from state import Checkpoint, LossLog, State, StopRequest, load_weights, save_weights

BATCH = 8
LEARNING_RATE = 1e-3
# For weights that are trained already.
POLISH_RATE = 3e-4
WARM_UP_STEPS = 50
WEIGHT_DECAY = 1e-3
GRADIENT_WEIGHT, KL_WEIGHT, COMPONENT_WEIGHT = 0.5, 1e-4, 0.5
# Almost no noise in the first latents.
LOG_VARIANCE_START = -6.0
PIECE_PX, PATCH_PX = 64, 8
CHECKPOINT_SECONDS = 180
LOG_STEPS = 100


class PatchComponents:
    """Whitened principal components of 8x8 patches: `[n, 3, h, w]` -> `[n, 4, h/8, w/8]`."""

    def __init__(self, pictures: torch.Tensor) -> None:
        patches = self._patches(pictures).reshape(-1, 3 * PATCH_PX**2)
        self.mean = patches.mean(0)
        centred = patches - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        self.basis = vectors[:, -LATENT_CHANNELS:] / values[-LATENT_CHANNELS:].sqrt()

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        scores = (self._patches(pictures) - self.mean) @ self.basis
        side = pictures.shape[-1] // PATCH_PX
        return scores.transpose(1, 2).reshape(len(pictures), LATENT_CHANNELS, -1, side)

    @staticmethod
    def _patches(pictures: torch.Tensor) -> torch.Tensor:
        return unfold(pictures, PATCH_PX, stride=PATCH_PX).transpose(1, 2)


def pieces(rgba: torch.Tensor, count: int) -> torch.Tensor:
    """A random batch of 64 px pieces on random backgrounds, half of the batches mirrored."""
    chosen = torch.randint(len(rgba), (count,))
    pictures = compose(rgba[chosen], torch.randint(len(BACKGROUND_NAMES), (count,)))
    whole = [avg_pool2d(pictures[: count // 2], 2)]
    corners = torch.randint(pictures.shape[-1] - PIECE_PX + 1, (count - count // 2, 2)).tolist()
    others = zip(pictures[count // 2 :], corners, strict=True)
    crops = [picture[None, :, y : y + PIECE_PX, x : x + PIECE_PX] for picture, (y, x) in others]
    batch = torch.cat(whole + crops)
    return batch.flip(-1) if torch.rand(()) < 0.5 else batch


def train_vae(state: State, minutes: float, init: Path | None) -> bool:
    """Train for `minutes` in all, from `init` or from random weights with the warm-up; True when finished."""
    if (state.vae / "vae.safetensors").exists():
        return True
    torch.manual_seed(0)
    vae = load_weights(make_vae(), init) if init else _fresh_vae()
    if not _descend(state, vae, list(vae.parameters()), minutes, "vae", fresh=init is None):
        return False
    save_weights(vae, state.vae / "vae.safetensors")
    return True


def polish_decoder(state: State, minutes: float) -> bool:
    """Train the decoder on for `minutes` with the encoder frozen, so that cached latents stay valid; True when finished."""
    if minutes == 0 or (state.vae / "polished").exists():
        return True
    vae = load_weights(make_vae(), state.vae / "vae.safetensors")
    for frozen in (vae.encoder, vae.quant_conv):
        frozen.requires_grad_(False)
    trained = [p for p in vae.parameters() if p.requires_grad]
    if not _descend(state, vae, trained, minutes, "decoder", fresh=False):
        return False
    save_weights(vae, state.vae / "vae.safetensors")
    (state.vae / "polished").touch()
    return True


def _fresh_vae() -> AutoencoderKL:
    vae = make_vae()
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:].fill_(LOG_VARIANCE_START)
        vae.quant_conv.weight[LATENT_CHANNELS:].mul_(0.1)
    return vae


def _descend(
    state: State, vae: AutoencoderKL, trained: list, minutes: float, stage: str, fresh: bool
) -> bool:
    """The training loop of both stages."""
    stop, rgba = StopRequest(), load_split(state, "concept", "pool")
    components = PatchComponents(pieces(rgba, 300)) if fresh else None
    base = LEARNING_RATE if fresh else POLISH_RATE
    optimizer = torch.optim.AdamW(trained, base, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)
    checkpoint, step, spent = Checkpoint(state.vae, stage), 0, 0.0
    if saved := checkpoint.load():
        vae.load_state_dict(saved["vae"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    log = LossLog(state.vae / f"{stage}.csv", ["step", "seconds", "loss", "psnr"])
    started, last_save, before = time.time(), time.time(), spent
    while spent < minutes * 60:
        progress = spent / (minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = base * min(1, (step + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
        pictures = pieces(rgba, BATCH)
        loss, psnr = _loss(vae, pictures, components, max(0.0, 1 - 3 * progress))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, spent = step + 1, before + time.time() - started
        if step % LOG_STEPS == 0:
            log.add(stage, step=step, seconds=spent, loss=loss.item(), psnr=psnr)
        if stop or time.time() - last_save > CHECKPOINT_SECONDS:
            last_save = time.time()
            checkpoint.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent})
            if stop:
                return False
    return True


def _loss(vae: AutoencoderKL, pictures: torch.Tensor, components: PatchComponents | None, pull: float):
    """Loss and PSNR in dB of one batch; `pull` in [0, 1] fades the patch components."""
    posterior = vae.encode(pictures).latent_dist
    drawn = vae.decode(posterior.sample()).sample
    loss = (drawn - pictures).abs().mean()
    for axis in (-1, -2):
        loss = loss + GRADIENT_WEIGHT * (drawn.diff(dim=axis) - pictures.diff(dim=axis)).abs().mean()
    divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    loss = loss + KL_WEIGHT * divergence
    if components and pull > 0:
        loss = loss + COMPONENT_WEIGHT * pull * (posterior.mean - components(pictures)).square().mean()
    return loss, psnr_db(drawn.detach(), pictures)


def psnr_db(drawn: torch.Tensor, pictures: torch.Tensor) -> float:
    """Peak signal to noise ratio of pictures in [-1, 1], over all of them together."""
    return -10 * math.log10((drawn.clamp(-1, 1) - pictures).square().mean().item() / 4)


@torch.no_grad()
def measure_vae(state: State, count: int = 200) -> dict[str, float]:
    """PSNR in dB at 128 px on `count` held-out triples and on icons of groups that nothing was trained on."""
    vae = load_weights(make_vae(), state.vae / "vae.safetensors").eval()
    pictures = load_pictures(state)
    generator = torch.Generator().manual_seed(0)
    held = torch.tensor(pictures.triples(held=True))
    held = held[torch.randperm(len(held), generator=generator)[:count]]
    unseen = load_split(state, "unseen")
    columns = torch.arange(len(unseen)) % len(BACKGROUND_NAMES)
    sets = {"held_out_triples": compose(pictures.rgba[held[:, 0]], held[:, 1]), "unseen_icons": compose(unseen, columns)}
    result = {}
    for name, whole in sets.items():
        drawn = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in whole.split(16)])
        result[name] = psnr_db(drawn, whole)
    (state.vae / "figures.json").write_text(json.dumps(result, indent=2) + "\n")
    return result
