"""The tokenizer: CLIP's byte-level BPE with the end-of-word mark, its merges learned from our own captions.

    text -> NFC, lower case, CLIP's split -> bytes as printable characters, `</w>` on the last -> merges

`transformers` splits and maps (so that training sees what the shipped tokenizer will), the merges are counted here.
"""

import json
import random
from collections import Counter
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from captions import caption
from concepts import BACKGROUNDS, STYLES, load_concepts
from models import CONTEXT
from state import State

VOCABULARY = 1792
CAPTIONS_PER_TRIPLE = 4
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


class Tokenizer:
    """Captions to token ids, padded to the model's context; remembers what it has seen."""

    def __init__(self, folder: Path) -> None:
        self.clip = CLIPTokenizer.from_pretrained(folder)
        self.known: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self.clip)

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Ids `[texts, CONTEXT]`, int64."""
        for text in texts:
            if text not in self.known:
                self.known[text] = self.clip(text, padding="max_length", max_length=CONTEXT, truncation=True).input_ids
        return torch.tensor([self.known[text] for text in texts])


def train_tokenizer(state: State) -> None:
    """Learn the merges from captions of every concept (not only the run's) and write the four files."""
    folder = state.tokenizer
    if (folder / "tokenizer_config.json").exists():
        return
    texts = _captions()
    alphabet = _alphabet()
    base = alphabet + [letter + "</w>" for letter in alphabet]
    _write(folder, base, [])
    pieces = _split(folder, texts)
    merges = _learn(pieces, VOCABULARY - len(base) - 2)
    _write(folder, base, merges)
    longest = max(len(ids) for ids in CLIPTokenizer.from_pretrained(folder)(texts).input_ids)
    print(f"tokenizer: {len(base) + len(merges) + 2} entries, longest caption {longest} tokens", flush=True)
    if longest > CONTEXT:
        raise ValueError(f"a caption has {longest} tokens, the context holds {CONTEXT}")


def _captions() -> list[str]:
    rng = random.Random(0)
    return [
        caption(concept, style, background, rng).text
        for concept in load_concepts()
        for style in STYLES
        for background in BACKGROUNDS
        for _ in range(CAPTIONS_PER_TRIPLE)
    ]


def _alphabet() -> list[str]:
    """The 256 bytes as printable characters, in the order of CLIP's own vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def _split(folder: Path, texts: list[str]) -> Counter[tuple[str, ...]]:
    """Words of the texts as tuples of byte characters, counted."""
    backend = CLIPTokenizer.from_pretrained(folder).backend_tokenizer
    words: Counter[tuple[str, ...]] = Counter()
    for text, count in Counter(texts).items():
        for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text)):
            words[(*piece[:-1], piece[-1] + "</w>")] += count
    return words


def _learn(words: Counter[tuple[str, ...]], limit: int) -> list[tuple[str, str]]:
    """Merge the most frequent pair until `limit` merges are found; ties go to the larger pair, so that runs agree."""
    merges = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result, at = [], 0
    while at < len(word):
        if word[at : at + 2] == pair:
            result.append(pair[0] + pair[1])
            at += 2
        else:
            result.append(word[at])
            at += 1
    return tuple(result)


def _write(folder: Path, base: list[str], merges: list[tuple[str, str]]) -> None:
    entries = [*base, *(a + b for a, b in merges), BEGIN, END]
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "do_lower_case": True, **special}
    _write_json(folder / "vocab.json", {entry: number for number, entry in enumerate(entries)})
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
