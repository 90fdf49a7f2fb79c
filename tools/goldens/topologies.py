"""The shapes that Stable Diffusion models come in, so narrow that a test can run them: tests/data/topologies/.

    python tools/goldens/topologies.py [NAME ...]

One folder a topology, in optimum's layout, with small random weights; beside each graph `reference.npz` has its inputs
and torch's outputs. The topologies differ in what an importer stumbles over: opsets 14, 17 and 18, torch's two exporters,
fixed and free sizes, timesteps of rank 0 and 1 as integers and as floats, projections by convolution and by linear layer,
heads per level, two text encoders, added conditions, a guidance embedding, no middle block.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipeline import Decoder, initialise
from provenance import DATA, provenance

OUT = DATA / "topologies"
CONTEXT, TEXT_WIDTH, VOCABULARY = 77, 16, 300
HEIGHT, WIDTH = 8, 16
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


@dataclass
class Graph:
    """One graph: the module that is exported, its inputs in order, the names of its outputs."""

    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: list[str]
    config: object


@dataclass
class Topology:
    """A folder: its graphs by component, and how they are exported."""

    graphs: Callable[[torch.Generator], dict[str, Graph]]
    opset: int = 18
    free: bool = True
    dynamo: bool = False
    files: dict[str, dict] = field(default_factory=dict)


class Unet(torch.nn.Module):
    """The UNet under optimum's names; `extra` are the inputs behind the first three."""

    def __init__(self, model: UNet2DConditionModel, extra: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model, self.extra = model, extra

    def forward(self, sample, timestep, encoder_hidden_states, *others):
        given = dict(zip(self.extra, others, strict=True))
        added = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
        return self.model(
            sample, timestep, encoder_hidden_states, timestep_cond=given.get("timestep_cond"),
            added_cond_kwargs=added or None, return_dict=False,
        )[0]


class Text(torch.nn.Module):
    """A text encoder; `projected` has text_embeds first, `hidden` appends every hidden state, as optimum does for XL."""

    def __init__(self, model, projected: bool = False, hidden: bool = False) -> None:
        super().__init__()
        self.model, self.projected, self.hidden = model, projected, hidden

    def forward(self, input_ids):
        out = self.model(input_ids=input_ids, output_hidden_states=self.hidden)
        first = (out.text_embeds, out.last_hidden_state) if self.projected else (out.last_hidden_state, out.pooler_output)
        return (*first, *out.hidden_states) if self.hidden else first


class Moments(torch.nn.Module):
    """An encoder: mean and log variance."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.model = vae

    def forward(self, sample):
        return self.model.encode(sample).latent_dist.parameters


class TinyEncoder(torch.nn.Module):
    """The encoder of AutoencoderTiny, which has no variance."""

    def __init__(self, vae: AutoencoderTiny) -> None:
        super().__init__()
        self.model = vae

    def forward(self, sample):
        return self.model.encode(sample).latents


def unet_graph(generator, timestep, batch=2, levels=(CROSS, CROSS, CROSS, PLAIN), layers=1, extra=None, **options) -> dict[str, Graph]:
    options = {"block_out_channels": (4, 8, 8, 8), "attention_head_dim": 2, **options}
    model = UNet2DConditionModel(
        sample_size=HEIGHT, layers_per_block=layers, cross_attention_dim=TEXT_WIDTH, norm_num_groups=2,
        down_block_types=tuple(down for down, _ in levels), up_block_types=tuple(up for _, up in reversed(levels)), **options,
    )
    inputs = {
        "sample": torch.randn(batch, model.config.in_channels, HEIGHT, WIDTH, generator=generator),
        "timestep": timestep,
        "encoder_hidden_states": torch.randn(batch, CONTEXT, TEXT_WIDTH, generator=generator),
        **(extra or {}),
    }
    return {"unet": Graph(Unet(initialise(model, generator), tuple(extra or ())), inputs, ["out_sample"], model)}


def text_graph(generator, act="quick_gelu", layers=1, projected=False, hidden=False) -> Graph:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=TEXT_WIDTH, intermediate_size=2 * TEXT_WIDTH, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=CONTEXT, hidden_act=act, projection_dim=TEXT_WIDTH,
        bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1, pad_token_id=0,
    )
    model = (CLIPTextModelWithProjection if projected else CLIPTextModel)._from_config(config)
    ids = torch.randint(0, VOCABULARY - 2, (2, CONTEXT), generator=generator)
    ids[:, 0], ids[0, 9:], ids[1, 20:] = VOCABULARY - 2, VOCABULARY - 1, VOCABULARY - 1
    outputs = ["text_embeds", "last_hidden_state"] if projected else ["last_hidden_state", "pooler_output"]
    outputs += [f"hidden_states.{n}" for n in range(layers + 1)] if hidden else []
    return Graph(Text(initialise(model, generator), projected, hidden), {"input_ids": ids}, outputs, model.config)


def sd21(generator) -> dict[str, Graph]:
    unet = unet_graph(
        generator, torch.tensor([981.0]), use_linear_projection=True, attention_head_dim=(1, 2, 4, 4),
    )
    return unet | {"text_encoder": text_graph(generator, act="gelu", layers=2)}


def sdxl(generator) -> dict[str, Graph]:
    extra = {
        "text_embeds": torch.randn(2, TEXT_WIDTH, generator=generator),
        "time_ids": torch.tensor([[64.0, 128.0, 0, 0, 64, 128], [128, 64, 8, 0, 64, 64]]),
    }
    unet = unet_graph(
        generator, torch.tensor([501.0]), levels=(PLAIN, CROSS, CROSS), block_out_channels=(4, 8, 8), extra=extra,
        transformer_layers_per_block=(1, 1, 2), attention_head_dim=(1, 2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
    )
    return unet | {
        "text_encoder": text_graph(generator, hidden=True),
        "text_encoder_2": text_graph(generator, act="gelu", layers=2, projected=True, hidden=True),
    }


def lcm(generator) -> dict[str, Graph]:
    extra = {"timestep_cond": torch.randn(2, 12, generator=generator)}
    return unet_graph(generator, torch.tensor([259]), extra=extra, time_cond_proj_dim=12)


def bk_sdm_tiny(generator) -> dict[str, Graph]:
    levels = {"levels": (CROSS, CROSS, CROSS), "block_out_channels": (4, 8, 8)}
    return unet_graph(generator, torch.tensor(741), mid_block_type=None, **levels)


def taesd(generator) -> dict[str, Graph]:
    width = (8, 8, 8, 8)
    vae = AutoencoderTiny(
        encoder_block_out_channels=width, decoder_block_out_channels=width, num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
    )
    initialise(vae, generator)
    picture = torch.rand(1, 3, 32, 64, generator=generator) * 2 - 1
    latents = torch.randn(1, 4, 4, 8, generator=generator)
    return {
        "vae_encoder": Graph(TinyEncoder(vae), {"sample": picture}, ["latent_sample"], vae),
        "vae_decoder": Graph(Decoder(vae), {"latent_sample": latents}, ["sample"], vae),
    }


def sd15(generator) -> dict[str, Graph]:
    return unet_graph(generator, torch.tensor([501])) | {"text_encoder": text_graph(generator)}


def sd15_scalar_timestep(generator) -> dict[str, Graph]:
    vae = initialise(
        AutoencoderKL(
            block_out_channels=(4, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        generator,
    )
    latents = torch.randn(1, 4, 4, 8, generator=generator)
    picture = torch.rand(1, 3, 32, 64, generator=generator) * 2 - 1
    return unet_graph(generator, torch.tensor(501.0), batch=1) | {
        "text_encoder": text_graph(generator),
        "vae_decoder": Graph(Decoder(vae), {"latent_sample": latents}, ["sample"], vae),
        "vae_encoder": Graph(Moments(vae), {"sample": picture}, ["latent_parameters"], vae),
    }


TOPOLOGIES = {
    "sd15-opset14": Topology(sd15, opset=14),
    "sd15-opset17-fixed": Topology(sd15_scalar_timestep, opset=17, free=False),
    "sd15-dynamo": Topology(sd15, dynamo=True),
    "sd21": Topology(sd21),
    "sdxl": Topology(sdxl),
    "lcm": Topology(lcm),
    "bk-sdm-tiny": Topology(bk_sdm_tiny, opset=17),
    "taesd": Topology(taesd),
}
SCHEDULER = {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def free_axes(name: str, tensor: torch.Tensor) -> dict[int, str]:
    """The axes that optimum leaves free."""
    if name == "timestep":
        return {0: "steps"} if tensor.dim() else {}
    if tensor.dim() == 4:
        return {0: "batch_size", 2: "height", 3: "width"}
    return {0: "batch_size", 1: "sequence_length"} if name in ("input_ids", "encoder_hidden_states") else {0: "batch_size"}


def strip(file) -> None:
    """Leave out what the new exporter writes for people: where in torch's sources each node came from."""
    model = onnx.load(file)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, file)


