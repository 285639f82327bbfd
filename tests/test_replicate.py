"""Replications: seeds are used once, nothing that ran is lost, and what was found is stored."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import one_line
from test_tools import NAME, ROOT, code, environment, execute, wait_for, write

sys.path.append(str(ROOT / "tools"))

import notebooks
import replicate
import replications

# A chapter that measures 0.5 and claims at least 0.3; `SPECIAL` changes some seeds. It notes each
# of its runs beside itself.
CHAPTER = """\
import json, os, time
from pathlib import Path
seed = int(os.environ["DUALITY_SEED"])
with open("ran", "a") as ran:
    print(seed, file=ran)
x, twin, text = 0.5 + seed / 1000, "fails", "it wins"
{special}
claim = {{"estimate": x, "low": x - 0.1, "high": x + 0.1, "bound": 0.3, "side": "at least"}}
claim |= {{"claim": text, "verdict": "holds" if x >= 0.4 else "cannot tell", "holds": x >= 0.4}}
other = claim | {{"claim": "so does this", "verdict": "holds", "holds": True}}
twins = [claim | {{"verdict": twin, "holds": twin == "holds"}}]
results = Path(os.environ["DUALITY_RESULTS"]) / "reward-tiny.json"
results.write_text(json.dumps({{"claims": [claim, other], "twins": twins}}))
"""
BLOCK = """\
if seed == 101:
    open("marker.new", "w").write(str(os.getpid()))
    os.replace("marker.new", "marker")
    while not os.path.exists("go"):
        time.sleep(0.02)"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "references.bib").write_text("")
    for name in os.environ:
        if name.startswith("DUALITY_"):
            monkeypatch.delenv(name)
    return tmp_path


def chapter(root: Path, special: str = "") -> Path:
    return write(root, NAME, code(CHAPTER.format(special=special)))


def ran(root: Path) -> list[int]:
    return [int(line) for line in (root / "book/chapters/reward/ran").read_text().split()]


def stored(root: Path) -> list[dict[str, Any]]:
    path = root / "book" / "results" / "replications" / "reward-tiny.json"
    return json.loads(path.read_text())["ranges"] if path.exists() else []


