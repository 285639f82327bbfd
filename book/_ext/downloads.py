"""Offer the printed PDF and the ZIP of all notebooks on each chapter's page (`make site`).

They are made from the finished pages, so only a build that will have them, by DUALITY_DOWNLOADS,
links to them; in any other build the theme's own entry opens the browser's print dialogue.
"""

from __future__ import annotations

import os
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

ARCHIVE = "duality-notebooks.zip"  # tools/publish.py writes it


def offer_downloads(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Put both files into the theme's menu of downloads."""
    if not os.environ.get("DUALITY_DOWNLOADS") or not page.startswith("chapters/"):
        return
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            kept = [entry for entry in group["buttons"] if "pdf" not in entry["label"]]
            pdf = f"{page.rpartition('/')[2]}.pdf"
            files = [(pdf, ".pdf", "This chapter, ready to print", "fas fa-file-pdf")]
            files += [(ARCHIVE, "all .ipynb", "All notebooks as a ZIP", "fas fa-file-zipper")]
            group["buttons"] = kept + [
                {
                    "type": "link",
                    "url": context["pathto"](f"downloads/{name}", 1),
                    "text": text,
                    "tooltip": tooltip,
                    "icon": icon,
                    "label": f"download-{name}",
                }
                for name, text, tooltip, icon in files
            ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", offer_downloads, priority=900)  # after the theme's buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
