"""What the diffusion stages have in common: a schedule that counts samples, a moving average, checkpoints, a log.

The rate rises over the first steps and falls over the last part of the run. As it depends on the samples seen alone, a run
can be stopped, resumed, and given a longer total.
"""

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from state import Checkpoint, LossLog, StopRequest
from workers import average_gradients

BATCH = 32
WARM_UP_STEPS = 60
DECAY_FROM = 0.5
RATE_FLOOR = 0.03
WEIGHT_DECAY = 1e-2
EMA_DECAY = 0.9985
CHECKPOINT_SECONDS = 180
LOG_STEPS = 50


class Trainee:
    """Networks, their moving averages and the optimiser: all that a checkpoint holds."""

    def __init__(self, rates: dict[str, float], batch: int = BATCH, **networks: torch.nn.Module) -> None:
        """`rates`: the full learning rate of each network; a step sees `batch` samples."""
        self.networks, self.batch = networks, batch
        self.averages = {name: copy.deepcopy(network).eval() for name, network in networks.items()}
        self.trained = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in network.parameters() if p.requires_grad], "base": rates[name]}
            for name, network in networks.items()
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)
        self.step, self.seconds = 0, 0.0

    @property
    def samples(self) -> int:
        """Samples seen."""
        return self.step * self.batch

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
        for name, network in self.networks.items():
            torch._foreach_lerp_(list(self.averages[name].parameters()), list(network.parameters()), 1 - decay)

    def _modules(self) -> dict:
        averages = {f"ema_{name}": average for name, average in self.averages.items()}
        return {**self.networks, **averages, "optimizer": self.optimizer}

    def state_dict(self) -> dict:
        weights = {name: module.state_dict() for name, module in self._modules().items()}
        return weights | {"step": self.step, "samples": self.samples, "seconds": self.seconds}

    def load_state_dict(self, saved: dict) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(saved[name])
        self.step, self.seconds = saved["step"], saved["seconds"]


@dataclass
class Stage:
    """A stage of the training: where it keeps its files, what it logs, when it ends."""

    folder: Path
    name: str
    means: tuple[str, ...]
    total: int

    def train(self, trainee: Trainee, losses: Callable, rank: int, workers: int) -> bool:
        """Learn until `total` samples were seen, resuming; False when it was stopped before.

        `losses(rng)` draws this process's part of a batch; the loss of it, and the numbers to log in the order of `means`.
        """
        stop, checkpoint = StopRequest(), Checkpoint(self.folder, self.name)
        if saved := checkpoint.load():
            trainee.load_state_dict(saved)
        seed = trainee.step * workers + rank
        rng = random.Random(seed)
        torch.manual_seed(seed)
        diary = Diary(self, trainee) if rank == 0 else None
        stopped, last_save, last_step = False, time.time(), time.time()
        while trainee.samples < self.total and not stopped:
            loss, notes = losses(rng)
            loss.backward()
            means = average_gradients(trainee.trained, *notes, float(bool(stop)))
            trainee.learn(trainee.samples / self.total)
            stopped, now = means[-1] > 0, time.time()
            trainee.seconds, last_step = trainee.seconds + now - last_step, now
            if diary:
                diary.note(means[:-1])
                if stopped or now - last_save > CHECKPOINT_SECONDS:
                    checkpoint.save(trainee.state_dict())
                    last_save = now
        if diary and not stopped:
            checkpoint.save(trainee.state_dict())
        return not stopped


class Diary:
    """Means over `LOG_STEPS` steps, into the stage's CSV."""

    def __init__(self, stage: Stage, trainee: Trainee) -> None:
        self.stage, self.trainee, self.notes = stage, trainee, []
        columns = ["step", "samples", "seconds", *stage.means, "rate"]
        self.log = LossLog(stage.folder / f"{stage.name}.csv", columns)
        print(f"{stage.name}: {trainee.samples} of {stage.total} samples seen", flush=True)

    def note(self, values: list[float]) -> None:
        """One step's values, in the order of the stage's means."""
        self.notes.append(values)
        trainee = self.trainee
        if trainee.step % LOG_STEPS:
            return
        means = torch.tensor(self.notes).mean(0).tolist()
        place = {"step": trainee.step, "samples": trainee.samples, "seconds": trainee.seconds}
        rate = trainee.optimizer.param_groups[0]["lr"]
        self.log.add(self.stage.name, **place, **dict(zip(self.stage.means, means, strict=True)), rate=rate)
        self.notes = []
