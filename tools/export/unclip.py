"""Write what unCLIP has beside Stable Diffusion as ONNX: a folder of diffusers' StableUnCLIP to one that `tintype import` takes.

    python tools/export/unclip.py SOURCE OUT

    prior/       hidden_states, timestep, proj_embedding, encoder_hidden_states, attention_mask -> predicted_image_embedding
                 statistics.json: clip_mean and clip_std
    image_normalizer/   statistics.json: mean and std
    prior_text_encoder/ text_encoder/   input_ids -> last_hidden_state [, text_embeds]
    unet/        sample, timestep, encoder_hidden_states, class_labels -> out_sample
    vae_decoder/ vae_encoder/ image_encoder/   as export.py
    the schedulers, tokenizers, the image processor and model_index.json, as they are

Whatever SOURCE does not have is left out. `tintype import` also takes SOURCE itself, if its weights are safetensors; a graph
is what a network needs that is none of diffusers' classes, such as a `text_proj` of one's own. Each graph is compared with
torch in onnxruntime.
"""

import argparse
import importlib
import json
import shutil
from pathlib import Path
from unittest import mock

import torch

from components import Component, ImageEncoder, TextEncoder, Unet, VaeDecoder, VaeEncoder
from export import check_graph, export_graph, write_json

COPIED = (
    "scheduler", "prior_scheduler", "image_noising_scheduler", "tokenizer", "prior_tokenizer", "feature_extractor",
    "model_index.json",
)


class Prior(torch.nn.Module):
    """diffusers' PriorTransformer; what repeats a mask for each head is written so that it can be traced for any batch."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden_states, timestep, proj_embedding, encoder_hidden_states, attention_mask) -> torch.Tensor:
        def repeated(mask, times, dim, output_size=None):
            assert dim == 0
            return mask.unsqueeze(1).expand(-1, times, -1, -1).reshape(-1, *mask.shape[1:])

        with mock.patch.object(torch.Tensor, "repeat_interleave", repeated):
            return self.model(
                hidden_states, timestep, proj_embedding, encoder_hidden_states, attention_mask, return_dict=False
            )[0]


class TextStates(torch.nn.Module):
    """A text encoder without projection."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids).last_hidden_state


def prior(model) -> Component:
    """The prior's graph."""
    config = model.config
    text = config.embedding_proj_dim or config.embedding_dim

    def inputs(batch, _):
        lengths = torch.randint(2, config.num_embeddings, (batch, 1))
        return {
            "hidden_states": torch.randn(batch, config.embedding_dim),
            "timestep": torch.randint(0, 1000, (batch,)),
            "proj_embedding": torch.randn(batch, text),
            "encoder_hidden_states": torch.randn(batch, config.num_embeddings, config.embedding_dim),
            "attention_mask": torch.arange(config.num_embeddings)[None] < lengths,
        }

    outputs = ["predicted_image_embedding"]
    axes = {name: {0: "batch_size"} for name in [*inputs(1, 0), *outputs]}
    return Component("prior", Prior(model), diffusers_config(model), inputs, outputs, axes)


def text_encoder(name, model) -> Component:
    """A text encoder's graph, with the embedding of the whole text if it makes one."""
    projected = hasattr(model, "text_projection")
    outputs = ["last_hidden_state", "pooler_output", "text_embeds"] if projected else ["last_hidden_state"]
    module = TextEncoder(model) if projected else TextStates(model)
    context, vocabulary = model.config.max_position_embeddings, model.config.vocab_size
    inputs = lambda batch, _: {"input_ids": torch.randint(0, vocabulary, (batch, context))}
    axes = {key: {0: "batch_size"} for key in ["input_ids", *outputs]}
    return Component(name, module, transformers_config(model), inputs, outputs, axes)


