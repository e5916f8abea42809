"""Write what is generated from the registries of formats, precisions and targets.

    python -m tools.manifest_schema            # sam_edge/bundle/manifest.schema.json
    cd web && npm run types                    # then the TypeScript types, which come from that

`--check` writes nothing and exits with 1 where the file is not up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sam_edge.axes import Registry
from sam_edge.bundle import manifest
from sam_edge.bundle.enums import with_names

SCHEMA = Path(manifest.__file__).with_name("manifest.schema.json")


def generate() -> str:
    """The schema's text, with the names of sam-edge's own formats, precisions and targets."""
    schema = with_names(json.loads(SCHEMA.read_bytes()), Registry.built_in_names)
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    text = generate()
    if parser.parse_args().check:
        return 0 if SCHEMA.read_text("utf-8") == text else 1
    SCHEMA.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
