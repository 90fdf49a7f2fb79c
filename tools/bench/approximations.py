"""What approximations save, and what they do to pictures.

    python3 tools/bench/approximations.py [--program target/release/tintype] [--model FILE] [--prompts N] [--steps N] [--repeat N] [-- FLAGS]

Draws prompts with each value of each approximating flag, and the FLAGS given. The values of a flag take turns, so that what
disturbs the machine disturbs all; the first of them is exact. Prints a Markdown table for each flag: the median over prompts of the
seconds that denoising takes (the least of the repeats), with the fastest and the slowest prompt, their ratio to the exact ones, and
how near the pictures are to the exact ones. Needs numpy and Pillow. Nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = [
    "a glossy strawberry on a blue background",
    "a cartoon cat",
    "a retro red car on a white background",
    "a cartoon tree on a green background",
    "a glossy pizza on a yellow background",
    "a retro house",
    "a glossy rocket on a black background",
    "a cartoon fish on a pink background",
]
VALUES = {
    "--guidance-interval": ["0:1", "0.2:1", "0.25:0.75", "0:0.5", "0:0"],
    "--feature-cache": ["1", "2", "3", "4", "5"],
    "--token-merging": ["0", "0.25", "0.5", "0.75"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "tintype")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "emoji.tintype")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--flag", choices=VALUES, help="this one alone")
    parser.add_argument("flags", nargs="*", metavar="FLAGS", help="what else generate is given, behind --")
    options = parser.parse_args()
    shared = ["--model", options.model, "--steps", str(options.steps), *options.flags]
    for flag in [options.flag] if options.flag else VALUES:
        compare(options, flag, shared)


def compare(options: argparse.Namespace, flag: str, shared: list) -> None:
    """Prints the table of one flag."""
    values = VALUES[flag]
    seconds, psnr = {value: [] for value in values}, {value: [] for value in values}
    for seed, prompt in enumerate(PROMPTS[: options.prompts]):
        command = [options.program, "generate", prompt, "--seed", str(seed), *shared]
        runs = [{value: draw([*command, flag, value]) for value in values} for _ in range(options.repeat)]
        for value in values:
            seconds[value].append(min(run[value][0] for run in runs))
            psnr[value].append(decibel(runs[0][value][1], runs[0][values[0]][1]))
    exact = statistics.median(seconds[values[0]])
    print(f"\n| `{flag}` | denoising s, median (least to most) | of exact | PSNR, median (least to most) |")
    print("|---|---|---|---|")
    for value in values:
        taken, near = seconds[value], psnr[value]
        far = "-" if value == values[0] else f"{statistics.median(near):.1f} dB ({min(near):.1f} to {max(near):.1f})"
        median = statistics.median(taken)
        print(f"| {value} | {median:.3f} ({min(taken):.3f} to {max(taken):.3f}) | {median / exact:.2f} | {far} |")


def draw(command: list) -> tuple[float, np.ndarray]:
    """Seconds of denoising, and the picture."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "out.png"
        command = [*command, "-o", picture, "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return report["seconds"]["denoise"], np.asarray(Image.open(picture).convert("RGB"), dtype=np.float64)


def decibel(picture: np.ndarray, exact: np.ndarray) -> float:
    error = np.mean((picture - exact) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


if __name__ == "__main__":
    main()
