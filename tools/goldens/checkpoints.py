"""Models in safetensors, as diffusers saves them and as the original Stable Diffusion does: tests/data/checkpoints/.

    python tools/goldens/checkpoints.py

`files.json.gz` has, for each file, every tensor's name and shape, and `files.npz` torch's outputs, of texts those for the
first twelve tokens. Weights and inputs are `formula.py`'s. The names of the original are those of a hand-written list of its blocks; that it is right follows from diffusers'
own converter, which makes of it exactly the weights that diffusers' model has.
"""

import gzip
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import safe_open
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from formula import fill, given, weight
from provenance import DATA, provenance

OUT = DATA / "checkpoints"
VOCABULARY, CONTEXT = 49408, 77
SOME = 12
CROSS, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


def norm(name, width):
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def dense(name, to, of, bias=True, taps=()):
    return {f"{name}.weight": [to, of, *taps]} | ({f"{name}.bias": [to]} if bias else {})


def conv(name, to, of):
    return dense(name, to, of, taps=(3, 3))


def res_block(name, of, to, time):
    tensors = norm(f"{name}.in_layers.0", of) | conv(f"{name}.in_layers.2", to, of)
    tensors |= dense(f"{name}.emb_layers.1", to, time) | norm(f"{name}.out_layers.0", to)
    tensors |= conv(f"{name}.out_layers.3", to, to)
    return tensors | (dense(f"{name}.skip_connection", to, of, taps=(1, 1)) if of != to else {})


def spatial_transformer(name, width, text, depth, linear):
    taps = () if linear else (1, 1)
    tensors = norm(f"{name}.norm", width) | dense(f"{name}.proj_in", width, width, taps=taps)
    for at in range(depth):
        block = f"{name}.transformer_blocks.{at}"
        for attention, other in (("attn1", width), ("attn2", text)):
            tensors |= dense(f"{block}.{attention}.to_q", width, width, bias=False)
            tensors |= dense(f"{block}.{attention}.to_k", width, other, bias=False)
            tensors |= dense(f"{block}.{attention}.to_v", width, other, bias=False)
            tensors |= dense(f"{block}.{attention}.to_out.0", width, width)
        tensors |= dense(f"{block}.ff.net.0.proj", 8 * width, width) | dense(f"{block}.ff.net.2", width, 4 * width)
        for at in (1, 2, 3):
            tensors |= norm(f"{block}.norm{at}", width)
    return tensors | dense(f"{name}.proj_out", width, width, taps=taps)


