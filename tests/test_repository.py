"""What must hold of the repository itself: versions in step, limits kept, nothing left behind."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "src").rglob("*.py"))
FUNCTION_LINES, MODULE_LINES, FILE_BYTES = 40, 300, 1_000_000


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
