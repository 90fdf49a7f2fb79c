"""Tables of what inner loops cost: tools/mca.sh builds the assembly and starts this.

    python3 tools/mca HOST.s ARM.s [MODEL.tintype ...]      LLVM_MCA and MEASURE name programs
"""

import os
import platform
import re
import subprocess
import sys

import boards
from loops import CORES, LOOPS, MACS, SAID

MCA = os.environ["LLVM_MCA"]
ROUNDS = 500
LABEL = re.compile(r"^\s*(\.?\w+):")
BRANCH = re.compile(r"^\s+(?:b\.?\w*|cbn?z|tbn?z|j\w+)\s+(?:[\w#]+,\s*)*(\.?\w+)\s*$")
VECTOR = re.compile(r"\bv\d+\.\d+[bhsd]|\b[sq]\d+\b|%[yz]mm|\bp?[yz]mm")
DIRECTIVE = re.compile(r"^\s*(?:\.(?!intel_syntax|att_syntax)|//|#|$)")


def fail(what):
    sys.exit(f"mca: {what}")


def mca(text, core):
    """Cycles of one round of some assembly, and how many LLVM counts at least for its busiest unit."""
    arm = core.startswith(("cortex", "neoverse"))
    flags = ["-march=aarch64", "-mattr=+dotprod,+i8mm"] if arm else ["-march=x86-64"]
    flags += [f"-mcpu={'native' if core == 'host' else core}", f"-iterations={ROUNDS}"]
    done = subprocess.run([MCA, *flags], input=text, capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if not cycles:
        fail(f"{MCA} for {core}: {done.stderr.strip()[:400]}")
    return int(cycles[1]) / ROUNDS


def check_models():
    """Prints what the models say of single instructions, and ends if that is not what the makers say."""
    print("| core | independent instructions | a cycle, by the model | by the maker |\n|---|---|---|---|")
    for (core, line), said in SAID.items():
        count = 24
        got = count / mca("\n".join(line.format(n=n) for n in range(count)), core)
        differs = abs(got - said) > 0.05 * said
        print(f"| {core} | `{line.format(n='N')}` | {got:.2f} | {said}{', not so' if differs else ''} |")
        if differs and not line.startswith("ld"):
            fail(f"{MCA} gives {core} {got:.2f} of `{line}` a cycle, its maker says {said}: take LLVM 17 or later")
    print()


def functions(path):
    """(symbol, lines) of every function of an assembly file."""
    symbol, lines = None, []
    with open(path) as file:
        for line in file:
            if line.startswith(("_R", "_Z")) and (label := LABEL.match(line)):
                symbol, lines = label[1], []
            elif ".cfi_endproc" in line and symbol:
                yield symbol, lines
                symbol = None
            else:
                lines.append(line.rstrip())


def loops(lines):
    """(start, end) of every loop in a function, or of the whole if it has none."""
    places, found = {}, []
    for at, line in enumerate(lines):
        if label := LABEL.match(line):
            places[label[1]] = at
        elif branch := BRANCH.match(line):
            # A numbered label of inline assembly: `2b` is the last `2:`.
            target = re.sub(r"^(\d+)b$", r"\1", branch[1])
            if target in places:
                found.append((places[target], at + 1))
    return found or [(0, len(lines))]


def inside(loop, others):
    return [other for other in others if loop != other and loop[0] <= other[0] and other[1] <= loop[1]]


def instructions(lines):
    """What llvm-mca is given: no directives, labels or branches."""
    kept = [line for line in lines if not DIRECTIVE.match(line) and not LABEL.match(line)]
    return [line for line in kept if not re.match(r"^\s+(?:bl?\b|b\.|cbn?z|tbn?z|j|call|ret|vzero|ud2|brk)", line)]


def vectors(lines):
    return sum(bool(VECTOR.search(line)) for line in instructions(lines))


def weight(lines):
    """How much of a kernel a loop is: one that only reads, as for the largest of some numbers, is not what it is about."""
    return bool(macs(instructions(lines)) or stored(instructions(lines))), vectors(lines)


def find(path, loop):
    """Instructions of a loop's round, and those of its innermost loops; of the candidates the one with most on vectors."""
    best = None
    for symbol, lines in functions(path):
        if not re.search(loop.symbol, symbol):
            continue
        found = loops(lines)
        inner = [each for each in found if not inside(each, found)]
        start, end = max(inner, key=lambda each: weight(lines[slice(*each)]))
        outer = [each for each in found if (start, end) in inside(each, found)]
        # A compiler may have unrolled what has several rounds.
        if loop.rounds == 1 or not outer:
            best = max(best or ([], []), (lines[start:end], lines[start:end]), key=lambda pair: weight(pair[0]))
            continue
        around = min(outer, key=lambda each: each[1] - each[0])
        text, at = [], around[0]
        for start, end in sorted(inside(around, inner)):
            text += lines[at:start] + lines[start:end] * loop.rounds
            at = end
        best = text + lines[at : around[1]], [
            line for each in inside(around, inner) for line in lines[slice(*each)] * loop.rounds
        ]
    return best and tuple(instructions(part) for part in best)


def macs(lines):
    return sum(count for line in lines for pattern, count in MACS if re.match(rf"\s+(?:{pattern})", line))


def stored(lines):
    """Numbers of 32 bits that are stored from vector registers, but not on the stack."""
    total = 0
    for line in lines:
        if re.search(r"\[sp|%rsp", line):
            continue
        if store := re.match(r"\s+st(r|ur|p)\s+([qds])\d+", line):
            total += {"q": 4, "d": 2, "s": 1}[store[2]] * (2 if store[1] == "p" else 1)
        elif re.match(r"\s+st1\s+\{\s*v\d+\.4s", line):
            total += 4
        elif store := re.match(r"\s+vmov[au]p[sd]\s+%([xyz])mm\d+,\s*[-\w]*\(", line):
            total += {"x": 4, "y": 8, "z": 16}[store[1]]
    return total


def host():
    """LLVM's name of this machine's core."""
    said = subprocess.run([MCA, "--version"], capture_output=True, text=True).stdout
    return re.search(r"Host CPU: (\S+)", said)[1]


def main(host_asm, arm_asm, models):
    version = re.search(r"version (\S+)", subprocess.run([MCA, "--version"], capture_output=True, text=True).stdout)
    print(f"LLVM {version[1]}; the host is {host()} ({platform.machine()}).\n")
    check_models()
    rates = {}
    print("| loop | core | instructions | products or numbers | cycles | a cycle | of its peak |")
    print("|---|---|---|---|---|---|---|")
    for arch, path in (("arm", arm_asm), ("x86", host_asm)):
        if arch == "x86" and platform.machine() != "x86_64":
            continue
        for loop in LOOPS[arch]:
            found = find(path, loop)
            if found is None:
                print(f"mca: no function matches {loop.symbol}: {loop.name} is left out", file=sys.stderr)
                continue
            lines, inner = found
            if not macs(inner) and not stored(inner):
                print(f"mca: {loop.name}: no loop multiplies or stores: left out", file=sys.stderr)
                continue
            for core in loop.cores:
                text = "\n".join(lines)
                cycles = mca(text, core)
                products = macs(inner) if "product" in loop.name else 0
                count = products or stored(inner)
                name = host() if core == "host" else core
                known = CORES.get(name)
                peak = known and products and (known.int8 if loop.integer else known.f32)
                share = f"{100 * count / cycles / peak:.0f}%" if peak else ""
                unit = "MAC" if products else "out"
                print(f"| {loop.name} | {name} | {len(lines)} | {count} {unit} | {cycles:.1f} | {count / cycles:.2f} | {share} |")
                rates[name, loop.name] = count / cycles
    measured = subprocess.run([os.environ["MEASURE"]], capture_output=True, text=True, check=True).stdout
    ghz, products = map(float, measured.split())
    print(f"\nThe f32 product as it runs on this machine, at {ghz} GHz: {products} a cycle.")
    for model in models:
        boards.table(model, rates, host(), ghz)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
