"""Goldens of transformers' CLIPTokenizer: tests/data/tokens-<name>.json, and CLIP's merges.

    python tools/goldens/tokens.py FOLDER NAME      a folder with vocab.json, merges.txt, tokenizer_config.json
    python tools/goldens/tokens.py --clip           CLIP's own vocabulary, in the four ways that models configure it

The texts are those of tests/data/prompts.json, in that order. A golden lists the ids of each, from begin to end, without
the padding, of which every text has the same. `--clip` takes the merges from the package open-clip-torch and writes
the 48,894 that CLIP uses to src/import/clip-merges.txt.gz; the vocabulary follows from them (`clip_vocabulary`, repeated in
tests/tokenizer.rs). Of a configuration beside the plain one it lists only the texts that come out otherwise.
"""

import argparse
import gzip
import hashlib
import json
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from transformers import CLIPTokenizer

from provenance import DATA, provenance, write_json

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MERGES = 49152 - 256 - 2
PLAIN = {
    "model_max_length": 77,
    "bos_token": BEGIN,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
}


def flags(content: str, **others) -> dict:
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, **others}


def marked(content: str) -> dict:
    return {"__type": "AddedToken", **flags(content)}


# The files of Stable Diffusion 1 and 2 and of the second tokenizer of XL, in shape.
MARKED = {**PLAIN, "bos_token": marked(BEGIN), "eos_token": marked(END), "unk_token": marked(END)}
MAP = {"bos_token": flags(BEGIN), "eos_token": flags(END), "unk_token": flags(END)}
CONFIGURATIONS = {
    "sd1": {"config": MARKED, "special_tokens_map": {**MAP, "pad_token": END}},
    "sd2": {"config": MARKED, "special_tokens_map": {**MAP, "pad_token": "!"}},
    "xl": {
        "config": {
            **PLAIN,
            "pad_token": "!",
            "added_tokens_decoder": {
                "0": flags("!", normalized=False, special=True),
                "49406": {"content": BEGIN, "special": True},
                "49407": flags(END, special=True),
            },
        },
        "special_tokens_map": {**MAP, "pad_token": END},
    },
    "flags": {
        "config": {**PLAIN, "pad_token": {**marked("cat</w>"), "lstrip": True, "rstrip": True, "single_word": True}},
        "special_tokens_map": None,
    },
}


def prompts() -> list[str]:
    return json.loads((DATA / "prompts.json").read_text(encoding="utf-8"))


def encode(folder: Path) -> tuple[CLIPTokenizer, list[list[int]]]:
    """The ids of every text, begin and end included, cut to the context."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    rows = []
    for text in prompts():
        context = tokenizer.model_max_length
        padded = tokenizer(text, padding="max_length", max_length=context, truncation=True).input_ids
        ids = tokenizer(text, max_length=context, truncation=True).input_ids
        assert padded == ids + [tokenizer.pad_token_id] * (context - len(ids))
        rows.append(ids)
    return tokenizer, rows


def describe(folder: Path, tokenizer: CLIPTokenizer, *packages: str) -> dict:
    origin = provenance("tokens.py", "transformers", "tokenizers", *packages)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ["vocab.json", "merges.txt"]}
    return {**origin, "sha256": files, "context": tokenizer.model_max_length, "pad": tokenizer.pad_token_id}


def clip_merges() -> list[str]:
    """CLIP's merges, `first second`. The file's first line is its version; most of the rest is unused."""
    packed = distribution("open-clip-torch").locate_file("open_clip/bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    return lines[1 : CLIP_MERGES + 1]


def clip_vocabulary(merges: list[str]) -> dict[str, int]:
    """The 256 bytes as characters, the same at the end of a word, what the merges make, begin and end."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(m.replace(" ", "") for m in merges), BEGIN, END]
    return {token: number for number, token in enumerate(tokens)}


def write_folder(folder: Path, merges: list[str], config: dict, special_tokens_map: dict | None = None) -> None:
    (folder / "vocab.json").write_text(json.dumps(clip_vocabulary(merges)), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if special_tokens_map is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens_map))


def write_clip() -> None:
    merges = clip_merges()
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (DATA.parents[1] / "src" / "import" / "clip-merges.txt.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, merges, PLAIN)
        tokenizer, plain = encode(folder)
        golden = {**describe(folder, tokenizer, "open-clip-torch"), "config": PLAIN}
    configurations = []
    for name, files in CONFIGURATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), merges, **files)
            tokenizer, rows = encode(Path(folder))
        differing = {str(i): row for i, (row, before) in enumerate(zip(rows, plain)) if row != before}
        configurations.append({"name": name, **files, "pad": tokenizer.pad_token_id, "differing": differing})
    write_json("tokens-clip.json", {**golden, "ids": plain, "configurations": configurations})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?")
    arguments.add_argument("name", nargs="?")
    arguments.add_argument("--clip", action="store_true")
    chosen = arguments.parse_args()
    if chosen.clip:
        write_clip()
    elif chosen.folder and chosen.name:
        tokenizer, rows = encode(chosen.folder)
        write_json(f"tokens-{chosen.name}.json", {**describe(chosen.folder, tokenizer), "ids": rows})
    else:
        arguments.error("give a folder and a name, or --clip")


if __name__ == "__main__":
    main()