@pytest.fixture
def run(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Runs the tool in this process: its exit code and the lines that it prints."""

    def run(seeds: str, *arguments: str) -> tuple[int, list[str]]:
        given = arguments or (NAME,)
        code = replicate.main(["--root", str(root), f"--seeds={seeds}", *given])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_every_run_is_stored_with_what_held(root: Path, run) -> None:
    chapter(
        root,
        "if seed == 101: x = 0.35\n"
        "if seed == 102: raise ValueError('no\\ngo')\n"
        "if seed == 103: twin = 'cannot tell'\n"
        "if seed == 104: text = 'another claim'",
    )
    code, lines = run("100:5", NAME, "--jobs=1")
    assert code == 1
    assert [re.sub(r"\b\d+ s\b", "0 s", line) for line in lines] == [
        "seed 100: 2 of 2 claims held, 0 s",
        "seed 101: 1 of 2 claims held, 0 s; not: 'it wins' 0.35 [0.25, 0.45], bound 0.3",
        "seed 102: FAILED, 0 s: cell 3: ValueError: no go"
        " (see .execute/failed/lecture-seed102/reward/tiny.ipynb)",
        "seed 103: 1 of 2 claims held, 0 s; not: 'it wins' 0.603 [0.503, 0.703], bound 0.3,"
        " its twin: cannot tell",
        "seed 104: FAILED, 0 s: its claims are not those of the other seeds:"
        " keep texts and bounds fixed",
        "reward/tiny, seeds 100 to 104:",
        "  held in 1 of 5, 0.518 [0.157, 0.878]: it wins",
        "  held in 3 of 5, 0.518 [0.157, 0.878]: so does this",
    ]
    (entry,) = stored(root)
    assert (entry["first"], entry["count"], entry["mode"]) == (100, 5, "lecture")
    assert entry["complete"]
    assert [claim["held"] for claim in entry["claims"]] == [1, 3]
    assert (
        entry["claims"][0].items() >= {"claim": "it wins", "bound": 0.3, "side": "at least"}.items()
    )
    assert set(entry["digests"]) == {"code", "claims", "package"}
    assert entry["digests"]["code"] == notebooks.source_hash(
        notebooks.load(root / "book/chapters" / f"{NAME}.ipynb")
    )
    assert "cores" in entry["machine"]
    assert "python" in entry["versions"]
    assert [run["seed"] for run in entry["runs"]] == [100, 101, 102, 103, 104]
    assert entry["runs"][1]["claims"][0] == {
        "claim": "it wins",
        "estimate": 0.35,
        "low": pytest.approx(0.25),
        "high": pytest.approx(0.45),
        "verdict": "cannot tell",
        "twin": "fails",
        "held": False,
    }
    assert entry["runs"][2]["error"] == "cell 3: ValueError: no go"
    assert "error" in entry["runs"][4]


def test_runs_share_nothing_and_a_failing_claim_does_not_stop_them(
    root: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALITY_CACHE", str(root / "mine"))
    monkeypatch.setenv("DUALITY_STRICT", "1")
    monkeypatch.setenv("DUALITY_MODE", "full")
    chapter(root, "json.dump(dict(os.environ), open(f'seen{seed}', 'w'))")
    assert run("10:2", NAME, "--jobs=1")[0] == 0
    seen = [json.loads((root / f"book/chapters/reward/seen{s}").read_text()) for s in (10, 11)]
    for name in ("MINARI_DATASETS_PATH", "DUALITY_CACHE", "DUALITY_RESULTS"):
        places = [Path(env[name]) for env in seen]
        assert places[0] != places[1]
        assert root / "mine" not in places
        assert root / "book" not in {p for place in places for p in place.parents}
    assert [env["DUALITY_STRICT"] for env in seen] == ["0", "0"]
    assert {env["DUALITY_MODE"] for env in seen} == {stored(root)[0]["mode"]} == {"full"}


def test_a_chapters_own_claims_are_read(root: Path, run) -> None:
    source = """\
from tutorial_utils.evidence import Claims, Interval
claims = Claims("reward/tiny")
for text, low in (("it wins", 0.2), ("it wins much", 0.7)):
    claims.at_least(text, Interval(0.75, low, 0.8), 0.5)
    claims.fails_on_twin(text, Interval(0.3, 0.2, 0.4))
claims.at_most("it costs little", Interval(0.9, 0.8, 1.0), 0.5, no_twin="a cost")
claims.check()"""
    write(root, NAME, code(source))
    assert run("100:1")[0] == 0
    (entry,) = stored(root)
    found = [(c["verdict"], c["twin"], c["held"]) for c in entry["runs"][0]["claims"]]
    assert found == [
        ("cannot tell", "fails", False),
        ("holds", "fails", True),
        ("fails", None, False),
    ]
    assert [claim["side"] for claim in entry["claims"]] == ["at least", "at least", "at most"]
    # The author's own run stops there instead.
    assert execute(root).stdout.splitlines()[1].startswith(f"FAILED {NAME}: cell 3: ClaimError")


def test_a_replication_ends_with_the_claims_and_runs_no_exercise(root: Path, run) -> None:
    check = """\
from tutorial_utils.evidence import Claims, Interval
claims = Claims("reward/tiny")
claims.at_least("it wins", Interval(0.75, 0.7, 0.8), 0.5, no_twin="none")
claims.check()"""
    exercise = "open('exercise', 'w').close()"
    path = write(root, NAME, code(check), code(exercise))
    assert run("100:1")[0] == 0
    assert stored(root)[0]["runs"][0]["claims"][0]["held"]
    assert stored(root)[0]["digests"]["code"] == notebooks.source_hash(notebooks.load(path))
    assert not path.with_name("exercise").exists()
    assert execute(root).returncode == 0
    assert path.with_name("exercise").exists()


def test_seeds_are_used_once_unless_again_and_old_ranges_stay(root: Path, run) -> None:
    chapter(root)
    assert run("100:2")[0] == 0
    first = stored(root)
    for seeds in ("100:2", "101:1", "99:2"):
        assert run(seeds) == (
            1,
            ["reward/tiny has used seeds 100 to 101: take fresh ones, from 102 on, or AGAIN=1."],
        )
    assert (stored(root), sorted(ran(root))) == (first, [100, 101])
    assert run("101:1", NAME, "--again")[0] == 0
    assert run("102:1")[0] == 0
    assert stored(root)[0] == first[0]
    assert [(entry["first"], entry["count"]) for entry in stored(root)] == [
        (100, 2),
        (101, 1),
        (102, 1),
    ]


@pytest.fixture
def start(root: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts three runs, one at a time, and returns the tool while the second one is blocked."""
    started: list[psutil.Process] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "tools" / "replicate.py"), "--root", str(root)]
        process = subprocess.Popen(
            [*command, "--seeds=100:3", "--jobs=1", NAME],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for((root / "book/chapters/reward/marker").exists, "the second run")
        tool = psutil.Process(process.pid)
        started.extend([tool, *tool.children(recursive=True)])
        return process

    yield start
    for process in started:  # whatever a failed test has left (psutil knows a pid used again)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_what_ran_survives_a_kill_and_the_same_command_goes_on(
    root: Path, run, start, stop: signal.Signals
) -> None:
    path = chapter(root, BLOCK)
    process = start()
    os.killpg(process.pid, stop)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[stop]
    assert ("run the same command again" in said) == (stop == signal.SIGINT)
    kernel = int((path.parent / "marker").read_text())
    wait_for(lambda: not psutil.pid_exists(kernel), "the orphaned kernel to end")
    (entry,) = stored(root)
    assert ([run["seed"] for run in entry["runs"]], entry["complete"]) == ([100], False)

    assert run("200:3", "reward/tinny")[0] == 1
    assert run("102:5") == (
        1,
        [
            "reward/tiny has begun seeds 100 to 102, 1 of 3 ran: continue with SEEDS=100:3 in"
            " lecture mode, or take fresh ones, from 103 on, or AGAIN=1."
        ],
    )
    (path.parent / "go").touch()
    code, lines = run("100:3")
    assert code == 0
    assert sorted(line[:8] for line in lines[:2]) == ["seed 101", "seed 102"]
    assert sorted(ran(root)) == [100, 101, 101, 102]
    (entry,) = stored(root)
    assert ([run["seed"] for run in entry["runs"]], entry["complete"]) == ([100, 101, 102], True)


