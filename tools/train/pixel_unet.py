"""The plain diffusion model: a UNet over 32 px pictures, told the number of a thing, or that of none.

    python tools/train/pixel_unet.py --state DIR                  # train, resuming; then figures and a sheet
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
from torch.nn.functional import avg_pool2d, interpolate

from data import BACKGROUND_NAMES, BACKGROUND_RGB, Pictures, load_pictures
from models import make_pixel_scheduler, make_pixel_unet
from sampling import save_sheet
from state import Checkpoint, State, load_weights, save_weights, tune_runtime
from trainee import BATCH, Stage, Trainee
from workers import run_workers

SIZE_PX = 32
LEARNING_RATE = 1e-3
NONE_SHARE = 0.1
EXPOSURES_PER_PICTURE = 450
STEPS = 20
GUIDANCE = 2.0
JUDGED_PER_THING = 3


class PixelLessons:
    """Small pictures on random backgrounds, and the numbers of the things they show."""

    def __init__(self, pictures: Pictures) -> None:
        alpha = pictures.rgba[:, 3:].float() / 255
        whole = torch.cat([pictures.rgba[:, :3].float() * alpha, alpha], 1)
        self.premultiplied = avg_pool2d(whole, whole.shape[-1] // SIZE_PX)
        self.things = list(dict.fromkeys(concept.name for concept, _ in pictures.labels))
        numbers = {name: number for number, name in enumerate(self.things)}
        self.classes = torch.tensor([numbers[concept.name] for concept, _ in pictures.labels])

    @property
    def none(self) -> int:
        """The class of any picture."""
        return len(self.things)

    def compose(self, rows: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
        """Pictures `[n, 3, 32, 32]` in [-1, 1]."""
        part, colour = self.premultiplied[rows], BACKGROUND_RGB[backgrounds][:, :, None, None]
        return (part[:, :3] + colour * (1 - part[:, 3:])) / 127.5 - 1

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A random batch: pictures and classes."""
        rows = torch.randint(len(self.classes), (count,))
        classes = torch.where(torch.rand(count) < NONE_SHARE, self.none, self.classes[rows])
        return self.compose(rows, torch.randint(len(BACKGROUND_NAMES), (count,))), classes


def train_pixels(state: State, samples: int | None, workers: int) -> bool:
    """Train until `samples` pictures were seen in all (default: 450 for each), resuming; True when finished."""
    if (state.run / "pixels.safetensors").exists():
        return True
    return run_workers(workers, state.run / "pixels.meeting", _train_rank, state, samples)


def _train_rank(rank: int, workers: int, state: State, samples: int | None) -> bool:
    pictures = load_pictures(state)
    lessons, scheduler = PixelLessons(pictures), make_pixel_scheduler()
    torch.manual_seed(0)
    unet = make_pixel_unet(len(lessons.things) + 1)
    trainee = Trainee({"unet": LEARNING_RATE}, unet=unet)
    timesteps = scheduler.config.num_train_timesteps

    def losses(_rng) -> tuple[torch.Tensor, list[float]]:
        clean, classes = lessons.draw(BATCH // workers)
        noise, count = torch.randn_like(clean), len(clean)
        # One number out of each of `count` equal ranges: the same mean as uniform ones, with less variance.
        times = ((torch.arange(count) + torch.rand(count)) / count * timesteps).long()
        noisy = scheduler.add_noise(clean, noise, times)
        velocity = scheduler.get_velocity(clean, noise, times)
        loss = (unet(noisy, times, classes).sample - velocity).square().mean()
        return loss, [loss.item()]

    total = samples or EXPOSURES_PER_PICTURE * len(lessons.classes)
    finished = Stage(state.run, "pixels", ("velocity_error",), total).train(trainee, losses, rank, workers)
    if finished and rank == 0:
        save_weights(trainee.averages["unet"], state.run / "pixels.safetensors")
    return finished


@torch.no_grad()
def draw(unet: UNet2DModel, classes: torch.Tensor, none: int, steps: int = STEPS, guidance: float = GUIDANCE) -> torch.Tensor:
    """Pictures `[classes, 3, 32, 32]` in [-1, 1], by DDIM with guidance."""
    scheduler = make_pixel_scheduler()
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(len(classes), 3, SIZE_PX, SIZE_PX, generator=generator)
    both = torch.cat([torch.full_like(classes, none), classes])
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
def evaluate(state: State, unfinished: bool) -> dict:
    """Some pictures of each thing, and of none, judged by the nearest of all references; writes `contact-pixels.png`.

    `mean_squared_error` is that to the nearest reference, in [-1, 1]; `looks` is the share of all (style, background) pairs
    that were drawn of things at all, the noise being what chooses among them.
    """
    pictures = load_pictures(state)
    lessons = PixelLessons(pictures)
    unet, samples = load_pixel_unet(state, lessons.none + 1, unfinished)
    asked = torch.arange(lessons.none).repeat(JUDGED_PER_THING)
    everything = [lessons.compose(torch.arange(len(lessons.classes)), torch.full((len(lessons.classes),), column))
                  for column in range(len(BACKGROUND_NAMES))]
    references = torch.cat(everything).flatten(1)
    shown = lessons.classes.repeat(len(BACKGROUND_NAMES))
    styles = [style for _, style in pictures.labels]
    figures = {"samples_seen": samples, "steps": STEPS}
    for guidance in (1.0, 1.5, 2.0, 3.0):
        parts = asked.split(51)
        drawn = torch.cat([draw(unet, part, lessons.none, guidance=guidance) for part in parts])
        distances = torch.cdist(drawn.flatten(1), references).square() / references.shape[1]
        nearest = distances.argmin(1)
        looks = {(styles[n % len(styles)], n // len(styles)) for n in nearest.tolist()}
        figures[f"guidance {guidance}"] = {
            "object": (shown[nearest] == asked).float().mean().item(),
            "mean_squared_error": distances.min(1).values.mean().item(),
            "looks": len(looks) / (len(set(styles)) * len(BACKGROUND_NAMES)),
        }
        if guidance == GUIDANCE:
            none = draw(unet, torch.full((24,), lessons.none), lessons.none, guidance=1.0)
            sheet = torch.cat([drawn[: lessons.none : 2][:96], none])
            save_sheet(interpolate(sheet, scale_factor=2), 24, state.run / "contact-pixels.png")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--samples", type=int, help="pictures to see in all (default 450 for each picture)")
    parser.add_argument("--unfinished", action="store_true", help="only judge the newest checkpoint")
    options = parser.parse_args()
    tune_runtime()
    torch.set_num_threads(options.cores)
    state = State(options.state, options.concepts)
    if not options.unfinished and not train_pixels(state, options.samples, options.cores):
        print("stopped; the same command goes on from here", flush=True)
        return 0
    print(json.dumps(evaluate(state, options.unfinished), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