def ldm_unet(config):
    """The original's tensors for a UNet of this configuration, block by block."""
    widths, layers, text = config.block_out_channels, config.layers_per_block, config.cross_attention_dim
    depths, linear, time = config.transformer_layers_per_block, config.use_linear_projection, 4 * widths[0]
    depths = [depths] * len(widths) if isinstance(depths, int) else depths
    tensors = dense("time_embed.0", time, widths[0]) | dense("time_embed.2", time, time)
    if config.addition_embed_type:
        tensors |= dense("label_emb.0.0", time, config.projection_class_embeddings_input_dim)
        tensors |= dense("label_emb.0.2", time, time)
    if config.time_cond_proj_dim:
        tensors |= dense("time_embed.cond_proj", widths[0], config.time_cond_proj_dim, bias=False)
    tensors |= conv("input_blocks.0.0", widths[0], config.in_channels)
    block, of, skips = 1, widths[0], [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(layers):
            tensors |= res_block(f"input_blocks.{block}.0", of, width, time)
            if config.down_block_types[level] == CROSS[0]:
                tensors |= spatial_transformer(f"input_blocks.{block}.1", width, text, depths[level], linear)
            block, of = block + 1, width
            skips.append(width)
        if level + 1 < len(widths):
            tensors |= conv(f"input_blocks.{block}.0.op", width, width)
            block += 1
            skips.append(width)
    tensors |= res_block("middle_block.0", of, of, time)
    tensors |= spatial_transformer("middle_block.1", of, text, depths[-1], linear)
    tensors |= res_block("middle_block.2", of, of, time)
    block = 0
    for level, width in reversed(list(enumerate(widths))):
        attends = config.up_block_types[len(widths) - 1 - level] == CROSS[1]
        for layer in range(layers + 1):
            tensors |= res_block(f"output_blocks.{block}.0", of + skips.pop(), width, time)
            if attends:
                tensors |= spatial_transformer(f"output_blocks.{block}.1", width, text, depths[level], linear)
            if layer == layers and level > 0:
                tensors |= conv(f"output_blocks.{block}.{2 if attends else 1}.conv", width, width)
            block, of = block + 1, width
    tensors |= norm("out.0", of) | conv("out.2", config.out_channels, of)
    return {f"model.diffusion_model.{name}": shape for name, shape in tensors.items()}


def vae_block(name, of, to):
    tensors = norm(f"{name}.norm1", of) | conv(f"{name}.conv1", to, of) | norm(f"{name}.norm2", to) | conv(f"{name}.conv2", to, to)
    return tensors | (dense(f"{name}.nin_shortcut", to, of, taps=(1, 1)) if of != to else {})


def vae_middle(name, width):
    tensors = vae_block(f"{name}.block_1", width, width) | vae_block(f"{name}.block_2", width, width)
    tensors |= norm(f"{name}.attn_1.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        tensors |= dense(f"{name}.attn_1.{projection}", width, width, taps=(1, 1))
    return tensors


def ldm_vae(config):
    widths, layers, latents = config.block_out_channels, config.layers_per_block, config.latent_channels
    tensors = conv("encoder.conv_in", widths[0], 3) | conv("decoder.conv_in", widths[-1], latents)
    of = widths[0]
    for level, width in enumerate(widths):
        for at in range(layers):
            tensors |= vae_block(f"encoder.down.{level}.block.{at}", of, width)
            of = width
        if level + 1 < len(widths):
            tensors |= conv(f"encoder.down.{level}.downsample.conv", width, width)
    tensors |= vae_middle("encoder.mid", widths[-1]) | vae_middle("decoder.mid", widths[-1])
    for level, width in reversed(list(enumerate(widths))):
        for at in range(layers + 1):
            tensors |= vae_block(f"decoder.up.{level}.block.{at}", of, width)
            of = width
        if level:
            tensors |= conv(f"decoder.up.{level}.upsample.conv", width, width)
    tensors |= norm("encoder.norm_out", widths[-1]) | conv("encoder.conv_out", 2 * latents, widths[-1])
    tensors |= norm("decoder.norm_out", widths[0]) | conv("decoder.conv_out", 3, widths[0])
    tensors |= dense("quant_conv", 2 * latents, 2 * latents, taps=(1, 1))
    tensors |= dense("post_quant_conv", latents, latents, taps=(1, 1))
    return {f"first_stage_model.{name}": shape for name, shape in tensors.items()}


def open_clip(prefix, config, layers):
    width = config.hidden_size
    tensors = {"positional_embedding": [CONTEXT, width], "text_projection": [width, config.projection_dim], "logit_scale": []}
    tensors |= {"token_embedding.weight": [config.vocab_size, width]} | norm("ln_final", width)
    for at in range(layers):
        block = f"transformer.resblocks.{at}"
        tensors |= {f"{block}.attn.in_proj_weight": [3 * width, width], f"{block}.attn.in_proj_bias": [3 * width]}
        tensors |= dense(f"{block}.attn.out_proj", width, width) | norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
        tensors |= dense(f"{block}.mlp.c_fc", config.intermediate_size, width)
        tensors |= dense(f"{block}.mlp.c_proj", width, config.intermediate_size)
    return {prefix + name: shape for name, shape in tensors.items()}


def loaded(model, state):
    """The model with exactly these weights; transformers leaves out a prefix in some classes."""
    own = set(model.state_dict())
    state = {key if key in own else key.removeprefix("text_model."): value for key, value in state.items()}
    model.load_state_dict({key: value for key, value in state.items() if not key.endswith("position_ids")})
    return model.eval()


def clip(width, layers, act, projected=False, vocabulary=VOCABULARY):
    config = CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1), max_position_embeddings=CONTEXT, hidden_act=act, projection_dim=width,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)._from_config(config)