def unet(model) -> Component:
    """The UNet's graph, which takes the embedding of a picture."""
    config = model.config
    maps, rows = {0: "batch_size", 2: "height", 3: "width"}, {0: "batch_size"}
    inputs = lambda batch, size: {
        "sample": torch.randn(batch, config.in_channels, size, size),
        "timestep": torch.randint(0, 1000, (1,)),
        "encoder_hidden_states": torch.randn(batch, 77, config.cross_attention_dim),
        "class_labels": torch.randn(batch, config.projection_class_embeddings_input_dim),
    }
    axes = {"sample": maps, "timestep": {0: "steps"}, "encoder_hidden_states": rows | {1: "sequence_length"}}
    return Component("unet", Unet(model), diffusers_config(model), inputs, ["out_sample"], axes | {"class_labels": rows, "out_sample": maps})


def autoencoder(model) -> list[Component]:
    """The graphs of the autoencoder's two halves."""
    maps, config = {0: "batch_size", 2: "height", 3: "width"}, diffusers_config(model)
    channels, latents = model.config.in_channels, model.config.latent_channels
    picture = lambda batch, size: {"sample": torch.rand(batch, channels, 8 * size, 8 * size) * 2 - 1}
    cells = lambda batch, size: {"latent_sample": torch.randn(batch, latents, size, size)}
    return [
        Component("vae_encoder", VaeEncoder(model), config, picture, ["latent_parameters"], {"sample": maps, "latent_parameters": maps}),
        Component("vae_decoder", VaeDecoder(model), config, cells, ["sample"], {"latent_sample": maps, "sample": maps}),
    ]


def image_encoder(model) -> Component:
    """The image encoder's graph."""
    side, rows = model.config.image_size, {0: "batch_size"}
    inputs = lambda batch, _: {"pixel_values": torch.randn(batch, 3, side, side)}
    return Component(
        "image_encoder", ImageEncoder(model), transformers_config(model), inputs, ["image_embeds"],
        {"pixel_values": rows, "image_embeds": rows},
    )


def diffusers_config(model) -> dict:
    return {"_class_name": type(model).__name__, **{key: value for key, value in model.config.items() if not key.startswith("_")}}


def transformers_config(model) -> dict:
    return model.config.to_diff_dict() | {"architectures": [type(model).__name__]}


def load(source: Path, name: str, index: dict):
    """The network of a folder, by the class that model_index.json gives it."""
    library, kind = index.get(name) or (None, None)
    if library is None or not (source / name).is_dir():
        return None
    package = {"stable_diffusion": "diffusers.pipelines.stable_diffusion", "unclip": "diffusers.pipelines.deprecated.unclip"}
    return getattr(importlib.import_module(package.get(library, library)), kind).from_pretrained(source / name).eval()


def write_statistics(out: Path, name: str, mean: torch.Tensor, std: torch.Tensor) -> None:
    (out / name).mkdir(parents=True, exist_ok=True)
    write_json(out / name / "statistics.json", {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    source, out = options.source, options.out
    index = json.loads((source / "model_index.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name, dirs_exist_ok=True)
        elif (source / name).exists():
            shutil.copyfile(source / name, out / name)
    components = []
    if model := load(source, "prior", index):
        components.append(prior(model))
        write_statistics(out, "prior", model.clip_mean, model.clip_std)
    if model := load(source, "image_normalizer", index):
        write_statistics(out, "image_normalizer", model.mean, model.std)
    components += [text_encoder(name, model) for name in ("text_encoder", "prior_text_encoder") if (model := load(source, name, index))]
    if model := load(source, "unet", index):
        components.append(unet(model))
    if model := load(source, "vae", index):
        components += autoencoder(model)
    if model := load(source, "image_encoder", index):
        components.append(image_encoder(model))
    for component in components:
        folder = out / component.name
        folder.mkdir(parents=True, exist_ok=True)
        export_graph(component, folder / "model.onnx", "f32")
        write_json(folder / "config.json", component.config)
        print(f"{component.name}: differs from torch by {check_graph(component, folder / 'model.onnx'):.1e}", flush=True)


if __name__ == "__main__":
    main()
