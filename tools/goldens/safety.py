"""A small safety checker with random weights, and what diffusers' finds in pictures: tests/data/safety_checker/.

    python tools/goldens/safety.py

safety_checker/         the folder that tools/export/safety_checker.py makes
found.json              for each picture, with special concepts and without: the cosines, and whether it is blocked
"""

import shutil
import sys

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import safety_checker
from PIL import Image, ImageOps
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

from pipeline import initialise
from provenance import DATA, provenance, write_json

sys.path.insert(0, str(DATA.parents[1] / "tools" / "export"))
import safety_checker as exporter  # noqa: E402

OUT = DATA / "safety_checker"
SIDE = 24
PICTURES = ["wide.png", "tall.png", "grey.png", "palette.png", "alpha.png", "lossless.webp", "small.bmp", "deep.png"]
CHECKER = safety_checker.StableDiffusionSafetyChecker


def build() -> tuple[CHECKER, CLIPImageProcessor]:
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**vision, image_size=SIDE, patch_size=8, projection_dim=12)
    config = CLIPConfig(vision_config=vision.to_dict(), text_config=CLIPTextConfig(hidden_size=16).to_dict(), projection_dim=12)
    torch.manual_seed(21)
    generator = torch.Generator().manual_seed(21)
    checker = initialise(CHECKER(config), generator)
    for embeddings in (checker.concept_embeds, checker.special_care_embeds):
        embeddings.normal_(0, 2, generator=generator)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return checker, processor


def main() -> None:
    torch.set_grad_enabled(False)
    shutil.rmtree(OUT, ignore_errors=True)
    checker, processor = build()
    pictures = [ImageOps.exif_transpose(Image.open(DATA / "pictures" / name)) for name in PICTURES[:-1]]
    # Pillow would cut 16 bits off; a test of ours reads them as this.
    pictures.append(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    inputs = [processor(picture.convert("RGB"), return_tensors="pt").pixel_values for picture in pictures]
    embeds = torch.cat([exporter.Embeds(checker)(pixels) for pixels in inputs])
    cosines = safety_checker.cosine_distance(embeds, checker.concept_embeds)
    special = safety_checker.cosine_distance(embeds, checker.special_care_embeds)
    # Most concepts are far from every picture; concept 0 finds some, 1 finds one more where a special one is near.
    checker.concept_embeds_weights.copy_(cosines.max(0).values + 0.5)
    checker.concept_embeds_weights[0] = cosines[:, 0].sort().values[5:7].mean()
    checker.special_care_embeds_weights.copy_(special.sort(0).values[3:5].mean(0))
    near = (special > checker.special_care_embeds_weights + 0.02).any(1) & (cosines[:, 0] < checker.concept_embeds_weights[0])
    at = int(torch.where(near, cosines[:, 1], -torch.inf).argmax())
    checker.concept_embeds_weights[1] = cosines[at, 1] + 0.004
    exporter.export(checker, processor, OUT / "safety_checker")
    found = []
    for name, pixels, row, special_row in zip(PICTURES, inputs, cosines, special):
        _, blocked = checker(pixels, np.zeros((1, 1, 1, 3), np.float32))
        found.append({"file": name, "blocked": bool(blocked[0]), "cosines": row.tolist(), "special": special_row.tolist()})
    made = provenance("safety.py", "torch", "diffusers", "transformers", "pillow", "numpy")
    assert len({entry["blocked"] for entry in found}) == 2
    write_json("safety_checker/found.json", {**made, "found": found})


if __name__ == "__main__":
    main()
