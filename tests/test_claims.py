"""Claims with three answers, their twins, and the results files that chapters write."""

from __future__ import annotations

import dataclasses
import errno
import json

import pytest

from tutorial_utils.evidence import (
    ClaimError,
    Claims,
    Interval,
    like_with_like,
    read_arms,
    read_results,
)
from tutorial_utils.evidence import claims as claims_module
from tutorial_utils.evidence.results import results_folder

GOOD = Interval(0.9, 0.85, 0.95)
BAD = Interval(0.1, 0.05, 0.15)
OPEN = Interval(0.5, 0.4, 0.6)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("DUALITY_MODE", raising=False)
    monkeypatch.delenv("DUALITY_SEED", raising=False)
    monkeypatch.setenv("DUALITY_STRICT", "1")
    monkeypatch.setenv("DUALITY_RESULTS", str(tmp_path / "results"))


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def make_claims(interval=GOOD, twin=BAD) -> Claims:
    claims = Claims("foundations/the_lab")
    claims.arm("oracle", [[1, 1, 1, 0]] * 5, steps=300_000, seconds=51.234, task="Reach")
    claims.at_least("it learns", interval, 0.5)
    claims.fails_on_twin("it learns", twin)
    return claims


def test_results_file_round_trip(tmp_path, capsys):
    make_claims().check()
    assert "it learns" in capsys.readouterr().out
    path = tmp_path / "results" / "foundations-the_lab.json"
    result = read_results(path)
    ends = {"estimate": 0.9, "low": 0.85, "high": 0.95, "bound": 0.5, "side": "at least"}
    entry = {"claim": "it learns", **ends, "verdict": "holds", "holds": True}
    assert result["claims"] == [entry]
    assert (result["twins"][0]["verdict"], result["twins"][0]["holds"]) == ("fails", False)
    arm = {"success": [0.75] * 5, "steps": 300_000, "seconds": 51, "task": "Reach", "data": ""}
    assert result["arms"] == {"oracle": arm | {"chunk": 1, "model_seconds": 0, "model_calls": 0}}
    assert (result["mode"], result["seed"]) == ("lecture", 0)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_failing_claims_are_all_named():
    claims = make_claims(Interval(0.55, 0.45, 0.65))
    claims.at_most("it is safe", Interval(0.04, 0.01, 0.07), 0.05, no_twin="a case of this test")
    with pytest.raises(ClaimError, match=r"'it learns'.*'it is safe'") as error:
        claims.check()  # both estimates are on the right side, both ends are not
    one_line(error)


@pytest.mark.parametrize(("twin", "word"), [(GOOD, "holds"), (OPEN, "cannot tell")])
def test_a_twin_passes_only_where_its_whole_interval_misses_the_bound(twin, word):
    with pytest.raises(ClaimError, match=f"sabotaged twin: it learns' {word}") as error:
        make_claims(GOOD, twin).check()
    one_line(error)


