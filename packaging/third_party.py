"""Writes the licences of the crates that the program is made of: packaging/third_party.py TARGET FILE

The crates are those of Cargo.lock that a build for TARGET links; tools and tests are left out. Texts that several
crates share stand once.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("licen[cs]e*", "LICEN[CS]E*", "COPYING*", "COPYRIGHT*", "NOTICE*", "UNLICENSE*")
WIDTH = 100


def linked(metadata: dict) -> set[str]:
    """The ids of the packages that are linked into the root package; a macro and what it needs are not."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, left = set(), [metadata["resolve"]["root"]]
    while left:
        package = left.pop()
        macro = any("proc-macro" in target["kind"] for target in packages[package]["targets"])
        if package in found or macro:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return found - {metadata["resolve"]["root"]}


def texts(package: dict) -> list[str]:
    """The licence texts that a package carries."""
    folder = Path(package["manifest_path"]).parent
    files = {file for name in NAMES for file in folder.glob(name) if file.is_file()}
    if package["license_file"]:
        files.add(folder / package["license_file"])
    return [file.read_text(errors="replace").replace("\r", "").strip() for file in sorted(files)]


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("third_party.py: name a target, such as aarch64-unknown-linux-gnu, and the file to write")
    target, out = sys.argv[1], Path(sys.argv[2])
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    ids = linked(metadata)
    packages = sorted((p for p in metadata["packages"] if p["id"] in ids), key=lambda p: p["name"])
    owners, bare = {}, []
    for package in packages:
        found = texts(package)
        for text in found:
            # What differs in its line breaks alone is the same text.
            names = owners.setdefault(" ".join(text.split()), (text, []))[1]
            names.append(f"{package['name']} {package['version']}")
        if not found:
            bare.append(package["name"])
    lines = ["Tintype is linked with the following crates, and with Rust's standard library (MIT OR Apache-2.0).", ""]
    for package in packages:
        by = ", ".join(name.split(" <")[0] for name in package["authors"])
        lines.append(f"{package['name']} {package['version']}: {package['license']}" + (f" ({by})" if by else ""))
    for text, names in owners.values():
        lines += ["", "=" * WIDTH, ", ".join(names), "=" * WIDTH, "", text]
    part = out.with_name(out.name + ".part")
    part.write_text("\n".join(lines) + "\n")
    part.rename(out)
    print(f"{len(packages)} crates, {len(owners)} texts; without a text of their own: {', '.join(bare) or 'none'}")


if __name__ == "__main__":
    main()
