"""What this checkout takes beside another state of it, by the benchmarks in `benches/`.

    python3 tools/bench/baseline.py REVISION              both are built here and take turns; prints a table
    python3 tools/bench/baseline.py --write FILE          keeps what this checkout takes on this machine
    python3 tools/bench/baseline.py --against FILE        beside what was kept, on the same machine

    [--only PATTERN] [--rounds 3] [--warm-up-time 0.5] [--measurement-time 1]

Each benchmark checks its result before it is timed. Every round runs all of them once for each side, one side after the
other, so that what disturbs the machine disturbs both; a round's figure is Criterion's median. The ratio is the median of
the rounds' ratios, and its spread goes from the least to the most: where that leaves 1 inside, nothing was found. Nothing
else should run meanwhile. The other revision is checked out to target/baseline and needs to have benchmarks of its own.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
OTHER = TARGET / "baseline"
SUITES = ["kernels", "stages"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", help="a commit or a branch to compare with")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", metavar="PATTERN", help="a regular expression of benchmarks' names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm-up-time", default="0.5", metavar="S")
    parser.add_argument("--measurement-time", default="1", metavar="S")
    options = parser.parse_args()
    if sum(wanted is not None for wanted in (options.revision, options.write, options.against)) != 1:
        parser.error("expected one of REVISION, --write FILE and --against FILE")
    if options.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    kept = json.loads(options.against.read_text()) if options.against else None
    if kept and kept["machine"] != machine():
        sys.exit(f"{options.against} is of another machine: {kept['machine']}; this is {machine()}")

    # This checkout is built last, so that target/release is its own.
    sides = [build(check_out(options.revision))] if options.revision else []
    sides.append(build(ROOT))
    rounds = [[measure(side, options) for side in sides] for _ in range(options.rounds)]
    own = [each[-1] for each in rounds]
    if options.write:
        write(options.write, own)
    elif kept:
        table(f"{kept['revision']}, as kept", [{name: each["s"] for name, each in kept["benchmarks"].items()}] * len(own), own)
    else:
        table(options.revision, [each[0] for each in rounds], own)


def git(*arguments, cwd: Path = ROOT) -> str:
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def check_out(revision: str) -> Path:
    """The files of a revision, where only those that differ from the last time are new to cargo."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    if (OTHER / ".git").exists():
        git("checkout", "--quiet", "--force", "--detach", commit, cwd=OTHER)
    else:
        git("worktree", "add", "--quiet", "--force", "--detach", str(OTHER), commit)
    if not all((OTHER / "benches" / f"{suite}.rs").exists() for suite in SUITES):
        sys.exit(f"{revision} has no benchmarks in benches/: compare with a later one")
    return OTHER


def build(checkout: Path) -> list[Path]:
    """The suites' programs; dependencies are compiled once for all checkouts."""
    suites = [argument for suite in SUITES for argument in ("--bench", suite)]
    command = ["cargo", "bench", "--no-run", "--locked", "--message-format=json", *suites]
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
    lines = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in lines.splitlines()]
    built = {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}
    return [Path(built[suite]) for suite in SUITES]


def measure(programs: list[Path], options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each benchmark, the median of what Criterion took."""
    times = ["--warm-up-time", options.warm_up_time, "--measurement-time", options.measurement_time]
    quick = ["--noplot", "--quiet", "--nresamples", "1000"]
    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            command = [program, "--bench", *quick, *times, options.only]
            environment = os.environ | {"CRITERION_HOME": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{program.name} failed:\n{done.stderr}")
        found = {}
        for path in Path(folder).glob("**/new/estimates.json"):
            name = json.loads(path.with_name("benchmark.json").read_text())["full_id"]
            found[name] = json.loads(path.read_text())["median"]["point_estimate"] / 1e9
    if not found:
        sys.exit(f"no benchmark has a name like {options.only!r}")
    return dict(sorted(found.items()))


def machine() -> str:
    """The processor: a virtual one may be called the same as another, of another family."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    said = [line.split(":", 1) for line in lines if re.match(r"(model name|cpu family|model)\s*:", line)]
    known = {key.strip(): value.strip() for key, value in said}
    kind = ", ".join(f"{key} {known[key]}" for key in ["cpu family", "model"] if key in known)
    return f"{known.get('model name', platform.machine())}, {kind or 'of unknown kind'}, {os.cpu_count()} cores"


def write(path: Path, rounds: list[dict[str, float]]) -> None:
    """Medians with the least and the most of the rounds, in seconds."""
    compiler = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    changed = "" if not git("status", "--porcelain", "--untracked-files=no") else " and changes"
    benchmarks = {}
    for name in rounds[0]:
        seconds = [each[name] for each in rounds]
        figures = {"s": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
        benchmarks[name] = {key: float(f"{value:.4g}") for key, value in figures.items()}
    revision = git("rev-parse", "--short=12", "HEAD") + changed
    kept = {"machine": machine(), "compiler": compiler, "revision": revision, "benchmarks": benchmarks}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def table(name: str, before: list[dict[str, float]], now: list[dict[str, float]]) -> None:
    print(f"{machine()}, {len(now)} rounds\n")
    print(f"| benchmark | {name} | this checkout | ratio (least to most) |")
    print("|---|---|---|---|")
    for benchmark in now[0]:
        if benchmark not in before[0]:
            print(f"| {benchmark} | - | {shown(statistics.median(each[benchmark] for each in now))} | |")
            continue
        ratios = [b[benchmark] / a[benchmark] for a, b in zip(before, now)]
        medians = [shown(statistics.median(each[benchmark] for each in side)) for side in (before, now)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"| {benchmark} | {medians[0]} | {medians[1]} | {ratio} |")


def shown(seconds: float) -> str:
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


if __name__ == "__main__":
    main()
