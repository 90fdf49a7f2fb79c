"""What DALL-E 2 adds: a prior that turns captions into image embeddings, and a way for the UNet to read these.

    python tools/train/embeddings.py --state DIR            # after train.py; both networks, resuming, then figures

UNet and text tower stay as they are. The image tower is tuned on, against the captions of all training pictures at once, since
its embedding has to say which thing it is, in a combination that was never seen. `ImageTokens` turns an image embedding into the hidden states of the caption
"a STYLE THING on a COLOUR background" that is true of the picture, which is what the UNet's cross attention reads. Both learn
from pictures that were moved, scaled, dimmed, and put on colours that are not quite the ten, so that they know such pictures
too. The prior learns from captions of every form.
"""

import argparse
import json
import math
import random
import sys
from pathlib import Path

import torch
from torch.nn.functional import affine_grid, cosine_similarity, cross_entropy, grid_sample, mse_loss, normalize

from captions import caption, plain_english, plain_korean
from clip import condition, image_conditions, premultiply
from data import BACKGROUND_NAMES, BACKGROUND_RGB, Pictures, load_pictures
from models import WIDTH, ImageTokens, make_image_encoder, make_prior, make_prior_scheduler, make_scheduler
from networks import Networks, load_networks
from sampling import GUIDANCE, STEPS, decode, save_sheet
from state import State, load_weights, save_weights, tune_runtime
from trainee import Stage, Trainee
from workers import run_workers

BATCH = 256
VISION_BATCH, VISION_RATE, VISION_SAMPLES = 128, 5e-4, 160_000
TOKENS_RATE, TOKENS_SAMPLES = 2e-3, 2_000_000
PRIOR_RATE, PRIOR_SAMPLES = 1e-3, 300_000
VARIANTS = 8
CAPTIONS_PER_TRIPLE = 8
EMPTY_SHARE = 0.1
PRIOR_STEPS, PRIOR_GUIDANCE = 10, 1.0
SAMPLES = 200


def train_vision(state: State) -> bool:
    """Tune the image tower; True when finished."""
    return (state.run / "vision.safetensors").exists() or run_workers(1, state.run / "vision.meeting", _vision_rank, state)


def _vision_rank(rank: int, workers: int, state: State) -> bool:
    pictures, networks = load_pictures(state), load_networks(state, unfinished=False)
    triples = pictures.triples(held=False)
    _, pooled, _ = read(networks, plain_captions(pictures, triples))
    captions, scale = normalize(pooled, dim=-1), math.exp(torch.load(state.run / "refit.done")["logit_scale"])
    rows, columns = torch.tensor(triples).T
    premultiplied, generator = premultiply(pictures.rgba), torch.Generator().manual_seed(0)
    tower = load_weights(make_image_encoder(), state.run / "image_encoder.safetensors")
    trainee = Trainee({"tower": VISION_RATE}, VISION_BATCH, tower=tower)

    def losses(_rng) -> tuple[torch.Tensor, list[float]]:
        chosen = torch.randint(len(triples), (VISION_BATCH,))
        seen = alter(premultiplied[rows[chosen]], columns[chosen], generator)
        logits = scale * normalize(tower(seen).image_embeds, dim=-1) @ captions.T
        loss = cross_entropy(logits, chosen)
        return loss, [loss.item(), (logits.argmax(1) == chosen).float().mean().item()]

    finished = Stage(state.run, "vision", ("loss", "accuracy"), VISION_SAMPLES).train(trainee, losses, rank, workers)
    if finished:
        save_weights(trainee.averages["tower"], state.run / "vision.safetensors")
    return finished


def plain_captions(pictures: Pictures, triples: list[tuple[int, int]]) -> list[str]:
    """"a STYLE THING on a COLOUR background" of each."""
    return [plain_english(*pictures.labels[row], BACKGROUND_NAMES[column]) for row, column in triples]


@torch.no_grad()
def cache_variants(state: State) -> torch.Tensor:
    """Embeddings of every training triple's picture, altered in `VARIANTS` ways: `[VARIANTS, triples, 128]`."""
    path = state.run / "variants.pt"
    if not path.exists():
        pictures = load_pictures(state)
        image = load_weights(make_image_encoder(), state.run / "vision.safetensors").eval()
        premultiplied, generator = premultiply(pictures.rgba), torch.Generator().manual_seed(0)
        rows, columns = torch.tensor(pictures.triples(held=False)).T
        variants = []
        for _ in range(VARIANTS):
            parts = zip(rows.split(256), columns.split(256), strict=True)
            embedded = [condition(image(alter(premultiplied[r], c, generator)).image_embeds) for r, c in parts]
            variants.append(torch.cat(embedded))
            print(f"variants: {len(variants)} of {VARIANTS}", flush=True)
        temporary = path.with_suffix(".part")
        torch.save(torch.stack(variants), temporary)
        temporary.rename(path)
    return torch.load(path)


