"""MkDocs hooks: adds the generated reference pages to the site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.documentation.pages import PAGES

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add one file for each generated page."""
    from mkdocs.structure.files import File

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files
