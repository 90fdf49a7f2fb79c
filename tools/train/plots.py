"""Loss curves as PNG, from the CSV files of a run.

    python tools/train/plots.py --state DIR --concepts 204
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from state import State

# File, column on x, column on y, label of y, logarithmic y.
CURVES = (
    ("vae", "seconds", "psnr", "PSNR of 64 px pieces, dB", False),
    ("decoder", "seconds", "psnr", "PSNR of 64 px pieces, dB", False),
    ("clip", "seconds", "loss", "contrastive loss", True),
    ("unet", "samples", "velocity_error", "mean squared velocity error", True),
    ("refit", "step", "loss", "contrastive loss", True),
)


def read_curve(path: Path, x: str, y: str) -> tuple[list[float], list[float]]:
    """Two columns of a log."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [float(row[x]) for row in rows], [float(row[y]) for row in rows]


def plot_curves(state: State) -> list[Path]:
    """Draw every curve whose log exists, into the run's folder."""
    drawn = []
    for stage, x, y, label, logarithmic in CURVES:
        folder = state.vae if stage in ("vae", "decoder") else state.run
        log = folder / f"{stage}.csv"
        if not log.exists():
            continue
        figure, axes = plt.subplots(figsize=(8, 4.5), dpi=100)
        axes.plot(*read_curve(log, x, y), linewidth=1)
        axes.set(xlabel=x, ylabel=label, title=stage)
        axes.grid(alpha=0.3)
        if logarithmic:
            axes.set_yscale("log")
        figure.tight_layout()
        drawn.append(state.run / f"{stage}.png")
        figure.savefig(drawn[-1])
        plt.close(figure)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    options = parser.parse_args()
    for path in plot_curves(State(options.state, options.concepts)):
        print(path)


if __name__ == "__main__":
    main()
