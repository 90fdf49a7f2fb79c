"""The networks of diffusers that work on pixels -> the ONNX graphs that `tintype import` reads.

    python tools/export/pixels.py MODEL exported/

MODEL is the folder of a pipeline with a UNet2DModel in it: a DDPMPipeline or DDIMPipeline, or the one of Karlo, of which it takes the
networks that make a picture larger. What is written, for each of them:

    unet/model.onnx             sample, timestep, class_labels if the model has classes -> out_sample
    unet/config.json            as it was
    unet/reference.npz          inputs and torch's output for them, for `tintype selftest`
    scheduler/ model_index.json tintype.json      as they were
"""

import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from diffusers import UNet2DModel

from shorten import shorten

OPSET = 18
MAPS = {0: "batch_size", 2: "height", 3: "width"}
NETWORKS = ("unet", "super_res_first", "super_res_last")
COPIED = (
    "model_index.json", "tintype.json", "scheduler/scheduler_config.json", "super_res_scheduler/scheduler_config.json",
)


class Unet(torch.nn.Module):
    def __init__(self, model: UNet2DModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, class_labels=None):
        return self.model(sample, timestep, class_labels, return_dict=False)[0]


def example(model: UNet2DModel) -> dict[str, torch.Tensor]:
    """Inputs for one picture: of a few different values, so that a file of them is small."""
    config = model.config
    size = config.sample_size if isinstance(config.sample_size, (list, tuple)) else [config.sample_size] * 2
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, config.in_channels, *size, generator=generator).mul(2).round() / 2
    inputs = {"sample": sample, "timestep": torch.tensor([501])}
    if config.class_embed_type == "identity":
        width = config.time_embedding_dim or 4 * config.block_out_channels[0]
        inputs["class_labels"] = torch.randn(1, width, generator=generator).mul(2).round() / 2
    elif config.class_embed_type == "timestep" or config.num_class_embeds:
        inputs["class_labels"] = torch.tensor([1])
    return inputs


def export(model: UNet2DModel, folder: Path) -> None:
    """Write the graph of a network, its configuration and a reference."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = example(model.eval())
    axes = {name: MAPS if x.dim() == 4 else {0: "batch_size"} for name, x in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Unet(model), tuple(inputs.values()), str(folder / "model.onnx"), opset_version=OPSET, dynamo=False,
            input_names=list(inputs), output_names=["out_sample"],
            dynamic_axes=axes | {"timestep": {0: "steps"}, "out_sample": MAPS},
        )
    graph = onnx.load(folder / "model.onnx")
    shorten(graph.graph)
    onnx.save(graph, folder / "model.onnx")
    model.save_config(folder)
    arrays = {**inputs, "out_sample": Unet(model)(*inputs.values())}
    np.savez_compressed(folder / "reference.npz", **{name: x.numpy() for name, x in arrays.items()})


def main() -> None:
    model, out = map(Path, sys.argv[1:])
    torch.set_grad_enabled(False)
    for name in NETWORKS:
        if (model / name).exists():
            export(UNet2DModel.from_pretrained(model / name), out / name)
    for name in COPIED:
        if (model / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model / name, out / name)


if __name__ == "__main__":
    main()