def test_a_worker_that_is_killed_says_nothing_about_the_chapter(root: Path, run, start) -> None:
    path = chapter(root, BLOCK)
    process = start()
    psutil.Process(process.pid).children()[0].kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "FAILED seed 101: the worker ended with code -9; run again." in said
    assert [run["seed"] for run in stored(root)[0]["runs"]] == [100, 102]
    (path.parent / "go").touch()
    assert run("100:3")[0] == 0
    assert stored(root)[0]["complete"]


def test_a_range_is_of_one_version(root: Path, run, start) -> None:
    chapter(root, BLOCK)
    process = start()
    path = chapter(root, f"{BLOCK}\nx = 0.9")  # an edit while the old code runs
    (path.parent / "go").touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.count("STOPPED reward/tiny: the chapter or the package was changed") == 1
    assert [run["seed"] for run in stored(root)[0]["runs"]] == [100]

    assert run("100:3") == (
        1,
        [
            "reward/tiny began seeds 100 to 102 with an earlier version of its code, 1 of 3 ran:"
            " take fresh ones, from 103 on, or AGAIN=1."
        ],
    )
    assert run("103:1")[0] == 0
    old, new = stored(root)
    assert (old["complete"], new["complete"]) == (False, True)
    assert old["digests"]["code"] != new["digests"]["code"]
    assert old["digests"]["claims"] == new["digests"]["claims"]


def test_one_process_replicates_a_chapter_at_a_time(root: Path, run) -> None:
    chapter(root)
    lock = root / ".execute" / "replicate" / "reward-tiny.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code, lines = run("100:1")
    assert (code, len(lines)) == (1, 1)
    assert "is being replicated already" in lines[0]
    assert stored(root) == []


def test_a_refused_chapter_does_not_stop_the_others(root: Path, run) -> None:
    chapter(root)
    assert run("100:1")[0] == 0
    write(root, "reward/other", code("1"))
    code_, lines = run("100:1", "--all")
    assert code_ == 1
    assert "reward/tiny has used seed 100" in lines[0]
    assert "reward/other" in lines[2]
    assert "wrote no results" in lines[1]


