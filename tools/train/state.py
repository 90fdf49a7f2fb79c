"""Where a training run keeps its files.

Everything that is fetched, rendered or trained lies below one state folder, outside the checkout:

    npm/          the icon and emoji packages
    icons.npz     every icon used, as 128 px RGBA
    tokenizer/    vocab.json, merges.txt, ... (trained on the captions of the whole concept list)
    vae/          the autoencoder, shared by all runs
    run-0204/     one run: latents, CLIP, UNet, figures, logs (the number is --concepts)
"""

import csv
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# glibc hands large blocks back to the kernel after every operation unless told otherwise; keeping them saves a quarter
# of the time of a training step on a CPU. Threads that wait for one another sleep, so that other work can use the core.
RUNTIME_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "200000000",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def tune_runtime() -> None:
    """Start this very command again with `RUNTIME_SETTINGS`, unless they are set: they are read at start only."""
    if all(os.environ.get(key) == value for key, value in RUNTIME_SETTINGS.items()):
        return
    os.environ.update(RUNTIME_SETTINGS)
    os.execv(sys.executable, [sys.executable, *sys.argv])


@dataclass
class State:
    """The state folder and the run inside it."""

    root: Path
    concepts: int

    @property
    def npm(self) -> Path:
        return self._folder(self.root / "npm")

    @property
    def icons(self) -> Path:
        return self.root / "icons.npz"

    @property
    def tokenizer(self) -> Path:
        return self._folder(self.root / "tokenizer")

    @property
    def vae(self) -> Path:
        return self._folder(self.root / "vae")

    @property
    def run(self) -> Path:
        return self._folder(self.root / f"run-{self.concepts:04d}")

    @staticmethod
    def _folder(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        return path


class StopRequest:
    """True once SIGTERM or SIGINT has arrived: the stage in progress saves and stops."""

    def __init__(self) -> None:
        self.raised = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._raise)

    def _raise(self, _number, _frame) -> None:
        self.raised = True

    def __bool__(self) -> bool:
        return self.raised


class Checkpoint:
    """The last two checkpoints of a stage, written so that a crash never leaves half a file."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.newest = folder / f"{stage}.checkpoint"
        self.previous = folder / f"{stage}.checkpoint.previous"

    def save(self, content: dict) -> None:
        """Write `content` with the generator state of torch beside it."""
        temporary = self.newest.with_suffix(".part")
        torch.save(content | {"torch_rng": torch.get_rng_state()}, temporary)
        if self.newest.exists():
            os.replace(self.newest, self.previous)
        os.replace(temporary, self.newest)

    def load(self) -> dict | None:
        """The newest checkpoint that can be read, or None."""
        for path in (self.newest, self.previous):
            if path.exists():
                try:
                    content = torch.load(path, map_location="cpu", weights_only=True)
                except (RuntimeError, EOFError, OSError) as error:
                    print(f"cannot read {path.name}: {error}", file=sys.stderr)
                    continue
                torch.set_rng_state(content["torch_rng"])
                return content
        return None


class LossLog:
    """A CSV of one stage's curve: one row per entry, appended over restarts."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns
        if not path.exists():
            self._append(columns)

    def add(self, stage: str, **values: float) -> None:
        row = [values[name] for name in self.columns]
        self._append([f"{value:.6g}" for value in row])
        print(stage, " ".join(f"{name} {value:.5g}" for name, value in values.items()), flush=True)

    def _append(self, row: list[str]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the model's weights as safetensors, atomically."""
    temporary = path.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    os.replace(temporary, path)


def load_weights(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Read weights written by `save_weights`; every name must match."""
    model.load_state_dict(load_file(path))
    return model
