"""The film or main figure that opens a chapter, under its title, and stills for all its films.

A chapter opens with the image of the cell that its metadata `opening` names, else with its first
animation, else with its first figure. It is the very file that stands further down, loaded once.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from duality_data import BookError
from duality_templates import render
from PIL import Image
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

COLORS = 64  # of a film, and so of its still


def is_film(file: Path) -> bool:
    """Whether a picture moves: a GIF or an animated PNG."""
    with Image.open(file) as image:
        return getattr(image, "is_animated", False)


def opaque(frame: Image.Image) -> Image.Image:
    """What a frame shows, without the transparent colour that only its file needs."""
    return frame.convert("RGBA").convert("RGB")


def _file(folder: Path, image: nodes.image) -> Path:
    return folder / image["uri"].removeprefix("/")


def chosen(doctree: nodes.document, notebook: dict[str, Any], folder: Path) -> nodes.image | None:
    """The image that opens a chapter, where it stands in the chapter; None where it has none.

    `folder` holds the sources of the book: an address of an image starts from there.
    """
    found: list[tuple[str, nodes.image]] = []  # with the id of its cell
    for container in doctree.findall(nodes.container):
        if container.get("nb_element") == "cell_code":
            cell = notebook["cells"][container["cell_index"]]
            found += [(cell["id"], image) for image in container.findall(nodes.image)]
    wanted = notebook["metadata"].get("duality", {}).get("opening")
    if wanted is None:
        films = [image for _, image in found if is_film(_file(folder, image))]
        return next(iter(films + [image for _, image in found]), None)
    for cell_id, image in found:
        if cell_id == wanted:
            return image
    raise BookError(f"the metadata 'opening' names a cell {wanted!r}, which shows no image.")


def open_chapter(app: Sphinx, doctree: nodes.document) -> None:
    """Repeat the chosen image between a chapter's title and its first sentence."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    try:
        image = chosen(doctree, json.loads(path.read_text("utf-8")), Path(app.srcdir))
    except BookError as error:
        raise ExtensionError(f"{path.name}: {error}") from None
    title = next(doctree.findall(nodes.title), None)
    if image is None or title is None:
        return
    section: nodes.Node = image
    while not isinstance(section, nodes.section):
        section = section.parent
    where = {"anchor": section["ids"][0], "section": section[0].astext()}
    caption = render("opening.html", film=is_film(_file(Path(app.srcdir), image)), **where)
    parts = [_raw('<figure class="opening">'), image.deepcopy(), _raw(caption)]
    title.parent.insert(title.parent.index(title) + 1, parts)


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def finish_images(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell the size of every image, so that text does not jump, and the still of every film."""
    files = {name: Path(app.srcdir, uri) for uri, name in app.builder.images.items()}

    def finish(tag: re.Match[str]) -> str:
        address, file = tag["src"], files.get(unquote(tag["src"].rpartition("/")[2]))
        if file is None or file.suffix != ".png" or "width" in tag[0]:
            return tag[0]
        with Image.open(file) as image:
            size = f' width="{image.width}" height="{image.height}"'
        shown = f"{tag[0].removesuffix('/>').rstrip()}{size} />"
        return render("film.html", still=still(address), image=shown) if is_film(file) else shown

    if page.startswith("chapters/") and "body" in context:
        context["body"] = re.sub(r'<img [^>]*?src="(?P<src>[^"]+)"[^>]*>', finish, context["body"])


def still(film: str) -> str:
    """The address of a film's last picture, on which the whole way shows."""
    return f"{film.removesuffix('.png')}.still.png"


def write_stills(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for name in app.builder.images.values():
        path = Path(app.outdir, app.builder.imagedir, name)
        if path.suffix == ".png" and is_film(path):
            with Image.open(path) as film:
                film.seek(film.n_frames - 1)
                last = opaque(film).quantize(COLORS, dither=Image.Dither.NONE)
            last.save(still(str(path)), optimize=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", open_chapter, priority=100)  # before Sphinx collects the images
    app.connect("html-page-context", finish_images)
    app.connect("build-finished", write_stills)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