def unet(**options):
    levels = options.pop("levels")
    return UNet2DConditionModel(
        sample_size=8, down_block_types=tuple(down for down, _ in levels),
        up_block_types=tuple(up for _, up in reversed(levels)), **options,
    )


def autoencoder(widths=(32, 32, 64, 64), layers=2, **options):
    return AutoencoderKL(
        block_out_channels=widths, layers_per_block=layers, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * len(widths), up_block_types=("UpDecoderBlock2D",) * len(widths), **options,
    )


def ids(vocabulary=VOCABULARY):
    tokens = torch.full((1, CONTEXT), vocabulary - 1)
    tokens[0, :9] = torch.tensor([vocabulary - 2, 5, 17, 200, 3, 42, 11, 299, 64])
    return tokens


def text_outputs(model):
    out = model(input_ids=ids(model.config.vocab_size), output_hidden_states=True)
    states = {"last_hidden_state": out.last_hidden_state, f"hidden_states.{len(out.hidden_states) - 2}": out.hidden_states[-2]}
    outputs = {name: state[:, :SOME] for name, state in states.items()}
    pooled = "text_embeds" if "text_embeds" in out else "pooler_output"
    return outputs | {pooled: out[pooled]}


def unet_outputs(model):
    config, inputs = model.config, {}
    shapes = {"sample": (1, config.in_channels, 8, 16), "encoder_hidden_states": (1, CONTEXT, config.cross_attention_dim)}
    if config.time_cond_proj_dim:
        shapes["timestep_cond"] = (1, config.time_cond_proj_dim)
    if config.class_embed_type:
        shapes["class_labels"] = (1, config.projection_class_embeddings_input_dim)
    inputs = {name: given(name, shape) for name, shape in shapes.items()}
    added = None
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        added = {"text_embeds": given("text_embeds", (1, width)), "time_ids": torch.tensor([[64.0, 128, 8, 0, 64, 128]])}
    out = model(
        inputs["sample"], torch.tensor(501), inputs["encoder_hidden_states"], class_labels=inputs.get("class_labels"),
        timestep_cond=inputs.get("timestep_cond"), added_cond_kwargs=added, return_dict=False,
    )
    return {"out_sample": out[0]}


def vae_outputs(model):
    encoded = model.encode(given("sample", (1, 3, 32, 64)))
    tiny = isinstance(model, AutoencoderTiny)
    return {
        "vae_decoder": {"sample": model.decode(given("latent_sample", (1, 4, 4, 8)), return_dict=False)[0]},
        "vae_encoder": {"latent_sample": encoded.latents} if tiny else {"latent_parameters": encoded.latent_dist.parameters},
    }


def single(family):
    """One file in the original's names: its tensors, and what its networks compute."""
    if family == "xl":
        text = clip(64, 2, "quick_gelu"), clip(128, 2, "gelu", projected=True)
        options = {"levels": (PLAIN, CROSS, CROSS), "block_out_channels": (32, 64, 128), "cross_attention_dim": 192}
        options |= {"attention_head_dim": (1, 1, 2), "transformer_layers_per_block": (1, 1, 2), "use_linear_projection": True}
        options |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        options |= {"projection_class_embeddings_input_dim": 128 + 6 * 256}
    else:
        text = (clip(64, 2, "gelu" if family == "sd2" else "quick_gelu"),)
        options = {"levels": (CROSS, CROSS, PLAIN), "block_out_channels": (32, 64, 128), "cross_attention_dim": 64}
        options |= {"attention_head_dim": (1, 1, 2), "use_linear_projection": True} if family == "sd2" else {"attention_head_dim": 8}
    model, vae = unet(**options), autoencoder()
    tensors = ldm_unet(model.config) | ldm_vae(vae.config)
    if family == "sd2":
        # The original has one layer more than is used.
        tensors |= open_clip("cond_stage_model.model.", text[0].config, 3)
    else:
        first = "conditioner.embedders.0.transformer." if family == "xl" else "cond_stage_model.transformer."
        names = CLIPTextModelWithProjection._from_config(text[0].config).state_dict()
        tensors |= {first + name: list(value.shape) for name, value in names.items() if name.startswith("text_model.")}
        tensors[f"{first}text_model.embeddings.position_ids"] = [1, CONTEXT]
    if family == "xl":
        tensors |= open_clip("conditioner.embedders.1.model.", text[1].config, 2)
    state = {name: weight(name, shape) for name, shape in tensors.items()}
    loaded(model, convert_ldm_unet_checkpoint(dict(state), model.config))
    loaded(vae, convert_ldm_vae_checkpoint(dict(state), vae.config))
    outputs = {"unet": unet_outputs(model)} | (vae_outputs(vae) if family == "sd1" else {})
    if family == "sd2":
        converted = convert_open_clip_checkpoint(text[0], dict(state), prefix="cond_stage_model.model.")
        converted = {key: value for key, value in converted.items() if ".layers.2." not in key and key != "text_projection.weight"}
        loaded(text[0], converted)
    else:
        loaded(text[0], convert_ldm_clip_checkpoint(dict(state), remove_prefix=first))
    outputs["text_encoder"] = text_outputs(text[0])
    if family == "xl":
        loaded(text[1], convert_open_clip_checkpoint(text[1], dict(state), prefix="conditioner.embedders.1.model."))
        outputs["text_encoder_2"] = text_outputs(text[1])
    return tensors, outputs


