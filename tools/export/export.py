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
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from models import (  # noqa: E402
    CONTEXT,
    LATENT_CHANNELS,
    LATENT_SIZE,
    WIDTH,
    make_image_encoder,
    make_scheduler,
    make_text_encoder,
    make_unet,
    make_vae,
)
from state import State, load_weights  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402

OPSET = 18
# Smaller tensors are not worth a node of their own.
SMALLEST_HALF = 16
# Largest difference to torch, relative to the largest value of the output; two float32 runtimes differ by rounding only.
TOLERANCE = 1e-4
TOKENIZER_FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")


class TextEncoder(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.model.text_model(input_ids=input_ids)
        return out.last_hidden_state, out.pooler_output, self.model.text_projection(out.pooler_output)


class Unet(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states, class_labels) -> torch.Tensor:
        return self.model(sample, timestep, encoder_hidden_states, class_labels=class_labels, return_dict=False)[0]


class VaeEncoder(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return self.model.quant_conv(self.model.encoder(sample))


class VaeDecoder(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
        return self.model.decoder(self.model.post_quant_conv(latent_sample))


class ImageEncoder(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).image_embeds


@dataclass
class Component:
    """One graph: `inputs(batch, size)` gives example inputs by name, `axes` names the dynamic axes."""

    name: str
    module: torch.nn.Module
    config: dict
    inputs: Callable[[int, int], dict[str, torch.Tensor]]
    outputs: list[str]
    axes: dict[str, dict[int, str]]


PICTURE_AXES = {0: "batch_size", 2: "height", 3: "width"}


def components(state: State, unfinished: bool) -> list[Component]:
    """The five graphs of a run; `unfinished` takes UNet and text encoder from the newest checkpoint."""
    vocabulary = len(Tokenizer(state.tokenizer))
    text, unet = make_text_encoder(vocabulary), make_unet()
    logit_scale = torch.load(state.run / "clip.done")["logit_scale"]
    if unfinished:
        saved = torch.load(state.run / "unet.checkpoint", weights_only=True)
        text.load_state_dict(saved["ema_text"])
        unet.load_state_dict(saved["ema_unet"])
    else:
        load_weights(text, state.run / "text_encoder.safetensors")
        load_weights(unet, state.run / "unet.safetensors")
        logit_scale = torch.load(state.run / "refit.done")["logit_scale"]
    vae = load_weights(make_vae(), state.vae / "vae.safetensors")
    image = load_weights(make_image_encoder(), state.run / "image_encoder.safetensors")
    vae.register_to_config(scaling_factor=torch.load(state.run / "latents.pt")["scaling_factor"])
    for model in (text, unet, vae, image):
        model.eval().requires_grad_(False)
    return [
        Component(
            "text_encoder",
            TextEncoder(text),
            _transformers_config(text, "CLIPTextModelWithProjection") | {"logit_scale_init_value": logit_scale},
            lambda batch, _: {"input_ids": torch.randint(0, vocabulary, (batch, CONTEXT))},
            ["last_hidden_state", "pooler_output", "text_embeds"],
            {
                "input_ids": {0: "batch_size", 1: "sequence_length"},
                "last_hidden_state": {0: "batch_size", 1: "sequence_length"},
                "pooler_output": {0: "batch_size"},
                "text_embeds": {0: "batch_size"},
            },
        ),
        Component(
            "unet",
            Unet(unet),
            _diffusers_config(unet),
            _unet_inputs,
            ["out_sample"],
            {
                "sample": PICTURE_AXES,
                "timestep": {0: "steps"},
                "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
                "class_labels": {0: "batch_size"},
                "out_sample": PICTURE_AXES,
            },
        ),
        Component(
            "vae_encoder",
            VaeEncoder(vae),
            _diffusers_config(vae),
            lambda batch, size: {"sample": torch.rand(batch, 3, 8 * size, 8 * LATENT_SIZE) * 2 - 1},
            ["latent_parameters"],
            {"sample": PICTURE_AXES, "latent_parameters": PICTURE_AXES},
        ),
        Component(
            "vae_decoder",
            VaeDecoder(vae),
            _diffusers_config(vae),
            lambda batch, size: {"latent_sample": torch.randn(batch, LATENT_CHANNELS, size, LATENT_SIZE)},
            ["sample"],
            {"latent_sample": PICTURE_AXES, "sample": PICTURE_AXES},
        ),
        Component(
            "image_encoder",
            ImageEncoder(image),
            _transformers_config(image, "CLIPVisionModelWithProjection"),
            lambda batch, _: {"pixel_values": torch.rand(batch, 3, 64, 64) * 2 - 1},
            ["image_embeds"],
            {"pixel_values": {0: "batch_size"}, "image_embeds": {0: "batch_size"}},
        ),
    ]


def _unet_inputs(batch: int, size: int) -> dict[str, torch.Tensor]:
    return {
        "sample": torch.randn(batch, LATENT_CHANNELS, size, LATENT_SIZE),
        "timestep": torch.randint(0, 1000, (1,)),
        "encoder_hidden_states": torch.randn(batch, CONTEXT, WIDTH),
        "class_labels": torch.randn(batch, WIDTH),
    }


def _diffusers_config(model) -> dict:
    config = {key: value for key, value in model.config.items() if key != "_use_default_values"}
    return {"_class_name": type(model).__name__, **config}


def _transformers_config(model, architecture: str) -> dict:
    config = model.config.to_diff_dict() | {"architectures": [architecture]}
    config.pop("_name_or_path", None)
    return config


def round_parameters(module: torch.nn.Module) -> None:
    """Round every parameter to the nearest float16, in place.

    # Raises
    ValueError: a parameter lies outside float16's range.
    """
    for name, parameter in module.named_parameters():
        rounded = parameter.data.half().float()
        if not rounded.isfinite().all():
            raise ValueError(f"parameter {name} does not fit float16")
        parameter.data = rounded


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
    for node in model.graph.node:
        node.doc_string = ""
    if weights == "f16":
        store_half(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def store_half(graph: onnx.GraphProto) -> None:
    """Store every float initialiser that float16 holds exactly as float16 with a Cast behind it."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size <= SMALLEST_HALF or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".f16"))
        casts.append(onnx.helper.make_node("Cast", [name + ".f16"], [name], name + ".cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


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


def write_index(out: Path, state: State) -> None:
    """Scheduler, tokenizer, image processor and the index of the pipeline."""
    make_scheduler().save_pretrained(out / "scheduler")
    (out / "tokenizer").mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(state.tokenizer / name, out / "tokenizer" / name)
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
    write_json(out / "image_encoder" / "preprocessor_config.json", processor)
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
        difference = check_graph(component, folder / "model.onnx")
        size = (folder / "model.onnx").stat().st_size
        print(f"{component.name}: {size / 1e6:.2f} MB, differs from torch by {difference:.1e}", flush=True)
    write_index(options.out, state)


if __name__ == "__main__":
    main()
