"""The plain diffusion model: a UNet over 64 px pictures, told the number of a thing, or that of none.

    python tools/train/pixel_unet.py --state DIR                  # train, resuming; then figures and a sheet
    python tools/train/pixel_unet.py --state DIR --device cuda    # the same on a graphics card, in minutes instead of days
    python tools/train/pixel_unet.py --state DIR --unfinished     # figures and a sheet of the newest checkpoint

Style and background are not told: they are what the noise decides. One class in ten is replaced by the number behind the
last thing, which stands for any picture: that is what guidance steers away from, and what is drawn when nothing is asked for.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch.nn.functional import avg_pool2d

from data import BACKGROUND_NAMES, BACKGROUND_RGB, Pictures, load_pictures
from models import make_pixel_scheduler, make_pixel_unet
from sampling import save_sheet
from state import Checkpoint, State, load_weights, save_weights, tune_runtime
from trainee import Stage, Trainee
from workers import run_workers

SIZE_PX = 64
BATCH = 128
LEARNING_RATE = 1e-3
NONE_SHARE = 0.1
EXPOSURES_PER_PICTURE = 3000
STEPS = 20
GUIDANCE = 2.0
SHEET_COLUMNS = 16


class PixelLessons:
    """Small pictures on random backgrounds, and the numbers of the things they show."""

    def __init__(self, pictures: Pictures, device: str) -> None:
        self.device = device
        alpha = pictures.rgba[:, 3:].float() / 255
        whole = torch.cat([pictures.rgba[:, :3].float() * alpha, alpha], 1)
        self.premultiplied = avg_pool2d(whole, whole.shape[-1] // SIZE_PX).to(device)
        self.colours = BACKGROUND_RGB.to(device)
        self.things = list(dict.fromkeys(concept.name for concept, _ in pictures.labels))
        numbers = {name: number for number, name in enumerate(self.things)}
        self.classes = torch.tensor([numbers[concept.name] for concept, _ in pictures.labels], device=device)

    @property
    def none(self) -> int:
        """The class of any picture."""
        return len(self.things)

    def compose(self, rows: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
        """Pictures `[n, 3, 64, 64]` in [-1, 1]."""
        part, colour = self.premultiplied[rows], self.colours[backgrounds][:, :, None, None]
        return (part[:, :3] + colour * (1 - part[:, 3:])) / 127.5 - 1

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch: pictures and classes."""
        rows = torch.randint(len(self.classes), (count,), device=self.device)
        untold = torch.rand(count, device=self.device) < NONE_SHARE
        backgrounds = torch.randint(len(BACKGROUND_NAMES), (count,), device=self.device)
        return self.compose(rows, backgrounds), torch.where(untold, self.none, self.classes[rows])


def train_pixels(state: State, samples: int | None, device: str, workers: int) -> bool:
    """Train until `samples` pictures were seen in all (default: 3000 for each), resuming; True when finished."""
    if (state.run / "pixels.safetensors").exists():
        return True
    return run_workers(workers, state.run / "pixels.meeting", _train_rank, state, samples, device)


