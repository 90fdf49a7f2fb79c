"""The five graphs of the pipeline: what goes in, what comes out, which axes are free."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from models import (  # noqa: E402
    CONTEXT,
    LATENT_CHANNELS,
    LATENT_SIZE,
    WIDTH,
    make_image_encoder,
    make_text_encoder,
    make_unet,
    make_vae,
)
from state import State, load_weights  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402


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
