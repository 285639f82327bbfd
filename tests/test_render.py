"""The pictures of the lab and its films.

`python tests/test_render.py` draws the reference pictures and the README's animation again; look at
them before you commit them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from tutorial_utils.evidence import evaluate
from tutorial_utils.figures import Recording, palette, record, side_by_side
from tutorial_utils.models import ActorCritic
from tutorial_utils.tabletop import TASKS, Expert, Shift, World
from tutorial_utils.tabletop import rendering as drawing

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "tests" / "reference"

render = drawing.render


def scene(task: str, shift: Shift | None = None, **places: object) -> World:
    """One robot, everything where we say: positions (x, y), colours by number."""
    world = World(TASKS[task], 1, shift=shift)
    for name, place in places.items():
        getattr(world, name).copy_(torch.tensor(place).view_as(getattr(world, name)))
    return world


def pick_place(**changes: object) -> World:
    places = {"gripper": (-0.31, 0.42), "objects": (0.13, 0.27), "zones": (-0.52, -0.33)}
    return scene("PickPlace", **{**places, "zone_color": 3, "object_color": 0, **changes})


def press(pressed: float) -> World:
    places = {"gripper": (-0.4, 0.1), "objects": (-0.61, -0.55), "zones": (0.66, 0.4)}
    colors = {"zone_color": 1, "object_color": 2}
    return scene("PressThenPlace", **places, **colors, button=(-0.55, 0.5), pressed=pressed)


def with_disc(task: str) -> World:
    places = {"gripper": (0.26, -0.81), "zones": (0.02, 0.79), "disc_center": (0.08, -0.03)}
    return scene(task, **places, zone_color=4)


SCENES = {
    "pick_place": pick_place,
    "button_up": lambda: press(0.0),
    "button_down": lambda: press(1.0),
    "around_obstacle": lambda: with_disc("AroundObstacle"),
    "past_hazard": lambda: with_disc("PastHazard"),
}


def many(task: str, count: int = 7, shift: Shift | None = None) -> World:
    """Robots in the middle of their episodes."""
    world = World(TASKS[task], count, shift=shift)
    world.reset(torch.arange(count), torch.arange(count) + 5)
    for _ in range(9):
        world.step(Expert(noise=0.3)(world))
    return world


def picture(world: World, size: int = 32) -> np.ndarray:
    return render(world, size)[0].numpy().astype(int)


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", SCENES)
def test_pictures_look_as_they_did(name: str) -> None:
    path = REFERENCE / f"{name}.png"
    assert path.stat().st_size < 2000
    wanted = np.asarray(Image.open(path)).astype(int)
    np.testing.assert_allclose(picture(SCENES[name]()), wanted, atol=2)


@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_equals_its_robots_one_by_one(
    task: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = many(task)
    batch = render(world, size)
    assert batch.shape == (7, size, size, 3)
    assert batch.dtype == torch.uint8
    for i in range(7):
        assert torch.equal(batch[i], render(world, size, torch.tensor([i]))[0])
    monkeypatch.setattr(drawing, "_CHUNK", 3 * size * size)  # three together
    assert torch.equal(batch, render(world, size))
    assert torch.equal(batch[[4, 1]], render(world, size, torch.tensor([4, 1])))
    assert len(render(world, size, torch.arange(0))) == 0


def test_open_closed_and_holding_fingers_can_be_told_apart() -> None:
    over = {"gripper": (0.13, 0.27)}
    shown = [
        picture(pick_place(**over)),
        picture(pick_place(**over, closed=1.0)),
        picture(pick_place(**over, closed=1.0, held=1.0)),
    ]
    near = slice(9, 14), slice(13, 23)  # rows and columns around the disc
    for i, one in enumerate(shown):
        for other in shown[:i]:
            difference = np.abs(one[near] - other[near])
            assert difference.max() > 80
            assert difference.mean() > 6


def test_what_carries_meaning_changes_the_picture_of_a_policy() -> None:
    gate, button = (slice(None), slice(18, 22)), (slice(5, 11), slice(4, 10))
    change = np.abs(picture(press(0.0)) - picture(press(1.0)))
    assert change[gate].max() > 100
    assert change[button].max() > 100
    recolored = np.abs(picture(pick_place()) - picture(pick_place(object_color=2)))
    assert (recolored.max(-1) > 40).sum() >= 5


@pytest.mark.parametrize("size", [32, 64, 128])
def test_nothing_wraps_around_the_border(size: int) -> None:
    away = {"zones": (0.0, 0.0), "gripper": (0.0, 0.0)}
    inside = picture(pick_place(**away, objects=(0.0, 0.0)), size)
    for x, y in ((1.0, 0.5), (-1.0, 0.5), (0.5, 1.0), (0.5, -1.0), (1.0, 1.0), (-1.05, -1.05)):
        changed = np.abs(picture(pick_place(**away, objects=(x, y)), size) - inside).sum(-1) > 0
        rows, columns = np.nonzero(changed)
        far = np.hypot((columns + 0.5) * 2 / size - 1 - x, 1 - (rows + 0.5) * 2 / size - y)
        moved = np.hypot((columns + 0.5) * 2 / size - 1, 1 - (rows + 0.5) * 2 / size)
        assert (far < 0.22).any()
        assert ((far < 0.22) | (moved < 0.25)).all()
    off = picture(pick_place(gripper=(9.0, 9.0), zones=(-9.0, 0.0), objects=(0.0, 9.0)))
    assert (off == off[0, 0]).all()


@pytest.mark.parametrize("task", TASKS)
def test_a_camera_one_pixel_to_the_side_moves_the_picture(task: str) -> None:
    world, moved = many(task, 3), many(task, 3, Shift(camera=(2 / 32, -4 / 32)))
    before, after = render(world).int(), render(moved).int()
    torch.testing.assert_close(after[:, :-2, :-1], before[:, 2:, 1:], atol=1, rtol=0)


@pytest.mark.parametrize("size", [32, 128])
def test_dimming_ends_in_grey(size: int) -> None:
    grey = np.array(palette.rgb(palette.GREY))
    for task in ("PressThenPlace", "PastHazard"):
        half, full = (render(many(task, 2, Shift(dim=dim)), size).numpy() for dim in (0.5, 1.0))
        plain = render(many(task, 2), size).numpy().astype(int)
        assert (full == grey).all()
        assert np.abs(half.astype(int) - (plain + grey) / 2).max() < 4


@pytest.mark.parametrize("size", [7, 0, -32, 1025])
def test_bad_sizes_are_refused_in_one_line(size: int) -> None:
    with pytest.raises(ValueError, match=r"^image size must be .* not -?\d+\.$"):
        render(pick_place(), size)


# ---------------------------------------------------------------- films


EXPERTS = Expert(noise=0.2), Expert(noise=0.2, success=0.0)


@pytest.fixture(scope="module")
def film() -> Recording:
    """Two episodes that succeed and two that fail."""
    return side_by_side(*(record(expert, "PickPlace", 2, seed=6) for expert in EXPERTS))


def test_a_recording_is_the_evaluation(film: Recording) -> None:
    good, bad = (evaluate(expert, "PickPlace", 2, seed=6) for expert in EXPERTS)
    assert (
        film.success.tolist() == [*good.success[0], *bad.success[0]] == [True, True, False, False]
    )
    assert film.steps.tolist() == [*good.steps[0], *bad.steps[0]]
    assert len(film.instructions) == 4
    assert all(" disc " in words for words in film.instructions)
    count, episodes, high, wide, channels = film.frames.shape
    assert (count, episodes, wide, channels) == (film.steps.max() + 1, 4, 128, 3)
    assert 128 < high < 180
    assert film.frames.dtype == np.uint8
    for e, steps in enumerate(film.steps):
        assert (film.frames[steps:, e] == film.frames[steps, e]).all()
        assert (film.frames[steps, e] != film.frames[steps - 1, e]).any()
        assert (film.frames[:, e, 128:] == film.frames[0, e, 128:]).all()  # the caption stays
        assert (film.frames[0, e, 128:] < 100).any()


def test_the_last_picture_tells_success_from_failure(film: Recording) -> None:
    colors = {True: palette.rgb(palette.GREEN), False: palette.rgb(palette.RED)}
    for e, success in enumerate(film.success):
        assert film.frames[-1, e, 64, 1].tolist() == list(colors[success])
        assert (film.frames[-1, e, :24] == colors[success]).all(-1).sum() > 128
        assert (film.frames[0, e, 64, 1] > 100).all()


def test_the_gif_is_small_endless_and_has_one_palette(film: Recording, tmp_path: Path) -> None:
    data = film.gif().data
    assert len(data) < 80_000
    film.save(tmp_path / "film.gif")
    assert (tmp_path / "film.gif").read_bytes() == data
    colors = data[13 : 13 + 3 * 64]
    assert data[10] & 0b10000111 == 0b10000101  # a global table of 64 colours
    assert data.count(colors) == 1
    with Image.open(tmp_path / "film.gif") as image:
        assert image.is_animated
        assert image.n_frames == len(film.frames)
        assert image.info["loop"] == 0
        assert image.info["duration"] == 100
        image.seek(image.n_frames - 1)
        assert image.info["duration"] >= 1000
        shown = np.asarray(image.convert("RGB")).astype(int)
    grid = np.concatenate([np.pad(f, ((0, 0), (0, 8), (0, 0))) for f in film.frames[-1]], 1)
    error = np.abs(shown - grid[:, :-8])[:, np.arange(shown.shape[1]) % 136 < 128]
    assert error.mean() < 1.5  # what is transparent adds up to the right picture
    with pytest.raises(ValueError, match=r"^an animation is saved as .gif, not as 'film.mp4'.$"):
        film.save(tmp_path / "film.mp4")


@pytest.mark.parametrize(("columns", "episode"), [(8, 0), (5, 3)])
def test_a_strip_shows_one_episode(film: Recording, columns: int, episode: int) -> None:
    figure = film.strip(columns, episode)
    assert isinstance(figure, Figure)
    assert [ax.images[0].get_array().shape for ax in figure.axes] == [(128, 128, 3)] * columns
    captions = [ax.texts[0].get_text() for ax in figure.axes]
    assert captions[0] == "step 0"
    assert captions[-1] == f"step {film.steps[episode]}"
    assert figure.get_suptitle() == film.instructions[episode]


def test_strips_refuse_what_is_not_there(film: Recording) -> None:
    with pytest.raises(ValueError, match=r"^episode must be from 0 to 3, not 4.$"):
        film.strip(episode=4)
    with pytest.raises(ValueError, match="columns"):
        film.strip(0)


def test_one_member_of_a_population_is_filmed() -> None:
    policy = ActorCritic((5,), seeds=[0, 1])
    options = {"task": "Reach", "episodes": 2, "seed": 3, "size": 32}
    alone = record(policy.select(slice(1, 2)), **options)
    assert (record(policy, **options, member=1).frames == alone.frames).all()
    with pytest.raises(ValueError, match=r"^member must be from 0 to 1, not 2.$"):
        record(policy, **options, member=2)


def test_a_film_is_as_large_as_asked_whatever_the_policy_sees() -> None:
    seen = []

    def still(obs: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(obs.shape))
        return torch.zeros(1, 2, 3)

    shift = Shift(camera=(0.2, 0.0))
    film = record(
        still, "AroundObstacle", 2, size=96, obs="image", shift=shift, captions=["a", "b"]
    )
    assert set(seen) == {(1, 2, 32, 32, 3)}
    assert film.frames.shape[3] == 96
    assert not film.success.any()
    with pytest.raises(ValueError, match=r"^2 episodes need as many captions, not 1.$"):
        record(still, "Reach", 2, captions=["a"])


def test_recordings_stand_side_by_side(film: Recording) -> None:
    short = record(Expert(), "PressThenPlace", 1, seed=2)
    both = side_by_side(film, short)
    assert both.frames.shape[:2] == (max(len(film.frames), len(short.frames)), 5)
    assert (both.frames[-1, 4, : short.frames.shape[2]] == short.frames[-1, 0]).all()
    assert both.instructions == film.instructions + short.instructions
    assert both.success.tolist() == [*film.success, *short.success]
    assert both.steps.tolist() == [*film.steps, *short.steps]


# ---------------------------------------------------------------- drawing them again


def lab() -> Recording:
    """Every task done by its expert, and one of them as a policy sees it."""
    seeds = {"Reach": 10, "Push": 10, "PickPlace": 5, "Sort": 7, "PressThenPlace": 13}
    seeds |= {"AroundObstacle": 8, "PastHazard": 15}
    films = [
        record(Expert(), task, 1, seed=seed, size=160, captions=[task])
        for task, seed in seeds.items()
    ]
    seen: list[np.ndarray] = []
    evaluate(Expert(), "PickPlace", 1, 5, on_step=lambda env, _: seen.append(render(env.world)[0]))
    policy = record(Expert(), "PickPlace", 1, seed=5, size=160, captions=["what a policy sees"])
    policy.frames[:, 0, :160] = np.stack(seen).repeat(5, axis=1).repeat(5, axis=2)
    return side_by_side(*films, policy)


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    for name, make in SCENES.items():
        Image.fromarray(render(make())[0].numpy()).save(REFERENCE / f"{name}.png", optimize=True)
    lab().save(ROOT / "book" / "_static" / "lab.gif")
