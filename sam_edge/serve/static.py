"""Write the page and a bundle as static files for any host; images are then encoded in the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..bundle.bundle import Bundle
from ..bundle.publish import staged
from ..bundle.variant import Variant
from .site import HEADERS, config, files_to_run, page_files, sample_files

# Read by Netlify, Cloudflare Pages and others; other hosts configure the same headers elsewhere.
HEADERS_FILE = "_headers"


def export_site(bundle: Bundle, variants: list[Variant], out: Path, page: Path) -> int:
    """Write the page, the graphs it runs, the samples, config.json and `_headers` into a folder.

    Args:
        bundle: the bundle.
        variants: the manifest's entries of the variants that the page may run; others are left out.
        out: a folder to create, or to replace if it is an earlier site; written completely or not at all.
        page: the folder of the built page.

    Returns:
        the number of bytes written.

    Raises:
        ServeError: the page is not built.
        IntegrityError: a file of the bundle is not as exported.
        OutputError: the folder cannot be written, or holds something else.
    """
    needed = [file for variant in variants for file in files_to_run(variant)]
    files = {url: file.path for url, file in (page_files(page) | sample_files()).items()}
    files |= {f"bundle/{file.path}": bundle.path / file.path for file in needed}
    texts = {
        "bundle/manifest.json": json.dumps(bundle.manifest.data, ensure_ascii=False),
        "config.json": json.dumps(config(bundle, "page", variants)),
        HEADERS_FILE: "/*\n" + "".join(f"  {name}: {value}\n" for name, value in HEADERS.items()),
    }
    for file in needed:
        bundle.check_file(file)
    with staged(out, "config.json", "an exported page", "--export") as stage:
        for url, source in files.items():
            target = stage / url
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        for url, text in texts.items():
            (stage / url).write_text(text, "utf-8")
        return sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