def export(graph: Graph, folder, topology: Topology) -> None:
    folder.mkdir(parents=True)
    axes = {name: free_axes(name, tensor) for name, tensor in graph.inputs.items()} if topology.free else {}
    options = {"dynamo": False, "dynamic_axes": {name: free for name, free in axes.items() if free}}
    if topology.dynamo:
        dims = {name: {at: torch.export.Dim.DYNAMIC for at in free} for name, free in axes.items()}
        options = {"dynamo": True, "dynamic_shapes": tuple(dims.values()), "external_data": False, "verbose": False}
    torch.onnx.export(
        graph.module, tuple(graph.inputs.values()), str(folder / "model.onnx"), opset_version=topology.opset,
        input_names=list(graph.inputs), output_names=graph.outputs, **options,
    )
    strip(folder / "model.onnx")
    save = getattr(graph.config, "save_config", None) or graph.config.save_pretrained
    save(folder)
    outputs = graph.module(*graph.inputs.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = {name: x.numpy() for name, x in [*graph.inputs.items(), *zip(graph.outputs, outputs, strict=True)]}
    np.savez_compressed(folder / "reference.npz", **arrays)


def main() -> None:
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or TOPOLOGIES:
        topology = TOPOLOGIES[name]
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        for component, graph in topology.graphs(torch.Generator().manual_seed(5)).items():
            export(graph, folder / component, topology)
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER) + "\n")
        made = provenance("topologies.py", "torch", "diffusers", "transformers", "onnx", "numpy")
        made |= {"opset": topology.opset, "exporter": "dynamo" if topology.dynamo else "torchscript"}
        (folder / "provenance.json").write_text(json.dumps(made, indent=1) + "\n")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{name}: {size / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
