"""How well a finished run draws what it never saw: 200 held-out triples, in English and in Korean.

    python tools/train/evaluate.py --state DIR --concepts 204

Two judges look at every picture, neither of them the CLIP that was trained along:

1. the nearest of all reference pictures (every concept, style and background), by mean squared difference of pixels;
2. a small convolutional classifier trained on the references alone, shifted, scaled, dimmed, blurred and made noisy.

The English prompts name style and background; of the Korean ones the object counts, the other two are reported.
Writes `figures.json`, `contact-en.png` and `contact-ko.png` into the run's folder.
"""

import argparse
import json
import random
import sys
from pathlib import Path

from state import State, tune_runtime

SAMPLES = 200
SHEET = 60
SHEET_COLUMNS = 12
CLASSIFIER_STEPS = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "tintype-train")
    parser.add_argument("--concepts", type=int, default=204)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--unfinished", action="store_true", help="judge the newest checkpoint of a run still in training")
    options = parser.parse_args()
    tune_runtime()
    import torch

    torch.set_num_threads(options.cores)
    state = State(options.state, options.concepts)
    figures = evaluate(state, options.steps, options.guidance, options.unfinished)
    text = json.dumps(figures, indent=2)
    (state.run / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def evaluate(state: State, steps: int, guidance: float, unfinished: bool) -> dict:
    """All figures of the run."""
    from judges import Classifier, NearestReference

    from captions import plain_english, plain_korean
    from data import BACKGROUND_NAMES, load_pictures
    from networks import load_networks
    from sampling import save_sheet
    from vae import measure_vae

    pictures = load_pictures(state)
    triples = pictures.triples(held=True)
    random.Random(0).shuffle(triples)
    triples = triples[:SAMPLES]
    networks = load_networks(state, unfinished)
    classifier = Classifier.train_or_load(state, pictures, CLASSIFIER_STEPS)
    judges = {"nearest_reference": NearestReference(pictures), "classifier": classifier}
    words = [(*pictures.labels[row], BACKGROUND_NAMES[column]) for row, column in triples]
    figures = {
        "concepts": state.concepts,
        "pictures": len(pictures.labels),
        "held_out_triples": len(triples),
        "steps": steps,
        "guidance": guidance,
        "samples_seen": networks.samples_seen,
        "vae_psnr_db": measure_vae(state),
        "classifier_on_references": classifier.self_check(pictures),
    }
    for language, prompt in (("en", plain_english), ("ko", plain_korean)):
        drawn = networks.draw([prompt(*w) for w in words], steps, guidance)
        figures[language] = {name: judge.score(drawn, triples) for name, judge in judges.items()}
        save_sheet(drawn[:SHEET], SHEET_COLUMNS, state.run / f"contact-{language}.png")
        figures[language]["failures"] = _failures(drawn, triples, words, judges["nearest_reference"])
    return figures


def _failures(drawn, triples, words, judge) -> list[str]:
    """The prompts whose picture the judge takes for another object, with what it takes it for."""
    seen = judge.judge(drawn)
    return [
        f"{style} {concept.name} on {background}: {judge.names[row]}"
        for (concept, style, background), (row, _) in zip(words, seen, strict=True)
        if judge.names[row] != concept.name
    ]


if __name__ == "__main__":
    sys.exit(main())