@pytest.mark.parametrize(
    ("seeds", "arguments", "env", "words"),
    [
        ("100:1", ["reward/tinny"], {}, ["no chapter 'reward/tinny'", "did you mean"]),
        ("100:1", ["--all", "--jobs=0"], {}, ["whole number from 1 on"]),
        ("100:1", ["--all"], {"DUALITY_JOBS": "two"}, ["DUALITY_JOBS", "'two'"]),
        ("100:1", ["--all"], {"DUALITY_MODE": "smoke"}, ["Smoke mode", "lecture"]),
        ("100:1", [], {}, ["CHAPTER="]),
        ("", ["--all"], {}, ["SEEDS must be first:count", "''"]),
        ("-1:3", ["--all"], {}, ["SEEDS must be first:count"]),
    ],
)
def test_bad_input_is_one_line(root, capsys, monkeypatch, seeds, arguments, env, words) -> None:
    chapter(root)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert replicate.main(["--root", str(root), f"--seeds={seeds}", *arguments]) == 1
    said = capsys.readouterr()
    assert (said.out.count("\n"), said.err) == (1, "")
    assert all(word in said.out for word in words), said.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("100", ["first:count"]),
        ("100:", ["first:count"]),
        ("100:ten", ["first:count"]),
        ("100:1.5", ["first:count"]),
        ("\u0661\u0660\u0660:1", ["first:count"]),
        ("100:0", ["0 runs", "100:10"]),
        ("0:10", ["0 to 9", "development"]),
        ("9:1", ["0 to 9", "development"]),
        ("999:2", ["1000", "weekly"]),
    ],
)
def test_seeds_that_cannot_be_meant_are_refused(text: str, words: list[str]) -> None:
    with pytest.raises(notebooks.NotebookError) as error:
        replicate.seeds_of(text, date(2026, 3, 1))
    one_line(error, *words)


def test_seeds_by_hand_and_by_the_week_do_not_meet() -> None:
    assert replicate.seeds_of("10:990", date(2026, 3, 1)) == (10, 990)
    mondays = [replicate.WEEK_ZERO + timedelta(weeks=week) for week in range(200)]
    assert all(day.weekday() == 0 for day in mondays)
    assert [replicate.seeds_of("week", day) for day in mondays] == [
        (1000 + week, 1) for week in range(200)
    ]
    assert replicate.seeds_of("week", mondays[3] + timedelta(days=6)) == (1003, 1)


def test_the_pooled_estimate_is_a_mean_with_a_t_interval() -> None:
    # Of 0.2, 0.4, 0.6: standard deviation 0.2, and t is 4.302653 with two degrees of freedom.
    assert replications.pooled([0.2, 0.4, 0.6]) == {
        "estimate": 0.4,
        "low": pytest.approx(0.4 - 4.302653 * 0.2 / 3**0.5, abs=1e-4),
        "high": pytest.approx(0.4 + 4.302653 * 0.2 / 3**0.5, abs=1e-4),
    }
    assert replications.pooled([0.7, 0.7]) == {"estimate": 0.7, "low": 0.7, "high": 0.7}
    assert replications.pooled([0.7]) == {"estimate": 0.7, "low": None, "high": None}
    assert replications.pooled([]) == {"estimate": None, "low": None, "high": None}


def test_results_without_verdicts_are_read_through_holds() -> None:
    def claim(holds: bool) -> dict[str, Any]:
        ends = {"estimate": 1.0, "low": 1.0, "high": 1.0, "bound": 1.0}
        return {"claim": "c", "holds": holds} | ends

    cases = {(True, None): True, (True, False): True, (True, True): False, (False, False): False}
    for (holds, twin), held in cases.items():
        twins = [] if twin is None else [claim(twin)]
        run = replications.outcome(10, 1.0, {"claims": [claim(holds)], "twins": twins})
        assert run["claims"][0]["held"] == held, (holds, twin)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ranges": [{"first": 1}]}', '{"ranges": 1}'])
def test_a_damaged_file_is_left_alone(root: Path, run, text: str) -> None:
    chapter(root)
    path = root / "book" / "results" / "replications" / "reward-tiny.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    code, lines = run("100:1")
    assert (code, len(lines)) == (1, 1)
    assert "replications/reward-tiny.json is damaged: restore it from git." in lines[0]
    assert path.read_text() == text
