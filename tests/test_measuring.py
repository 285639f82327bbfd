"""Intervals, claims, run modes, provenance and figures: what every result of the book rests on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats

from tutorial_utils import _settings, figures
from tutorial_utils.evidence import (
    Interval,
    band,
    bootstrap,
    difference,
    provenance,
    run_mode,
)
from tutorial_utils.figures import palette

PACKAGE = Path(_settings.__file__).parent
GOOD = Interval(0.9, 0.85, 0.95)
BAD = Interval(0.1, 0.05, 0.15)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("DUALITY_MODE", raising=False)
    monkeypatch.delenv("DUALITY_SEED", raising=False)
    monkeypatch.setenv("DUALITY_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def notebook(monkeypatch):
    """Lets the program run in a notebook that has these variables."""

    def run_in(**variables):
        for name in variables:  # the package writes them there: undone after the test
            monkeypatch.setenv(name, "")
        shell = SimpleNamespace(user_ns=variables)
        monkeypatch.setattr("IPython.get_ipython", lambda: shell)

    return run_in


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


# Intervals


def test_two_seeds_by_hand():
    # Resampled means of (0, 2): 0, 1, 2 with chances 1/4, 1/2, 1/4, so the percentiles are the
    # values themselves and the interval is 1 -+ 1 * sqrt(2) * t_1 / z.
    reach = np.sqrt(2) * stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975)
    interval = bootstrap([0.0, 2.0])
    assert interval.estimate == 1
    assert interval.low == pytest.approx(1 - reach)
    assert interval.high == pytest.approx(1 + reach)


def test_many_values_agree_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=300)
    ours = bootstrap(values, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_iqm_is_the_trimmed_mean_of_the_seeds():
    values = np.random.default_rng(0).normal(size=(8, 30))
    interval = bootstrap(values, "iqm")
    assert interval.estimate == pytest.approx(stats.trim_mean(values.mean(1), 0.25))
    outlier = [1.0, 1.1, 0.9, 1.0, 100.0]
    assert bootstrap(outlier, "iqm").estimate < 2 < bootstrap(outlier).estimate


def test_statistic_may_be_a_function_and_values_a_tensor():
    values = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    assert bootstrap(values, np.median).estimate == 2
    assert bootstrap(values) == bootstrap([3, 1, 2])


ARMS = hnp.arrays(
    float, st.integers(2, 6), elements=st.floats(-100, 100).map(lambda x: round(x, 3))
)


@settings(max_examples=40, deadline=None)
@given(ARMS, st.integers(-20, 20))
def test_interval_contains_and_moves_with_the_values(values, shift):
    interval = bootstrap(values, resamples=200)
    assert interval.low <= interval.estimate <= interval.high
    assert interval.estimate == pytest.approx(values.mean())
    if values.min() < 0 and (values + shift).min() < 0:  # neither is a rate, so nothing is cut
        moved = bootstrap(values + shift, resamples=200)
        assert moved.low == pytest.approx(interval.low + shift, abs=1e-6)
        assert moved.high == pytest.approx(interval.high + shift, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 12), st.randoms(use_true_random=False))
def test_rates_stay_rates(n, episodes, random):
    a, b = ([[random.random() < p for _ in range(episodes)] for _ in range(n)] for p in (0.9, 0.3))
    interval, gap = bootstrap(a, resamples=200), difference(a, b, resamples=200, paired=True)
    assert 0 <= interval.low < interval.high <= 1
    assert -1 <= gap.low < gap.high <= 1


def test_difference_is_antisymmetric():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 6), rng.normal(0, 2, 5)
    forth, back = (difference(*arms, resamples=20_000, paired=False) for arms in ((a, b), (b, a)))
    assert forth.estimate == pytest.approx(-back.estimate)
    assert forth.low == pytest.approx(-back.high, abs=0.1)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ([], "empty"),
        ([[1.0, 2.0], [1.0]], "equal length"),
        ([1.0, np.nan], "finite"),
        ([0.5], "at least 2"),
        ("abc", "numbers"),
        (np.ones((2, 2, 2)), "axes"),
    ],
)
def test_bad_values(values, word):
    with pytest.raises(ValueError, match=word) as error:
        bootstrap(values)
    one_line(error)


@pytest.mark.parametrize("settings_", [{"statistic": "men"}, {"level": 95}, {"resamples": 1}])
def test_bad_settings(settings_):
    with pytest.raises(ValueError, match=r"mean|level|resamples") as error:
        bootstrap([1.0, 2.0], **settings_)
    one_line(error)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((-0.001, -0.25, 0.25), "0.00 [-0.25, 0.25]"),
        ((0.93, 0.9, 0.95), "0.93 [0.90, 0.95]"),
        ((0.0, 0.0, 0.0038), "0.000 [0.000, 0.004]"),
        ((41.26, 30, 55), "41.3 [30.0, 55.0]"),
        ((1234.5, -1000, 2000), "1,234 [-1,000, 2,000]"),
        ((1.0, 1.0, 1.0), "1.00 [1.00, 1.00]"),
    ],
)
def test_interval_reads_well(numbers, text):
    assert str(Interval(*numbers)) == text


@pytest.mark.parametrize("numbers", [(1, 2, 3), (1, 0, np.inf), (np.nan, 0, 1)])
def test_interval_must_be_one(numbers):
    with pytest.raises(ValueError, match="finite low <= estimate <= high"):
        Interval(*numbers)


def test_band_is_students_t():
    values = np.random.default_rng(0).normal(size=(5, 7))
    mean, low, high = band(values)
    expected = stats.t.interval(0.95, 4, values.mean(0), stats.sem(values))
    np.testing.assert_allclose((low, high), expected)
    assert mean.shape == low.shape == high.shape == (7,)
    values[2, 3] = np.nan
    assert np.isnan(band(values)[0]).sum() == 1


# Run mode


def test_seeds_never_meet(monkeypatch):
    training, evaluation = set(), set()
    for offset in range(5):
        monkeypatch.setenv("DUALITY_SEED", str(offset))
        drawn = run_mode.seeds(999)
        assert not training.intersection(drawn)
        training.update(drawn)
        held_out = range(run_mode.evaluation_seed(), run_mode.evaluation_seed() + 1000)
        assert not evaluation.intersection(held_out)
        evaluation.update(held_out)
    assert not training & evaluation


def test_default_mode_and_seeds():
    assert run_mode.mode() == "lecture"
    assert run_mode.seeds(3) == [0, 1, 2]


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "²"])
def test_bad_seed(monkeypatch, text):
    monkeypatch.setenv("DUALITY_SEED", text)
    with pytest.raises(ValueError, match="DUALITY_SEED") as error:
        run_mode.seed_offset()
    one_line(error)


@pytest.mark.parametrize("seed", [3, "3"])
def test_a_variable_of_the_notebook_comes_before_the_environment(monkeypatch, notebook, seed):
    monkeypatch.setenv("DUALITY_MODE", "full")
    monkeypatch.setenv("DUALITY_SEED", "7")
    notebook(DUALITY_MODE="smoke", DUALITY_SEED=seed, budget=4)
    assert run_mode.mode() == "smoke"
    assert run_mode.seeds(2) == [6000, 6001]
    assert provenance.provenance_line().startswith("smoke mode · seed offset 3 ·")
    # What the notebook starts, such as a worker process, has the same settings.
    program = "from tutorial_utils.evidence import run_mode as r; print(r.mode(), r.seeds(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "smoke [6000]\n", done.stderr


def test_what_the_notebook_does_not_set_comes_from_the_environment(monkeypatch, notebook):
    monkeypatch.setenv("DUALITY_SEED", "7")
    notebook(DUALITY_MODE="smoke")
    assert run_mode.seed_offset() == 7
    monkeypatch.delenv("DUALITY_SEED")
    assert run_mode.seed_offset() == 0


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DUALITY_MODUS": "smoke"}, "unknown setting 'DUALITY_MODUS'. Did you mean 'DUALITY_MODE"),
        ({"DUALITY_REPOSITORY": "x"}, "unknown setting 'DUALITY_REPOSITORY'"),
        ({"DUALITY_MODE": "smok"}, "unknown DUALITY_MODE 'smok'. Did you mean 'smoke'?"),
        ({"DUALITY_SEED": 1.5}, "DUALITY_SEED must be a whole number of at least 0, not '1.5'."),
        ({"DUALITY_SEED": None}, "DUALITY_SEED must be a whole number of at least 0, not 'None'."),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(notebook, variables, message):
    notebook(**variables)
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        _ = run_mode.mode(), run_mode.seed_offset()
    one_line(error)


def test_every_setting_that_the_package_reads_is_known():
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    read = set(re.findall(r'setting\("(\w+)"\)', code))
    assert read == set(_settings.SETTINGS)
    assert not re.search(r'(environ|getenv)\b[^\n]*"DUALITY_', code)


def test_bad_mode_and_counts(monkeypatch):
    for n in (0, 1000, 2.0):
        with pytest.raises(ValueError, match="number of seeds"):
            run_mode.seeds(n)
    monkeypatch.setenv("DUALITY_MODE", "lectures")
    with pytest.raises(ValueError, match=r"Did you mean 'lecture'") as error:
        run_mode.mode()
    one_line(error)


def test_budget(monkeypatch):
    columns = {"smoke": {"steps": 10}, "lecture": {"steps": 300_000}, "full": {"steps": 9}}
    monkeypatch.setenv("DUALITY_MODE", "smoke")
    small = run_mode.budget(**columns)
    assert small.steps == 10
    assert "smoke (this run)" in small._repr_html_()
    assert all(text in small._repr_markdown_() for text in ("lecture", "300,000", "full"))
    with pytest.raises(AttributeError, match=r"Did you mean 'steps'"):
        _ = small.step
    columns["full"]["seeds"] = 5
    with pytest.raises(ValueError, match="'seeds' is missing in smoke and lecture") as error:
        run_mode.budget(**columns)
    one_line(error)


# Provenance


def test_provenance_tells_no_secrets():
    import getpass
    import socket

    facts = provenance.provenance()
    keys = {"mode", "seed", "machine", "cores", "versions", "commit", "seconds", "peak_mb"}
    assert set(facts) == keys
    assert facts["peak_mb"] is None or 50 < facts["peak_mb"] < 50_000
    line = provenance.provenance_line()
    for text in (line, json.dumps(facts)):
        assert "/" not in text
        assert "\n" not in text
        assert socket.gethostname() not in text
        assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)


def test_provenance_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.provenance()["commit"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="others do not hand the peak on")
def test_peak_memory_is_not_that_of_the_parent():
    large = bytearray(b"x") * 800_000_000
    code = (
        "from tutorial_utils.evidence import provenance; print(provenance.provenance()['peak_mb'])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert provenance.provenance()["peak_mb"] > len(large) / 1e6
    assert 20 < int(child.stdout) < len(large) / 1e6


def test_peak_memory_without_a_status_file(monkeypatch, tmp_path):
    pytest.importorskip("resource")
    monkeypatch.setattr(provenance, "_STATUS", tmp_path / "status")
    assert 50 < provenance.provenance()["peak_mb"] < 50_000
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2000 kB\nVmRSS:\t 1000 kB\n")
    assert provenance.provenance()["peak_mb"] == 2


# Figures and tables


def make_axes():
    figures.use_style()
    return Figure().subplots()


def test_an_arm_keeps_its_colour():
    assert figures.arm_color("Sparse") == figures.arm_color(" sparse ") == palette.GREY
    assert figures.arm_color("world model") == figures.arm_color("world_model")
    assert figures.arm_color("sabotage") == palette.RED
    # Written down, because Python's own hash differs in each session.
    assert figures.arm_color("an unknown arm") == "#56B4E9"


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=20))
def test_every_name_has_a_colour(name):
    assert re.fullmatch(r"#[0-9A-F]{6}", figures.arm_color(name))


def test_curves_draw_means_and_bands():
    ax = make_axes()
    x = np.linspace(0, 2e6, 11)
    arms = {name: np.random.default_rng(0).random((5, 11)) for name in ("ppo", "dppo", "sparse")}
    arms["one seed"] = torch.full((1, 11), 0.5)
    figures.curves(ax, x, arms, "environment steps", "success rate")
    assert [line.get_label() for line in ax.lines] == list(arms)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), arms["ppo"].mean(0))
    assert len(ax.collections) == 4
    assert ax.lines[0].get_color() == ax.lines[1].get_color()  # two arms of one colour ...
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()  # ... stay apart
    heights = sorted(text.xy[1] for text in ax.texts)
    assert np.diff(heights).min() > 0.03
    ax.figure.canvas.draw()
    assert "2M" in [tick.get_text() for tick in ax.get_xticklabels()]


def test_names_of_curves_show_the_dash_where_a_colour_repeats():
    ax = make_axes()
    arms = {name: np.full((2, 3), y) for name, y in (("sparse", 0.1), ("ppo", 0.5), ("dppo", 0.9))}
    figures.curves(ax, np.arange(3), arms, "x", "y")
    for line, text in zip(ax.lines, ax.texts, strict=True):
        assert text.get_text() == line.get_label()
        assert text.arrow_patch.get_linestyle() == line.get_linestyle()
        assert text.arrow_patch.get_edgecolor()[:3] == to_rgb(line.get_color())


def test_names_of_curves_are_plain_where_colours_say_enough():
    ax = make_axes()
    figures.curves(ax, np.arange(3), {a: np.zeros((2, 3)) for a in ("ppo", "sparse")}, "x", "y")
    assert [text.arrow_patch for text in ax.texts] == [None, None]


@pytest.mark.parametrize("arm", [np.zeros(11), np.zeros((5, 10)), [[1.0], [1.0, 2.0]], []])
def test_bad_curves(arm):
    with pytest.raises(ValueError, match="ppo") as error:
        figures.curves(make_axes(), np.arange(11), {"ppo": arm}, "x", "y")
    one_line(error)


def test_bars_show_interval_and_seeds():
    ax = make_axes()
    figures.bars(ax, {"expert": GOOD, "ppo": np.array([0.2, 0.4, 0.6])}, "success rate")
    assert [patch.get_width() for patch in ax.patches] == pytest.approx([0.9, 0.4])
    assert list(ax.lines[0].get_xdata()) == [0.85, 0.95]
    assert len(ax.collections) == 1
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [0.2, 0.4, 0.6])
    assert ax.texts[0].get_text() == str(GOOD)


def test_film_strip():
    frames = np.zeros((5, 8, 8, 3), dtype=np.uint8)
    figure = figures.film_strip(frames, columns=3, captions=list("abcde"))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(figure.axes) == 6
    assert sum(len(ax.images) for ax in figure.axes) == 5
    for bad in (frames[0], frames.astype(float), frames[:0]):
        with pytest.raises(ValueError, match="uint8") as error:
            figures.film_strip(bad)
        one_line(error)
    with pytest.raises(ValueError, match="captions"):
        figures.film_strip(frames, captions=["a"])


def test_table_reads_as_text_html_and_markdown():
    rows = {"ppo": {"success": GOOD, "steps": 300_000}, "a|<b>": {"success": BAD, "steps": 7}}
    shown = figures.table(rows)
    lines = repr(shown).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].endswith("300,000")
    assert "&lt;b&gt;" in shown._repr_html_()
    assert "text-align: right" in shown._repr_html_()
    assert shown._repr_html_().count("<th ") == 2  # the empty corner heads nothing
    assert "a\\|<b>" in shown._repr_markdown_()
    assert repr(figures.table([{"": name, **row} for name, row in rows.items()])) == repr(shown)


def test_a_column_of_numbers_stays_one_where_a_cell_is_empty():
    shown = figures.table([{"n": 7, "no": ""}, {"n": "", "no": ""}, {"n": None, "no": ""}])
    assert shown._repr_markdown_().splitlines()[1] == "| ---: | :--- |"
    assert figures.table([{"n": 7}, {"n": "seven"}])._repr_markdown_().splitlines()[1] == "| :--- |"


def test_no_line_break_parts_an_interval():
    interval = str(GOOD)
    shown = figures.table([{"what": f"ppo: {interval}", "n": GOOD}, {"what": "lost", "n": ""}])
    for text in (shown._repr_html_(), shown._repr_markdown_()):
        assert text.count(interval.replace(" ", "\u00a0")) == 2
        assert interval not in text
    assert interval in repr(shown)  # plain text stays plain


@pytest.mark.parametrize("rows", [[], [{"a": 1}, {"b": 1}]])
def test_bad_table(rows):
    with pytest.raises(ValueError, match="row") as error:
        figures.table(rows)
    one_line(error)
