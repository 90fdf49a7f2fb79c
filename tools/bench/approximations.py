"""What approximations of the shipped model save, and what they do to its pictures.

    python3 tools/bench/approximations.py [--program target/release/tintype] [--repeat 3]

Draws eight prompts in eight steps: with guidance in all steps, and with it in a part of them. Variants take turns, so that
what disturbs the machine disturbs all. Prints a Markdown table: the median over prompts of the seconds that denoising takes
(the least of the repeats), their ratio to the exact ones, and how near the pictures are to the exact ones. Needs numpy and
Pillow. Nothing else should run meanwhile.
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
STEPS = 8
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
INTERVALS = ["0:1", "0.2:1", "0.25:0.75", "0:0.5", "0:0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "release" / "tintype")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    seconds = {interval: [] for interval in INTERVALS}
    psnr = {interval: [] for interval in INTERVALS}
    for seed, prompt in enumerate(PROMPTS):
        runs = [{interval: draw(options.program, prompt, seed, interval) for interval in INTERVALS} for _ in range(options.repeat)]
        for interval in INTERVALS:
            seconds[interval].append(min(run[interval][0] for run in runs))
            psnr[interval].append(decibel(runs[0][interval][1], runs[0]["0:1"][1]))
    exact = statistics.median(seconds["0:1"])
    print("| `--guidance-interval` | denoising s, median | of all steps guided | PSNR, median (least to most) |")
    print("|---|---|---|---|")
    for interval in INTERVALS:
        taken, near = statistics.median(seconds[interval]), psnr[interval]
        far = "-" if interval == "0:1" else f"{statistics.median(near):.1f} dB ({min(near):.1f} to {max(near):.1f})"
        print(f"| {interval} | {taken:.3f} | {taken / exact:.2f} | {far} |")


def draw(program: Path, prompt: str, seed: int, interval: str) -> tuple[float, np.ndarray]:
    """Seconds of denoising, and the picture."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "out.png"
        command = [program, "generate", prompt, "--model", ROOT / "models" / "emoji.tintype", "-o", picture, "--json"]
        command += ["--seed", str(seed), "--steps", str(STEPS), "--guidance-interval", interval]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return report["seconds"]["denoise"], np.asarray(Image.open(picture).convert("RGB"), dtype=np.float64)


def decibel(picture: np.ndarray, exact: np.ndarray) -> float:
    error = np.mean((picture - exact) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


if __name__ == "__main__":
    main()
