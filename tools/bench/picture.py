"""A whole picture beside ONNX Runtime: two processes that do the same from nothing to a PNG, in turn.

    python tools/bench/picture.py models/source models/emoji.tintype [--threads 2] [--rounds 10]

The peer is as lean as Python gets: onnxruntime, tokenizers and Pillow, the same f32 graphs, both prompts of guidance as one
batch, DDIM in numpy. Prints a Markdown table: seconds of the whole process and its peak of memory, and how close the two
pictures are, drawn from the same noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "tintype"
PROMPT = "a glossy strawberry on a blue background"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--noise", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--draw", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        draw(options)
        return
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as scratch:
        noise, ours, theirs = (Path(scratch) / name for name in ("noise.npy", "ours.png", "theirs.png"))
        config = json.loads((options.folder / "unet" / "config.json").read_text())
        size = (1, config["in_channels"], config["sample_size"], config["sample_size"])
        np.save(noise, np.random.default_rng(0).standard_normal(size).astype(np.float32))
        generate = [PROGRAM, "generate", PROMPT, "--model", options.model, "--latents", noise, "-o", ours]
        peer = [sys.executable, __file__, options.folder, options.model, "--noise", noise, "--draw", theirs]
        threads = ["--threads", str(options.threads)]
        commands = {"tintype": generate + threads, "ONNX Runtime, Python": peer + threads}
        runs = {name: [] for name in commands}
        for _ in range(options.rounds + 1):
            for name, command in commands.items():
                runs[name].append(timed(command))
        a, b = (np.asarray(Image.open(path), dtype=np.float64) for path in (ours, theirs))
        print(f"{options.threads} threads, {options.rounds} rounds, after one that is not counted\n")
        print("| program | s, median (least to most) | peak RSS MB |\n|---|---|---|")
        for name, all_runs in runs.items():
            seconds, peaks = zip(*all_runs[1:])
            spread = f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
            print(f"| {name} | {spread} | {statistics.median(peaks):.0f} |")
        print(f"\nPSNR of one picture against the other: {10 * np.log10(255**2 / ((a - b) ** 2).mean()):.1f} dB")


def timed(command: list) -> tuple[float, float]:
    """Seconds and peak megabytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        raise SystemExit(errors.decode())
    return seconds, usage.ru_maxrss / 1e3


def draw(options) -> None:
    """The peer."""
    import numpy as np
    import onnxruntime as ort
    from PIL import Image
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = options.folder
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads

    def session(component: str):
        return ort.InferenceSession(str(folder / component / "model.onnx"), settings, providers=["CPUExecutionProvider"])

    # CLIP's tokenizer, as far as plain words need it.
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (folder / "tokenizer" / "merges.txt").read_text().splitlines()[1:]]
    bpe = models.BPE(vocabulary, [pair for pair in merges if len(pair) == 2], end_of_word_suffix="</w>")
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    context = json.loads((folder / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    special = json.loads((folder / "tokenizer" / "special_tokens_map.json").read_text())
    token = lambda name: vocabulary[special[name] if isinstance(special[name], str) else special[name]["content"]]  # noqa: E731
    rows = []
    for text in ("", PROMPT):
        ids = [token("bos_token"), *tokenizer.encode(text).ids, token("eos_token")]
        rows.append(ids + [token("pad_token")] * (context - len(ids)))

    encoder = session("text_encoder")
    embedding = encoder.run(["last_hidden_state"], {"input_ids": np.array(rows, encoder_type(encoder))})[0]
    ours = json.loads((folder / "tintype.json").read_text())
    steps, guidance = ours["default_steps"], ours["default_guidance"]
    alphas = cumulative(json.loads((folder / "scheduler" / "scheduler_config.json").read_text()))
    timesteps = np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1
    unet, x = session("unet"), np.load(options.noise)
    width = json.loads((folder / "unet" / "config.json").read_text()).get("projection_class_embeddings_input_dim")
    no_picture = {"class_labels": np.zeros((2, width), np.float32)} if width else {}
    for at, t in enumerate(timesteps):
        inputs = {"sample": np.concatenate([x, x]), "timestep": timestep(unet, t), "encoder_hidden_states": embedding}
        inputs |= no_picture
        negative, positive = np.split(unet.run(None, inputs)[0], 2)
        v = negative + np.float32(guidance) * (positive - negative)
        a = alphas[t]
        before = alphas[timesteps[at + 1]] if at + 1 < steps else 1.0
        clean, noise = a**0.5 * x - (1 - a) ** 0.5 * v, a**0.5 * v + (1 - a) ** 0.5 * x
        x = (before**0.5 * clean + (1 - before) ** 0.5 * noise).astype(np.float32)
    factor = json.loads((folder / "vae_decoder" / "config.json").read_text())["scaling_factor"]
    pixels = session("vae_decoder").run(None, {"latent_sample": (x / factor).astype(np.float32)})[0]
    bytes_ = np.clip(np.round((pixels[0].transpose(1, 2, 0) / 2 + 0.5) * 255), 0, 255).astype(np.uint8)
    Image.fromarray(bytes_).save(options.draw)


def encoder_type(encoder):
    import numpy as np

    return np.int64 if "int64" in encoder.get_inputs()[0].type else np.int32


def timestep(unet, t):
    import numpy as np

    entry = next(entry for entry in unet.get_inputs() if entry.name == "timestep")
    kind = np.int64 if "int64" in entry.type else np.float32
    return np.array([t] * 2 if entry.shape and entry.shape[0] != 1 else [t], kind).reshape(-1 if entry.shape else ())


def cumulative(config: dict):
    """alphas_cumprod of scaled-linear betas, brought to zero SNR at the end."""
    import numpy as np

    assert config["beta_schedule"] == "scaled_linear" and config["rescale_betas_zero_snr"]
    betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, config["num_train_timesteps"]) ** 2
    root = np.cumprod(1 - betas) ** 0.5
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2


if __name__ == "__main__":
    main()
