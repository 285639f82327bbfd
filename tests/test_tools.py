"""The authoring tools: execution, cards and checks, on tiny notebooks in a folder of their own."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import card  # noqa: E402
import check_notebooks  # noqa: E402
import notebooks  # noqa: E402
import outputs  # noqa: E402
import portable  # noqa: E402
import prose_numbers  # noqa: E402
import runs  # noqa: E402

NAME = "reward/tiny"
BIBLIOGRAPHY = r"""
@article{one, author = {M{\"o}ller, Ada}, year = 2024, title = {A}, doi = {10.1/a}}
@article{two, author = {van Roy, B. and Li, C.}, year = 2023, title = {B},
  eprint = {2301.00001}, archivePrefix = {arXiv}}
@misc{many, author = {A, A. and B, B. and C, C.}, year = 2022, title = {C},
  url = {https://many.example/c_(d)}}
@misc{bare, author = {A, A.}, year = 2021, title = {D}}
"""
FACTS = {
    "title": "A tiny chapter",
    "leaf": "Reward signal",
    "review_section": "5.1.1",
    "papers": ["one", "two", "many"],
    "prerequisites": ["foundations/first"],
    "summary": "We see a tiny chapter run.",
}


def md(text: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"tags": list(tags)} if tags else {})


def code(text: str, *tags: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(text, metadata={"tags": list(tags)} if tags else {})


def write(root: Path, name: str, *cells: nbformat.NotebookNode, **facts: object) -> Path:
    """A chapter of `cells` below its title."""
    facts = FACTS | {"prerequisites": [], "papers": []} | facts
    nb = nbformat.v4.new_notebook(cells=[md(f"# {facts['title']}"), *cells])
    nb.metadata["duality"] = facts
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path = root / "book" / "chapters" / f"{name}.ipynb"
    notebooks.save(nb, path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "book" / "references.bib").write_text(BIBLIOGRAPHY, "utf-8")
    return tmp_path


def environment(**extra: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DUALITY_")}
    return clean | extra


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "execute.py"), "--root", str(root), *arguments]


def execute(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *arguments),
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


# ------------------------------------------------------------------------------ execute


def test_executing_stamps_cleans_and_is_fresh_after(root: Path) -> None:
    cells = [
        code("import json, os, sys, time\nfrom tqdm import tqdm\nfrom PIL import Image"),
        code("json.dump([sys.executable, os.getcwd(), dict(os.environ)], open('seen', 'w'))"),
        code("for _ in tqdm(range(3)):\n    time.sleep(0.1)\nprint('\\x1b[31mred\\x1b[0m')"),
        code("hold = bytearray(120_000_000)\nhold[::1000] = b'x' * 120_000"),
        code("Image.linear_gradient('L').convert('RGB')"),
    ]
    path = write(root, NAME, md("Text."), *cells)
    ids = [cell.id for cell in notebooks.load(path).cells]
    decoy = root / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    decoy.joinpath("kernel.json").write_text('{"argv": ["false"], "display_name": "decoy"}')

    done = execute(root, JUPYTER_PATH=str(root / "jupyter"), OMP_NUM_THREADS="7", MPLBACKEND="agg")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["start", "done"]
    nb = notebooks.load(path)
    executed = nb.metadata.duality.executed
    assert executed.source_hash == notebooks.source_hash(nb)
    assert (executed.mode, executed.seed) == ("lecture", 0)
    assert 0.3 <= executed.seconds < 60
    assert 120 < executed.peak_mb < 1000
    assert {"python", "numpy"} <= set(executed.versions)
    assert "cores" in executed.machine
    assert os.uname().nodename not in executed.machine
    assert [cell.id for cell in nb.cells if cell.id != "card"] == ids
    assert "under 1 min on" in nb.cells[1].source
    assert [cell.execution_count for cell in nb.cells[3:]] == [1, 2, 3, 4, 5]
    assert [(o.name, o.text) for o in nb.cells[5].outputs] == [("stdout", "red\n")]
    assert not any("execution" in cell.metadata for cell in nb.cells)
    with Image.open(io.BytesIO(base64.b64decode(nb.cells[7].outputs[0].data["image/png"]))) as im:
        assert im.mode == "P"
    python, cwd, env = json.loads((path.parent / "seen").read_text())
    assert python == sys.executable
    assert Path(cwd) == path.parent
    assert env["DUALITY_RESULTS"] == str(root / "book" / "results")
    assert not Path(env["DUALITY_CACHE"]).exists()  # the run began with an empty one
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["MPLBACKEND"].startswith("module://")

    before = path.read_bytes()
    again = execute(root, NAME)
    assert (again.returncode, again.stdout) == (0, f"fresh  {NAME}\n")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda nb: nb.cells[2].update(source="2 + 2"), True),
        (lambda nb: nb.cells.reverse(), True),
        (lambda nb: nb.metadata.duality.executed.update(mode="smoke"), True),
        (lambda nb: nb.metadata.duality.pop("executed"), True),
        (lambda nb: nb.cells[1].update(source="Other prose."), False),
        (lambda nb: nb.cells[2].outputs.clear(), False),
    ],
    ids=["code", "order", "smoke", "no stamp", "prose", "outputs"],
)
def test_only_code_and_stamp_make_a_chapter_stale(
    root: Path, change: Callable, stale: bool
) -> None:
    path = write(root, NAME, md("Prose."), code("1 + 1"), code("3"))
    nb = notebooks.load(path)
    nb.metadata.duality.executed = {
        "source_hash": notebooks.source_hash(nb),
        "mode": "lecture",
        "seed": 0,
    }
    notebooks.save(nb, path)
    run = runs.Run(notebooks.Book(root), "lecture", 0, 900)
    assert not run.is_stale(NAME)
    change(nb)
    notebooks.save(nb, path)
    assert run.is_stale(NAME) == stale


def test_a_failing_cell_is_reported_and_the_others_still_run(root: Path) -> None:
    never = code("print('after')")
    never.outputs = [nbformat.v4.new_output("stream", name="stdout", text="of an earlier run")]
    bad = code("raise ValueError('no\\ngo')")
    failing = write(root, "a/failing", code("print('before')"), bad, never)
    slow = write(root, "b/slow", code("import time\ntime.sleep(60)"))
    good = write(root, "c/good", code("1 + 1"))
    before = [failing.read_bytes(), slow.read_bytes()]

    done = execute(root, "--timeout", "3")

    assert done.returncode == 1
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert sorted(failures) == [
        "FAILED a/failing: cell 4: ValueError: no go (see .execute/failed/a/failing.ipynb)",
        "FAILED b/slow: cell 3: took longer than 3 s (raise --timeout, or train less)"
        " (see .execute/failed/b/slow.ipynb)",
    ]
    assert done.stderr == ""
    assert [failing.read_bytes(), slow.read_bytes()] == before
    saved = notebooks.load(root / ".execute" / "failed" / "a" / "failing.ipynb")
    assert saved.cells[2].outputs[0].text == "before\n"
    assert saved.cells[3].outputs[0].ename == "ValueError"
    assert saved.cells[4].outputs == []
    assert "executed" in notebooks.load(good).metadata.duality


BLOCKED = """\
import os, time
open("marker.new", "w").write(str(os.getpid()))
os.replace("marker.new", "marker")
while not os.path.exists("go"):
    time.sleep(0.02)"""


Start = Callable[[Path], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Starts the tool and returns it with the pid of the kernel, once that is inside a cell.

    As a background job, for which a shell ignores Ctrl-C: the tool must listen all the same.
    """
    started: list[psutil.Process] = []

    def start(path: Path) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command(root)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        marker = path.parent / "marker"
        wait_for(marker.exists, "the cell to start")
        tool = psutil.Process(process.pid)
        started.extend([tool, *tool.children(recursive=True)])
        return process, int(marker.read_text())

    yield start
    for process in started:  # whatever a failed test has left (psutil knows a pid used again)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.parametrize("victim", ["group", "worker", "ctrl-c"])
def test_killed_at_any_time_leaves_the_original_and_a_rerun_completes(
    root: Path, start: Start, victim: str
) -> None:
    path = write(root, NAME, code(BLOCKED))
    before = path.read_bytes()
    process, kernel = start(path)
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "worker":
        psutil.Process(process.pid).children()[0].kill()
    else:
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    said, _ = process.communicate(timeout=60)

    assert process.returncode == {"group": -signal.SIGKILL, "worker": 1, "ctrl-c": 130}[victim]
    assert ("FAILED" in said) == (victim == "worker")
    wait_for(lambda: not psutil.pid_exists(kernel), "the orphaned kernel to end")
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["marker", path.name]

    if victim == "ctrl-c":
        return  # the tree is as after the other two: one more run would show nothing new
    (path.parent / "go").touch()
    assert execute(root).returncode == 0
    assert not runs.Run(notebooks.Book(root), "lecture", 0, 900).is_stale(NAME)


def test_an_edit_made_during_the_run_is_not_overwritten(root: Path, start: Start) -> None:
    path = write(root, NAME, code(BLOCKED))
    process, _ = start(path)
    write(root, NAME, code("2 + 2"))
    edited = path.read_bytes()
    (path.parent / "go").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "edited while it ran" in said
    assert path.read_bytes() == edited


def test_another_seed_goes_to_a_folder_of_its_own(root: Path) -> None:
    path = write(root, NAME, code("import os; print(os.environ['DUALITY_RESULTS'])"))
    before = path.read_bytes()
    done = execute(root, DUALITY_SEED="3", DUALITY_MODE="smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert path.read_bytes() == before
    assert not (root / "book" / "results").exists()
    folder = root / ".execute" / "smoke-seed3"
    nb = notebooks.load(folder / f"{NAME}.ipynb")
    assert nb.cells[2].outputs[0].text.strip() == str(folder / "results")
    assert (nb.metadata.duality.executed.mode, nb.metadata.duality.executed.seed) == ("smoke", 3)
    assert not runs.Run(notebooks.Book(root), "smoke", 3, 900).is_stale(NAME)
    assert runs.Run(notebooks.Book(root), "lecture", 3, 900).is_stale(NAME)


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["reward/tinny"], {}, "no chapter 'reward/tinny' in book/chapters: did you mean"),
        ([], {"DUALITY_MODE": "fast"}, "DUALITY_MODE must be one of smoke, lecture, full"),
        ([], {"DUALITY_SEED": "x"}, "DUALITY_SEED must be a whole number, not 'x'"),
    ],
)
def test_wrong_settings_are_one_line(
    root: Path, arguments: list[str], env: dict[str, str], message: str
) -> None:
    write(root, NAME, code("1"))
    done = execute(root, *arguments, **env)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert message in done.stdout
    assert done.stderr == ""


def test_chapters_come_in_the_order_of_the_table_of_contents(root: Path) -> None:
    for name in ("a/x", "b/y", "c/z"):
        write(root, name)
    toc = "root: index\nparts:\n- chapters:\n  - file: chapters/c/z\n    sections:\n"
    (root / "book" / "_toc.yml").write_text(toc + "    - file: chapters/b/y.ipynb\n")
    assert notebooks.Book(root).names == ["c/z", "b/y", "a/x"]


def test_a_save_that_fails_keeps_the_old_file_and_the_next_one_tidies_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(root, NAME, code("1"))
    before = path.read_bytes()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead.pid)
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(root, NAME, code("2"))
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2
    write(root, NAME, code("2"))
    assert list(path.parent.iterdir()) == [path]


# ------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\r  0%|          | 0/3 [00:00<?, ?it/s]\r100%|###| 3/3 [00:01<00:00, 9.8it/s]\n", ""),
        ("\rtrain: 5steps [1:00:02, 2.00steps/s, loss=0.1]\r          \r", ""),
        ("\r 50%|##| 1/2 [00:00<00:00]\nUserWarning: bad\n", "UserWarning: bad\n"),
        ("UserWarning: at [00:01, 5]\n", "UserWarning: at [00:01, 5]\n"),
        ("\r 50%|##| 1/2 [00:00<00:00] boom\n", "\r 50%|##| 1/2 [00:00<00:00] boom\n".lstrip("\r")),
    ],
)
def test_bars_are_dropped_and_nothing_else(text: str, kept: str) -> None:
    assert outputs.without_bars(text) == kept


