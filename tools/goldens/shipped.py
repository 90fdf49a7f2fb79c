"""What diffusers draws with the model that ships: tests/data/shipped.json and shipped.npz.

    python tools/goldens/shipped.py --state DIR

`DIR` is the state folder of a finished training run (tools/train). The networks are those that `tools/export` wrote to
`models/source`, their weights rounded to float16 in the same way, in diffusers' own pipeline for Stable Diffusion.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from pipeline import draw_runs
from provenance import DATA, provenance, write_json

TOOLS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOOLS / "train"), str(TOOLS / "export")]
from half import round_parameters  # noqa: E402
from models import WIDTH, make_scheduler  # noqa: E402
from networks import load_networks  # noqa: E402
from state import State  # noqa: E402

SIZE = {"eta": 0.0, "width": 128, "height": 128}
RUNS = [
    {"prompt": "a glossy strawberry on a blue background", "negative": "", "seed": 42, "steps": 8, "guidance": 2.0, **SIZE},
    {"prompt": "분홍색 배경의 만화풍 판다", "negative": "", "seed": 7, "steps": 8, "guidance": 2.0, **SIZE},
    {"prompt": "a cartoon rocket on a yellow background", "negative": "red", "seed": 3, "steps": 4, "guidance": 3.0, **SIZE},
    {"prompt": "", "negative": "", "seed": 2**32 + 5, "steps": 8, "guidance": 1.0, **SIZE},
]


def without_picture(_unet, given, named):
    """Adds to a call of the UNet the zeros for the picture's embedding which mean that there is none."""
    return given, {**named, "class_labels": torch.zeros(len(given[0]), WIDTH)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--unfinished", action="store_true", help="take the newest checkpoint of a run still in training")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    state = State(options.state, options.concepts)
    networks = load_networks(state, options.unfinished)
    text = CLIPTextModel(networks.text.config).eval()
    text.load_state_dict(networks.text.text_model.state_dict())
    for network in (text, networks.unet, networks.vae):
        round_parameters(network)
    networks.vae.register_to_config(scaling_factor=networks.scaling_factor)
    pipeline = StableDiffusionPipeline(
        networks.vae, text, CLIPTokenizer.from_pretrained(state.tokenizer), networks.unet, make_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    networks.unet.register_forward_pre_hook(without_picture, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    np.savez_compressed(DATA / "shipped.npz", **draw_runs(pipeline, RUNS))
    write_json("shipped.json", {**provenance("shipped.py", "torch", "diffusers", "transformers", "numpy"), "runs": RUNS})


if __name__ == "__main__":
    main()
