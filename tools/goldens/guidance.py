"""Golden of classifier-free guidance: tests/data/guidance.json.

    python tools/goldens/guidance.py

The combination is the expression in diffusers' pipelines; the rescaling is its function `rescale_noise_cfg`.
"""

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from provenance import provenance, write_json


def main() -> None:
    generator = torch.Generator("cpu").manual_seed(7)
    uncond, cond = torch.randn(2, 1, 2, 3, 4, generator=generator)
    cases = []
    for scale in [0.0, 0.5, 1.0, 1.5, 7.5, 30.0]:
        for phi in [0.0, 0.7, 1.0]:
            combined = uncond + scale * (cond - uncond)
            result = rescale_noise_cfg(combined, cond, guidance_rescale=phi)
            cases.append({"scale": scale, "phi": phi, "noise_pred": result.flatten().tolist()})
    inputs = {"uncond": uncond.flatten().tolist(), "cond": cond.flatten().tolist()}
    write_json("guidance.json", {**provenance("guidance.py", "diffusers", "torch"), "inputs": inputs, "cases": cases})


if __name__ == "__main__":
    main()