@pytest.mark.parametrize(
    ("interval", "floor", "ceiling"),
    [
        ((0.6, 0.5, 0.7), "holds", "fails"),
        ((0.4, 0.3, 0.5), "fails", "holds"),
        ((0.5, 0.49, 0.51), "cannot tell", "cannot tell"),
    ],
)
def test_three_answers(interval, floor, ceiling, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DUALITY_STRICT", "0")
    claims = make_claims()
    claims.at_least("floor", Interval(*interval), 0.5, no_twin="a case of this test")
    claims.at_most("ceiling", Interval(*interval), 0.5, no_twin="a case of this test")
    claims.check()
    entries = read_results(tmp_path / "results" / "foundations-the_lab.json")["claims"]
    assert [e["verdict"] for e in entries] == ["holds", floor, ceiling]
    assert [e["side"] for e in entries] == ["at least", "at least", "at most"]


def test_a_readers_run_goes_on_with_a_red_row_and_a_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("DUALITY_STRICT")
    shown = []
    monkeypatch.setattr(claims_module, "display", shown.append)
    make_claims(OPEN).check()
    assert "1 of 2 checks" in capsys.readouterr().out
    red = [line for line in shown[0]._repr_html_().splitlines() if "background" in line]
    assert len(red) == 1
    assert "it learns" in red[0]
    assert "cannot tell" in red[0]
    make_claims().check()
    assert capsys.readouterr().out == ""
    assert "background" not in shown[1]._repr_html_()


def test_smoke_draws_no_conclusion(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DUALITY_MODE", "smoke")
    make_claims(BAD, GOOD).check()
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "no conclusion" in out
    assert "it learns" not in out
    assert not (tmp_path / "results").exists()


def test_claims_need_a_twin_or_a_reason(tmp_path):
    claims = Claims("foundations/the_lab")
    claims.at_least("it learns", GOOD, 0.5)
    with pytest.raises(ClaimError, match="'it learns' needs a twin") as error:
        claims.check()
    one_line(error)
    with pytest.raises(ValueError, match=r"Did you mean 'it learns'"):
        claims.fails_on_twin("it learn", BAD)
    claims.at_least("it learns", GOOD, 0.5, no_twin="the bound is that of chance")
    claims.check()
    result = read_results(tmp_path / "results" / "foundations-the_lab.json")
    assert result["claims"][0]["no_twin"] == "the bound is that of chance"


def test_reports_are_shown_and_kept_and_never_judged(tmp_path, capsys):
    claims = make_claims()
    claims.report("it is quick", BAD)
    claims.check()
    assert "it is quick" in capsys.readouterr().out
    result = read_results(tmp_path / "results" / "foundations-the_lab.json")
    assert result["reports"] == [
        {"report": "it is quick", "estimate": 0.1, "low": 0.05, "high": 0.15}
    ]
    with pytest.raises(ValueError, match="Interval"):
        claims.report("it is quick", 0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Claims("The Lab"),
        lambda: Claims("a/b").at_least("x", 0.9, 0.5),
        lambda: Claims("a/b").at_least("x", GOOD, float("nan")),
        lambda: Claims("a/b").arm("x", success=[0.5, 1.5], steps=1, seconds=1, task="Reach"),
        lambda: Claims("a/b").arm("x", success=[0.5], steps=-1, seconds=1, task="Reach"),
        lambda: Claims("a/b").arm("x", success=[0.5], steps=1, seconds=float("nan"), task="Reach"),
        lambda: Claims("a/b").arm("x", success=[0.5], steps=1, seconds=float("inf"), task="Reach"),
    ],
)
def test_bad_claims(call):
    with pytest.raises(ValueError, match=r"not|must|needs") as error:
        call()
    one_line(error)


def test_a_crash_leaves_the_old_results(monkeypatch, tmp_path):
    make_claims().check()
    path = tmp_path / "results" / "foundations-the_lab.json"
    before = path.read_text()

    def crash(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(claims_module.os, "replace", crash)
    with pytest.warns(UserWarning, match=r"not written \(disk full\).*DUALITY_RESULTS"):
        make_claims().check()
    assert path.read_text() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_gets_a_verdict_and_a_warning(
    monkeypatch, tmp_path, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DUALITY_RESULTS", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="DUALITY_RESULTS"):
        make_claims().check()
    assert "it learns" in capsys.readouterr().out
    with (
        pytest.warns(UserWarning, match="DUALITY_RESULTS"),
        pytest.raises(ClaimError, match="it learns"),
    ):
        make_claims(BAD).check()


def damage(result: dict, key: str) -> str:
    result = json.loads(json.dumps(result))
    if key == "chapter":
        result["chapter"] = "foundations/another"
    elif key in result:
        del result[key]
    else:
        del result["claims"][0][key]
    return json.dumps(result)


def test_damaged_results_name_the_chapter(tmp_path):
    make_claims().check()
    path = tmp_path / "results" / "foundations-the_lab.json"
    whole = read_results(path)
    texts = [damage(whole, key) for key in (*whole, "low", "holds")]
    for text in (*texts, "", "[1]", '{"chapter": ', json.dumps(whole | {"claims": [1]})):
        path.write_text(text)
        with pytest.raises(ValueError, match="CHAPTER=foundations/the_lab") as error:
            read_results(path)
        assert str(tmp_path) not in one_line(error)
    path.unlink()
    with pytest.raises(ValueError, match=r"no results.*CHAPTER=foundations/the_lab"):
        read_results(path)


def test_results_stand_beside_the_book(monkeypatch, tmp_path):
    monkeypatch.delenv("DUALITY_RESULTS")
    chapter = tmp_path / "book" / "chapters" / "foundations"
    chapter.mkdir(parents=True)
    monkeypatch.chdir(chapter)
    assert results_folder() == chapter / "results"
    (tmp_path / "book" / "_config.yml").touch()
    assert results_folder() == tmp_path / "book" / "results"


# The table of arms


def test_arms_of_all_chapters_in_one_table(tmp_path):
    make_claims().check()
    other = Claims("finetuning/other")
    price = {"task": "PickPlace", "data": "48 demonstrations", "chunk": 4, "model_seconds": 1.5}
    other.arm("tuned", [0.5, 0.7], 1000, 2.0, **price, model_calls=30)
    other.at_least("it learns", GOOD, 0.5)
    other.fails_on_twin("it learns", BAD)
    other.check()
    arms = {arm.chapter: arm for arm in read_arms(tmp_path / "results")}
    assert arms.keys() == {"foundations/the_lab", "finetuning/other"}
    tuned = arms["finetuning/other"]
    assert (tuned.name, tuned.success, tuned.steps, tuned.seconds) == ("tuned", (0.5, 0.7), 1000, 2)
    assert (tuned.task, tuned.data, tuned.chunk) == ("PickPlace", "48 demonstrations", 4)
    assert (tuned.model_seconds, tuned.model_calls, tuned.mode) == (1.5, 30, "lecture")


@pytest.mark.parametrize(
    ("condition", "value"),
    [("task", "Push"), ("data", "5 demonstrations"), ("chunk", 8), ("steps", 7), ("mode", "full")],
)
def test_arms_that_differ_are_refused_unless_the_table_shows_it(tmp_path, condition, value):
    make_claims().check()
    (arm,) = read_arms(tmp_path / "results")
    other = dataclasses.replace(arm, name="other", **{condition: value})
    assert like_with_like([arm, arm]) == [arm, arm]
    with pytest.raises(ValueError, match=f"differ in {condition}") as error:
        like_with_like([arm, other])
    assert str(value) in one_line(error)
    assert like_with_like([arm, other], shown=[condition]) == [arm, other]


def test_a_twin_is_held_to_the_bound_that_its_claim_has_now(tmp_path):
    claims = make_claims(twin=Interval(0.6, 0.55, 0.65))
    claims.at_least("it learns", GOOD, 0.7)
    claims.check()
    result = read_results(tmp_path / "results" / "foundations-the_lab.json")
    assert (result["twins"][0]["bound"], result["twins"][0]["verdict"]) == (0.7, "fails")