def png(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def film(frames: int) -> str:
    """A base64 GIF of a square that moves over a noisy ground, with a long last frame."""
    ground = Image.effect_noise((64, 64), 60).quantize(7).convert("RGB")
    pictures = [ground.copy() for _ in range(frames)]
    for step, picture in enumerate(pictures):
        picture.paste((200, 30, 30), (8 * step, 20, 8 * step + 10, 30))
    stream = io.BytesIO()
    times = [100] * (frames - 1) + [1200]
    pictures[0].save(
        stream, "GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0
    )
    return base64.b64encode(stream.getvalue()).decode()


def shown(data: str) -> tuple[list[bytes], list[float], int]:
    """The frames of a base64 film, how long each stays, and how often it repeats."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        frames = [(f.convert("RGB").tobytes(), f.info["duration"]) for f in _frames(image)]
        return [f for f, _ in frames], [t for _, t in frames], image.info["loop"]


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    for number in range(image.n_frames):
        image.seek(number)
        yield image


def test_a_film_is_stored_as_a_png_that_shows_the_same() -> None:
    gif = film(5)
    png = outputs.film_as_png(gif)
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        assert image.format == "PNG"
    assert shown(png) == shown(gif)
    assert outputs.smaller_png(png) == png


def test_pictures_are_stored_with_the_text_of_their_cell() -> None:
    cell = code("show()")
    cell.metadata["mystnb"] = {"image": {"alt": "A square moves."}}
    for data in ({"image/gif": film(2)}, {"image/png": png(Image.new("L", (4, 4)))}, {}):
        data = data | {"text/plain": "x"}
        cell.outputs.append(nbformat.v4.new_output("display_data", data))
    cell.outputs[1].metadata["image/png"] = {"width": 4}
    cell.outputs.append(nbformat.v4.new_output("stream", text="done"))
    nb = nbformat.v4.new_notebook(cells=[cell])
    before = notebooks.source_hash(nb)
    outputs.clean(nb)
    film_, picture, plain, _ = nb.cells[0].outputs
    assert sorted(film_.data) == sorted(picture.data) == ["image/png", "text/plain"]
    assert film_.metadata == {"image/png": {"alt": "A square moves."}}
    assert picture.metadata == {"image/png": {"alt": "A square moves.", "width": 4}}
    assert plain.metadata == {}
    assert notebooks.source_hash(nb) == before


def test_quantising_shrinks_pictures_but_never_changes_them_visibly() -> None:
    blurred = Image.effect_noise((64, 64), 80).resize((256, 256)).convert("RGB")
    small = outputs.smaller_png(png(blurred))
    assert len(small) < 0.8 * len(png(blurred))
    assert outputs.smaller_png(small) == small
    # Noise needs all its colours, and a thin red line must stay red.
    noise = Image.effect_noise((128, 128), 80)
    noise = Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)])
    ImageDraw.Draw(noise).line((0, 0, 9, 0), fill=(255, 0, 0))
    with Image.open(io.BytesIO(base64.b64decode(outputs.smaller_png(png(noise))))) as image:
        assert image.convert("RGB").tobytes() == noise.tobytes()


# ------------------------------------------------------------------------------ card


def test_the_card_says_what_the_metadata_says(root: Path) -> None:
    write(root, "foundations/first", title="First | steps")
    executed = {"seconds": 100.0, "machine": "2 cores, X, Linux"}
    text = card.Cards(notebooks.Book(root)).render(NAME, FACTS | {"executed": executed})
    assert text.splitlines() == [
        "| | |",
        "|:--|:--|",
        "| Taxonomy leaf | Reward signal |",
        "| Review section | 5.1.1 |",
        "| Papers | [Möller, 2024](https://doi.org/10.1/a),"
        " [van Roy and Li, 2023](https://arxiv.org/abs/2301.00001),"
        " [A et al., 2022](https://many.example/c_(d)) |",
        r"| Prerequisites | [First \| steps](../foundations/first.ipynb) |",
        "| Runs in | about 2 min on 2 CPU cores (measured) |",
    ]


def test_cards_are_written_once_and_checked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(root, NAME, code("1"))
    arguments = ["--root", str(root)]
    assert card.main([*arguments, "--check"]) == 1
    assert capsys.readouterr().out.startswith(f"{NAME}: ")
    assert card.main(arguments) == 0
    assert "not measured yet" in notebooks.load(path).cells[1].source
    assert card.main([*arguments, "--check"]) == 0
    written = path.read_bytes()
    assert card.main(arguments) == 0
    assert path.read_bytes() == written

    nb = notebooks.load(path)
    nb.metadata.duality.leaf = "Planning"
    nb.cells.append(nb.cells.pop(1))  # someone moved the card, and changed a fact
    notebooks.save(nb, path)
    assert card.main([*arguments, "--check"]) == 1
    assert card.main(arguments) == 0
    nb = notebooks.load(path)
    assert [cell.id for cell in nb.cells].index("card") == 1
    assert "| Planning |" in nb.cells[1].source


# --------------------------------------------------------------------------- portable


def test_citations_are_written_once_and_code_is_left_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prose = (
        "As {cite:t}`one` and {cite:t}`one,two` say {cite:p}`two, many`; see `{cite:p}`key``.\n\n"
    )
    prose += "```\n{cite:p}`one`\n```"
    path = write(root, NAME, md(prose), code("'{cite:p}`one`'"))
    assert portable.main(["--root", str(root)]) == 0
    nb = notebooks.load(path)
    one, two = "[Möller (2024)](https://doi.org/10.1/a)", "(https://arxiv.org/abs/2301.00001)"
    assert nb.cells[1].source == (
        f"As {one} and {one}, [van Roy and Li (2023)]{two} say ([van Roy and Li, 2023]{two}; "
        "[A et al., 2022](https://many.example/c_(d))); see `{cite:p}`key``.\n\n"
        "```\n{cite:p}`one`\n```"
    )
    assert nb.cells[2].source == "'{cite:p}`one`'"
    assert list(portable.problems(nb.cells[1].source, card.Cards(notebooks.Book(root)))) == []
    assert "written" in capsys.readouterr().out
    written = path.read_bytes()
    assert portable.main(["--root", str(root), NAME]) == 0
    assert (path.read_bytes(), capsys.readouterr().out) == (written, "")


def test_a_citation_of_an_unknown_paper_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(root, NAME, md("See {cite:p}`onee`."))
    before = path.read_bytes()
    assert portable.main(["--root", str(root)]) == 1
    assert capsys.readouterr().out == (
        f"{NAME}: no paper 'onee' in book/references.bib: did you mean 'one'?\n"
    )
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------ check


def good_chapter() -> list[nbformat.NotebookNode]:
    """The cells below title and card of a chapter that has nothing wrong with it."""
    picture = code("figure()")
    alt = {"alt": "Two curves."}
    picture.outputs = [
        nbformat.v4.new_output(
            "display_data", {"image/png": "/tmp/+/root/"}, metadata={"image/png": alt}
        )
    ]
    picture.metadata["mystnb"] = {"image": alt}
    sections = ["The task", "The method", "Train", "Results", "Watch it", "Break it"]
    cells = [code("%pip --version", "setup", "parameters"), code("BUDGET = 1", "budget"), picture]
    for section in [*sections, "Small against real", "Summary"]:
        cells += [md(f"## {section}"), code("x = 1")]
    cells += [code("def f():\n    return 1", "claims"), md("## Exercises")]
    for number in (1, 2, 3):
        cells += [md(f"### Exercise {number}"), code("y = 1", "solution", "hide-cell")]
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    return cells


@pytest.fixture
def good(root: Path) -> Path:
    """The path of a chapter that passes all checks."""
    write(root, "foundations/first")
    path = write(root, NAME, *good_chapter(), **FACTS)
    nb = notebooks.load(path)
    nb.metadata.duality.executed = {
        "source_hash": notebooks.source_hash(nb),
        "mode": "lecture",
        "seed": 0,
        "seconds": 12.0,
        "peak_mb": 300,
        "machine": "2 cores, X, Linux",
        "versions": {"python": "3.11"},
    }
    card.Cards(notebooks.Book(root)).refresh(NAME, nb)
    notebooks.save(nb, path)
    return path


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    code = check_notebooks.main(["--root", str(root), NAME])
    lines = capsys.readouterr().out.splitlines()
    assert code == bool(lines)
    return lines


def say(name: str, text: str) -> Callable[[nbformat.NotebookNode], None]:
    """Add a stream output to the figure cell (number 5)."""
    stream = nbformat.v4.new_output("stream", name=name, text=text)
    return lambda nb: nb.cells[4].outputs.append(stream)


def edit(source: str, index: int = 3) -> Callable[[nbformat.NotebookNode], None]:
    """Change the code of a cell (that with number 4) and keep the stamp right."""

    def change(nb: nbformat.NotebookNode) -> None:
        nb.cells[index].source = source
        nb.metadata.duality.executed.source_hash = notebooks.source_hash(nb)

    return change


def fact(**changes: object) -> Callable[[nbformat.NotebookNode], None]:
    return lambda nb: nb.metadata.duality.update(changes)


def stamped(**changes: object) -> Callable[[nbformat.NotebookNode], None]:
    return lambda nb: nb.metadata.duality.executed.update(changes)


def fail(nb: nbformat.NotebookNode) -> None:
    error = {"ename": "KeyError", "evalue": "a", "traceback": []}
    nb.cells[4].outputs.append(nbformat.v4.new_output("error", **error))


def retag(old: str, new: str) -> Callable[[nbformat.NotebookNode], None]:
    def change(nb: nbformat.NotebookNode) -> None:
        found = next(c for c in nb.cells if old in c.metadata.get("tags", []))
        found.metadata.tags = [new if tag == old else tag for tag in found.metadata.tags]

    return change


def text(prose: str) -> Callable[[nbformat.NotebookNode], None]:
    """Add prose below the first heading (cell 6)."""
    return lambda nb: nb.cells[5].update(source=f"{nb.cells[5].source}\n\n{prose}")


LONG_FUNCTION = "def f():\n" + "    pass\n" * 30
KEY = "sk-" + "a1B2" * 6  # put together here, so that this file holds nothing that looks like one
PROBLEMS = {
    "error": (fail, "cell 5: its output is an error (KeyError)"),
    "stderr": (say("stderr", "oops"), "cell 5: it writes to stderr (oops)"),
    "secret": (say("stdout", f"key {KEY}"), "cell 5: holds what looks like a secret (sk-a1B2...)"),
    "secret in code": (edit("api_key = '" + "z" * 9 + "'"), "cell 4: holds what looks like a secr"),
    "private key": (say("stdout", "-----BEGIN RSA PRIVATE KEY"), "cell 5: holds what looks like"),
    "path": (say("stdout", "at /home/me/x.py"), "cell 5: holds a local path (/home/me/x.py)"),
    "windows path": (say("stdout", r"C:\Users\me"), "cell 5: holds a local path"),
    "kernel file": (say("stdout", "ipykernel_12"), "cell 5: holds a local path"),
    "path in code": (edit("open('/tmp/x')"), "cell 4: holds a local path (/tmp/x')"),
    "stale": (lambda nb: nb.cells[3].update(source="B = 2"), "outputs do not belong to the code"),
    "smoke": (stamped(mode="smoke"), "outputs of smoke mode, seed 0"),
    "seed": (stamped(seed=2), "outputs of lecture mode, seed 2"),
    "no stamp": (lambda nb: nb.metadata.duality.pop("executed"), "never executed"),
    "bad stamp": (stamped(seconds="1"), "the stamp 'executed' needs 'seconds' as number"),
    "order": (lambda nb: nb.cells[4].update(execution_count=7), "cell 5: execution count 7 should"),
    "alt text": (lambda nb: nb.cells[4].metadata.pop("mystnb"), "cell 5: its image has no alt"),
    "stale alt text": (
        lambda nb: nb.cells[4].metadata.mystnb.image.update(alt="Three curves."),
        "cell 5: its image lacks the cell's alt text: run python tools/portable.py",
    ),
    "film": (
        lambda nb: nb.cells[4].outputs[0].data.update({"image/gif": film(3)}),
        "cell 5: exports do not show its GIF: run python tools/portable.py",
    ),
    "long cell": (edit("x = 1\n" * 26), "cell 4: 26 lines of code; at most 25"),
    "long line": (edit("x = " + "1" * 75), "cell 4: line 1 has 79 characters; at most 78"),
    "long function": (edit(LONG_FUNCTION), "cell 4: f has 31 lines; at most 30"),
    "not Python": (edit("x = ("), "cell 4: line 1 is not Python"),
    "card": (lambda nb: nb.cells[1].update(source="| |"), "cell 2: the card is not what"),
    "title": (lambda nb: nb.cells[0].update(source="# Other"), "cell 1: must begin with '# A tiny"),
    "few cells": (lambda nb: nb.cells.__delitem__(slice(5, 20)), "14 cells; a chapter has 20 to"),
    "large": (say("stdout", "x" * 420_000), "KB; at most 400"),
    "no facts": (lambda nb: nb.metadata.pop("duality"), 'no nb.metadata["duality"]'),
    "fact type": (fact(papers="one"), "metadata needs 'papers' as list"),
    "empty fact": (fact(leaf=" "), "metadata has an empty 'leaf'"),
    "paper": (fact(papers=["onee"]), "no paper 'onee' in book/references.bib: did you mean 'one'"),
    "prerequisite": (fact(prerequisites=["foundations/frist"]), "did you mean 'foundations/first'"),
    "section": (lambda nb: nb.cells[5].update(source="## A"), "no heading contains 'the task'"),
    "exempt": (fact(exempt_sections=["watching"]), "exempt_sections names 'watching'"),
    "claims": (retag("claims", "other"), "0 code cells are tagged 'claims'"),
    "setup": (retag("budget", "setup"), "2 code cells are tagged 'setup'"),
    "no parameters": (retag("parameters", "other"), "0 code cells are tagged 'parameters'"),
    "parameters": (
        lambda nb: [retag("parameters", "other")(nb), retag("budget", "parameters")(nb)],
        "cell 4: 'parameters' belongs to the cell tagged 'setup'",
    ),
    "role": (text("{cite:p}`one`"), "cell 6: {cite:p}`one` shows as it stands outside the book"),
    "other role": (text("See {ref}`there`."), "cell 6: {ref}`there` shows as it stands"),
    "year": (
        text("([Möller, 2023](https://doi.org/10.1/a))"),
        "should be [Möller, 2024](https://doi.org/10.1/a).",
    ),
    "author": (
        text("[von Roy and Li (2023)](https://arxiv.org/abs/2301.00001)"),
        "should be [van Roy and Li (2023)](https://arxiv.org/abs/2301.00001).",
    ),
    "address": (
        text("[Möller (2024)](https://doi.org/10.1/b)"),
        "should be [Möller (2024)](https://doi.org/10.1/a).",
    ),
    "no entry": (
        text("[Nobody (2024)](https://x.example)"),
        "cell 6: [Nobody (2024)](https://x.example) is not in book/references.bib: add it",
    ),
    "no address": (fact(papers=["bare"]), "bare in book/references.bib needs a doi, an eprint or"),
    "hidden": (retag("hide-cell", "shown"), "a solution needs the tag 'hide-cell' or 'hide-input'"),
    "solution": (retag("solution", "other"), "no cell tagged 'solution' follows"),
    "exercises": (lambda nb: nb.cells[-2].update(source="-"), "2 headings '### Exercise'"),
    "no exercises": (lambda nb: nb.cells.__delitem__(slice(-6, None)), "0 headings '### Exer"),
    "leftover": (lambda nb: nb.cells[5].update(source="## The task\nTODO"), "cell 6: TODO is left"),
    "number": (lambda nb: nb.cells[-7].update(source="So 3.5."), "no output shows 3.5: print it"),
    "no reason": (fact(numbers={"3.5": "it is so"}), "must give 3.5 a reason of 4 words or more"),
    "old reason": (fact(numbers={"3.5": "known from four trials"}), "names 3.5, which the prose"),
    "reasons": (fact(numbers=["3.5"]), "metadata 'numbers' must map numbers to the reasons"),
    "kernel": (
        lambda nb: nb.metadata.kernelspec.update(name=".venv"),
        f"its kernel is '.venv': run jupytext --set-kernel python3 book/chapters/{NAME}.ipynb",
    ),
    "no kernel": (lambda nb: nb.metadata.pop("kernelspec"), "its kernel is None: run jupytext"),
    "old format": (lambda nb: nb.update(nbformat_minor=4), "format is older than 4.5"),
    "same ids": (lambda nb: nb.cells[3].update(id=nb.cells[4].id), "ids are missing or repeated"),
}


def test_a_good_chapter_passes(root: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(root, capsys) == []


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_problem_is_found(
    root: Path, good: Path, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    change, message = PROBLEMS[problem]
    nb = notebooks.load(good)
    change(nb)
    good.write_text(nbformat.v4.writes(nb), "utf-8")
    lines = check(root, capsys)
    assert any(message in line for line in lines), lines
    assert all(line.startswith(f"{NAME}: ") for line in lines)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": []}', "\x00"])
def test_a_corrupt_file_is_one_line(
    root: Path, good: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    good.write_text(text)
    lines = check(root, capsys)
    assert len(lines) == 1
    assert lines[0].startswith(f"{NAME}: not a ")


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/work/x",
        "src/tmp/x",
        "task-conditioned-policies-at-work",
        "api_key = key",
    ],
)
def test_harmless_text_is_no_leak(
    root: Path, good: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    nb = notebooks.load(good)
    say("stdout", text)(nb)
    notebooks.save(nb, good)
    assert check(root, capsys) == []


def test_a_path_names_a_chapter_and_an_exempt_section_may_be_missing(
    root: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nb = notebooks.load(good)
    nb.cells[5].source = "Prose."
    nb.metadata.duality.exempt_sections = ["the task"]
    notebooks.save(nb, good)
    assert check_notebooks.main(["--root", str(root), str(good)]) == 0
    assert check_notebooks.main(["--root", str(root), str(root / "stray.ipynb")]) == 1
    assert capsys.readouterr().out.count("\n") == 1


# ------------------------------------------------------------------------------ prose_numbers

TABLE = "<style>.a {width: 0.77em}</style><td>0.58 [0.41, 0.7]</td><td>-0.25 [-0.39, -0.10]</td>"
RESULTS = {
    "claims": [{"claim": "c", "estimate": 0.337, "low": 0.221, "high": 0.448, "holds": True}],
    "arms": {"a": {"success": [0.1, 0.2, 0.6], "steps": 2_340_000}},
}


def numbers_without_source(root: Path, *prose: str) -> list[str]:
    """Those of prose that follows the heading Train, in a chapter with outputs and results."""
    cell = code("%pip --version\ngamma = 0.99; steps = 2e-3")
    html = {"text/html": TABLE, "text/plain": "x", "image/png": "0.91"}
    cell.outputs = [
        nbformat.v4.new_output("stream", text="success 0.5791, so 12.5% more, in 1,204.5 s"),
        nbformat.v4.new_output("display_data", html),
    ]
    before = md("# A\n\nAt first 0.123.\n\n## The task\n\nThen 0.456.")
    path = write(root, NAME, before, md("## Train"), cell, *map(md, prose))
    results = root / "book" / "results"
    for folder, extra in (("", {}), ("h100", {"full": 0.961}), ("replications", {"pooled": 0.843})):
        (results / folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(RESULTS | extra if not folder else extra)
        (results / folder / "reward-tiny.json").write_text(text, "utf-8")
    (results / "other-chapter.json").write_text('{"x": 0.717}', "utf-8")
    found = prose_numbers.unsupported(notebooks.load(path), results, NAME)
    return [number.text for number in found]


@pytest.mark.parametrize(
    "prose",
    [
        "It reaches 0.579, that is .58, 57.9% or 58 %: 58 points, a gain of $0.6$.",
        "A gain of 12.5% (0.125) in 1,204.5 s or 1204.5s, and a loss of 0.25.",
        "From -0.25 [-0.39, -0.10], that is a loss of 0.25 [0.10, 0.39], to 0.58 [0.41, 0.70].",
        "The claim: 0.34 [0.22, 0.45]. The mean over seeds is 0.30 in 2.3 million steps.",
        r"With $\gamma = 0.99$, $\eta = 0.002$ and `gamma=0.99`. The interval is that of 95%.",
        "In full mode 0.96 is reached.",
        "In runs with other seeds it was 0.84.",
        "The paper reports 83.1% ([A, 2022](https://many.example)).",
        "[A and B (2022)](https://b.example) report 0.777, [another](https://doi.org/10.1/a) 0.7.",
        "See [there](https://x.example/0.77/), section 5.1.1, Qwen-2.5, v0.77 and 12 of 13.",
        "```python\nx = 0.777\n```\n\n$$ z_{97.5} $$",
    ],
)
def test_numbers_with_a_source_pass(root: Path, prose: str) -> None:
    assert numbers_without_source(root, prose) == []


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It reaches 0.57, or 57%, or 59 points.", ["0.57", "57%", "59 points"]),
        ("Exactly 0.5781 and .577.", ["0.5781", ".577"]),
        ("The gain is 0.32, or 1.2 times.", ["0.32", "1.2"]),  # 0.58 - 0.25: no output shows it
        ("It lies between 0.41 and 0.22.", ["0.41", "0.22"]),  # bounds alone
        ("So 0.58 [0.41, 0.71].", ["0.58 [0.41, 0.71]"]),
        ("So 0.58 [0.10, 0.39].", ["0.58 [0.10, 0.39]"]),
        ("So 0.25 [-0.39, -0.10].", ["0.25 [-0.39, -0.10]"]),
        ("One seed ended at 0.60, another at 0.20.", ["0.60", "0.20"]),
        ("We see 0.96 and 0.843.", ["0.96", "0.843"]),  # does not tell of those runs
        ("We see 0.72.", ["0.72"]),  # another chapter's
        ("We see 0.77 and 0.91.", ["0.77", "0.91"]),  # style and pictures
        ("The paper reports 0.7 ([A, 2022](https://a.example)). We see 0.777.", ["0.777"]),
        ("[Before](first.ipynb) it was 0.777.", ["0.777"]),
        ("| a | 0.777 |\n|--:|--:|\n| b | 0.888 ([A, 2022](https://a.example)) |", ["0.777"]),
        ("- It is 0.777\n- It is [A (2022)](https://a.example)", ["0.777"]),
        ("```{note}\nWe tried 0.777.\n```", ["0.777"]),
        ("## Summary\n\nAt first 0.123.", ["0.123"]),
    ],
)
def test_numbers_without_a_source_are_found(root: Path, prose: str, found: list[str]) -> None:
    assert numbers_without_source(root, prose) == found


def test_numbers_are_read_after_the_method_where_nothing_is_called_train(root: Path) -> None:
    cells = [md("## The method\n\nIt is 0.777."), md("## Search\n\nIt is 0.888.")]
    nb = notebooks.load(write(root, NAME, *cells))
    found = list(prose_numbers.problems_with_numbers(nb, root, NAME))
    assert [(cell, message.split(":")[0]) for cell, message in found] == [
        (3, "no output shows 0.888")
    ]
    assert found[0][1].endswith("'It is 0.888.'")
    nb.metadata.duality.numbers = {"0.888": "drawn by hand on the board"}
    assert list(prose_numbers.problems_with_numbers(nb, root, NAME)) == []


def test_damaged_results_are_one_line(
    root: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "book" / "results").mkdir()
    (root / "book" / "results" / "reward-tiny.json").write_text("{", "utf-8")
    assert check(root, capsys) == [f"{NAME}: reward-tiny.json is damaged: restore it from git."]
