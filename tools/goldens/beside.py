"""What torch and diffusers draw with the models that ship beside `emoji.tintype`: tests/data/beside.json and beside.npz.

    python tools/goldens/beside.py --state DIR

`DIR` is the state folder of finished training runs (tools/train). A prompt goes through the prior to a picture, and that picture
through CLIP's image processor and the image encoder to another; a class is drawn in pixels. Weights are float32.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPImageProcessor

from provenance import DATA, provenance, write_json

TOOLS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOOLS / "train")]
from clip import condition  # noqa: E402
from concepts import load_concepts  # noqa: E402
from embeddings import imagine, paint  # noqa: E402
from models import ImageTokens, make_image_encoder, make_prior  # noqa: E402
from networks import load_networks  # noqa: E402
from pixel_unet import draw, load_pixel_unet  # noqa: E402
from state import State, load_weights  # noqa: E402

PROMPT = {"prompt": "a cartoon panda on a pink background", "seed": 7}
VARIATION = {"seed": 3}
PIXELS = {"class": "panda", "seed": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--concepts", type=int, default=204)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    state = State(options.state, options.concepts)
    networks = load_networks(state, unfinished=False)
    prior = load_weights(make_prior(), state.run / "prior.safetensors").eval()
    tokens = load_weights(ImageTokens(), state.run / "tokens.safetensors").eval()
    tower = load_weights(make_image_encoder(), state.run / "vision.safetensors").eval()
    half = [0.5, 0.5, 0.5]
    processor = CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=half, image_std=half,
    )

    generator = torch.Generator().manual_seed(PROMPT["seed"])
    drawn = paint(networks, tokens, imagine(networks, prior, [PROMPT["prompt"]], generator=generator), generator=generator)
    pictures = [((drawn[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()]
    seen = processor(pictures[0], return_tensors="pt").pixel_values
    generator = torch.Generator().manual_seed(VARIATION["seed"])
    drawn = paint(networks, tokens, condition(tower(seen).image_embeds), generator=generator)
    pictures.append(((drawn[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())

    names = [concept.name for concept in load_concepts(options.concepts)]
    unet, _ = load_pixel_unet(state, len(names) + 1, unfinished=False)
    asked = torch.tensor([names.index(PIXELS["class"])])
    drawn = draw(unet, asked, len(names), seed=PIXELS["seed"])
    pictures.append(((drawn[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())

    np.savez_compressed(DATA / "beside.npz", prompt=pictures[0], variation=pictures[1], pixels=pictures[2])
    runs = {"prompt": PROMPT, "variation": VARIATION, "pixels": PIXELS}
    write_json("beside.json", {**provenance("beside.py", "torch", "diffusers", "transformers", "numpy"), **runs})


if __name__ == "__main__":
    main()
