"""Where the goldens live, and what made them."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"


def provenance(script: str, *packages: str) -> dict:
    """The header of a golden: the script, and the version of everything that decided its values."""
    versions = {name: version(name) for name in packages}
    return {"generator": f"tools/goldens/{script}", "versions": {"python": platform.python_version(), **versions}}


def write_json(name: str, value: dict) -> None:
    """Writes `tests/data/<name>`: one line per key, and per entry of a list of cases."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, list):
            rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in entry)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}")
    (DATA / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