def alter(premultiplied: torch.Tensor, backgrounds: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures `[n, 3, 64, 64]` in [-1, 1]: moved by up to 4%, scaled by up to 8%, on a colour near the given one."""
    def around_zero(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    count = len(premultiplied)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + 0.08 * around_zero(count)
    theta[:, :, 2] = 0.08 * around_zero(count, 2)
    moved = grid_sample(premultiplied, affine_grid(theta, list(premultiplied.shape), align_corners=False), align_corners=False)
    colour = (BACKGROUND_RGB[backgrounds] + 12 * around_zero(count, 3)).clamp(0, 255)[:, :, None, None]
    whole = (moved[:, :3] + colour * (1 - moved[:, 3:])) / 127.5 - 1
    dimmed = whole * (1 + 0.08 * around_zero(count, 1, 1, 1)) + 0.04 * around_zero(count, 1, 1, 1)
    return dimmed.clamp(-1, 1)


@torch.no_grad()
def read(networks: Networks, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states `[n, 24, 128]`, pooled and projected `[n, 128]`, and which tokens are words `[n, 24]`."""
    hidden, pooled, masks = [], [], []
    for start in range(0, len(texts), BATCH):
        ids = networks.tokenizer(texts[start : start + BATCH])
        out = networks.text(ids)
        hidden.append(out.last_hidden_state)
        pooled.append(out.text_embeds)
        masks.append(is_word(ids))
    return torch.cat(hidden), torch.cat(pooled), torch.cat(masks)


def is_word(ids: torch.Tensor) -> torch.Tensor:
    """Which tokens are of the text, its begin and its first end; what follows fills the context up."""
    ends = (ids == ids.max()).cumsum(1)
    return (ends == 0) | ((ends == 1) & (ids == ids.max()))


def train_tokens(state: State) -> bool:
    """Fit `ImageTokens`; True when finished."""
    return (state.run / "tokens.safetensors").exists() or run_workers(1, state.run / "tokens.meeting", _tokens_rank, state)


def _tokens_rank(rank: int, workers: int, state: State) -> bool:
    pictures, networks, variants = load_pictures(state), load_networks(state, unfinished=False), cache_variants(state)
    triples = pictures.triples(held=False)
    targets, _, _ = read(networks, plain_captions(pictures, triples))
    centre, spread = targets.mean(0), (targets - targets.mean(0)).std()
    torch.manual_seed(0)
    network = ImageTokens()
    network.tokens.weight.data *= spread
    network.tokens.bias.data = centre.flatten().clone()
    trainee = Trainee({"tokens": TOKENS_RATE}, BATCH, tokens=network)

    def losses(_rng) -> tuple[torch.Tensor, list[float]]:
        chosen = torch.randint(len(triples), (BATCH,))
        seen = variants[torch.randint(VARIANTS, (BATCH,)), chosen]
        seen = seen + 0.1 * torch.rand(BATCH, 1) * torch.randn(BATCH, WIDTH)
        loss = mse_loss(network(seen), targets[chosen]) / spread.square()
        return loss, [loss.item()]

    finished = Stage(state.run, "tokens", ("error",), TOKENS_SAMPLES).train(trainee, losses, rank, workers)
    if finished:
        save_weights(trainee.averages["tokens"], state.run / "tokens.safetensors")
    return finished


def train_prior(state: State) -> bool:
    """Train the prior on cached captions and embeddings; True when finished."""
    return (state.run / "prior.safetensors").exists() or run_workers(1, state.run / "prior.meeting", _prior_rank, state)


def _prior_rank(rank: int, workers: int, state: State) -> bool:
    pictures, networks = load_pictures(state), load_networks(state, unfinished=False)
    triples, rng = pictures.triples(held=False), random.Random(0)
    texts = [
        caption(*pictures.labels[row], BACKGROUND_NAMES[column], rng).text
        for _ in range(CAPTIONS_PER_TRIPLE)
        for row, column in triples
    ]
    hidden, pooled, masks = read(networks, [*texts, ""])
    hidden = hidden.half()
    rows, columns = torch.tensor(triples).T
    embeddings = image_conditions(state, pictures, "vision")[columns, rows]
    torch.manual_seed(0)
    prior, scheduler = make_prior(), make_prior_scheduler()
    prior.clip_mean.data, prior.clip_std.data = embeddings.mean(0, keepdim=True), embeddings.std(0, keepdim=True)
    prior.clip_mean.requires_grad_(False)
    prior.clip_std.requires_grad_(False)
    white = (embeddings - prior.clip_mean) / prior.clip_std
    trainee = Trainee({"prior": PRIOR_RATE}, BATCH, prior=prior)

    def losses(_rng) -> tuple[torch.Tensor, list[float]]:
        chosen = torch.randint(len(texts), (BATCH,))
        clean = white[chosen % len(triples)]
        chosen[torch.rand(BATCH) < EMPTY_SHARE] = len(texts)
        times = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * scheduler.config.num_train_timesteps).long()
        noisy = scheduler.add_noise(clean, torch.randn_like(clean), times)
        predicted = prior(noisy, times, pooled[chosen], hidden[chosen].float(), masks[chosen]).predicted_image_embedding
        loss = mse_loss(predicted, clean)
        return loss, [loss.item()]

    finished = Stage(state.run, "prior", ("error",), PRIOR_SAMPLES).train(trainee, losses, rank, workers)
    if finished:
        save_weights(trainee.averages["prior"], state.run / "prior.safetensors")
    return finished