def saved(model):
    """The names and shapes of the file that a model is saved as, and its configuration."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = next(Path(folder).glob("*.safetensors"))
        with safe_open(file, "pt") as tensors:
            names = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
        return names, json.loads((Path(folder) / "config.json").read_text())


def folders():
    """Networks that no ONNX fixture has, or whose names only a saved file tells."""
    small = {"levels": (CROSS, PLAIN), "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    small |= {"cross_attention_dim": 16, "attention_head_dim": 2}
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8,
        projection_dim=12,
    )
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
    )
    return {
        "inpainting": ("unet", unet(in_channels=9, **small)),
        "lcm": ("unet", unet(time_cond_proj_dim=12, freq_shift=1, flip_sin_to_cos=False, **small)),
        "unclip": ("unet", unet(class_embed_type="projection", projection_class_embeddings_input_dim=24, **small)),
        "text": ("text_encoder", clip(16, 2, "quick_gelu", vocabulary=300)),
        "projected": ("text_encoder_2", clip(16, 2, "gelu", projected=True, vocabulary=300)),
        "vision": ("image_encoder", CLIPVisionModelWithProjection._from_config(vision)),
        "autoencoder": ("vae", autoencoder((8, 8), 1, norm_num_groups=4, use_quant_conv=False, use_post_quant_conv=False)),
        "tiny": ("vae", tiny),
    }


def flat(case, outputs):
    return {f"{case}.{component}.{name}": x.numpy() for component, named in outputs.items() for name, x in named.items()}


def main():
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")
    OUT.mkdir(exist_ok=True)
    cases, arrays = {}, {}
    for family in ("sd1", "sd2", "xl"):
        tensors, outputs = single(family)
        cases[family] = {"tensors": list(tensors.items())}
        arrays |= flat(family, outputs)
    for name, (component, model) in folders().items():
        tensors, config = saved(fill(model))
        cases[name] = {"folder": component, "config": config, "tensors": list(tensors.items())}
        # Names in a file may differ from those of the module: transformers leaves out a prefix.
        fill(model, {key.removeprefix("text_model."): key for key in tensors} | {key: key for key in tensors})
        if component == "unet":
            outputs = {"unet": unet_outputs(model)}
        elif component == "vae":
            outputs = vae_outputs(model)
        elif component == "image_encoder":
            outputs = {component: {"image_embeds": model(pixel_values=given("pixel_values", (1, 3, 24, 24))).image_embeds}}
        else:
            outputs = {component: text_outputs(model)}
        arrays |= flat(name, outputs)
    made = provenance("checkpoints.py", "torch", "diffusers", "transformers", "safetensors", "numpy")
    text = json.dumps({**made, "files": cases}, separators=(",", ":")) + "\n"
    (OUT / "files.json.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    np.savez_compressed(OUT / "files.npz", **arrays)


if __name__ == "__main__":
    main()
