"""What happens in a run of the small pipeline, as torch sees it: tests/data/explain/.

    python tools/goldens/explain.py

The pipeline is that of pipeline.py, whose text encoder gets a projection into the space of the image encoder of safety.py.

    text_encoder/       that text encoder, as transformers saves it
    run.json            the run; CLIP's similarity of each predicted picture to the prompt
    run.npz             noised.N: the final latents under noise, by the scheduler's add_noise at `noised` of run.json
                        original.N: DDIM's pred_original_sample of step N
                        map.N: of word N the probabilities that its cells attend to it with, by an attention processor that
                        keeps them: the sum over its tokens, and the mean over steps, layers and heads
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

import pipeline
import safety
from provenance import DATA, provenance, write_json

OUT = DATA / "explain"
RUN = {"prompt": "a red, box", "negative": "blue", "seed": 7, "steps": 4, "guidance": 3.5, "width": 48, "height": 32}
NOISED = 5


class Keeping(AttnProcessor):
    """Attention with scores, of which those between a picture and a text are kept."""

    def __init__(self, kept: list[torch.Tensor]):
        super().__init__()
        self.kept = kept

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, *others, **named):
        if encoder_hidden_states is not None:
            queries, keys = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
            probabilities = attn.get_attention_scores(attn.head_to_batch_dim(queries), attn.head_to_batch_dim(keys))
            self.kept.append(probabilities.reshape(len(hidden_states), attn.heads, *probabilities.shape[1:]))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *others, **named)


def projected(text, generator) -> CLIPTextModelWithProjection:
    """The same text encoder, and a projection."""
    config = text.config
    config.projection_dim = 12
    model = CLIPTextModelWithProjection(config).eval()
    model.text_model.load_state_dict({key.removeprefix("text_model."): value for key, value in text.state_dict().items()})
    model.text_projection.weight.normal_(0, 0.25, generator=generator)
    return model


def words(tokenizer, prompt: str) -> list[list[int]]:
    """The tokens of each word, counted with the one that begins every text."""
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    found, place = [], 0
    for word in prompt.split():
        start = prompt.index(word, place)
        place = start + len(word)
        found.append([at for at, (left, right) in enumerate(offsets) if left < right and start <= left < place])
    return found


def main() -> None:
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = pipeline.write_tokenizer(Path(folder) / "tokenizer")
        tokenizer = CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")
    text, unet, vae = pipeline.build(vocabulary, torch.Generator().manual_seed(3))
    scheduler = DDIMScheduler.from_pretrained(DATA / "tiny" / "scheduler")
    sentences = projected(text, torch.Generator().manual_seed(8))
    sentences.save_pretrained(OUT / "text_encoder")
    kept, arrays = [], {}
    unet.set_attn_processor(Keeping(kept))

    originals = []
    step = scheduler.step

    def watched(*given, **named):
        output = step(*given, **{**named, "return_dict": True})
        originals.append(output.pred_original_sample)
        return (output.prev_sample,)

    drawing = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    drawing.set_progress_bar_config(disable=True)
    scheduler.step = watched
    latents = drawing(
        RUN["prompt"], negative_prompt=RUN["negative"], width=RUN["width"], height=RUN["height"],
        num_inference_steps=RUN["steps"], guidance_scale=RUN["guidance"], output_type="latent",
        generator=torch.Generator().manual_seed(RUN["seed"]),
    ).images
    arrays["latents"] = latents.numpy()

    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(RUN["seed"]))
    timesteps = [1000 * (at + 1) // NOISED - 1 for at in range(NOISED)]
    for at, timestep in enumerate(timesteps):
        arrays[f"noised.{at}"] = scheduler.add_noise(latents, noise, torch.tensor([timestep])).numpy()

    height, width = latents.shape[2:]
    largest = []
    for probabilities in kept:
        # The second picture of the batch is the prompt's.
        mean = probabilities[1].mean(0).T
        scale = (height * width // mean.shape[1]) ** 0.5
        cells = mean.reshape(1, len(mean), int(height / scale), int(width / scale))
        largest.append(torch.nn.functional.interpolate(cells, (height, width), mode="bilinear", align_corners=False)[0])
    mean = torch.stack(largest).mean(0)
    for at, tokens in enumerate(words(tokenizer, RUN["prompt"])):
        arrays[f"map.{at}"] = mean[tokens].sum(0).numpy()

    checker, processor = safety.build()
    ids = tokenizer(RUN["prompt"], padding="max_length", return_tensors="pt").input_ids
    sentence = sentences(ids).text_embeds[0]
    similarities = []
    for at, original in enumerate(originals):
        arrays[f"original.{at}"] = original.numpy()
        picture = drawing.image_processor.postprocess(vae.decode(original / vae.config.scaling_factor).sample)[0]
        pixels = processor(picture, return_tensors="pt").pixel_values
        embedding = safety.exporter.Embeds(checker)(pixels)[0]
        similarities.append(float(torch.nn.functional.cosine_similarity(sentence, embedding, dim=0)))
    assert len(kept) % RUN["steps"] == 0 and len({array.shape for name, array in arrays.items() if name[:3] == "map"}) == 1
    np.savez_compressed(OUT / "run.npz", **arrays)
    made = provenance("explain.py", "torch", "diffusers", "transformers", "numpy")
    timesteps = {"timesteps": scheduler.timesteps.tolist(), "noised": timesteps}
    write_json("explain/run.json", {**made, "run": RUN, **timesteps, "words": RUN["prompt"].split(), "similarity": similarities})


if __name__ == "__main__":
    main()
