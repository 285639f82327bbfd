"""What must hold of the repository itself: versions in step, limits kept, nothing left behind."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "src").rglob("*.py"))
FUNCTION_LINES, MODULE_LINES, FILE_BYTES = 40, 300, 1_000_000
# What Windows lacks.
POSIX_MODULES = {"crypt", "fcntl", "grp", "pty", "pwd", "readline", "resource", "termios"}
POSIX_NAMES = {f"os.{name}" for name in ("fork", "getuid", "geteuid", "killpg", "nice", "uname")}
POSIX_NAMES |= {"os.sched_getaffinity", "os.setsid", "os.mkfifo", "os.wait4"}
POSIX_NAMES |= {"signal.SIGALRM", "signal.SIGKILL", "signal.alarm", "signal.setitimer"}


def tracked() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def plain(name: str) -> str:
    """A distribution's name without extras, as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", name)[0]).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {plain(name): version for name, version in pins}


def required() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = [extras[name] for name in ("robotics", "llm", "book", "dev")]
    return sum(chosen, project["dependencies"])


def test_environment_yml_lists_the_same_set_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    listed = next(x["pip"] for x in environment["dependencies"] if isinstance(x, dict))
    assert listed[-1] == "-e ."
    pins = {plain(line): line.split("==")[1] for line in listed[:-1]}
    assert pins == {plain(line): constraints()[plain(line)] for line in required()}


def test_pyproject_has_lower_bounds_only():
    capped = {"jupyter-book", "mujoco"}  # 2.x has no _toc.yml; 3.12 breaks gymnasium-robotics
    for line in required():
        assert "==" not in line, line
        assert ">=" in line, line
        assert ("<" in line) == (plain(line) in capped), line


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_modules_and_functions_stay_short(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name


def test_public_functions_are_typed_and_documented():
    for path in PACKAGE:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
            if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
                assert node.returns is not None, f"{path.name}: {node.name}"


def readers_code() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package and every chapter: what runs on the machines of readers."""
    for path in PACKAGE:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())
    for path in sorted((ROOT / "book" / "chapters").rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        yield path.name, ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE))


def posix_only(tree: ast.AST) -> Iterator[str]:
    """What `tree` uses that Windows lacks, unless it is tried first or asked for with hasattr."""
    for node in ast.iter_child_nodes(tree):
        asks = [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id == "hasattr"]
        if isinstance(node, ast.Try) or (isinstance(node, ast.FunctionDef) and asks):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None), *(alias.name for alias in node.names)}
            yield from names & POSIX_MODULES
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name in POSIX_NAMES:
            yield name
        yield from posix_only(node)


def test_readers_need_no_posix():
    used = {name: list(posix_only(tree)) for name, tree in readers_code()}
    assert {name: found for name, found in used.items() if found} == {}
    source = "import os, fcntl\nfrom resource import getrusage\ndef f():\n    os.fork()"
    assert list(posix_only(ast.parse(source))) == ["fcntl", "resource", "os.fork"]


@pytest.mark.parametrize(("setting", "threads"), [(None, 1), ("2", 2)])
def test_importing_sets_the_threads_that_the_readme_tells_of(
    setting: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("DUALITY_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    if setting:
        monkeypatch.setenv("DUALITY_THREADS", setting)
    program = "import torch, tutorial_utils as t; print(torch.get_num_threads(), t.__doc__)"
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{threads} ")
    for text in (said, (ROOT / "README.md").read_text()):
        assert "`DUALITY_THREADS=" in text
        assert "torch.set_num_threads(" in text


def test_no_file_is_large_or_names_a_machine():
    machine = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/\w")
    for path in tracked():
        assert path.stat().st_size <= FILE_BYTES, path
        if path.suffix in {".py", ".md", ".yml", ".toml", ".json", ".cff", ".txt", ".css"}:
            if path.parent.name in {"tests", "tools"}:  # they look for such paths
                continue
            found = machine.search(path.read_text())
            assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_bare_make_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"\.PHONY: (.*)", text)[1].split())
    command = ["make", "--no-print-directory"]  # also when the tests themselves run under make
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in listed.splitlines()} == targets


def test_readme_opens_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert text.index("make book") < text.index("make test") < text.index("\n## ")
    picture = re.search(r"!\[[^\]]+\]\(([^)]+)\)", text)[1]
    assert (ROOT / picture).is_file()


def test_workflows_call_targets_that_exist_with_few_permissions():
    targets = set(re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split())
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text()
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}, path.name  # jobs ask for more
        assert workflow["concurrency"], path.name
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", uses) for uses in used(workflow, "uses"))
        called = {word for run in used(workflow, "run") for word in make_targets(run)}
        called |= set(re.findall(r"target: (\w+)", text))
        assert called <= targets, path.name


def used(workflow: dict, key: str) -> list[str]:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step[key] for step in steps if key in step]


def make_targets(run: str) -> list[str]:
    words = run.split()
    return words[1:] if words[0] == "make" and "${{" not in words else []


def build(source: Path, target: Path, what: str) -> Path:
    """Build `what`, 'sdist' or 'wheel', of the tree `source`."""
    program = f"from setuptools import build_meta as b; print(b.build_{what}({str(target)!r}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return target / done.stdout.split()[-1]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.mark.parametrize("address", ["", "https://host.example/owner/name"])
def test_the_sdist_builds_the_wheel_and_both_say_where_they_come_from(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("setuptools", minversion="77")
    monkeypatch.setenv("DUALITY_REPOSITORY", f"{address}.git" if address else "")
    checkout = tmp_path / "checkout"
    for path in tracked():
        if path.suffix not in {".ipynb", ".json", ".gif", ".png"}:
            copy = checkout / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    with tarfile.open(build(checkout, tmp_path, "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    # The tests read the whole repository: here they could not run, and so they are not here.
    assert not {"tests", "conftest.py", "tools", "book"} & {path.name for path in source.iterdir()}
    wheel = build(source, tmp_path, "wheel")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("tutorial_utils/")}
    modules = {path.relative_to(ROOT / "src").as_posix() for path in PACKAGE}
    assert packed == modules | {"tutorial_utils/py.typed"}

    facts = metadata(wheel)
    authors = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())["author"]
    assert facts["Author"] == authors
    urls = dict(line.split(", ") for line in facts.get_all("Project-URL"))
    assert urls.pop("Review") == "https://arxiv.org/abs/2410.16411"
    assert urls == ({"Repository": address} if address else {})
    assert facts["Description-Content-Type"] == "text/markdown"
    text = facts.get_payload()
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)]+)\)", text)
    assert all("://" in target for _, _, target in links)
    assert "CONTRIBUTING.md" in text
    assert any(mark for mark, _, _ in links) == bool(address)
    inside = [target for _, _, target in links if address and target.startswith(address)]
    relative = [re.sub(r".*/(?:raw|blob)/HEAD/", "", target) for target in inside]
    assert all((ROOT / name).is_file() for name in relative)
    assert len(inside) == (5 if address else 0)
