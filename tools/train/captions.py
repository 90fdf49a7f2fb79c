"""Captions: what a picture of (concept, style, background) is called, in English and Korean.

A caption may leave out the style or the background, so that a bare "strawberry" is understood too; `Caption` keeps
what the text says, because the contrastive stage has to know which pictures it fits.
"""

import random
from dataclasses import dataclass

from concepts import Concept

KOREAN_SHARE = 1 / 3

# (weight, form). {a} is the object's article with its space, {o} the object, {s} the style, {c} the colour, {b} the
# colour with its article.
ENGLISH = [
    (0.46, "a {s} {o} on {b} background"),
    (0.12, "{o}, {s} style, {c} background"),
    (0.08, "{s} {o}, {c} background"),
    (0.05, "{s} {o} on {c} background"),
    (0.06, "{a}{o} in {s} style on {b} background"),
    (0.04, "{o}, {c} background, {s} style"),
    (0.03, "a picture of a {s} {o} on {b} background"),
    (0.03, "{a}{o} on {b} background"),
    (0.03, "a {s} {o}"),
    (0.03, "{s} {o}"),
    (0.05, "{o}"),
    (0.02, "{a}{o}"),
]
KOREAN = [
    (0.52, "{c} 배경의 {s} {o}"),
    (0.15, "{c} 배경에 {s} {o}"),
    (0.15, "{s} {o}, {c} 배경"),
    (0.06, "{s} {o}"),
    (0.05, "{c} 배경의 {o}"),
    (0.07, "{o}"),
]

# The first word is the usual one.
KOREAN_STYLES = {
    "glossy": ("반짝이는", "광택 있는"),
    "cartoon": ("만화풍", "만화"),
    "retro": ("복고풍", "레트로"),
}
KOREAN_COLOURS = {
    "white": ("하얀", "흰색"),
    "black": ("검은", "검은색"),
    "red": ("빨간", "빨간색"),
    "orange": ("주황색", "주황"),
    "yellow": ("노란", "노란색"),
    "green": ("초록색", "초록"),
    "blue": ("파란", "파란색"),
    "purple": ("보라색", "보라"),
    "pink": ("분홍색", "분홍"),
    "grey": ("회색", "회색"),
}
ENGLISH_COLOURS = {"grey": ("grey", "gray")}

# How often the first of several words for the same thing is taken.
FIRST_WORD_SHARE = 0.7


@dataclass(frozen=True)
class Caption:
    """A text and what it says; None where it says nothing."""

    text: str
    concept: str
    style: str | None
    background: str | None

    def fits(self, concept: str, style: str, background: str) -> bool:
        """Whether the text is true of a picture."""
        return (
            self.concept == concept
            and self.style in (None, style)
            and self.background in (None, background)
        )


def caption(concept: Concept, style: str, background: str, rng: random.Random) -> Caption:
    """A random caption of the picture."""
    if rng.random() < KOREAN_SHARE:
        form = _pick_form(KOREAN, rng)
        words = {
            "o": _pick_word(concept.ko, rng),
            "s": _pick_word(KOREAN_STYLES[style], rng),
            "c": _pick_word(KOREAN_COLOURS[background], rng),
        }
    else:
        form = _pick_form(ENGLISH, rng)
        noun = _pick_word(concept.en, rng)
        colour = _pick_word(ENGLISH_COLOURS.get(background, (background,)), rng)
        words = {
            "o": noun,
            "s": style,
            "c": colour,
            "a": article(noun, concept.countable),
            "b": article(colour, True) + colour,
        }
        if not concept.countable:
            form = form.replace("a {s} {o}", "{s} {o}")
    text = form.format(**words)
    named = style if "{s}" in form else None
    return Caption(text, concept.name, named, background if "{c}" in form or "{b}" in form else None)


def plain_english(concept: Concept, style: str, background: str) -> str:
    """The form a user is most likely to type, with the concept's first noun."""
    lead = "a " if concept.countable else ""
    return f"{lead}{style} {concept.name} on {article(background, True)}{background} background"


def plain_korean(concept: Concept, style: str, background: str) -> str:
    """The most frequent Korean form, with the first word of each kind."""
    return f"{KOREAN_COLOURS[background][0]} 배경의 {KOREAN_STYLES[style][0]} {concept.ko[0]}"


def article(noun: str, countable: bool) -> str:
    """The indefinite article with its space; empty for plurals and mass nouns."""
    if not countable:
        return ""
    return "an " if noun[0] in "aeio" else "a "


def _pick_form(forms: list[tuple[float, str]], rng: random.Random) -> str:
    return rng.choices([form for _, form in forms], [weight for weight, _ in forms])[0]


def _pick_word(words: tuple[str, ...], rng: random.Random) -> str:
    if len(words) == 1 or rng.random() < FIRST_WORD_SHARE:
        return words[0]
    return rng.choice(words[1:])
