"""The two judges of a drawn picture: which (picture of the list, background) does it show?"""

import random

import torch
from torch import nn
from torch.nn.functional import affine_grid, avg_pool2d, cross_entropy, grid_sample

from concepts import STYLES
from data import BACKGROUND_NAMES, Pictures, compose
from state import State, load_weights, save_weights

BATCH = 64
LEARNING_RATE = 2e-3
STYLE_NAMES = list(STYLES)
INPUT_PX = 64


class NearestReference:
    """The reference picture with the smallest mean squared difference, at 128 px."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.names = [concept.name for concept, _ in pictures.labels]

    @torch.no_grad()
    def judge(self, drawn: torch.Tensor) -> list[tuple[int, int]]:
        """(picture, background) of every drawn one."""
        flat = drawn.flatten(1)
        distances = []
        for background in range(len(BACKGROUND_NAMES)):
            for part in self.pictures.rgba.split(128):
                reference = compose(part, torch.full((len(part),), background)).flatten(1)
                distances.append(reference.square().sum(1) - 2 * flat @ reference.T)
        nearest = torch.cat(distances, 1).argmin(1)
        count = len(self.pictures.labels)
        return [(int(n) % count, int(n) // count) for n in nearest]

    def score(self, drawn: torch.Tensor, triples: list[tuple[int, int]]) -> dict[str, float]:
        """Share of right objects, styles and backgrounds."""
        labels = self.pictures.labels
        hits = [
            (labels[seen][0] == labels[row][0], labels[seen][1] == labels[row][1], background == column)
            for (seen, background), (row, column) in zip(self.judge(drawn), triples, strict=True)
        ]
        return _shares(torch.tensor(hits))


class Classifier(nn.Module):
    """Object, style and background of a 64 px picture, each by a head of its own."""

    def __init__(self, concepts: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 192)
        blocks = [
            nn.Sequential(
                nn.Conv2d(narrow, wide, 3, 2, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
                nn.Conv2d(wide, wide, 3, 1, 1),
                nn.ReLU(),
            )
            for narrow, wide in zip(widths, widths[1:])
        ]
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Dropout(0.2))
        flat = widths[-1] * (INPUT_PX // 16) ** 2
        self.heads = nn.ModuleList(nn.Linear(flat, n) for n in (concepts, len(STYLE_NAMES), len(BACKGROUND_NAMES)))

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        features = self.body(pictures)
        return [head(features) for head in self.heads]

    @classmethod
    def train_or_load(cls, state: State, pictures: Pictures, steps: int) -> "Classifier":
        """The classifier of this run's concepts; trained on first use."""
        path = state.run / "classifier.safetensors"
        torch.manual_seed(0)
        model = cls(state.concepts)
        model.numbers = concept_numbers(pictures)
        if path.exists():
            return load_weights(model, path).eval()
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for step in range(steps):
            rows = torch.randint(len(pictures.labels), (BATCH,))
            columns = torch.randint(len(BACKGROUND_NAMES), (BATCH,))
            seen = augment(avg_pool2d(compose(pictures.rgba[rows], columns), 2))
            truth = (*model.numbers[rows].T, columns)
            loss = sum(cross_entropy(out, right) for out, right in zip(model(seen), truth, strict=True))
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step % 100 == 99:
                print(f"classifier step {step + 1} loss {loss.item():.3f}", flush=True)
        save_weights(model, path)
        return model.eval()

    @torch.no_grad()
    def score(self, drawn: torch.Tensor, triples: list[tuple[int, int]]) -> dict[str, float]:
        """Share of right objects, styles and backgrounds."""
        rows, columns = torch.tensor(triples).T
        truth = torch.stack([*self.numbers[rows].T, columns], 1)
        seen = torch.stack([out.argmax(1) for out in self(avg_pool2d(drawn, 2))], 1)
        return _shares(seen == truth)

    def self_check(self, pictures: Pictures, count: int = 500) -> dict[str, float]:
        """The classifier's own accuracy on unaltered references: the ceiling of its verdicts."""
        rng = random.Random(1)
        triples = [(rng.randrange(len(pictures.labels)), rng.randrange(len(BACKGROUND_NAMES))) for _ in range(count)]
        rows, columns = torch.tensor(triples).T
        return self.score(compose(pictures.rgba[rows], columns), triples)


def concept_numbers(pictures: Pictures) -> torch.Tensor:
    """(concept, style) as numbers, per picture of the list."""
    order = {name: n for n, name in enumerate(dict.fromkeys(c.name for c, _ in pictures.labels))}
    return torch.tensor([(order[c.name], STYLE_NAMES.index(s)) for c, s in pictures.labels])


def augment(pictures: torch.Tensor) -> torch.Tensor:
    """Shift by up to 6%, scale by up to 10%, change brightness and contrast a little, blur every other one, add noise."""
    count = len(pictures)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 + (torch.rand(count) - 0.5) * 0.2
    theta[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.24
    grid = affine_grid(theta, list(pictures.shape), align_corners=False)
    moved = grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    blurred = avg_pool2d(moved, 3, 1, 1, count_include_pad=False)
    moved = torch.where(torch.rand(count, 1, 1, 1) < 0.5, blurred, moved)
    contrast = 1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.2
    brightness = (torch.rand(count, 1, 1, 1) - 0.5) * 0.1
    return moved * contrast + brightness + torch.randn_like(moved) * 0.1 * torch.rand(count, 1, 1, 1)


def _shares(hits: torch.Tensor) -> dict[str, float]:
    return dict(zip(("object", "style", "background"), hits.float().mean(0).tolist(), strict=True))
