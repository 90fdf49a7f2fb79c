"""The denoiser: a UNet over cached latents, with the text encoder trained along at a fifth of the rate.

    loss = velocity loss + 0.005 * caption loss (losses.py), over batches of lessons.py

The schedule counts samples, so that a run can be stopped, resumed, and given a longer total.
"""

import copy
import random
import time

import torch
from safetensors.torch import load_file

from captions import plain_english, plain_korean
from data import BACKGROUND_NAMES, load_pictures
from lessons import Lessons, cache_latents
from losses import CaptionLoss, VelocityLoss
from models import make_text_encoder, make_unet
from networks import load_networks
from sampling import save_sheet
from state import Checkpoint, LossLog, State, StopRequest, save_weights
from tokenizer import Tokenizer
from workers import average_gradients, run_workers

BATCH = 32
LEARNING_RATE = 1e-3
TEXT_RATE = 0.2
WARM_UP_STEPS = 60
DECAY_FROM = 0.5
RATE_FLOOR = 0.03
WEIGHT_DECAY = 1e-2
EMA_DECAY = 0.9985
CAPTION_WEIGHT = 0.005
EXPOSURES_PER_PICTURE = 450
CHECKPOINT_SECONDS = 180
LOG_STEPS = 50


class Trainee:
    """UNet, text encoder, their moving averages and the optimiser: all that a checkpoint holds."""

    def __init__(self, vocabulary: int, text: dict[str, torch.Tensor]) -> None:
        """Fresh, but for the weights of the text encoder."""
        torch.manual_seed(0)
        self.unet, self.text = make_unet(), make_text_encoder(vocabulary)
        self.text.load_state_dict(text)
        self.text.text_projection.requires_grad_(False)
        self.trained = [p for p in (*self.unet.parameters(), *self.text.parameters()) if p.requires_grad]
        groups = [
            {"params": list(self.unet.parameters()), "base": LEARNING_RATE},
            {"params": [p for p in self.text.parameters() if p.requires_grad], "base": LEARNING_RATE * TEXT_RATE},
        ]
        self.optimizer = torch.optim.AdamW(groups, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)
        self.ema_unet, self.ema_text = copy.deepcopy(self.unet).eval(), copy.deepcopy(self.text).eval()
        self.step, self.seconds = 0, 0.0

    def learn(self, progress: float) -> None:
        """One optimiser step from the gradients at hand; `progress` in [0, 1] places it on the schedule."""
        decay = max(RATE_FLOOR, (1 - progress) / (1 - DECAY_FROM)) if progress > DECAY_FROM else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * min(1, (self.step + 1) / WARM_UP_STEPS) * decay
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        for average, current in ((self.ema_unet, self.unet), (self.ema_text, self.text)):
            torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - decay)

    def _modules(self) -> dict:
        return {
            "unet": self.unet,
            "text": self.text,
            "ema_unet": self.ema_unet,
            "ema_text": self.ema_text,
            "optimizer": self.optimizer,
        }

    def state_dict(self) -> dict:
        weights = {name: module.state_dict() for name, module in self._modules().items()}
        return weights | {"step": self.step, "samples": self.step * BATCH, "seconds": self.seconds}

    def load_state_dict(self, saved: dict) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(saved[name])
        self.step, self.seconds = saved["step"], saved["seconds"]


def train_unet(state: State, samples: int | None, workers: int) -> bool:
    """Train until `samples` pictures were seen in all (default: 450 for each), resuming; True when finished."""
    if (state.run / "unet.safetensors").exists():
        return True
    cache_latents(state)
    return run_workers(workers, state.run / "unet.meeting", _train_rank, state, samples)


def _train_rank(rank: int, workers: int, state: State, samples: int | None) -> bool:
    """One of the processes: all hold the same weights and see different batches; rank 0 logs and saves."""
    stop = StopRequest()
    lessons, tokenizer = Lessons(state), Tokenizer(state.tokenizer)
    total = samples or EXPOSURES_PER_PICTURE * len(lessons.pictures.labels)
    text = load_file(state.run / "text_encoder.clip.safetensors")
    trainee, checkpoint = Trainee(len(tokenizer), text), Checkpoint(state.run, "unet")
    if saved := checkpoint.load():
        trainee.load_state_dict(saved)
    seed = trainee.step * workers + rank
    rng = random.Random(seed)
    torch.manual_seed(seed)
    velocity_loss = VelocityLoss()
    caption_loss = CaptionLoss(lessons, torch.load(state.run / "clip.done")["logit_scale"])
    diary = Diary(state, trainee, total) if rank == 0 else None
    stopped, last_save, last_step = False, time.time(), time.time()
    while trainee.step * BATCH < total and not stopped:
        batch = lessons.draw(BATCH // workers, rng)
        text = trainee.text(tokenizer(batch.texts))
        loss = velocity_loss(trainee.unet, batch, text.last_hidden_state)
        distance = caption_loss(batch.captions, text.text_embeds)
        (loss + CAPTION_WEIGHT * distance).backward()
        means = average_gradients(trainee.trained, loss.item(), distance.item(), float(bool(stop)))
        trainee.learn(trainee.step * BATCH / total)
        stopped, now = means[-1] > 0, time.time()
        trainee.seconds, last_step = trainee.seconds + now - last_step, now
        if diary:
            diary.note(means[:-1])
            if stopped or now - last_save > CHECKPOINT_SECONDS:
                checkpoint.save(trainee.state_dict())
                last_save = now
    if diary and not stopped:
        checkpoint.save(trainee.state_dict())
        save_weights(trainee.ema_text, state.run / "text_encoder.unet.safetensors")
        save_weights(trainee.ema_unet, state.run / "unet.safetensors")
    return not stopped


class Diary:
    """Means over `LOG_STEPS` steps, into `unet.csv`."""

    MEANS = ("velocity_error", "caption_loss")

    def __init__(self, state: State, trainee: Trainee, total: int) -> None:
        self.trainee, self.notes = trainee, []
        self.log = LossLog(state.run / "unet.csv", ["step", "samples", "seconds", *self.MEANS, "rate"])
        print(f"unet: {trainee.step * BATCH} of {total} samples seen", flush=True)

    def note(self, values: list[float]) -> None:
        """One step's values, in the order of `MEANS`."""
        self.notes.append(values)
        trainee = self.trainee
        if trainee.step % LOG_STEPS:
            return
        means = torch.tensor(self.notes).mean(0).tolist()
        place = {"step": trainee.step, "samples": trainee.step * BATCH, "seconds": trainee.seconds}
        rate = trainee.optimizer.param_groups[0]["lr"]
        self.log.add("unet", **place, **dict(zip(self.MEANS, means, strict=True)), rate=rate)
        self.notes = []


def preview(state: State) -> None:
    """A sheet of 48 held-out prompts, every third in Korean, from the newest checkpoint: `preview.png`."""
    networks, pictures = load_networks(state, unfinished=True), load_pictures(state)
    held = pictures.triples(held=True)
    words = [(*pictures.labels[row], BACKGROUND_NAMES[column]) for row, column in held[:: -(-len(held) // 48)]]
    captions = [(plain_korean if number % 3 == 2 else plain_english)(*w) for number, w in enumerate(words)]
    save_sheet(networks.draw(captions), 12, state.run / "preview.png")
    print("\n".join(captions))
