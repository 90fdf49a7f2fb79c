"""The networks, as diffusers and transformers define them, at the sizes that ship."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch.nn.functional import silu
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

LATENT_CHANNELS = 4
LATENT_SIZE = 16
WIDTH = 128
CONTEXT = 24

# Zero terminal SNR with v-prediction: the last timestep is pure noise, as sampling starts there.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}


def make_scheduler() -> DDIMScheduler:
    """The scheduler that the pipeline ships."""
    return DDIMScheduler(**SCHEDULER)


def make_vae() -> AutoencoderKL:
    """8x downsampling, 4 latent channels, about 1.6 M parameters."""
    channels = (16, 32, 64, 96)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        mid_block_add_attention=False,
    )


def make_text_encoder(vocabulary: int) -> CLIPTextModelWithProjection:
    """4 layers of 128; the last two entries of the vocabulary are begin and end of text."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=2,
            projection_dim=WIDTH,
            max_position_embeddings=CONTEXT,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def make_image_encoder() -> CLIPVisionModelWithProjection:
    """4 layers of 128 over 8 px patches of a 64 px picture."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=2,
            projection_dim=WIDTH,
            image_size=64,
            patch_size=8,
            hidden_act="quick_gelu",
        )
    )


def make_unet() -> UNet2DConditionModel:
    """About 7.1 M parameters; cross attention at every level; `class_labels` takes an image embedding or zeros."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=32,
        cross_attention_dim=WIDTH,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=WIDTH,
    )


def make_pixel_scheduler() -> DDIMScheduler:
    """The scheduler of the plain diffusion model: the cosine schedule, whose last timestep is all but pure noise."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
    )


def make_pixel_unet(classes: int) -> UNet2DModel:
    """About 2.5 M parameters, for 64 px pictures; attention at 16 x 16 and 8 x 8; `class_labels` takes the number of a class."""
    return UNet2DModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96, 80),
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=16,
        num_class_embeds=classes,
    )


def make_prior() -> PriorTransformer:
    """About 0.9 M parameters: DALL-E 2's prior at the width of the text encoder."""
    return PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=WIDTH // 4,
        num_layers=4,
        embedding_dim=WIDTH,
        num_embeddings=CONTEXT,
        additional_embeddings=4,
    )


def make_prior_scheduler() -> UnCLIPScheduler:
    """The prior's scheduler, which predicts the embedding itself; embeddings are whitened, so 5 is far outside."""
    return UnCLIPScheduler(
        variance_type="fixed_small_log",
        num_train_timesteps=1000,
        clip_sample=True,
        clip_sample_range=5.0,
        prediction_type="sample",
        beta_schedule="squaredcos_cap_v2",
    )


class ImageTokens(torch.nn.Module):
    """An image embedding as the hidden states of a caption, which is what the UNet reads; about 1.2 M parameters."""

    def __init__(self, hidden: int = 512, bottleneck: int = 192) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, hidden)
        self.second = torch.nn.Linear(hidden, hidden)
        self.narrow = torch.nn.Linear(hidden, bottleneck)
        self.tokens = torch.nn.Linear(bottleneck, CONTEXT * WIDTH)

    def forward(self, image_embeddings: torch.Tensor) -> torch.Tensor:
        """`[n, 128]`, normalised times the root of 128 -> `[n, 24, 128]`."""
        inner = silu(self.first(image_embeddings))
        inner = silu(self.second(inner))
        return self.tokens(self.narrow(inner)).unflatten(1, (CONTEXT, WIDTH))
