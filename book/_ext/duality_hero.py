"""The front page's films: single episodes cut out of the animations that chapters store.

The build cuts them from the notebooks' outputs each time, so that they show what the chapters show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from duality_data import Book, BookDirective, BookError, read_book
from duality_opening import opaque
from duality_templates import render
from PIL import Image, ImageSequence
from sphinx.application import Sphinx

EPISODES, GAP = 4, 8  # of an animation, side by side, and the pixels between two of them
COLORS, STEP_MS, HOLD_MS = 64, 100, 1500


def animation(book: Book, chapter: str, cell: str) -> Image.Image:
    """The animation that a cell of a chapter has stored."""
    if chapter not in book.chapters:
        raise BookError(f"taxonomy.yml shows a film of {chapter}, which _toc.yml does not list.")
    for candidate in book.chapters[chapter].cells:
        for output in candidate.get("outputs", []) if candidate.get("id") == cell else []:
            if data := output.get("data", {}).get("image/png"):
                film = Image.open(io.BytesIO(base64.b64decode("".join(data))))
                if getattr(film, "is_animated", False):
                    return film
    raise BookError(f"{chapter} has no animation in a cell {cell!r}: name another in taxonomy.yml.")


def episode(film: Image.Image, number: int) -> list[Image.Image]:
    """The frames of one episode, without its caption, up to where it ends."""
    side = (film.width - (EPISODES - 1) * GAP) // EPISODES
    left = number * (side + GAP)
    box = (left, 0, left + side, side)
    frames = [opaque(frame).crop(box) for frame in ImageSequence.Iterator(film)]
    while len(frames) > 1 and frames[-2].tobytes() == frames[-1].tobytes():
        frames.pop()
    return frames


def save(frames: list[Image.Image], path: Path) -> None:
    """Write the film as a GIF, and its last frame, on which the whole way shows, as a PNG."""
    wide, high = frames[0].size
    everything = Image.new("RGB", (wide, high * len(frames)))
    for number, frame in enumerate(frames):
        everything.paste(frame, (0, high * number))
    palette = everything.quantize(COLORS, dither=Image.Dither.NONE)
    shades = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [STEP_MS] * (len(shades) - 1) + [HOLD_MS]
    shades[0].save(
        path.with_suffix(".gif"), save_all=True, append_images=shades[1:], duration=times, loop=0
    )
    shades[-1].save(path.with_suffix(".png"), optimize=True)


class Hero(BookDirective):
    """Show the films that taxonomy.yml chooses, each a link to its chapter."""

    def draw(self, book: Book) -> list[nodes.Node]:
        films = [
            film | {"file": f"_images/{_name(number)}", "href": self.uri(film["chapter"])}
            for number, film in enumerate(book.films)
        ]
        return [self.html(render("hero.html", films=films))]


def _name(number: int) -> str:
    return f"film-{number}"


def cut(book: Book) -> Iterator[tuple[str, list[Image.Image]]]:
    """Name and frames of every film of the front page."""
    for number, film in enumerate(book.films):
        stored = animation(book, film["chapter"], film["cell"])
        yield _name(number), episode(stored, film["episode"])


def write_films(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / "_images"
        folder.mkdir(exist_ok=True)
        for name, frames in cut(read_book(Path(app.srcdir))):
            save(frames, folder / name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("hero", Hero)
    app.connect("build-finished", write_films)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
