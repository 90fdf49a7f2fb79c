"""What a model's components would take on boards: its operations, counted, over the rates of the loops.

A component runs each of its loops so often, at the rate that llvm-mca gives for the core. Everything else that is done
(caches that miss, sums that are loaded and stored, norms) is in one factor for each component: how much longer this
machine takes than its own model says, measured here by `tintype bench` with one thread. Memory is a second bound.
"""

import json
import math
import os
import re
import resource
import subprocess
from collections import Counter
from dataclasses import dataclass

ROWS, LANES, TOKENS = 6, 16, 77
CHUNK_ROWS, BAND_TILES = 504, 64  # of src/engine/ops/product.rs and winograd.rs


@dataclass
class Board:
    name: str
    core: str
    cores: int
    ghz: float
    gb_s: float  # of memory, as a copy reaches it, not as its maker states it


# Clocks are the makers'; bandwidths are rounded from what public measurements of copies say.
BOARDS = [
    Board("Pi 3, Zero 2 W", "cortex-a53", 4, 1.0, 2.0),
    Board("Jetson Nano", "cortex-a72", 4, 1.43, 9.0),
    Board("Pi 4", "cortex-a72", 4, 1.5, 4.0),
    Board("Pi 4 at 1.8 GHz", "cortex-a72", 4, 1.8, 4.0),
    Board("Pi 5", "neoverse-n1", 4, 2.4, 9.0),
    Board("Orin Nano", "neoverse-n1", 6, 1.5, 30.0),
]


def up(count, step):
    return math.ceil(count / step) * step


