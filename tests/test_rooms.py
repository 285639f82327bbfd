"""The rooms of the package: imports run one way, and chapters take what the rooms offer."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tutorial_utils"
ROOMS = ("evidence", "figures", "language", "learning", "models", "tabletop")
CHAPTERS = sorted((ROOT / "book" / "chapters").rglob("*.ipynb"))


def test_imports_run_one_way():
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_types_are_strict():
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_module_is_in_a_room():
    """What several rooms stand on is private: a chapter has one way to each name."""
    outside = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py"} - {"__init__"}
    assert all(name.startswith("_") for name in outside), outside
    assert {p.name for p in PACKAGE.iterdir() if p.is_dir()} - {"__pycache__"} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_lives_in_it_and_offers_names_that_exist(name: str):
    room = importlib.import_module(f"tutorial_utils.{name}")
    assert len(re.findall(r"[.:](?=\s)", room.__doc__)) >= 2
    assert room.__all__ == sorted(room.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))
    for offered in room.__all__:
        file = PACKAGE / name / f"{offered}.py"
        assert file.is_file() or hasattr(room, offered), offered


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_import_what_rooms_offer(path: Path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in (c for c in cells if c["cell_type"] == "code"):
        code = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.MULTILINE)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tutorial_ut"):
                _, room, *module = [*node.module.split("."), ""][:3]
                offered = (
                    importlib.import_module(f"tutorial_utils.{room}").__all__ if room else ROOMS
                )
                wanted = [name for name in module if name] or [alias.name for alias in node.names]
                assert set(wanted) <= set(offered), f"{room or 'the package'}: {wanted}"
