"""Rewrites the table of checkpoints in models/README.md: `python -m tools.models_table`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sam_edge.models.catalogue import HERE, rows
from tools.shared.commands import tool_parser

COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    "name": lambda row: f"`{row['name']}`",
    "family": lambda row: row["family"],
    "parameters": lambda row: f"{row['parameters'] / 1e6:.1f} M",
    "encoder": lambda row: f"{row['encoder_gmacs']} GMACs",
    "input": lambda row: row["input_size"],
    "file": lambda row: f"[{row['file']}]({row['url']})" if row["url"] else row["file"],
    "bytes": lambda row: f"{row['bytes']:,}" if row["bytes"] else "not known",
    "sha256": lambda row: _sha256(row),
    "licence": lambda row: row["license"],
    "source": lambda row: "here" if row["embedded"] else f"[page]({row['source']})",
}


def _sha256(row: dict[str, Any]) -> str:
    if row["sha256"] is None:
        return "not known"
    return f"{row['sha256']}{' (third party)' if row['sha256_by'] == 'third party' else ''}"


def markdown() -> str:
    """Render the catalogue as a table with a line for each checkpoint."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[str(cell(row)) for cell in COLUMNS.values()] for row in rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    tool_parser("models_table", __doc__).parse_args()
    path = HERE / "README.md"
    text, count = re.subn(r"(?m)^\| name \|.*\n(?:\|.*\n)*", lambda _: markdown(), path.read_text("utf-8"))
    if count != 1:
        raise SystemExit(f"{path} has {count} tables of models; expected one that begins with '| name |'")
    path.write_text(text, "utf-8")
