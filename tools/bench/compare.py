"""Tintype beside its peers: the same component, the same inputs, the same threads, in turn, on one machine.

    python tools/bench/compare.py FOLDER MODEL.tintype --component unet [--threads 2] [--repeat 3] [--rounds 3]
                                  [--engines tintype,onnxruntime,openvino]

`FOLDER` is what `tools/bench/sd15.py` wrote, `MODEL.tintype` what `tintype import` made of it. Every engine runs in a
process of its own, and the engines take turns, so that what disturbs the machine disturbs all. Prints a Markdown table:
the median of all runs with the smallest and the largest, seconds until ready, the peak of memory, the error against torch.
Nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "tintype"
OUTPUTS = {"unet": "out_sample", "vae_decoder": "sample", "vae_encoder": "latent_parameters", "text_encoder": "last_hidden_state"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--component", choices=OUTPUTS, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="tintype,onnxruntime")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(options)))
        return
    engines = options.engines.split(",")
    rounds = {engine: [] for engine in engines}
    for _ in range(options.rounds):
        for engine in engines:
            rounds[engine].append(tintype(options) if engine == "tintype" else in_process(options, engine))
    print(f"{options.component}, {options.threads} threads, {options.rounds} x {options.repeat} runs, {machine()}\n")
    print("| engine | s, median (least to most) | ready in s | peak MB without mapped files | relative L2 |")
    print("|---|---|---|---|---|")
    for engine, results in rounds.items():
        print(row(engine, results))


def row(engine: str, results: list[dict]) -> str:
    seconds = [s for result in results for s in result["seconds"]]
    of = lambda key: statistics.median(result[key] for result in results)  # noqa: E731
    spread = f"{statistics.median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g})"
    return f"| {engine} | {spread} | {of('load_s'):.2f} | {of('peak_mb'):.0f} | {of('relative_l2'):.1e} |"


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def tintype(options) -> dict:
    """One run of `tintype bench`, and the error by `tintype run`."""
    common = ["--component", options.component, "--threads", str(options.threads)]
    bench = [PROGRAM, "bench", options.model, *common, "--repeat", str(options.repeat), "--json"]
    result = json.loads(subprocess.run(bench, check=True, capture_output=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        got = Path(folder) / "got.npz"
        reference = options.folder / options.component / "reference.npz"
        run = [PROGRAM, "run", options.model, *common, "--inputs", reference, "--outputs", got]
        subprocess.run(run, check=True, capture_output=True)
        error = relative_l2(np.load(got)[OUTPUTS[options.component]], np.load(reference)[OUTPUTS[options.component]])
    return result | {"peak_mb": result["peak_anon_bytes"] / 1e6, "relative_l2": error}


def in_process(options, engine: str) -> dict:
    """A peer, in a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peer", engine]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])


def peer(options) -> dict:
    reference = np.load(options.folder / options.component / "reference.npz")
    start = time.perf_counter()
    run = PEERS[options.peer](options, reference)
    load, seconds = time.perf_counter() - start, []
    output = run()
    for _ in range(options.repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    # These hold their weights in memory of their own: their resident set is what they take.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    error = relative_l2(output, reference[OUTPUTS[options.component]])
    return {"seconds": seconds, "load_s": load, "peak_mb": peak, "relative_l2": error}


def onnxruntime(options, reference):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
    path = options.folder / options.component / "model.onnx"
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    inputs = {value.name: reference[value.name] for value in session.get_inputs()}
    return lambda: session.run([OUTPUTS[options.component]], inputs)[0]


def openvino(options, reference):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": options.threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(options.folder / options.component / "model.onnx")
    inputs = {value.any_name: reference[value.any_name] for value in model.inputs}
    model.reshape({name: value.shape for name, value in inputs.items()})
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(inputs)[OUTPUTS[options.component]]


PEERS = {"onnxruntime": onnxruntime, "openvino": openvino}


def relative_l2(got, expected) -> float:
    expected = expected.astype(np.float64)
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
