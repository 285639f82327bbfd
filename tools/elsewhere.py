"""Run the chapters in environments other than the repository's own.

    python tools/elsewhere.py colab [CHAPTER ...]     as Colab would
    python tools/elsewhere.py oldest [CHAPTER ...]    with the oldest versions of pyproject.toml
    python tools/elsewhere.py lean [CHAPTER ...]      without optional extras

`colab` first lets pip resolve the package's requirements against what Colab has installed, which
must change none of it. Then it runs every chapter in an empty folder that holds nothing but the
notebook, in a fresh environment with Colab's packages, in which the chapter's own setup cell
installs the package, and compares what is installed before and after: additions only. Colab's
Python comes from COLAB_PYTHON (default: python3.12).

`oldest` installs every lower bound of pyproject.toml exactly, `lean` what constraints.txt pins;
both run the chapters and the tests of the package. TORCH=VERSION gives `oldest` another torch,
where the oldest one is not to be had.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebooks import Book, NotebookError, add_root_option, load, save
from outputs import strip_ansi
from publish import fill_source
from worker import ThisPython

COLAB = Path(__file__).parent / "colab"
RUN_IN = "early_2026"  # of the lists in COLAB; all of them are resolved against
OF_THE_REPOSITORY = (
    "test_pages",
    "test_publish",
    "test_replicate",
    "test_repository",
    "test_tools",
)
NO_VERSION_CHECK = "--disable-pip-version-check"


@dataclass(frozen=True)
class Environment:
    """A virtual environment and its interpreter."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def pip(self, *arguments: str) -> str:
        command = [self.python, "-m", "pip", *arguments, NO_VERSION_CHECK]
        return call(command)

    def freeze(self) -> dict[str, str]:
        listed = json.loads(self.pip("list", "--format", "json"))
        return {package["name"].lower(): package["version"] for package in listed}


def call(command: list[str], **options: object) -> str:
    """Run a command and return what it prints; an error says why."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [""]
        # pip writes versions that it ignores as an error, and advice after the last one.
        errors = [line for line in lines if line.startswith("ERROR") and "Ignored" not in line]
        raise NotebookError(f"{' '.join(command[:4])} ... failed: {' '.join(errors or lines[-1:])}")
    return done.stdout


def cached_environment(scratch: Path, python: str, requirements: list[str]) -> Environment:
    """An environment with these requirements; a later run finds it again."""
    name = hashlib.sha256("\n".join([python, *requirements]).encode()).hexdigest()[:12]
    environment = Environment(scratch / f"env-{name}")
    complete = environment.folder / ".complete"
    if not complete.exists():
        shutil.rmtree(environment.folder, ignore_errors=True)
        call([python, "-m", "venv", str(environment.folder)])
        environment.pip("install", "--quiet", *requirements)
        complete.touch()
    return environment


def build_wheel(book: Book) -> Path:
    """The package's wheel, built from a copy, since setuptools leaves traces beside its source."""
    target = book.scratch / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as copy:
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            shutil.copy(book.root / name, copy)
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(book.root / "src", Path(copy) / "src", ignore=ignore)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", NO_VERSION_CHECK]
        call([*pip, "--wheel-dir", str(target), copy])
    return next(target.glob("*.whl"))


