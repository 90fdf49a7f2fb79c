"""Pictures as files, and what diffusers' and transformers' processors make of them: tests/data/pictures/.

    python tools/goldens/pictures.py

pictures.json   cases: a file, a size to cut it to (diffusers, Lanczos) or a CLIP configuration (transformers, bicubic)
pictures.npz    case.N: the bytes [height, width, 3], or the values [3, side, side]
*.png, ...      the files: grey, palette, 16 bits, with alpha, JPEG that lies on its side, CMYK, WebP, BMP
"""

import shutil

import numpy as np
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps
from transformers import CLIPImageProcessor

from provenance import DATA, provenance, write_json

OUT = DATA / "pictures"
ORIENTATION = 0x0112
CLIP = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
NORM = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
FILES = ["wide.png", "tall.png", "grey.png", "alpha.png", "palette.png", "turned.jpg", "turned.png", "cmyk.jpg", "lossless.webp", "small.bmp"]
SIZES = {"wide.png": [(32, 32), (64, 16), (96, 48), (8, 56)], "tall.png": [(24, 24), (72, 40)], "alpha.png": [(16, 24)]}


def source(width: int, height: int, seed: int) -> np.ndarray:
    """Noise, waves and hard edges: what a resampler may get wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(x / 2.3 + y / 5), (x // 5 + y // 4) % 2 * 255, rng.integers(0, 256, (height, width))]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def files() -> None:
    wide, tall = Image.fromarray(source(61, 37, 1)), Image.fromarray(source(23, 50, 2))
    wide.save(OUT / "wide.png")
    tall.save(OUT / "tall.png")
    wide.convert("L").save(OUT / "grey.png")
    wide.quantize(16).save(OUT / "palette.png")
    clear = wide.copy()
    clear.putalpha(Image.fromarray(source(61, 37, 3)[..., 0]))
    clear.save(OUT / "alpha.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    tall.save(OUT / "turned.jpg", exif=exif, quality=95)
    tall.save(OUT / "turned.png", exif=exif)
    wide.convert("CMYK").save(OUT / "cmyk.jpg", quality=95)
    wide.save(OUT / "lossless.webp", lossless=True)
    tall.crop((0, 0, 12, 9)).save(OUT / "small.bmp")
    # Not compared with Pillow, which cuts 16 bits off instead of rounding them.
    Image.fromarray(np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)).save(OUT / "deep.png")
    wide.save(OUT / "animated.png", save_all=True, append_images=[wide.rotate(180)])
    wide.save(OUT / "animated.webp", save_all=True, append_images=[wide.rotate(180)])


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    files()
    cases, arrays = [], {}
    add = lambda case, array: (arrays.update({f"case.{len(cases)}": array}), cases.append(case))
    for name in FILES:
        picture = ImageOps.exif_transpose(Image.open(OUT / name)).convert("RGB")
        if name not in ("turned.jpg", "cmyk.jpg"):
            clip = CLIPImageProcessor(**CLIP, **NORM)(picture, return_tensors="np").pixel_values[0]
            add({"file": name, "clip": {**CLIP, **NORM}}, clip.astype(np.float32))
        add({"file": name}, np.asarray(picture))
        for width, height in SIZES.get(name, []):
            cut = VaeImageProcessor().resize(picture, height, width, resize_mode="crop")
            add({"file": name, "size": [width, height]}, np.asarray(cut))
    np.savez_compressed(OUT / "pictures.npz", **arrays)
    made = provenance("pictures.py", "diffusers", "transformers", "pillow", "numpy")
    write_json("pictures/pictures.json", {**made, "cases": cases})


if __name__ == "__main__":
    main()
