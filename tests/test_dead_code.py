"""Nothing stands in the package, the tools or the extensions that nothing but a test uses."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parents[1]
CODE = ("src", "benchmarks", "tools", "book/_ext")
CONFIDENCE = 60  # of vulture, in percent: the lowest that it gives to a name without a use

# Names that a framework or a reader uses where no code of ours shows it.
ALLOWED = {
    "get_images": "Stable-Baselines3 calls it",
    "[gs]et_attr": "Stable-Baselines3 calls it",
    "__dict__": "Python reads it",
    "clear": "readers empty the cache of answers",
    "encode_special_tokens": "tokenizers reads it",
    "env_*": "Stable-Baselines3 calls it",
    "expr_*": "the interpreter finds its method by the name of the syntax",
    "external_attr": "zipfile writes it",
    "final_argument_whitespace": "docutils reads it",
    "forward": "torch calls it",
    "kernel_spec": "nbclient reads it",
    "log_message": "http.server calls it",
    "mathjax_path": "Sphinx reads it",
    "optional_arguments": "docutils reads it",
    "pre_tokenizer": "tokenizers reads it",
    "required_arguments": "docutils reads it",
    "setup": "Sphinx calls it",
    "step_async": "Stable-Baselines3 calls it",
    "step_wait": "Stable-Baselines3 calls it",
    "stmt_*": "the interpreter finds its method by the name of the syntax",
    "to_lerobot": "readers export with it",
    "top_*": "the interpreter finds its method by the name of the syntax",
    "_on_step": "Stable-Baselines3 calls it",
    "_repr_png_": "Jupyter calls it",
}


def allowing(name: str) -> set[str]:
    """The entries of `ALLOWED` that this name falls under."""
    return {pattern for pattern in ALLOWED if fnmatchcase(name, pattern)}


def unused(folder: Path) -> dict[str, str]:
    """Names without a use in the code or in a chapter, and where they stand."""
    for path in (ROOT / "book" / "chapters").rglob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        code = re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)
        (folder / f"{path.stem}.py").write_text(code, "utf-8")
    search = Vulture()
    search.scavenge([*(str(ROOT / part) for part in CODE), str(folder)])
    found = search.get_unused_code(min_confidence=CONFIDENCE)
    own = [item for item in found if not Path(item.filename).is_relative_to(folder)]
    return {item.name: f"{item.filename}:{item.first_lineno}" for item in own}


def test_every_name_has_a_use(tmp_path: Path):
    names = unused(tmp_path)
    dead = {n: where for n, where in names.items() if not allowing(n)}
    assert not dead
    needed = set().union(*map(allowing, names))
    assert set(ALLOWED) == needed, f"not needed any more: {set(ALLOWED) - needed}"
