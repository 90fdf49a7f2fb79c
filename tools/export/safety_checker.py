"""Stable Diffusion's safety checker -> the folder safety_checker/ that `tintype import` reads.

    python tools/export/safety_checker.py MODEL exported/safety_checker

MODEL is a pipeline's folder with safety_checker/ and feature_extractor/ in it, as diffusers saves it. What is written:

    model.onnx                  pixel_values -> image_embeds: the image encoder and its projection
    config.json                 that of the image encoder
    preprocessor_config.json    how pictures are prepared
    concepts.json               the concepts, the special ones, and their thresholds, by the names of the weights
"""

import json
import sys
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPImageProcessor

CONCEPTS = ["concept_embeds", "concept_embeds_weights", "special_care_embeds", "special_care_embeds_weights"]


class Embeds(torch.nn.Module):
    def __init__(self, checker):
        super().__init__()
        self.checker = checker

    def forward(self, pixel_values):
        return self.checker.visual_projection(self.checker.vision_model(pixel_values)[1])


def export(checker: StableDiffusionSafetyChecker, processor: CLIPImageProcessor, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vision = checker.config.vision_config
    vision = vision if isinstance(vision, dict) else vision.to_dict()
    side = vision["image_size"]
    torch.onnx.export(
        Embeds(checker.eval()), torch.zeros(1, 3, side, side), str(folder / "model.onnx"), opset_version=17, dynamo=False,
        input_names=["pixel_values"], output_names=["image_embeds"],
        dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}},
    )
    config = {"architectures": ["StableDiffusionSafetyChecker"], "image_size": side, "num_channels": 3}
    config |= {key: vision[key] for key in ("hidden_size", "num_hidden_layers", "patch_size")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor.save_pretrained(folder)
    concepts = {name: getattr(checker, name).detach().float().tolist() for name in CONCEPTS}
    (folder / "concepts.json").write_text(json.dumps(concepts) + "\n")


def main() -> None:
    model, out = map(Path, sys.argv[1:])
    torch.set_grad_enabled(False)
    checker = StableDiffusionSafetyChecker.from_pretrained(model / "safety_checker")
    export(checker, CLIPImageProcessor.from_pretrained(model / "feature_extractor"), out)


if __name__ == "__main__":
    main()
