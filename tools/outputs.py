"""Clean the outputs of an executed notebook: no progress bars, no escapes, pictures that travel.

Pictures are small, carry their alternative texts, and are PNG, films too: nbconvert shows no GIF.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator

import numpy as np
from nbformat import NotebookNode
from PIL import Image, ImageChops, ImageSequence, ImageStat

IMAGES = ("image/png", "image/gif")
_BINARY = (*IMAGES, "image/jpeg", "image/webp", "application/pdf")
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
# Every tqdm bar ends with its clock: [00:05<00:10, 9.8it/s, loss=0.1], or [00:05, 9.8it/s].
_BAR = re.compile(r".*\[(?:\d+:)?\d\d:\d\d[<,\]].*\]\s*|.*\[(?:\d+:)?\d\d:\d\d\]\s*")

_PALETTES = (128, 256)  # the second is for figures that the first would change visibly
# Up to these nobody sees the difference (channels run from 0 to 255). The second one keeps thin
# lines of a rare colour, which hardly count in the mean, from taking the colour of another one.
_MAX_RMS = 2.0
_MAX_DIFFERENCE = 64


def strip_ansi(text: str) -> str:
    return _ANSI.sub("", text)


def without_bars(text: str) -> str:
    """What stderr says besides progress bars; text without carriage returns holds no bars."""
    if "\r" not in text:
        return text if text.strip() else ""  # a bar's last line break comes alone
    kept = [s for s in re.split(r"[\r\n]+", text) if s.strip() and not _BAR.fullmatch(s)]
    return "\n".join(kept) + "\n" if kept else ""


def smaller_png(data: str) -> str:
    """A base64 PNG with a palette, if that looks the same; in any case not a larger one."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        image.load()
    if getattr(image, "is_animated", False):
        return data
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode != "RGB":
        return data  # a palette already, grey or transparent: nothing to gain without a loss
    candidates = (image.quantize(n, kmeans=1, dither=Image.Dither.NONE) for n in _PALETTES)
    best = next((small for small in candidates if _looks_like(small, image)), image)
    stream = io.BytesIO()
    best.save(stream, "PNG", optimize=True)
    new = base64.b64encode(stream.getvalue()).decode()
    return new if len(new) < len(data) else data


def _looks_like(small: Image.Image, image: Image.Image) -> bool:
    difference = ImageChops.difference(image, small.convert("RGB"))
    worst = max(high for _, high in difference.getextrema())
    return worst <= _MAX_DIFFERENCE and max(ImageStat.Stat(difference).rms) <= _MAX_RMS


def film_as_png(data: str) -> str:
    """A base64 GIF as an animated PNG with the very same pictures, or '' if it has 256 colours.

    What a picture does not change is transparent in it, which keeps the file small.
    """
    with Image.open(io.BytesIO(base64.b64decode(data))) as gif:
        loop, times, frames = gif.info.get("loop", 1), [], []
        for frame in ImageSequence.Iterator(gif):
            times.append(frame.info.get("duration", 0))
            frames.append(np.asarray(frame.convert("RGB")).astype(np.uint32) @ [65536, 256, 1])
    colors, shades = np.unique(np.stack(frames), return_inverse=True)
    if (count := len(colors)) > 255:
        return ""
    shades = shades.reshape(len(frames), *frames[0].shape).astype(np.uint8)
    shades[1:][shades[1:] == shades[:-1]] = count
    palette = (colors[:, None] // [65536, 256, 1] % 256).astype(np.uint8).tobytes()
    images = [Image.fromarray(shade) for shade in shades]
    for image in images:
        image.putpalette(palette + bytes(3))
    stream = io.BytesIO()
    options = {"duration": times, "loop": loop, "transparency": count, "blend": 1}
    images[0].save(stream, "PNG", save_all=True, append_images=images[1:], optimize=True, **options)
    return base64.b64encode(stream.getvalue()).decode()


def alt_text(cell: NotebookNode) -> str:
    """The alternative text of a cell's pictures, from where its author has set it."""
    return str(cell.metadata.get("mystnb", {}).get("image", {}).get("alt") or "").strip()


def settle_pictures(cell: NotebookNode) -> None:
    """Store films as PNG, and beside each picture its text: the cell's only the book reads."""
    for output in cell.outputs:
        data = output.get("data", {})
        if png := film_as_png(data["image/gif"]) if "image/gif" in data else "":
            data["image/png"] = png
            del data["image/gif"]
        for mime in data:
            if mime in IMAGES and alt_text(cell):
                output.metadata.setdefault(mime, {})["alt"] = alt_text(cell)


def clean(nb: NotebookNode) -> None:
    """Bring all outputs of `nb` to the form in which they are committed."""
    for cell in nb.cells:
        cell.metadata.pop("execution", None)  # timestamps: they would differ in every run
        if cell.cell_type == "code":
            cell.outputs = [out for out in _merged(cell.outputs) if _cleaned(out)]
            settle_pictures(cell)


def _merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: a kernel cuts it anywhere, even inside a bar."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and output.get("name") == last.get("name"):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _cleaned(output: NotebookNode) -> bool:
    """Clean one output in place; tells whether anything of it is left."""
    if output.output_type == "stream":
        output.text = strip_ansi(output.text)
        if output.name == "stderr":
            output.text = without_bars(output.text)
        return bool(output.text)
    if output.output_type == "error":
        output.traceback = [strip_ansi(line) for line in output.traceback]
        return True
    for mime, data in output.data.items():
        if mime.startswith("text/") and isinstance(data, str):
            output.data[mime] = strip_ansi(data)
        elif mime == "image/png":
            # Jupyter ends base64 with a line break or not, depending on who wrote it.
            output.data[mime] = smaller_png(data.strip())
    return True


def texts(output: NotebookNode) -> Iterator[str]:
    """What a reader can read in an output; base64 would only match by chance."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield "\n".join([output.evalue, *output.traceback])
    else:
        for mime, data in output.data.items():
            if mime not in _BINARY:
                text = data if isinstance(data, str) else json.dumps(data)
                yield re.sub(r"data:[\w/+.-]+;base64,[\w/+=\s]+", "", text)