def _train_rank(rank: int, workers: int, state: State, samples: int | None, device: str) -> bool:
    lessons, scheduler = PixelLessons(load_pictures(state), device), make_pixel_scheduler()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    unet = make_pixel_unet(lessons.none + 1).to(device, memory_format=torch.channels_last)
    trainee = Trainee({"unet": LEARNING_RATE}, BATCH, unet=unet)
    if device != "cpu":
        unet.compile()
    timesteps = scheduler.config.num_train_timesteps

    def losses(_rng) -> tuple[torch.Tensor, list[float]]:
        clean, classes = lessons.draw(BATCH // workers)
        noise, count = torch.randn_like(clean), len(clean)
        # One number out of each of `count` equal ranges: the same mean as uniform ones, with less variance.
        offsets = torch.arange(count, device=device) + torch.rand(count, device=device)
        times = (offsets / count * timesteps).long()
        noisy = scheduler.add_noise(clean, noise, times)
        velocity = scheduler.get_velocity(clean, noise, times)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            predicted = unet(noisy, times, classes).sample
        loss = (predicted.float() - velocity).square().mean()
        return loss, [loss.item()]

    total = samples or EXPOSURES_PER_PICTURE * len(lessons.classes)
    finished = Stage(state.run, "pixels", ("velocity_error",), total).train(trainee, losses, rank, workers)
    if finished and rank == 0:
        save_weights(trainee.averages["unet"], state.run / "pixels.safetensors")
    return finished


@torch.no_grad()
def draw(unet: UNet2DModel, classes: torch.Tensor, none: int, guidance: float = GUIDANCE, seed: int = 0) -> torch.Tensor:
    """Pictures `[classes, 3, 64, 64]` in [-1, 1], by DDIM with guidance."""
    scheduler = make_pixel_scheduler()
    scheduler.set_timesteps(STEPS)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(len(classes), 3, SIZE_PX, SIZE_PX, generator=generator)
    pictures, both = pictures.to(unet.device), torch.cat([torch.full_like(classes, none), classes]).to(unet.device)
    for timestep in scheduler.timesteps:
        uncond, cond = unet(torch.cat([pictures, pictures]), timestep, both).sample.chunk(2)
        pictures = scheduler.step(uncond + guidance * (cond - uncond), timestep, pictures).prev_sample
    return pictures.clamp(-1, 1)


def load_pixel_unet(state: State, classes: int, unfinished: bool) -> tuple[UNet2DModel, int]:
    """The trained network, or the average of the newest checkpoint; and how many samples it has seen."""
    unet, saved = make_pixel_unet(classes), Checkpoint(state.run, "pixels").load()
    if unfinished:
        unet.load_state_dict(saved["ema_unet"])
    else:
        load_weights(unet, state.run / "pixels.safetensors")
    return unet.eval().requires_grad_(False), saved["samples"]


@torch.no_grad()
def evaluate(state: State, unfinished: bool, device: str) -> dict:
    """A picture of each thing, judged by the nearest of all references; writes `contact-pixels.png`, with pictures of none below.

    `mean_squared_error` is that to the nearest reference, in [-1, 1]; `looks` is the share of all (style, background) pairs
    that were drawn of things at all, the noise being what chooses among them.
    """
    pictures = load_pictures(state)
    lessons = PixelLessons(pictures, device)
    unet, samples = load_pixel_unet(state, lessons.none + 1, unfinished)
    unet.to(device)
    asked = torch.arange(lessons.none, device=device)
    rows = torch.arange(len(lessons.classes))
    everything = [lessons.compose(rows, torch.full_like(rows, column)) for column in range(len(BACKGROUND_NAMES))]
    references = torch.cat(everything).flatten(1)
    shown = lessons.classes.repeat(len(BACKGROUND_NAMES))
    styles = [style for _, style in pictures.labels]
    drawn = torch.cat([draw(unet, part, lessons.none, seed=seed) for seed, part in enumerate(asked.split(51))])
    distances = torch.cdist(drawn.flatten(1), references).square() / references.shape[1]
    nearest = distances.argmin(1)
    looks = {(styles[n % len(styles)], n // len(styles)) for n in nearest.tolist()}
    none = draw(unet, torch.full((SHEET_COLUMNS,), lessons.none), lessons.none, guidance=1.0)
    save_sheet(torch.cat([drawn[::2][: 6 * SHEET_COLUMNS], none]).cpu(), SHEET_COLUMNS, state.run / "contact-pixels.png")
    return {
        "samples_seen": samples,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "object": (shown[nearest] == asked).float().mean().item(),
        "mean_squared_error": distances.min(1).values.mean().item(),
        "looks": len(looks) / (len(set(styles)) * len(BACKGROUND_NAMES)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--samples", type=int, help="pictures to see in all (default 3000 for each picture)")
    parser.add_argument("--unfinished", action="store_true", help="only judge the newest checkpoint")
    options = parser.parse_args()
    tune_runtime()
    torch.set_num_threads(options.cores)
    state = State(options.state, options.concepts)
    workers = options.cores if options.device == "cpu" else 1
    if not options.unfinished and not train_pixels(state, options.samples, options.device, workers):
        print("stopped; the same command goes on from here", flush=True)
        return 0
    print(json.dumps(evaluate(state, options.unfinished, options.device), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
