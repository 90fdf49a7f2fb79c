"""The words of the model: what can be drawn, in which style, on which background.

`concepts.json` holds one concept a line: the icon's name in the icon sets, its English nouns (the first is the one
that names the concept), its Korean nouns (labels and tags of emojibase-data, MIT, shortened to the everyday word), and
whether the English noun takes an article. The first twelve are the small run's.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

# Style word -> icon set. All are MIT or Apache-2.0 (see README.md).
STYLES = {"glossy": "fluent-emoji", "cartoon": "noto", "retro": "noto-v1"}

# Background word -> sRGB.
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (24, 24, 28),
    "red": (222, 70, 70),
    "orange": (246, 150, 60),
    "yellow": (250, 218, 94),
    "green": (110, 190, 110),
    "blue": (86, 146, 236),
    "purple": (150, 110, 210),
    "pink": (248, 170, 200),
    "grey": (150, 150, 155),
}

# One triple in this many is never trained on.
HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn."""

    icon: str
    en: tuple[str, ...]
    ko: tuple[str, ...]
    countable: bool

    @property
    def name(self) -> str:
        return self.en[0]


def load_concepts(limit: int | None = None) -> list[Concept]:
    """The first `limit` concepts of the list, all of them without a limit."""
    rows = json.loads((Path(__file__).parent / "concepts.json").read_text(encoding="utf-8"))
    return [Concept(r["icon"], tuple(r["en"]), tuple(r["ko"]), r["countable"]) for r in rows][:limit]


def held_out(concept: str, style: str, background: str) -> bool:
    """Whether the triple is kept from every training stage, by a checksum of its words."""
    return zlib.crc32(f"{concept}|{style}|{background}".encode()) % HELD_OUT_ONE_IN == 0
