"""Train the model that ships, from the npm packages to the weights, in one command.

    python tools/train/train.py --state DIR --concepts 204

Every stage is skipped when its result is there and resumed when its checkpoint is. SIGTERM saves and stops.
"""

import argparse
import sys
from pathlib import Path

from state import State, tune_runtime

CORES = 2


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = Path.home() / ".cache" / "tintype-train"
    parser.add_argument("--state", type=Path, default=home, help="where everything is kept")
    parser.add_argument("--concepts", type=int, default=204, help="how many concepts of the list (12 is the small run)")
    parser.add_argument("--cores", type=int, default=CORES, help="threads of a stage, or processes of the UNet's")
    parser.add_argument("--init", type=Path, help="start the autoencoder from these weights")
    parser.add_argument("--vae-minutes", type=float, default=60)
    parser.add_argument("--decoder-minutes", type=float, default=0, help="train the decoder on, encoder frozen, at the end")
    parser.add_argument("--clip-minutes", type=float, default=15)
    parser.add_argument("--unet-samples", type=int, help="pictures the UNet sees in all (default 450 for each picture)")
    parser.add_argument("--preview", action="store_true", help="only draw a sheet from the UNet's newest checkpoint")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    tune_runtime()
    import torch

    from clip import train_clip
    from data import fetch, render
    from plots import plot_curves
    from refit import refit_text
    from tokenizer import train_tokenizer
    from unet import preview, train_unet
    from vae import polish_decoder, train_vae

    torch.set_num_threads(options.cores)
    state = State(options.state, options.concepts)
    if options.preview:
        preview(state)
        return 0
    fetch(state)
    render(state)
    train_tokenizer(state)
    stages = (
        lambda: train_vae(state, options.vae_minutes, options.init),
        lambda: train_clip(state, options.clip_minutes),
        lambda: train_unet(state, options.unet_samples, options.cores),
        lambda: polish_decoder(state, options.decoder_minutes),
    )
    if not all(stage() for stage in stages):
        print("stopped; the same command goes on from here", flush=True)
        return 0
    refit_text(state)
    plot_curves(state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
