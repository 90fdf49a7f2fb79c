"""Stable Diffusion 1.5 at full size with random weights, as optimum exports it: what the benchmarks run.

    python tools/bench/sd15.py FOLDER           some minutes, 10 GB of disk, 12 GB of memory

Every graph has free sizes; beside it `reference.npz` has inputs for a picture of 512 x 512 px and torch's outputs, so the
folder can be imported and tested with `tintype selftest` too. Pretrained weights give other pictures, and the same work.
"""

import gc
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
from pipeline import Decoder, Encoder, Text, Unet, initialise, write_tokenizer  # noqa: E402
from topologies import free_axes  # noqa: E402

OPSET = 17
CELLS = 64
CONTEXT, TEXT_WIDTH = 77, 768
SCHEDULER = {
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}


def text_encoder(generator, vocabulary: int) -> tuple:
    model = CLIPTextModel._from_config(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=12,
            num_attention_heads=12, max_position_embeddings=CONTEXT, projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1,
        )
    )
    ids = torch.randint(0, vocabulary - 2, (1, CONTEXT), generator=generator)
    ids[:, 0], ids[:, 12:] = vocabulary - 2, vocabulary - 1
    names = ["last_hidden_state", "pooler_output"]
    return Text(initialise(model, generator)), {"input_ids": ids}, names, model.config


def unet(generator) -> tuple:
    model = UNet2DConditionModel(sample_size=CELLS, cross_attention_dim=TEXT_WIDTH, attention_head_dim=8)
    inputs = {
        "sample": torch.randn(1, 4, CELLS, CELLS, generator=generator),
        "timestep": torch.tensor([501]),
        "encoder_hidden_states": torch.randn(1, CONTEXT, TEXT_WIDTH, generator=generator),
    }
    return Unet(initialise(model, generator)), inputs, ["out_sample"], model


def autoencoder(generator) -> AutoencoderKL:
    return initialise(
        AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=8 * CELLS,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        generator,
    )


def decoder(generator) -> tuple:
    vae = autoencoder(generator)
    return Decoder(vae), {"latent_sample": torch.randn(1, 4, CELLS, CELLS, generator=generator)}, ["sample"], vae


def encoder(generator) -> tuple:
    vae = autoencoder(generator)
    picture = torch.rand(1, 3, 8 * CELLS, 8 * CELLS, generator=generator) * 2 - 1
    return Encoder(vae), {"sample": picture}, ["latent_parameters"], vae


def export(folder: Path, module, inputs: dict, outputs: list[str], config) -> None:
    """Write graph, weights beside it, configuration and reference."""
    folder.mkdir(parents=True)
    axes = {name: free_axes(name, tensor) for name, tensor in inputs.items()}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        path = Path(scratch) / "model.onnx"
        torch.onnx.export(
            module, tuple(inputs.values()), str(path), opset_version=OPSET, dynamo=False,
            input_names=list(inputs), output_names=outputs, dynamic_axes={n: a for n, a in axes.items() if a},
        )
        onnx.save_model(
            onnx.load(path), folder / "model.onnx", save_as_external_data=True, location="model.onnx_data",
        )
    save = getattr(config, "save_config", None) or config.save_pretrained
    save(folder)
    results = module(*inputs.values())
    results = results if isinstance(results, tuple) else (results,)
    arrays = {name: value.numpy() for name, value in [*inputs.items(), *zip(outputs, results, strict=True)]}
    np.savez_compressed(folder / "reference.npz", **arrays)


def main() -> None:
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1])
    out.mkdir(parents=True)
    # Byte tokens only: the table of 49,408 rows is there, most of it is never read.
    write_tokenizer(out / "tokenizer")
    components: dict[str, Callable] = {
        "text_encoder": lambda generator: text_encoder(generator, 49408),
        "unet": unet,
        "vae_decoder": decoder,
        "vae_encoder": encoder,
    }
    for name, build in components.items():
        export(out / name, *build(torch.Generator().manual_seed(15)))
        gc.collect()
        size = sum(file.stat().st_size for file in (out / name).iterdir())
        print(f"{name}: {size / 1e6:.0f} MB", flush=True)
    (out / "scheduler").mkdir()
    (out / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER) + "\n")
    shutil.rmtree(out / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
