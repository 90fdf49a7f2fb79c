"""A run in training as one small file, to go on with on another machine.

    python tools/train/moving.py pack --state DIR --file FILE
    python tools/train/moving.py unpack --state DIR --file FILE

The file holds the finished image tower and the moving averages of UNet and text encoder: matrices as whole numbers with a
scale per row, everything else in float16. The tower, which is finished, takes 127 levels a side; the others 31: that is 3%
off, which training on makes good at once, and compresses to two thirds. Of the optimiser nothing is kept, it finds its way back within some hundred steps.
The autoencoder and the data are not in it: `train.py` makes them again, or takes the autoencoder from `--init`.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models import make_image_encoder
from state import Checkpoint, State, load_weights, save_weights
from tokenizer import Tokenizer, train_tokenizer
from unet import BATCH, Trainee

SCALE = ".scale"
FINISHED, UNFINISHED = 127, 31


def quantised(name: str, tensor: torch.Tensor, levels: int) -> dict[str, torch.Tensor]:
    """A tensor under `name`, as whole numbers and a scale per row if it is a matrix, as float16 if not."""
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return {name: tensor.half() if tensor.is_floating_point() else tensor.clone()}
    scale = tensor.flatten(1).abs().amax(1).clamp(min=1e-12) / levels
    rows = (tensor / scale.view(-1, *[1] * (tensor.dim() - 1))).round().to(torch.int8)
    return {name: rows, name + SCALE: scale}


def restored(file, prefix: str) -> dict[str, torch.Tensor]:
    """The state dictionary that was packed under `prefix`."""
    weights = {}
    for key in file.keys():
        if not key.startswith(prefix) or key.endswith(SCALE):
            continue
        tensor = file.get_tensor(key)
        if tensor.dtype == torch.int8:
            tensor = tensor.float() * file.get_tensor(key + SCALE).view(-1, *[1] * (tensor.dim() - 1))
        weights[key.removeprefix(prefix)] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def pack(state: State, target: Path) -> None:
    """Write the run's networks to `target`."""
    saved = torch.load(state.run / "unet.checkpoint", weights_only=True)
    image = load_weights(make_image_encoder(), state.run / "image_encoder.safetensors")
    networks = {"image.": image.state_dict(), "unet.": saved["ema_unet"], "text.": saved["ema_text"]}
    tensors = {}
    for prefix, weights in networks.items():
        for name, tensor in weights.items():
            tensors |= quantised(prefix + name, tensor, FINISHED if prefix == "image." else UNFINISHED)
    clip = torch.load(state.run / "clip.done")
    about = {"samples": saved["samples"], "seconds": saved["seconds"], "logit_scale": clip["logit_scale"]}
    save_file(tensors, target, {key: str(value) for key, value in about.items()})
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, {saved['samples']} samples seen")


def unpack(state: State, source: Path) -> None:
    """Make a state folder in which `train.py` goes on."""
    train_tokenizer(state)
    with safe_open(source, "pt") as file:
        about = {key: float(value) for key, value in file.metadata().items()}
        image = make_image_encoder()
        image.load_state_dict(restored(file, "image."))
        unet, text = restored(file, "unet."), restored(file, "text.")
    save_weights(image, state.run / "image_encoder.safetensors")
    torch.save({"logit_scale": about["logit_scale"], "step": 0, "seconds": 0.0}, state.run / "clip.done")
    trainee = Trainee(len(Tokenizer(state.tokenizer)), text)
    for network in (trainee.unet, trainee.ema_unet):
        network.load_state_dict(unet)
    save_weights(trainee.text, state.run / "text_encoder.clip.safetensors")
    trainee.step, trainee.seconds = int(about["samples"]) // BATCH, about["seconds"]
    Checkpoint(state.run, "unet").save(trainee.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    state = State(options.state, options.concepts)
    (pack if options.action == "pack" else unpack)(state, options.file)


if __name__ == "__main__":
    main()
