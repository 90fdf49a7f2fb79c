"""Write a trained run as an ONNX pipeline: the folder that optimum writes for a Stable Diffusion model.

    python tools/export/export.py --state DIR --concepts 204 --out FOLDER [--weights f16|f32]

    text_encoder/   input_ids -> last_hidden_state, pooler_output, text_embeds
    unet/           sample, timestep, encoder_hidden_states, class_labels -> out_sample
    vae_encoder/    sample -> latent_parameters (mean and log variance)
    vae_decoder/    latent_sample -> sample
    image_encoder/  pixel_values -> image_embeds
    scheduler/ tokenizer/ model_index.json

With `--weights f16` every parameter is rounded to half precision and stored as float16 with a Cast to float behind it:
half the size, and still a plain float graph to whoever reads it. Tensors that float16 does not hold exactly (the
timestep frequencies) stay as they are. Each graph is compared with torch in onnxruntime before the script ends.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from components import Component, components
from half import round_parameters, store_half
from models import LATENT_SIZE, make_scheduler
from shorten import shorten
from state import State

OPSET = 18
# Largest difference to torch, relative to the largest value of the output; two float32 runtimes differ by rounding only.
TOLERANCE = 1e-4
# Height of the latents in a reference, in cells: as little as the component takes, the model carries it.
REFERENCE_HEIGHTS = {"unet": 4}
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


def export_graph(component: Component, path: Path, weights: str) -> None:
    """Trace the component and write its graph."""
    torch.manual_seed(0)
    example = component.inputs(2, LATENT_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            component.module,
            tuple(example.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=component.outputs,
            dynamic_axes=component.axes,
        )
    model = onnx.load(path)
    shorten(model.graph)
    if weights == "f16":
        store_half(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@torch.no_grad()
def check_graph(component: Component, path: Path) -> float:
    """Largest relative difference to torch over batch sizes and heights that the trace did not see.

    # Raises
    ValueError: an output differs by more than `TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, size in ((1, LATENT_SIZE), (3, LATENT_SIZE), (2, LATENT_SIZE + 8)):
        torch.manual_seed(batch)
        inputs = component.inputs(batch, size)
        expected = component.module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        got = session.run(component.outputs, {name: value.numpy() for name, value in inputs.items()})
        for name, theirs, ours in zip(component.outputs, expected, got, strict=True):
            difference = float(np.abs(theirs.numpy() - ours).max() / np.abs(theirs.numpy()).max())
            if not difference <= TOLERANCE:
                raise ValueError(f"{component.name}: {name} differs from torch by {difference:.2e} at batch {batch}")
            worst = max(worst, difference)
    return worst


@torch.no_grad()
def write_reference(component: Component, path: Path) -> None:
    """Inputs and torch's outputs for them, which the imported model carries for `tintype selftest`."""
    torch.manual_seed(1)
    # Few different values, so that the file is small.
    coarse = {name: value if value.dtype == torch.int64 else value.mul(2).round() / 2
              for name, value in component.inputs(1, REFERENCE_HEIGHTS.get(component.name, 1)).items()}
    outputs = component.module(*coarse.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = coarse | dict(zip(component.outputs, outputs, strict=True))
    np.savez_compressed(path, **{name: value.numpy() for name, value in arrays.items()})


def write_image_processor(folder: Path) -> None:
    """How a picture is made ready for the image encoder: 64 px, in [-1, 1]."""
    half = [0.5, 0.5, 0.5]
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 64},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 64, "width": 64},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
    }
    write_json(folder / "preprocessor_config.json", processor)


def write_index(out: Path, state: State) -> None:
    """Scheduler, tokenizer, image processor and the index of the pipeline."""
    make_scheduler().save_pretrained(out / "scheduler")
    (out / "tokenizer").mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(state.tokenizer / name, out / "tokenizer" / name)
    write_image_processor(out / "image_encoder")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(out / "model_index.json", index)


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", choices=("f16", "f32"), default="f16")
    parser.add_argument("--unfinished", action="store_true", help="export the newest checkpoint of a run still in training")
    options = parser.parse_args()
    state = State(options.state, options.concepts)
    for component in components(state, options.unfinished):
        folder = options.out / component.name
        folder.mkdir(parents=True, exist_ok=True)
        if options.weights == "f16":
            round_parameters(component.module)
        export_graph(component, folder / "model.onnx", options.weights)
        write_json(folder / "config.json", component.config)
        write_reference(component, folder / "reference.npz")
        difference = check_graph(component, folder / "model.onnx")
        size = (folder / "model.onnx").stat().st_size
        print(f"{component.name}: {size / 1e6:.2f} MB, differs from torch by {difference:.1e}", flush=True)
    write_index(options.out, state)


if __name__ == "__main__":
    main()
