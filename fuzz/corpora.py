"""The seeds of the fuzzers: fuzz/corpus/. A file whose name starts with "valid" has to be taken, any other to be refused.

    python fuzz/corpora.py          needs onnx and numpy
"""

import copy
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).parent / "corpus"
SECTION = 65536
HASH = "00" * 32


def blob(offset: int, length: int) -> dict:
    return {"offset": offset, "len": length, "blake3": HASH}


def header() -> dict:
    """A file, a graph and three tensors, where the rules of the format put them."""
    return {
        "pipeline": {
            "kind": "stable-diffusion", "name": "seed", "scheduler": {}, "scaling_factor": 0.18215, "shift_factor": 0.0,
            "latent_channels": 4, "vae_scale_factor": 8, "default_width_px": 64, "default_height_px": 64,
            "default_steps": 8, "default_guidance": 2.0, "sampler": "ddim", "provenance": {},
        },
        "licences": [],
        "files": [{"name": "vocab.json", "blob": blob(SECTION, 3)}],
        "components": [{
            "name": "unet", "config": {}, "graph": blob(SECTION + 64, 2),
            "tensors": [
                {"name": "w", "dtype": "i8", "shape": [2, 5], "layout": "o8k4", "scales": "channel", "blob": blob(2 * SECTION, 96)},
                {"name": "h", "dtype": "f16", "shape": [3], "layout": "row", "blob": blob(2 * SECTION + 128, 6)},
                {"name": "b", "dtype": "f32", "shape": [4], "layout": "row", "blob": blob(2 * SECTION + 192, 16)},
            ],
        }],
    }


def bundles() -> dict[str, dict]:
    """One header a bug class of model loaders."""
    def changed(path: tuple, value) -> dict:
        made = header()
        place = made
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return made

    tensor = ("components", 0, "tensors", 0)
    twice = header()
    twice["components"][0]["tensors"][1]["name"] = "w"
    components = header()
    components["components"].append(copy.deepcopy(components["components"][0]))
    return {
        "valid": header(),
        "dimension-0": changed((*tensor, "shape"), [2, 0]),
        "dimension-beyond-2-to-42": changed((*tensor, "shape"), [2, 2**42 + 1]),
        "product-overflows": changed((*tensor, "shape"), [2**33, 2**33]),
        "rank-0": changed((*tensor, "shape"), []),
        "rank-9": changed((*tensor, "shape"), [2, 5] + [1] * 7),
        "negative-dimension": changed((*tensor, "shape"), [2, -5]),
        "unknown-dtype": changed((*tensor, "dtype"), "q4"),
        "unknown-layout": changed((*tensor, "layout"), "o16k8"),
        "wrong-dtype-for-length": changed((*tensor, "dtype"), "f32"),
        "scales-missing": changed((*tensor, "scales"), None),
        "overlap": changed(("components", 0, "tensors", 1, "blob"), blob(2 * SECTION + 64, 6)),
        "gap": changed(("components", 0, "tensors", 2, "blob"), blob(2 * SECTION + 256, 16)),
        "offset-past-the-end": changed(("components", 0, "tensors", 2, "blob"), blob(2**40, 16)),
        "offset-plus-length-overflows": changed(("components", 0, "tensors", 2, "blob"), blob(2**64 - 8, 16)),
        "length-of-a-terabyte": changed((*tensor, "blob"), blob(2 * SECTION, 2**40)),
        "duplicate-tensor": twice,
        "duplicate-component": components,
        "file-name-climbs": changed(("files", 0, "name"), "../vocab.json"),
        "unknown-field": changed(("pipeline", "surprise"), 1),
        "no-latent-channels": changed(("pipeline", "latent_channels"), 0),
        "scaling-factor-nothing": changed(("pipeline", "scaling_factor"), 0.0),
    }


def model(nodes, initialisers, inputs=(("x", [1, 4, None, None]),), outputs=(("y", None),), opset=17) -> bytes:
    """A graph as bytes; a dimension of None is free."""
    def value(name, shape):
        dims = shape and [dim if dim is not None else f"d{at}" for at, dim in enumerate(shape)]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    graph = helper.make_graph(nodes, "seed", [value(*i) for i in inputs], [value(*o) for o in outputs], initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString(deterministic=True)


def weight(name: str, shape: list[int], values=None, dtype=np.float32):
    made = np.random.default_rng(0).standard_normal(shape) if values is None else np.full(shape, values)
    return numpy_helper.from_array(made.astype(dtype), name)


def external(name: str, **entries) -> TensorProto:
    """A weight of 64 x 4 x 3 x 3 that lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64, 4, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def graphs() -> dict[str, bytes]:
    """One graph a bug class."""
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])
    first = helper.make_node("Conv", ["x", "w", "b"], ["z"], name="conv", pads=[1, 1, 1, 1])
    w, b = weight("w", [64, 4, 3, 3]), weight("b", [64])
    silu = [first, helper.make_node("Sigmoid", ["z"], ["s"], name="sig"), helper.make_node("Mul", ["z", "s"], ["y"], name="mul")]
    unfilled = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 4, 3, 3], raw_data=b"\0" * 40)
    typed = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**42 + 1, 4, 3, 3], raw_data=b"")
    return {
        "valid-convolution": model([conv], [w, b]),
        "valid-silu": model(silu, [w, b]),
        "empty": b"",
        "not-a-protobuf": b"no protobuf at all, but long enough to be one",
        "no-graph": helper.make_model(helper.make_graph([], "none", [], [])).SerializeToString()[:4],
        "unknown-operator": model([first, helper.make_node("Reverse", ["z"], ["y"], name="odd")], [w, b]),
        "unsupported-operator": model([first, helper.make_node("LRN", ["z"], ["y"], name="lrn", size=3)], [w, b]),
        "reads-what-nobody-makes": model([helper.make_node("Conv", ["q", "w", "b"], ["y"], name="conv")], [w, b]),
        "shows-what-nobody-makes": model([first], [w, b]),
        "nan-weight": model([conv], [weight("w", [64, 4, 3, 3], np.nan), b]),
        "infinite-weight": model([conv], [weight("w", [64, 4, 3, 3], np.inf), b]),
        "weight-of-another-type": model([conv], [weight("w", [64, 4, 3, 3], 1, np.float64), b]),
        "weight-without-its-data": model([conv], [unfilled, b]),
        "weight-beyond-2-to-42": model([conv], [typed, b]),
        "weight-of-dimension-0": model([conv], [weight("w", [0, 4, 3, 3]), b]),
        "channels-that-do-not-fit": model([conv], [weight("w", [64, 5, 3, 3]), b]),
        "external-climbs": model([conv], [external("w", location="../../etc/passwd"), b]),
        "external-elsewhere-and-back": model([conv], [external("w", location="a/../model.onnx"), b]),
        "external-absolute": model([conv], [external("w", location="/etc/passwd"), b]),
        "external-missing": model([conv], [external("w", location="weights.bin"), b]),
        "external-too-short": model([conv], [external("w", location="model.onnx", offset=64, length=9216), b]),
        "external-offset-overflows": model([conv], [external("w", location="model.onnx", offset=2**63 - 1, length=9216), b]),
    }


def main() -> None:
    for folder, cases in (("bundle", bundles()), ("onnx", graphs())):
        (OUT / folder).mkdir(parents=True, exist_ok=True)
        for name, case in cases.items():
            content = case if isinstance(case, bytes) else json.dumps(case).encode()
            (OUT / folder / name).write_bytes(content)
        print(folder, len(cases))


if __name__ == "__main__":
    main()