def resolve(python: str, wheel: Path, listed: Path) -> None:
    """Let pip resolve the wheel's requirements with everything that Colab has held fast."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--only-binary=:all:", "--target", folder, "--constraint", str(listed)]
        call([*command, "--report", str(report), NO_VERSION_CHECK, str(wheel)])
        installs = json.loads(report.read_text("utf-8"))["install"]
    lines = [line for line in listed.read_text().splitlines() if "==" in line]
    has = {re.sub("[-_.]+", "-", line.split("==")[0].lower()) for line in lines}
    names = {re.sub("[-_.]+", "-", i["metadata"]["name"].lower()) for i in installs}
    print(f"{listed.stem}: resolves with all {len(has & names)} versions of Colab's that it needs")


def run_alone(nb_path: Path, environment: Environment, address: str) -> str:
    """Run one chapter in a folder of its own; returns its error in one line, or ''."""
    nb = load(nb_path)
    if address:
        fill_source(nb, address)
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "work" / nb_path.name
        save(nb, alone)
        client = NotebookClient(
            nb,
            kernel_manager_class=kernel_of(environment),
            timeout=900,
            resources={"metadata": {"path": str(alone.parent)}},
        )
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("DUALITY", "PYTHON"))}
        variables |= {"DUALITY_MODE": "smoke", "DUALITY_CACHE": str(Path(folder) / "cache")}
        variables |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        try:
            client.execute(env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            return " ".join(strip_ansi(f"{error.ename}: {error.evalue}").split())[:300]
    return ""


def kernel_of(environment: Environment) -> type[ThisPython]:
    class Kernel(ThisPython):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [environment.python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    return Kernel


def fresh_copy(base: Environment, folder: Path) -> Environment:
    """A new environment that sees the packages of `base` and can only add to them."""
    shutil.rmtree(folder, ignore_errors=True)
    call([base.python, "-m", "venv", "--without-pip", str(folder)])
    here, there = (next(f.glob("lib/python*/site-packages")) for f in (folder, base.folder))
    (here / "base.pth").write_text(f"{there}\n")
    return Environment(folder)


def colab(book: Book, names: list[str]) -> list[str]:
    """Resolve, then run; returns the chapters that failed."""
    python = os.environ.get("COLAB_PYTHON") or "python3.12"
    try:
        answer = call([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    except (OSError, NotebookError):  # a shim on the path may stand for no Python
        answer = ""
    if answer.strip() != "3.12":
        raise NotebookError("Set COLAB_PYTHON to a Python 3.12, which is what Colab has.")
    wheel = build_wheel(book)
    for listed in sorted(COLAB.glob("*.txt")):
        resolve(python, wheel, listed)
    packages = COLAB / f"{RUN_IN}.txt"
    versions = [line for line in packages.read_text().splitlines() if "==" in line]
    base = cached_environment(book.scratch, python, versions)
    before, failed = base.freeze(), []
    for name in names:
        environment = fresh_copy(base, book.scratch / "colab")
        problem = run_alone(book.path(name), environment, wheel.as_uri())
        after = environment.freeze()
        changed = sorted(key for key in before if after.get(key) != before[key])
        added = [f"{key} {after[key]}" for key in sorted(after.keys() - before.keys())]
        if changed:
            problem = problem or f"the setup cell changes {', '.join(changed)}"
        failed += [name] if problem else []
        print(f"{name}: {problem or 'runs; adds ' + ', '.join(added)}", flush=True)
    return failed


def requirements(book: Book, *extras: str) -> list[str]:
    """What pyproject.toml asks for, with these extras."""
    project = tomllib.loads((book.root / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    return project["dependencies"] + [line for extra in extras for line in optional[extra]]


def run_all(book: Book, names: list[str], base: Environment, folder: Path) -> list[str]:
    """Run chapters and tests with the package's wheel; returns what failed."""
    environment = fresh_copy(base, folder)
    environment.pip("install", "--quiet", "--no-deps", str(build_wheel(book)))
    failed = []
    for name in names:
        problem = run_alone(book.path(name), environment, "")
        failed += [name] if problem else []
        print(f"{name}: {problem or 'runs'}", flush=True)
    paths = sorted((book.root / "tests").glob("test_*.py"))
    tests = [str(path) for path in paths if path.stem not in OF_THE_REPOSITORY]
    command = [environment.python, "-m", "pytest", "-n", "2", "-q", *tests]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if subprocess.run(command, cwd=book.root, env=variables, check=False).returncode:
        failed.append("tests")
    return failed


def oldest(book: Book, names: list[str]) -> list[str]:
    """Run with every lower bound; returns what failed."""
    wanted = requirements(book, "robotics", "llm", "dev")
    pins = [re.sub(">=([^,]+).*", r"==\1", line) for line in wanted]
    if torch := os.environ.get("TORCH"):
        pins = [f"torch=={torch}" if pin.startswith("torch==") else pin for pin in pins]
    base = cached_environment(book.scratch, sys.executable, [*pins, "ipykernel"])
    return run_all(book, names, base, book.scratch / "oldest")


def lean(book: Book, names: list[str]) -> list[str]:
    """Run without optional extras; returns what failed."""
    wanted = ["--constraint", str(book.root / "constraints.txt")]
    wanted += [*requirements(book, "dev"), "ipykernel"]
    base = cached_environment(book.scratch, sys.executable, wanted)
    return run_all(book, names, base, book.scratch / "lean")


PLACES = {"colab": colab, "oldest": oldest, "lean": lean}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the chapters in another environment.")
    parser.add_argument("where", choices=PLACES)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="default: all chapters")
    add_root_option(parser)
    options = parser.parse_args(arguments)
    book = Book(options.root)
    try:
        failed = PLACES[options.where](
            book, [book.resolve(name) for name in options.chapters] or book.names
        )
    except NotebookError as error:
        print(error)
        return 1
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