@torch.no_grad()
def imagine(
    networks: Networks, prior, texts: list[str], guidance: float = PRIOR_GUIDANCE, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Image embeddings of captions, as the prior draws them: `[n, 128]`, normalised times the root of 128."""
    scheduler, count = make_prior_scheduler(), len(texts)
    scheduler.set_timesteps(PRIOR_STEPS)
    generator = generator or torch.Generator().manual_seed(0)
    drawn = torch.randn(count, WIDTH, generator=generator)
    hidden, pooled, masks = read(networks, [""] * count + texts)
    steps = scheduler.timesteps.tolist()
    for step, before in zip(steps, [*steps[1:], None], strict=True):
        out = prior(torch.cat([drawn, drawn]), step, pooled, hidden, masks).predicted_image_embedding
        uncond, cond = out.chunk(2)
        predicted = uncond + guidance * (cond - uncond)
        drawn = scheduler.step(predicted, step, drawn, generator=generator, prev_timestep=before).prev_sample
    return normalize(prior.post_process_latents(drawn), dim=-1) * math.sqrt(WIDTH)


@torch.no_grad()
def paint(
    networks: Networks, tokens: ImageTokens, embeddings: torch.Tensor, guidance: float = GUIDANCE,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Pictures `[n, 3, 128, 128]` of image embeddings; 25 at a time, batch k from the noise of seed k if no generator is given."""
    empty, drawn = read(networks, [""])[0], []
    for number, part in enumerate(embeddings.split(25)):
        scheduler = make_scheduler()
        scheduler.set_timesteps(STEPS)
        source = generator or torch.Generator().manual_seed(number)
        latents = torch.randn(len(part), 4, 16, 16, generator=source)
        hidden = torch.cat([empty.expand(len(part), -1, -1), tokens(part)])
        labels = torch.zeros(2 * len(part), WIDTH)
        for timestep in scheduler.timesteps:
            uncond, cond = networks.unet(torch.cat([latents] * 2), timestep, hidden, class_labels=labels).sample.chunk(2)
            latents = scheduler.step(uncond + guidance * (cond - uncond), timestep, latents).prev_sample
        drawn.append(decode(networks.vae, latents, networks.scaling_factor))
    return torch.cat(drawn)


def evaluate(state: State, samples: int) -> dict:
    """Held-out triples: from the true picture, and from English and Korean captions through the prior."""
    from judges import Classifier, NearestReference

    pictures, networks = load_pictures(state), load_networks(state, unfinished=False)
    tokens = load_weights(ImageTokens(), state.run / "tokens.safetensors").eval()
    triples = pictures.triples(held=True)
    random.Random(0).shuffle(triples)
    triples = triples[:samples]
    looks = [(*pictures.labels[row], BACKGROUND_NAMES[column]) for row, column in triples]
    true = image_conditions(state, pictures, "vision")
    true = torch.stack([true[column, row] for row, column in triples])
    judges = {"nearest_reference": NearestReference(pictures), "classifier": Classifier.train_or_load(state, pictures, 1500)}
    figures: dict = {"held_out_triples": len(triples), "prior_steps": PRIOR_STEPS, "steps": STEPS, "guidance": GUIDANCE}

    def judge(name: str, embeddings: torch.Tensor) -> None:
        drawn = paint(networks, tokens, embeddings)
        save_sheet(drawn[:60], 12, state.run / f"contact-unclip-{name}.png")
        figures[name] = {of: judge.score(drawn, triples) for of, judge in judges.items()}
        figures[name]["cosine_to_true"] = cosine_similarity(embeddings, true).mean().item()
        print(name, json.dumps(figures[name]), flush=True)

    judge("picture", true)
    if (state.run / "prior.safetensors").exists():
        prior = load_weights(make_prior(), state.run / "prior.safetensors").eval()
        judge("english", imagine(networks, prior, [plain_english(*look) for look in looks]))
        judge("korean", imagine(networks, prior, [plain_korean(*look) for look in looks]))
        shuffled = true[torch.randperm(len(true))]
        figures["cosine_of_two_pictures"] = cosine_similarity(shuffled, true).mean().item()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="held-out triples to judge")
    parser.add_argument("--stage", choices=("vision", "tokens", "prior", "evaluate", "all"), default="all")
    options = parser.parse_args()
    tune_runtime()
    torch.set_num_threads(options.cores)
    state = State(options.state, options.concepts)
    stages = {"vision": train_vision, "tokens": train_tokens, "prior": train_prior}
    for name, stage in stages.items():
        if options.stage in (name, "all") and not stage(state):
            print("stopped; the same command goes on from here", flush=True)
            return 0
    if options.stage in ("evaluate", "all"):
        print(json.dumps(evaluate(state, options.samples), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