def convolve(count, node, shape, weight, in_loop):
    outputs, down, across, channels = weight["shape"]
    n, h, w, _ = shape
    double = 2 if node["upsample"] else 1
    top, left, bottom, right = node["pads"]
    h = (h * double + top + bottom - down) // node["stride"][0] + 1
    w = (w * double + left + right - across) // node["stride"][1] + 1
    count["MAC, every tap"] += n * h * w * down * across * channels * outputs
    tiles = n * math.ceil(h / 4) * math.ceil(w / 4)
    wide = math.ceil(w / 4)
    band = max(1, min(BAND_TILES // wide, n * math.ceil(h / 4))) * wide
    bands = math.ceil(tiles / band)
    turned = 36 * up(tiles, ROWS) + bands * 140
    if (down, across) == (3, 3) and node["stride"] == [1, 1] and channels % 8 == 0 and turned < 9 * n * h * w:
        last = tiles - (bands - 1) * band
        count["f32 product"] += 36 * ((bands - 1) * up(band, ROWS) + up(last, ROWS)) * channels * up(outputs, LANES)
        count["int8 to f32"] += bands * 9 * channels * up(outputs, LANES)
        count["Winograd, weights"] += bands * 36 * channels * up(outputs, LANES)
        count["Winograd, inputs"] += tiles * 36 * channels
        count["Winograd, outputs"] += tiles * 16 * up(outputs, LANES)
    else:
        in_integers = weight["dtype"] == "i8" and down * across == 1
        product(count, n * h * w, down * across * channels, outputs, in_integers, in_loop)
    return [n, h, w, outputs]


def product(count, rows, inputs, outputs, in_integers, in_loop):
    products, panels = up(rows, ROWS) * inputs * up(outputs, LANES), math.ceil(rows / CHUNK_ROWS) * inputs * up(outputs, LANES)
    if in_integers and inputs % 16 == 0:
        # On ARM those outside of the loop stay in f32.
        count["integer product" if in_loop else "integer product once"] += products
        count["int8 read"] += panels
    else:
        count["f32 product"] += products
        count["int8 to f32"] += panels


def counted(graph, shapes, weights, in_loop):
    """How often a run of a graph does what; `shapes` are those of its inputs; `in_loop` if it is run at every step."""
    count, shapes = Counter(), list(shapes)
    for node in graph["nodes"]:
        op, of = node["op"], [shapes[value] for value in node["inputs"]]
        out = list(of[0])
        numbers = math.prod(out)
        if op == "channels_last":
            out = [out[0], *out[2:], out[1]]
        elif op == "channels_first":
            out = [out[0], out[3], *out[1:3]]
        elif op == "conv2d":
            out = convolve(count, node, out, weights[node["weight"]], in_loop)
        elif op == "linear":
            outputs, inputs = weights[node["weight"]]["shape"]
            product(count, numbers // inputs, inputs, outputs, weights[node["weight"]]["dtype"] == "i8", in_loop)
            count["MAC, every tap"] += numbers * outputs
            out[-1] = outputs
        elif op == "attention":
            batch, (queries, channels) = out[0], (math.prod(out[1:-1]), out[-1])
            keys, width = math.prod(of[1][1:-1]), channels // node["heads"]
            pairs = batch * node["heads"] * up(queries, LANES)
            count["f32 product"] += pairs * (up(keys, ROWS) * width + keys * up(width, ROWS))
            count["MAC, every tap"] += 2 * batch * queries * keys * channels
            count["softmax"] += pairs * up(keys, ROWS)
        elif op == "geglu":
            out[-1] //= 2
            count["GELU"] += numbers // 2
        elif op == "activation":
            count["GELU"] += numbers
        elif op == "group_norm" and node["silu"]:
            count["norm and SiLU"] += numbers
        elif op == "concat":
            out[-1] = sum(shape[-1] for shape in of)
        elif op == "slice":
            out[-1] = node["len"]
        elif op == "upsample":
            out = [out[0], 2 * out[1], 2 * out[2], out[3]]
        elif op == "timestep_embedding":
            out = [out[0], math.prod(out[1:]) * 2 * weights[node["frequencies"]]["shape"][0]]
        elif op == "embedding":
            out.append(weights[node["table"]]["shape"][1])
        elif op == "prepend_token":
            out = [out[0], 1 + math.prod(out[1:-1]), out[-1]]
        elif op == "pick_token":
            out = [out[0], out[2]]
        elif op == "add" and len(of[1]) > len(out):
            out = list(of[1])
        shapes.append(out)
    return count


def shape_of(graph_input, height, width):
    """The free dimensions of an input: one picture, the size of the latents, so many tokens."""
    shape = graph_input["shape"]
    if len(shape) == 4:
        return [1, shape[1], shape[2] or height, shape[3] or width]
    return [1, *(size or TOKENS for size in shape[1:])]


def read(path):
    """(pipeline, {component: (counts, bytes of weights)}) of a model file."""
    program = os.environ["TINTYPE"]
    said = subprocess.run([program, "inspect", "--json", path], capture_output=True, text=True, check=True).stdout
    report = json.loads(said)
    pipeline = report["pipeline"]
    cells = [pipeline[f"default_{side}_px"] // pipeline["vae_scale_factor"] for side in ("height", "width")]
    components = {}
    with open(path, "rb") as file:
        for component in report["components"]:
            if component["name"] not in ("text_encoder", "unet", "vae_decoder"):
                continue
            file.seek(component["graph"]["offset"])
            graph = json.loads(file.read(component["graph"]["len"]))
            weights = {tensor["name"]: tensor for tensor in component["tensors"]}
            shapes = [shape_of(each, *cells) for each in graph["inputs"]]
            size = sum(tensor["blob"]["len"] for tensor in component["tensors"])
            components[component["name"]] = counted(graph, shapes, weights, component["name"] == "unet"), size
    return pipeline, components


def rate(rates, core, loop):
    """How many a cycle; integers are multiplied by the best loop that the core has for them."""
    is_arm = core.startswith(("cortex", "neoverse"))
    if loop == "integer product once":
        loop = "f32 product" if is_arm else "integer product"
    if loop == "integer product":
        return max(rate for (of, name), rate in rates.items() if of == core and re.match(r"int\d+ product", name))
    return rates[core, loop]


def cycles(count, rates, core):
    counted = ((loop, often) for loop, often in count.items() if not loop.startswith("MAC") and loop != "int8 read")
    return sum(often / rate(rates, core, loop) for loop, often in counted)


def shares(count, rates, *starts):
    """Of the cycles on an a72 and an a76, those of the loops whose names start so."""
    some = {loop: often for loop, often in count.items() if loop.startswith(starts)}
    return ", ".join(
        f"{100 * cycles(some, rates, core) / cycles(count, rates, core):.0f}%" for core in ("cortex-a72", "neoverse-n1")
    )


def measured(path, component, size):
    """Seconds of a processor that one run of a component takes here, with one thread."""
    repeat = 50 if size < 20e6 else 1
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [os.environ["TINTYPE"], "bench", path, "--component", component, "--threads", "1", "--repeat", str(repeat)]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / (repeat + 1)


def table(path, rates, host, ghz):
    pipeline, components = read(path)
    passes = pipeline["default_steps"] * (2 if pipeline["default_guidance"] > 1 else 1)
    print(f"\n## {pipeline['name']}, {pipeline['default_width_px']} x {pipeline['default_height_px']} px\n")
    print(f"| component | GMAC, every tap | GMAC, as computed | {host} at {ghz} GHz: model s | taken s | slower by | on an a72 and an a76, products | Winograd's turning | functions |")
    print("|---|---|---|---|---|---|---|---|---|")
    slower = {}
    for name, (count, size) in components.items():
        products = sum(often for loop, often in count.items() if "product" in loop)
        model, taken = cycles(count, rates, host) / ghz / 1e9, measured(path, name, size)
        slower[name] = taken / model
        print(
            f"| {name} | {count['MAC, every tap'] / 1e9:.2f} | {products / 1e9:.2f} | {model:.4f}"
            f" | {taken:.4f} | {slower[name]:.1f} | {shares(count, rates, 'f32 product', 'integer product')} | {shares(count, rates, 'Winograd')}"
            f" | {shares(count, rates, 'softmax', 'GELU', 'norm')} |"
        )
    print(f"\nSeconds, reckoned and not measured; a picture is {passes} passes of the UNet, two of the text encoder, and one")
    print("of the decoder.\n")
    print("| board | UNet, model | with the factor | weights from memory | decoder | picture |")
    print("|---|---|---|---|---|---|")
    for board in BOARDS:
        hertz = board.cores * board.ghz * 1e9
        took = {name: slower[name] * cycles(count, rates, board.core) / hertz for name, (count, _) in components.items()}
        picture = 2 * took["text_encoder"] + passes * took["unet"] + took["vae_decoder"]
        unet = components["unet"][0]
        memory = (unet["int8 to f32"] + unet["int8 read"]) / (board.gb_s * 1e9)
        row = [took["unet"] / slower["unet"], took["unet"], memory, took["vae_decoder"], picture]
        print(f"| {board.name} | " + " | ".join(f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}" for seconds in row) + " |")
