"""The networks, as diffusers and transformers define them, at the sizes that ship."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
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
