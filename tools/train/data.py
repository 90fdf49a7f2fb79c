"""The pictures: fetch the icon sets from the npm registry, render them, put them on coloured backgrounds.

    packages -> SVG per (style, icon) -> RGBA 128 px, uint8 -> composited on the fly, [-1, 1]

Three splits are rendered: `concept` (the concept list), `pool` (every other object icon: the autoencoder learns from
them too) and `unseen` (people, flags and symbols, on which nothing is trained: they measure the autoencoder).
"""

import io
import json
import re
import subprocess
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image

from concepts import BACKGROUNDS, STYLES, Concept, held_out, load_concepts
from state import State

PACKAGES = {
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/noto-v1": "1.2.5",
    "unicode-emoji-json": "0.9.0",
}
SIZE_PX = 128
UNSEEN_GROUPS = ("People & Body", "Flags", "Symbols")
UNSEEN_ONE_IN = 12
NOT_OBJECTS = re.compile(r"skin-tone|o-clock|thirty|-button|moon-face")

BACKGROUND_NAMES = list(BACKGROUNDS)
BACKGROUND_RGB = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.float32)


@dataclass
class Pictures:
    """The icons of a concept list: `rgba` is uint8 `[pictures, 4, 128, 128]`, `labels` its (concept, style) per row."""

    rgba: torch.Tensor
    labels: list[tuple[Concept, str]]

    def triples(self, held: bool) -> list[tuple[int, int]]:
        """All (picture, background) pairs that are held out, or all that are not."""
        return [
            (row, column)
            for row, (concept, style) in enumerate(self.labels)
            for column, background in enumerate(BACKGROUND_NAMES)
            if held_out(concept.name, style, background) == held
        ]


def fetch(state: State) -> None:
    """Install the packages at their pinned versions, without running any package's scripts."""
    if all((state.npm / "node_modules" / name / "package.json").exists() for name in PACKAGES):
        return
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(state.npm), *wanted]
    subprocess.run(command, check=True)


def render(state: State) -> None:
    """Render every icon of every split to `icons.npz`."""
    if state.icons.exists():
        return
    modules = state.npm / "node_modules"
    sets = {style: _icon_set(modules, package) for style, package in STYLES.items()}
    splits = _splits(modules, set(sets["glossy"]) & set(sets["cartoon"]))
    jobs = [
        (style, icon, split, sets[style][icon])
        for style in STYLES
        for icon, split in splits.items()
        if icon in sets[style]
    ]
    with Pool(2) as pool:
        rendered = pool.map(_render_one, jobs, chunksize=32)
    temporary = state.icons.with_suffix(".part.npz")
    np.savez(
        temporary,
        rgba=np.stack(rendered),
        style=np.array([job[0] for job in jobs]),
        icon=np.array([job[1] for job in jobs]),
        split=np.array([job[2] for job in jobs]),
    )
    temporary.rename(state.icons)
    print(f"rendered {len(jobs)} icons", flush=True)


def load_pictures(state: State) -> Pictures:
    """The pictures of the run's concepts, ordered by concept, then style."""
    icons = np.load(state.icons)
    row_of = {(str(s), str(i)): row for row, (s, i) in enumerate(zip(icons["style"], icons["icon"], strict=True))}
    labels = [(c, s) for c in load_concepts(state.concepts) for s in STYLES if (s, c.icon) in row_of]
    rows = [row_of[style, concept.icon] for concept, style in labels]
    return Pictures(_planar(icons["rgba"][rows]), labels)


def load_split(state: State, *splits: str) -> torch.Tensor:
    """All pictures of the given splits, uint8 `[pictures, 4, 128, 128]`."""
    icons = np.load(state.icons)
    return _planar(icons["rgba"][np.isin(icons["split"], splits)])


def compose(rgba: torch.Tensor, backgrounds: torch.Tensor) -> torch.Tensor:
    """Put pictures on backgrounds.

    `rgba`: uint8 `[n, 4, h, w]`; `backgrounds`: indices `[n]`; result: float `[n, 3, h, w]` in [-1, 1].
    """
    alpha = rgba[:, 3:].float() / 255
    colour = BACKGROUND_RGB[backgrounds][:, :, None, None]
    return (rgba[:, :3].float() * alpha + colour * (1 - alpha)) / 127.5 - 1


def _icon_set(modules: Path, package: str) -> dict[str, str]:
    """Icon name -> SVG text, aliases resolved where they change nothing but the name."""
    data = json.loads((modules / "@iconify-json" / package / "icons.json").read_text(encoding="utf-8"))
    icons = dict(data["icons"])
    for name, alias in data.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in icons:
            icons[name] = icons[alias["parent"]]
    return {name: _svg(icon, data) for name, icon in icons.items()}


def _svg(icon: dict, defaults: dict) -> str:
    fields = (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    left, top, width, height = (icon.get(name, defaults.get(name, default)) for name, default in fields)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def _splits(modules: Path, shared: set[str]) -> dict[str, str]:
    """Icon name -> split, for the icons that the two large sets share."""
    emoji = json.loads((modules / "unicode-emoji-json" / "data-by-emoji.json").read_text(encoding="utf-8"))
    group = {entry["slug"].replace("_", "-"): entry["group"] for entry in emoji.values()}
    chosen = {concept.icon for concept in load_concepts()}
    splits = {icon: "concept" for icon in sorted(chosen)}
    foreign = sorted(icon for icon in shared if group.get(icon) in UNSEEN_GROUPS and not NOT_OBJECTS.search(icon))
    splits |= {icon: "unseen" for icon in foreign[::UNSEEN_ONE_IN]}
    for icon in sorted(shared - chosen):
        if group.get(icon) not in (*UNSEEN_GROUPS, "Component", None) and not NOT_OBJECTS.search(icon):
            splits[icon] = "pool"
    return splits


def _render_one(job: tuple[str, str, str, str]) -> np.ndarray:
    png = resvg_py.svg_to_bytes(svg_string=job[3], width=SIZE_PX, height=SIZE_PX, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA").resize((SIZE_PX, SIZE_PX)))


def _planar(rgba: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgba).permute(0, 3, 1, 2).contiguous()
