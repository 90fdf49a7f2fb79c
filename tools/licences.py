"""Holds the licences and sources of all dependencies against deny.toml.

cargo-deny reads the same file and knows more; it takes minutes to compile, so the gate uses this instead. A crate
passes if its SPDX expression can be met with allowed licences alone and it comes from crates.io.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def is_met(expression: str, allowed: set[str]) -> bool:
    """Whether allowed licences are enough for an SPDX expression. The old spelling `A/B` means `A OR B`."""
    expression = expression.replace("/", " OR ")
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression)

    def either() -> bool:
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both() -> bool:
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one() -> bool:
        token = tokens.pop(0)
        if token != "(":
            return " ".join(token.split()) in allowed
        met = either()
        tokens.pop(0)
        return met

    return either()


def main() -> None:
    rules = tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]
    allowed = set(rules["allow"])
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", ROOT / "Cargo.toml"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
    refused = []
    for package in packages:
        name, expression = f"{package['name']} {package['version']}", package["license"]
        if expression is None or not is_met(expression, allowed):
            refused.append(f"{name}: licence {expression} is not allowed")
        if package["source"] not in (None, CRATES_IO):
            refused.append(f"{name}: comes from {package['source']}")
    if refused:
        sys.exit("\n".join(refused))
    print(f"{len(packages)} crates, all allowed")


if __name__ == "__main__":
    main()
