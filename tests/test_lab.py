"""The lab: its physics, tasks, rewards, experts, shifts and the two environments around them."""

from __future__ import annotations

import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from helpers import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from tutorial_utils.tabletop import (
    COLORS,
    TASKS,
    Expert,
    Shift,
    TabletopEnv,
    TabletopVectorEnv,
    World,
    get_task,
    instructions,
    potential,
    render,
    robot_keys,
)
from tutorial_utils.tabletop.contact import distance
from tutorial_utils.tabletop.sentences import CHARACTERS, MAX_LENGTH
from tutorial_utils.tabletop.streams import mix, normal, uniform
from tutorial_utils.tabletop.tasks import (
    CLEARANCE,
    GRASP_RADIUS,
    OBJECT_RADIUS,
    PLACE_RADIUS,
    REACH_RADIUS,
)

EVERY_TASK = list(TASKS)
WITH_DISCS = [name for name, task in TASKS.items() if task.objects]
SHIFT = Shift(rotation=0.3, gain=1.2, wind=(0.1, -0.05), inward=0.1, slip=0.05)
KINDS = ("state", "image", "state+image", "all", "goal")
EPS = 1e-5  # float32 rounding of sums of a few numbers below 2
CHANCE = 0.999  # of the intervals in which measured rates must lie


def started(task: str, num_envs: int, seed: int = 0, **options) -> World:
    """A world after its first reset."""
    env = TabletopVectorEnv(task, num_envs, **options)
    env.reset(seed=seed)
    return env.world


def random_actions(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Full and small moves, fingers closed half of the time."""
    action = torch.rand(*shape, 3, generator=generator) * 2 - 1
    full = torch.rand(*shape, 1, generator=generator) < 0.5
    return torch.where(full, action.sign(), action)


def same(a, b) -> bool:
    """Whether two observations or infos are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, torch.Tensor | np.ndarray):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def row(obs, i: int):
    return {name: x[i] for name, x in obs.items()} if isinstance(obs, dict) else obs[i]


def within(count: int, trials: int, p: float) -> bool:
    """Whether so many successes are what a rate of p gives in 99.9% of cases."""
    low, high = stats.binom.interval(CHANCE, trials, p)
    return low <= count <= high


# Physics: what holds after any sequence of actions


def check_physics(world: World) -> None:
    """Every rule of `world`, read from its state with numpy in double precision."""
    gripper, objects, held = (
        x.double().numpy() for x in (world.gripper, world.objects, world.held)
    )
    closed = world.closed.numpy() > 0.5
    edge = 1 - CLEARANCE + EPS
    assert np.isfinite(world.state.numpy()).all()
    assert (abs(gripper) <= edge).all(), "the gripper left the table"
    assert (abs(objects) <= edge).all(), "a disc left the table"
    standing = np.ones(world.num_envs, bool)
    if world.task.button:
        standing = world.pressed.numpy() < 0.5
    for x0, x1, y0, y1 in world.task.walls:
        for x, y in (gripper, *objects.transpose(1, 0, 2)):
            across = np.maximum(x0 - x, x - x1)  # distance to the wall along each axis
            along = np.maximum(y0 - y, y - y1)
            near = np.maximum(across, along) < CLEARANCE - EPS
            assert not (near & standing).any(), "something is too near to a wall"
    assert np.isin(held, (0, 1)).all()
    assert (held.sum(0) <= 1).all(), "two discs in the fingers"
    assert not (held.any(0) & ~closed).any(), "open fingers hold a disc"
    if not world.task.graspable:
        assert not held.any(), "this task has no grasping"
    gap = np.hypot(*(objects - gripper[:, None]))  # [K, N]
    assert (gap[held > 0.5] == 0).all(), "a held disc is elsewhere"
    empty = closed & ~held.any(0)
    assert not (empty & (gap < GRASP_RADIUS - EPS)).any(), "closed empty fingers are in a disc"
    for i in range(world.num_objects):
        for j in range(i):
            free = (held[i] < 0.5) & (held[j] < 0.5)
            apart = np.hypot(*(objects[:, i] - objects[:, j]))
            assert (apart[free] >= 2 * OBJECT_RADIUS - EPS).all(), "two discs overlap"


def check_outcome(world: World, success: torch.Tensor) -> None:
    """Success if and only if the task's sentence is true; rounding may decide at the very rim."""
    gripper, zones, objects = (x.numpy() for x in (world.gripper, world.zones, world.objects))
    if world.targets:
        k = world.targets
        gap = np.hypot(*(objects[:, :k] - zones[:, :k]).astype(np.float64))  # [k, N]
        good = ((gap < PLACE_RADIUS) & (world.held.numpy()[:k] == 0)).all(0)
        rim = (abs(gap - PLACE_RADIUS) < 1e-6).any(0)
    else:
        gap = np.hypot(*(gripper - zones[:, 0]).astype(np.float64))
        good, rim = gap < REACH_RADIUS, abs(gap - REACH_RADIUS) < 1e-6
    assert np.array_equal(success.numpy()[~rim], good[~rim])


def distractors_of(task: str) -> list[int]:
    return [0] if TASKS[task].obstacle or TASKS[task].hazard else [0, 1, 2]


shifts = st.one_of(
    st.just(Shift()),
    st.builds(
        Shift,
        rotation=st.floats(-math.pi, math.pi),
        gain=st.floats(0.1, 1.5),
        wind=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
        inward=st.floats(-0.3, 0.3),
        slip=st.sampled_from([0.0, 0.1, 0.5]),
        pairs=st.sampled_from(["all", "seen", "unseen"]),
    ),
)
number = st.one_of(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(-1, 1, width=32))
held_actions = st.lists(  # an action and for how many steps
    st.tuples(st.tuples(number, number, number), st.integers(1, 8)), min_size=1, max_size=10
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(EVERY_TASK), st.integers(0, 2), shifts, st.integers(0, 2**20), held_actions)
def test_physics_under_any_actions(task, distractors, shift, seed, actions):
    distractors = min(distractors, distractors_of(task)[-1])
    world = started(task, 16, seed, shift=shift, distractors=distractors)
    check_physics(world)
    for action, steps in actions:
        for _ in range(steps):
            world.step(torch.tensor(action).expand(16, 3))
            check_physics(world)
            check_outcome(world, world.success())


def chase(world: World, generator: torch.Generator) -> torch.Tensor:
    """Straight for a disc (or a zone), as pushes and grasps would be rare at random."""
    things = world.objects if world.num_objects else world.zones
    pick = (world.episode + world.elapsed // 6) % things.shape[1]  # [N]
    goal = things.gather(1, pick.expand(2, 1, -1))[:, 0]
    motion = ((goal - world.gripper) / world.task.max_step).clamp(-1, 1).T
    action = random_actions((world.num_envs,), generator)
    return torch.cat((motion + 0.3 * action[:, :2], action[:, 2:]), 1)


@pytest.mark.parametrize("shift", [Shift(), SHIFT], ids=["nominal", "shifted"])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_physics_in_random_batches(task, shift):
    """Robots that wander, chase discs or follow the expert; all of them through resets."""
    generator = torch.Generator().manual_seed(0)
    expert, touched, carried = Expert(noise=0.5), 0, 0
    most = distractors_of(task)[-1]
    for distractors in sorted({most, most if shift.moves else 0}):
        env = TabletopVectorEnv(task, 192, shift=shift, distractors=distractors)
        env.reset(seed=distractors)
        world, style = env.world, torch.arange(192)[:, None] % 3
        for _ in range(50):
            before = world.objects.clone()
            action = torch.where(style == 0, random_actions((192,), generator), expert(world))
            action = torch.where(style == 1, chase(world, generator), action)
            _, terminated, truncated, info = env.advance(action)
            check_physics(world)
            check_outcome(world, info["success"])
            touched += int(((world.objects != before).any(0) & (world.held < 0.5)).sum())
            carried += int(world.held.sum())
            done = (terminated | truncated).nonzero()[:, 0]
            if len(done):
                env._start(done)
                check_physics(world)
    if TASKS[task].objects:  # the test did what it is for
        assert touched > 50
        assert (carried > 50) == TASKS[task].graspable


def test_discs_do_not_pile_up_in_a_corner():
    """Pushing one disc into another or off the table does not happen: the gripper stops."""
    world = started("Push", 64, distractors=2)
    for direction in ((1, 0), (1, 1), (0, -1), (-1, 0.3)):
        for _ in range(20):
            before = world.gripper.clone()
            world.step(torch.tensor([*direction, 1.0]).expand(64, 3))
            check_physics(world)
    still = (world.gripper == before).all(0)
    assert still.any()


def test_an_open_gripper_touches_nothing():
    world = started("Sort", 128)
    before = world.objects.clone()
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        action = chase(world, generator)
        action[:, 2] = -1.0
        world.step(action)
    assert torch.equal(world.objects, before)


def test_a_wall_stops_one_axis_only():
    world = started("PressThenPlace", 4)
    world.gripper[0], world.gripper[1] = 0.09, 0.0
    world.objects[:] = torch.tensor([-0.8, 0.8])[:, None, None]
    world.step(torch.tensor([1.0, 1.0, -1.0]).expand(4, 3))
    assert (world.gripper[0] == torch.tensor(0.09)).all()
    torch.testing.assert_close(world.gripper[1], torch.full((4,), 0.12))


def test_a_push_moves_the_disc_along_the_contact_normal():
    world = started("Push", 2)
    world.objects[:] = torch.tensor([[0.2, 0.2], [0.0, 0.05]])[:, None]
    world.gripper[:] = 0.0
    world.step(torch.tensor([1.0, 0.0, 1.0]).expand(2, 3))
    gap = world.objects[:, 0] - world.gripper
    head_on = 0.12 + GRASP_RADIUS
    torch.testing.assert_close(world.objects[:, 0, 0], torch.tensor([head_on, 0.0]))
    # Off centre: contact where the distance is the radius, and from there the part of the motion
    # along the normal.
    contact = 0.2 - math.sqrt(GRASP_RADIUS**2 - 0.05**2)
    normal_ = np.array([0.2 - contact, 0.05]) / GRASP_RADIUS
    wanted = np.array([0.2, 0.05]) + (0.12 - contact) * normal_[0] * normal_
    np.testing.assert_allclose(world.objects[:, 0, 1], wanted, atol=1e-6)
    assert (torch.hypot(gap[0], gap[1]) >= GRASP_RADIUS - EPS).all()


def test_nothing_is_let_go_of_onto_another_disc():
    world = started("Sort", 1)
    world.objects[:] = torch.tensor([[0.0, 0.1], [0.0, 0.0]])[..., None]
    world.gripper[:] = 0.0
    world.objects[0, 1] = 0.25
    world.step(torch.tensor([[0.0, 0.0, 1.0]]))
    assert world.held[:, 0].tolist() == [1, 0]
    for grip, held in ((1.0, 1), (-1.0, 1)):  # over the other disc, opening does nothing
        world.step(torch.tensor([[1.0, 0.0, grip]]))
        assert world.held[0, 0] == held
        assert world.closed[0] == 1
    world.step(torch.tensor([[-1.0, 1.0, 1.0]]))
    world.step(torch.tensor([[-1.0, 1.0, -1.0]]))
    assert world.held[0, 0] == 0
    assert world.closed[0] == 0


# Ends of an episode


def test_obstacle_on_the_swept_path():
    """Failure exactly where the straight line of the step enters the obstacle."""
    world = started("AroundObstacle", 4000)
    generator = torch.Generator().manual_seed(0)
    radius = world.task.obstacle.radius
    angle = torch.rand(4000, generator=generator) * 2 * math.pi
    far = radius + 0.02 * torch.rand(4000, generator=generator)
    world.gripper[:] = far * torch.stack((angle.cos(), angle.sin()))
    start = world.gripper.clone()
    world.step(random_actions((4000,), generator))
    share = torch.linspace(0, 1, 201)[:, None, None]
    path = (start + share * (world.gripper - start)).double() - world.disc_center.double()
    nearest = path.norm(dim=1).amin(0)
    failed = world.failure()
    assert failed[nearest < radius].all()
    assert not failed[nearest > radius + 1e-4].any()  # the samples are at most 0.001 apart
    jumped = failed & (path[-1].norm(dim=0) > radius)
    assert jumped.sum() > 20  # in between steps only


def test_touching_the_obstacle_ends_the_episode_without_success():
    env = TabletopVectorEnv("AroundObstacle", 512)
    env.reset(seed=0)
    flawed, failures = Expert(success=0.0), 0
    for _ in range(20):
        _, terminated, _, info = env.advance(flawed(env.world))
        failures += info["failure"].sum()
        assert not (info["failure"] & info["success"]).any()
        assert torch.equal(terminated, info["failure"] | info["success"])
    assert failures >= 512


def test_hazard_costs_every_step_inside():
    world = started("PastHazard", 2000)
    world.gripper[:] = torch.rand(2, 2000, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    inside = np.hypot(*(world.gripper - world.disc_center).double().numpy()) < 0.4
    assert 100 < inside.sum() < 1900
    assert np.array_equal(world.cost().numpy(), inside.astype(np.float32))
    assert not world.failure().any()
    assert not started("Reach", 8).cost().any()


def test_the_gate_is_shut_until_the_button_is_pressed():
    env = TabletopVectorEnv("PressThenPlace", 64)
    env.reset(seed=0)
    world = env.world
    right = torch.tensor([1.0, 0.0, -1.0]).expand(64, 3)
    for _ in range(15):
        env.advance(right)
    assert (world.pressed == 0).all()
    assert (world.gripper[0] <= 0.1 + EPS).all()
    world.gripper.copy_(world.button)
    world.step(torch.tensor([0.0, 0.0, -1.0]).expand(64, 3))
    assert (world.pressed == 0).all()  # an open gripper presses nothing
    world.objects[:] = torch.tensor([-0.85, 0.85])[:, None, None]
    world.gripper.copy_(world.button)
    world.step(torch.tensor([0.0, 0.0, 1.0]).expand(64, 3))
    assert (world.pressed == 1).all()
    for _ in range(20):
        world.step(right)
    assert (world.pressed == 1).all()
    assert (world.gripper[0] > 0.8).all()
    env.reset()
    assert (world.pressed == 0).all()


@pytest.mark.parametrize("task", EVERY_TASK)
def test_truncation_exactly_at_the_horizon(task):
    horizon = TASKS[task].horizon
    env = TabletopVectorEnv(task, 8)
    env.reset(seed=0)
    for episode in range(2):
        for t in range(horizon):
            _, _, terminated, truncated, _ = env.step(torch.zeros(8, 3))
            assert not terminated.any()
            assert truncated.all() == truncated.any() == (t == horizon - 1), (episode, t)


def test_success_at_the_horizon_is_no_truncation():
    env = TabletopVectorEnv("Reach", 1)
    env.reset(seed=0)
    for _ in range(29):
        env.advance(torch.zeros(1, 3))
    env.world.gripper.copy_(env.world.zones[:, 0])
    _, terminated, truncated, _ = env.advance(torch.zeros(1, 3))
    assert terminated
    assert not truncated


# Rewards


@pytest.mark.parametrize(
    ("task", "shift"),
    [(task, Shift()) for task in EVERY_TASK] + [("Sort", SHIFT), ("AroundObstacle", SHIFT)],
)
def test_hints_add_up_to_the_progress_of_the_episode(task, shift):
    """Over an episode, the sum of F_t is Phi(s_T) - Phi(s_0), with Phi = 0 in every success."""
    n = 64
    env = TabletopVectorEnv(task, n, reward="oracle", shift=shift)
    twin = World(TASKS[task], n)  # to ask for the potential of an observation

    def phi(obs: torch.Tensor) -> torch.Tensor:
        twin.state.copy_(obs.T)
        return potential(twin).double()

    obs, _ = env.reset(seed=0)
    first, total = phi(obs), torch.zeros(n).double()
    expert, generator, kinds = Expert(noise=0.4), torch.Generator().manual_seed(0), set()
    for _ in range(TASKS[task].horizon + 12):
        wander = torch.arange(n)[:, None] % 4 == 0
        action = torch.where(wander, random_actions((n,), generator), expert(env.world))
        obs, reward, terminated, truncated, info = env.step(action)
        total += reward.double() - info["success"].double()
        done, last = terminated | truncated, phi(info["final_obs"])
        torch.testing.assert_close(total[done], (last - first)[done], atol=2e-5, rtol=0)
        assert (last[info["success"]] == 0).all()
        kinds |= {("terminated", x) for x in info["success"][terminated].tolist()}
        kinds |= {("truncated", False)} if truncated.any() else set()
        total = total * ~done
        first = torch.where(done, phi(obs), first)
    assert {("terminated", True), ("truncated", False)} <= kinds
    assert (("terminated", False) in kinds) == bool(TASKS[task].obstacle)


@pytest.mark.parametrize("task", EVERY_TASK)
def test_waiting_never_pays(task):
    """A robot that stays where it is earns nothing, wherever it is and whatever the discount."""
    env = TabletopVectorEnv(task, 256, reward="oracle", terminate_on_success=False)
    env.reset(seed=0)
    generator, expert = torch.Generator().manual_seed(0), Expert(noise=0.5)
    for t in range(TASKS[task].horizon - 1):
        wait = torch.zeros(256, 3)
        wait[:, 2] = torch.where(env.world.closed > 0.5, 1.0, -1.0)  # the fingers as they are
        reward, _, _, info = env.advance(wait)
        assert reward[~info["success"]].abs().max() <= EPS
        act = expert(env.world) if t % 2 else random_actions((256,), generator)
        env.advance(act)


@pytest.mark.parametrize("task", ["Sort", "PressThenPlace"])
def test_no_stage_that_is_done_costs(task):
    """To press, to grasp and to place raises the potential, wherever things are."""
    env = TabletopVectorEnv(task, 2000, reward="oracle")
    env.reset(seed=0)

    def stages(world: World) -> torch.Tensor:
        return world.held.sum(0) + 2 * world.placed().sum(0) + world.pressed

    for _ in range(TASKS[task].horizon):
        before = stages(env.world).clone()
        reward, *_ = env.advance(Expert()(env.world))
        assert (reward[stages(env.world) > before] > 0).all()


@pytest.mark.parametrize("task", EVERY_TASK)
def test_the_oracle_pays_most_for_success(task):
    """A finished episode earns 1 more than the way from its start to the goal; no other does."""
    env = TabletopVectorEnv(task, 64, reward="oracle")
    env.reset(seed=0)
    first, total = potential(env.world), torch.zeros(64)
    running, won = torch.ones(64, dtype=torch.bool), torch.zeros(64, dtype=torch.bool)
    for _ in range(TASKS[task].horizon):
        reward, ended, cut, info = env.advance(Expert(success=0.5)(env.world))
        total += reward * running
        won |= info["success"] & running
        running &= ~(ended | cut)
    assert won.any()
    assert (~won).any()
    torch.testing.assert_close(total[won], (1 - first)[won], atol=1e-5, rtol=0)
    assert (total < -first)[~won].all()


def test_reward_functions_see_named_fields_and_are_used():
    seen = {}

    def reward(fields):
        seen.update(fields)
        return fields["gripper"][:, 0] + 10 * fields["success"]

    for task, names in (
        ("PressThenPlace", {"object", "zone", "button", "pressed"}),
        ("Sort", {"object_0", "object_1", "zone_0", "zone_1"}),
        ("AroundObstacle", {"zone", "obstacle"}),
        ("PastHazard", {"zone", "hazard"}),
    ):
        seen.clear()
        env = TabletopVectorEnv(task, 6, reward=reward)
        env.reset(seed=0)
        action = torch.rand(6, 3)
        _, value, *_ = env.step(action)
        common = {"action", "gripper", "closed", "holding", "success", "failure", "cost"}
        assert set(seen) == names | common | {"sparse", "oracle"}
        assert {x.shape for x in seen.values()} <= {(6,), (6, 2), (6, 3)}
        assert torch.equal(seen["action"], action)
        assert torch.equal(value, seen["gripper"][:, 0] + 10 * seen["success"])


@pytest.mark.parametrize("task", EVERY_TASK)
def test_sparse_and_oracle_fields_are_the_rewards_of_these_names(task):
    envs = {name: TabletopVectorEnv(task, 16, reward=name) for name in ("sparse", "oracle")}
    envs |= {f"own {n}": TabletopVectorEnv(task, 16, reward=lambda f, n=n: f[n]) for n in envs}
    for env in envs.values():
        env.reset(seed=3)
    for _ in range(15):
        action = Expert(noise=0.2)(envs["sparse"].world)
        value = {name: env.step(action)[1] for name, env in envs.items()}
        assert torch.equal(value["sparse"], value["own sparse"])
        assert torch.equal(value["oracle"], value["own oracle"])


# Streams, batches and the single environment


def test_uniform_and_normal_draws():
    key = robot_keys(0, 2000, torch.device("cpu"))
    u = uniform(key, torch.arange(20)).flatten().numpy()
    z = normal(key, torch.arange(20)).flatten().numpy()
    assert stats.kstest(u, "uniform").pvalue > 0.001
    assert stats.kstest(z, "norm").pvalue > 0.001
    assert u.min() >= 0
    assert u.max() < 1
    assert np.corrcoef(u.reshape(20, -1)).max(where=~np.eye(20, dtype=bool), initial=0) < 0.1
    assert len(set(mix(key, 7).tolist())) == 2000
    assert torch.equal(mix(key, 7), mix(key, torch.tensor(7)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", EVERY_TASK)
def test_the_single_environment_is_row_0_of_the_batch(task, kind):
    steps = TASKS[task].horizon + 12 if kind == "state" else 14
    for shift in {"state": (Shift(), SHIFT), "image": (Shift(),)}.get(kind, (SHIFT,)):
        options = {"obs": kind, "reward": "oracle", "shift": shift}
        options["max_episode_steps"] = TASKS[task].horizon
        batch, single = TabletopVectorEnv(task, 3, **options), TabletopEnv(task, **options)
        generator, ends = torch.Generator().manual_seed(4), 0
        many, _ = batch.reset(seed=11)
        one, _ = single.reset(seed=11)
        assert same(row(many, 0), one)
        for t in range(steps):
            action = Expert(noise=0.1)(batch.world)
            action = random_actions((3,), generator) if t % 5 == 0 else action
            many, reward, terminated, truncated, info = batch.step(action)
            one, *rest, single_info = single.step(action[0].numpy())
            assert same(row(info["final_obs"], 0), one)
            assert rest == [reward[0].item(), terminated[0].item(), truncated[0].item()]
            assert set(single_info) == {"success", "is_success", "failure", "cost"}
            assert single_info == {name: info[name][0].item() for name in single_info}
            if terminated[0] or truncated[0]:
                one, _ = single.reset()  # without a seed: the next episode of the stream
                ends += 1
                assert same(row(many, 0), one)
        assert ends or kind != "state"


def rollout(task: str, keys, steps: int, action: torch.Tensor, **options) -> torch.Tensor:
    """Observations and rewards [T, N, D + 1]."""
    env = TabletopVectorEnv(task, action.shape[1], reward="oracle", **options)
    env.reset(seed=keys)
    rows = []
    for t in range(steps):
        obs, reward, *_ = env.step(action[t])
        rows.append(torch.cat((obs, reward[:, None]), 1))
    return torch.stack(rows)


@pytest.mark.parametrize("task", EVERY_TASK)
def test_same_seed_same_trajectory(task):
    action = random_actions((50, 8), torch.Generator().manual_seed(0))
    first = rollout(task, 5, 50, action, shift=SHIFT)
    assert torch.equal(first, rollout(task, 5, 50, action, shift=SHIFT))
    assert not torch.equal(first, rollout(task, 6, 50, action, shift=SHIFT))


@pytest.mark.parametrize("task", EVERY_TASK)
def test_a_robot_does_not_depend_on_the_others(task):
    """Not on how many there are, not on what they do, not on when they start anew."""
    steps = TASKS[task].horizon + 10
    generator = torch.Generator().manual_seed(0)
    keys = robot_keys(2, 37, torch.device("cpu"))
    action = random_actions((steps, 37), generator)
    whole = rollout(task, keys, steps, action, shift=SHIFT)
    assert torch.equal(whole, rollout(task, 2, steps, action, shift=SHIFT))
    for some in (slice(0, 1), slice(30, 37)):
        part = rollout(task, keys[some], steps, action[:, some], shift=SHIFT)
        assert torch.equal(whole[:, some], part)
    other = random_actions((steps, 37), generator)
    other[:, 7] = action[:, 7]
    assert torch.equal(whole[:, 7], rollout(task, keys, steps, other, shift=SHIFT)[:, 7])


def test_equal_keys_give_equal_episodes():
    keys = torch.tensor([5, 9, 5, 5])
    action = random_actions((60, 1), torch.Generator().manual_seed(0)).expand(60, 4, 3)
    whole = rollout("Sort", keys, 60, action, shift=SHIFT)
    assert torch.equal(whole[:, 0], whole[:, 2])
    assert torch.equal(whole[:, 0], whole[:, 3])
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_resets_without_a_seed_go_on():
    env = TabletopVectorEnv("Reach", 4)
    first = env.reset(seed=1)[0]
    second, third = env.reset()[0], env.reset()[0]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    env.reset(seed=1)
    assert torch.equal(env.reset()[0], second)
    single = TabletopEnv("Reach")
    assert not np.array_equal(single.reset()[0], TabletopEnv("Reach").reset()[0])  # unseeded


@pytest.mark.parametrize("kind", KINDS)
def test_autoreset(kind):
    """`final_obs` is what the action led to; `obs` is the start of the next episode."""
    n, steps = (24, 45) if kind == "state" else (12, 24)
    env = TabletopVectorEnv("PickPlace", n, obs=kind, terminate_on_success=True)
    twin = TabletopVectorEnv(
        "PickPlace", n, obs=kind, terminate_on_success=True
    )  # never resets by itself
    env.reset(seed=0)
    fresh = row_list(twin.reset(seed=0)[0], n)
    resets, first = 0, torch.ones(n, dtype=torch.bool)
    for _ in range(steps):
        action = Expert(noise=0.3)(env.world)
        obs, _, terminated, truncated, info = env.step(action)
        twin.advance(action)
        alone, last, now = (row_list(x, n) for x in (twin.observe(), info["final_obs"], obs))
        ended = terminated | truncated
        for i in range(n):
            if first[i]:
                assert same(last[i], alone[i])
            if ended[i]:
                assert env.world.elapsed[i] == 0
                assert not same(now[i], last[i])
                assert not same(now[i], fresh[i])
                resets += 1
            else:
                assert same(now[i], last[i])
        first &= ~ended
    assert resets > n / 2


def row_list(obs, n: int) -> list:
    return [row(obs, i) for i in range(n)]


def test_returned_observations_are_not_overwritten():
    env = TabletopVectorEnv("PickPlace", 4)
    obs, _ = env.reset(seed=0)
    kept = obs.clone()
    env.step(torch.ones(4, 3))
    assert torch.equal(obs, kept)


def test_stagger_spreads_the_time_limits():
    env = TabletopVectorEnv("Reach", 300)
    plain, _ = env.reset(seed=0)
    staggered, _ = env.reset(seed=0, options={"stagger": True})
    assert torch.equal(plain, staggered)
    start, ends, last = env.world.elapsed.clone(), [], torch.full((300,), -1)
    assert start.min() == 0
    assert start.max() == 29
    for t in range(60):
        _, _, _, truncated, _ = env.step(torch.zeros(300, 3))
        fresh = truncated & (last < 0)
        assert torch.equal(start[fresh], torch.full_like(start[fresh], 29 - t))
        assert (t - last[truncated & (last >= 0)] == 30).all()
        last[truncated] = t
        ends.append(int(truncated.sum()))
    assert min(ends) > 0
    assert stats.chisquare(ends[:30]).pvalue > 0.001


# Gymnasium and Stable-Baselines3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", EVERY_TASK)
def test_gymnasium_accepts_the_environment(task, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(f"Tabletop/{task}-v0", obs=kind, render_mode="rgb_array")
        check_env(env.unwrapped)
        obs, _ = env.reset(seed=1)
        assert env.observation_space.contains(obs)
        assert env.render().shape == (256, 256, 3)
        obs, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)


@pytest.mark.parametrize("task", EVERY_TASK)
def test_the_description_of_an_environment_makes_it_again(task):
    told = gymnasium.make(f"Tabletop/{task}-v0", obs="image", size=64).spec.to_json()
    env = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(told))
    assert env.unwrapped.batch.task == TASKS[task]
    assert env.observation_space.shape == (64, 64, 3)


@pytest.mark.parametrize("kind", ["state", "image", "state+image", "goal"])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_stable_baselines_accepts_the_environment(task, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # 64 px, as Stable-Baselines3 warns that its own network cannot take images below 36 px.
        check_env_sb3(TabletopEnv(task, obs=kind, size=64, render_mode="rgb_array"))


@pytest.mark.parametrize("task", EVERY_TASK)
def test_make_vec_gives_the_native_batch(task):
    env = gymnasium.make_vec(f"Tabletop/{task}-v0", num_envs=5, reward="oracle")
    assert isinstance(env.unwrapped, TabletopVectorEnv)
    obs, _ = env.reset(seed=0)
    assert obs.shape == env.observation_space.shape
    assert env.observation_space.contains(obs.numpy())
    obs, reward, terminated, truncated, _ = env.step(torch.zeros(5, 3))
    assert reward.shape == terminated.shape == truncated.shape == (5,)
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP


# Experts


def outcome(task: str, expert: Expert, episodes: int = 1000, seed: int = 0, **options):
    """Success [N] of one episode each, and the positions of the gripper [T, 2, N]."""
    env = TabletopVectorEnv(task, episodes, **options)
    env.reset(seed=seed)
    success, running = torch.zeros(2, episodes, dtype=torch.bool)
    running, path = ~running, []
    for _ in range(env.task.horizon):
        _, terminated, truncated, info = env.advance(expert(env.world))
        success |= running & info["success"]
        running &= ~(terminated | truncated)
        path.append(torch.where(running, env.world.gripper, torch.nan))
    return success, torch.stack(path)


@pytest.mark.parametrize("task", EVERY_TASK)
def test_an_expert_without_noise_succeeds(task):
    success, _ = outcome(task, Expert(), 2000)
    assert success.float().mean() >= 0.99


@pytest.mark.parametrize("p", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_a_flawed_expert_fails_as_often_as_it_says(task, p):
    success, _ = outcome(task, Expert(success=p), 1500, seed=7)
    assert within(int(success.sum()), 1500, p)


def sides(task: str, route: str) -> torch.Tensor:
    """1 for robots that passed the middle of the disc on its right, -1 on its left."""
    env = TabletopVectorEnv(task, 1000)
    env.reset(seed=0)
    center = env.world.disc_center.clone()
    _, path = outcome(task, Expert(route=route))
    level = (path[:, 1] - center[1]).abs().nan_to_num(9).argmin(0)  # the step nearest the middle
    x = path[:, 0].gather(0, level[None])[0] - center[0]
    assert (x.abs() > TASKS[task].obstacle.radius if TASKS[task].obstacle else x.abs() > 0.3).all()
    return x.sign()


@pytest.mark.parametrize("task", ["AroundObstacle", "PastHazard"])
def test_routes(task):
    assert (sides(task, "left") == -1).all()
    assert (sides(task, "right") == 1).all()
    assert within(int((sides(task, "both") == 1).sum()), 1000, 0.5)


def test_experts_keep_out_of_the_hazard():
    env = TabletopVectorEnv("PastHazard", 500)
    env.reset(seed=0)
    for _ in range(32):
        *_, info = env.advance(Expert()(env.world))
        assert not info["cost"].any()


def test_expert_noise():
    worlds = started("Reach", 4000), started("Reach", 4000)
    for world in worlds:
        world.zones[:] = world.gripper[:, None]  # arrived: the noiseless action is 0
    noisy, again = (Expert(noise=0.2)(world) for world in worlds)
    assert torch.equal(noisy, again)  # drawn from the episode's stream
    assert stats.kstest(noisy[:, :2].flatten().numpy() / 0.2, "norm").pvalue > 0.001
    assert not Expert()(worlds[0])[:, :2].any()
    worlds[0].step(torch.zeros(4000, 3))
    assert not torch.equal(Expert(noise=0.2)(worlds[0]), noisy)


def test_experts_act_within_bounds():
    for task in EVERY_TASK:
        action = Expert(noise=1.0)(started(task, 200))
        assert action.shape == (200, 3)
        assert (action.abs() <= 1).all()


# Shifts


def motion(action, **shift) -> np.ndarray:
    """How far [2] a gripper at (0.5, 0) moves, in units of a full action."""
    world = started("Reach", 1, shift=Shift(**shift))
    world.gripper[:] = torch.tensor([[0.5], [0.0]])
    before = world.gripper.clone()
    world.step(torch.tensor([action]))
    return ((world.gripper - before)[:, 0] / world.task.max_step).numpy()


def test_shifts_of_the_motion():
    def near(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5)

    near(motion([1.0, 0.0, 0.0]), [1, 0])
    near(motion([1.0, 0.0, 0.0], rotation=math.pi / 2), [0, 1])
    near(motion([0.0, 1.0, 0.0], rotation=math.pi / 2), [-1, 0])
    near(motion([0.5, -0.25, 0.0], gain=0.5), [0.25, -0.125])
    near(motion([0.5, -0.25, 0.0], gain=1.5), [0.75, -0.375])
    near(motion([0.0, 0.0, 0.0], wind=(0.3, -0.2)), [0.3, -0.2])
    near(motion([0.2, 0.0, 0.0], rotation=math.pi / 2, wind=(0.3, 0.0)), [0.3, 0.2])
    near(motion([0.0, 0.0, 0.0], inward=0.4), [-0.4, 0])
    world = started("Reach", 1, shift=Shift(inward=0.4))
    world.gripper[:] = -0.5
    world.step(torch.zeros(1, 3))
    near(world.gripper[:, 0], [-0.5 + 0.4 * 0.12, -0.5])
    near(motion([1.0, 1.0, 0.0], gain=1.5, wind=(1.0, 1.0)), [1.5, 1.5])  # no jumping of walls
    near(motion([7.0, -7.0, 0.0]), [1, -1])


def test_slip_drops_discs():
    def holding(slip: float) -> torch.Tensor:
        world = started("PickPlace", 4000, shift=Shift(slip=slip))
        world.gripper.copy_(world.objects[:, 0])
        world.step(torch.tensor([0.0, 0.0, 1.0]).expand(4000, 3))
        first = world.held[0].clone()
        world.step(torch.tensor([0.0, 0.0, 1.0]).expand(4000, 3))
        return torch.stack((first, world.held[0])).sum(1).int()

    assert holding(0.0).tolist() == [4000, 4000]
    assert holding(1.0).tolist() == [0, 0]
    first, second = holding(0.2).tolist()
    assert within(4000 - first, 4000, 0.2)
    assert within(first - second, first, 0.2)


@pytest.mark.parametrize(
    ("task", "distractors"),
    [(n, d) for n, t in TASKS.items() if not t.same_color for d in distractors_of(n) if d != 1],
)
def test_seen_and_unseen_pairs(task, distractors):
    def pairs(value: str) -> set[tuple[int, int]]:
        options = {"distractors": distractors}
        world = started(task, 3000, shift=Shift(pairs=value), **options)
        disc = world.object_color[0] if world.num_objects else torch.zeros(3000, dtype=torch.int64)
        return set(zip(disc.tolist(), world.zone_color[0].tolist(), strict=True))

    seen, unseen, every = pairs("seen"), pairs("unseen"), pairs("all")
    assert seen.isdisjoint(unseen)
    assert seen | unseen == every
    assert len(every) == (36 if TASKS[task].objects else 6)
    assert len(unseen) == len(every) / 6


@pytest.mark.parametrize("pairs", ["all", "seen", "unseen"])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_colours_are_distinct(task, pairs):
    """A distractor never takes the colour of a target, nor of another distractor."""
    for distractors in distractors_of(task):
        world = started(task, 1000, distractors=distractors, shift=Shift(pairs=pairs))
        assert world.num_objects == TASKS[task].objects + (
            distractors if TASKS[task].objects else 0
        )
        assert world.num_zones == TASKS[task].zones + distractors
        for color in (world.object_color, world.zone_color):
            if len(color):
                ordered = color.sort(0).values
                assert (ordered.diff(dim=0) > 0).all()
                assert ordered.min() >= 0
                assert ordered.max() < len(COLORS)
        if TASKS[task].same_color:
            k = world.targets
            assert torch.equal(world.object_color[:k], world.zone_color[:k])


@pytest.mark.parametrize("task", EVERY_TASK)
def test_colours_do_not_depend_on_when_they_are_looked_at(task):
    """A film of robots that observe states shows what robots that observe images see."""
    shown, hidden = (TabletopVectorEnv(task, 30, obs, size=32) for obs in ("image", "state"))
    dice = torch.Generator().manual_seed(0)
    for env in (shown, hidden):
        env.reset(seed=2, options={"stagger": True})
    for _ in range(25):
        action, everyone = random_actions((30,), dice), torch.arange(30)
        seen = shown.step(action)[0]
        told = instructions(shown.world, everyone)
        with torch.inference_mode():
            hidden.step(action)
    assert torch.equal(seen, render(hidden.world, 32))
    assert instructions(hidden.world, everyone) == told


def test_paint_lasts_until_the_next_episode_of_its_robot():
    env = TabletopVectorEnv("PickPlace", 2)
    env.reset(seed=0)
    drawn = env.world.object_color.clone()
    env.world.object_color[:] = 6 - drawn
    env.world.reset(torch.tensor([0]), env.world.episode[:1].clone())
    assert env.world.object_color.tolist() == [[drawn[0, 0], 6 - drawn[0, 1]]]


def test_things_start_apart_and_in_their_areas():
    for name, task in TASKS.items():
        for distractors in distractors_of(name):
            world = started(name, 500, distractors=distractors)
            places = [world.gripper[:, None], world.objects, world.zones]
            places = torch.cat([*places, world.button[:, None]] if task.button else places, 1)
            gap = (
                distance(places[:, :, None], places[:, None])
                + 9 * torch.eye(places.shape[1])[..., None]
            )
            assert gap.min() > 0.29
            x0, x1, y0, y1 = torch.tensor(task.zone_area)
            assert ((world.zones[0] >= x0 - EPS) & (world.zones[0] <= x1 + EPS)).all()
            assert ((world.zones[1] >= y0 - EPS) & (world.zones[1] <= y1 + EPS)).all()


@pytest.mark.parametrize("task", EVERY_TASK)
def test_instructions_and_paraphrases(task):
    spoken = {}
    for paraphrase in (False, True):
        world = started(task, 600, shift=Shift(paraphrase=paraphrase))
        texts = instructions(world, torch.arange(600))
        zone = [COLORS[i] for i in world.zone_color[0].tolist()]
        disc = [COLORS[i] for i in world.object_color[0].tolist()] if world.num_objects else zone
        templates = TASKS[task].paraphrases if paraphrase else TASKS[task].instructions
        used = set()
        for text, o, z in zip(texts, disc, zone, strict=True):
            fits = {t for t in templates if t.format(object=o, zone=z) == text}
            assert fits
            used |= fits
            assert len(text) <= MAX_LENGTH
            assert set(text) <= set(CHARACTERS)
        assert used == set(templates)
        spoken[paraphrase] = set(texts)
    assert spoken[False].isdisjoint(spoken[True])


def test_shifts_of_the_picture():
    def picture(**shift):
        return render(started("PickPlace", 4, shift=Shift(**shift)), 32).int()

    plain, pixel = picture(), 2 / 32
    moved = picture(camera=(3 * pixel, 0.0))  # the camera goes right, the table left
    assert torch.equal(moved[:, :, :-3], plain[:, :, 3:])
    assert not torch.equal(moved, plain)
    up = picture(camera=(0.0, 2 * pixel))
    assert torch.equal(up[:, 2:], plain[:, :-2])
    colourful = [
        (x.amax(-1) - x.amin(-1)).max() for x in (plain, picture(dim=0.5), picture(dim=1.0))
    ]
    assert colourful[0] > 1.5 * colourful[1] > 3 * colourful[2]


# Bad input: one line that says what would be right


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: get_task("PickPlce"), ["PickPlce", "Did you mean 'PickPlace'", "Reach"]),
        (lambda: get_task("Tabletop/Srot-v0"), ["Did you mean 'Sort'"]),
        (lambda: get_task(3), ["3", "Reach"]),
        (lambda: get_task("Tabletop/SortDense-v0"), ["'Sort'", 'reward="oracle"']),
        (lambda: TabletopEnv("Nothing"), ["Nothing", "Reach", "PastHazard"]),
        (
            lambda: TabletopVectorEnv(obs="pixels"),
            ["obs", "pixels", "state+image, all, goal"],
        ),
        (lambda: TabletopVectorEnv(obs=["state"]), ["obs", "state+image, all, goal"]),
        (lambda: TabletopVectorEnv(reward="dense"), ["reward", "dense", "sparse, oracle"]),
        (lambda: TabletopVectorEnv(reward=None), ["reward", "sparse, oracle"]),
        (lambda: TabletopVectorEnv(size=48), ["size", "48", "32, 64"]),
        (lambda: TabletopVectorEnv(num_envs=0), ["num_envs", "at least 1", "0"]),
        (lambda: TabletopVectorEnv(num_envs=2.5), ["num_envs", "2.5"]),
        (lambda: TabletopVectorEnv(distractors=3), ["PickPlace", "at most 2", "3"]),
        (lambda: TabletopVectorEnv("PastHazard", distractors=1), ["PastHazard", "at most 0"]),
        (lambda: TabletopVectorEnv(distractors=-1), ["distractors", "at least 0", "-1"]),
        (lambda: TabletopEnv(render_mode="human"), ["render_mode", "rgb_array", "human"]),
        (lambda: TabletopVectorEnv(render_mode="human"), ["render_mode", "rgb_array", "human"]),
        (lambda: TabletopVectorEnv(max_episode_steps=0), ["max_episode_steps", "at least 1"]),
        (lambda: TabletopVectorEnv(autoreset_mode="never"), ["autoreset_mode", "same_step"]),
        (lambda: render(started("Reach", 1), 4), ["8", "4"]),
        (lambda: Shift(pairs="new"), ["pairs", "new", "all, seen, unseen"]),
        (lambda: Shift(slip=1.5), ["slip", "between 0 and 1", "1.5"]),
        (lambda: Shift(dim=-0.1), ["dim", "between 0 and 1", "-0.1"]),
        (lambda: Shift(slip=math.nan), ["slip", "nan"]),
        (lambda: Shift(gain=0.0), ["gain", "0.0"]),
        (lambda: Shift(gain=2.0), ["gain", "1.5", "2.0"]),
        (lambda: Shift(gain=math.nan), ["gain", "nan"]),
        (lambda: Expert(route="middle"), ["route", "middle", "both, left, right"]),
        (lambda: Expert(success=1.2), ["success", "1.2"]),
        (lambda: Expert(noise=-0.1), ["noise", "-0.1"]),
        (lambda: TabletopVectorEnv("Reach").reset(seed=-1), ["seed", "0 or more", "-1"]),
        (lambda: TabletopVectorEnv("Reach", 3).reset(seed=torch.arange(2)), ["(3,)", "(2,)"]),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    one_line(error, *words)


@pytest.mark.parametrize("name", ["rotation", "gain", "inward", "wind", "camera"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_shifts_that_are_no_numbers(name, value):
    value = (value, 0.0) if name in ("wind", "camera") else value
    with pytest.raises(ValueError, match=name) as error:
        Shift(**{name: value})
    one_line(error)


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (4,), (3,), (12,), (1, 4, 3)])
def test_actions_of_the_wrong_shape(shape):
    env = TabletopVectorEnv("Reach", 4)
    env.reset(seed=0)
    before = env.world.state.clone()
    with pytest.raises(ValueError, match="shape") as error:
        env.step(torch.zeros(shape))
    one_line(error, "(4, 3)", str(shape), "dx, dy and grip")
    assert torch.equal(env.world.state, before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_actions_that_are_no_numbers(value):
    env, single = TabletopVectorEnv("Reach", 4), TabletopEnv("Reach")
    env.reset(seed=0)
    single.reset(seed=0)
    action = torch.zeros(4, 3)
    action[2, 1] = value
    before = env.world.state.clone()
    for call in (lambda: env.step(action), lambda: single.step(action[2].numpy())):
        with pytest.raises(ValueError, match="finite") as error:
            call()
        one_line(error, "NaN")
    assert torch.equal(env.world.state, before)


def test_a_single_action_of_the_wrong_shape():
    env = TabletopEnv("Reach")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape") as error:
        env.step(np.zeros(2))
    one_line(error, "(3,)", "(2,)")


def test_steps_before_reset():
    for env, action in (
        (TabletopVectorEnv("Reach", 2), torch.zeros(2, 3)),
        (TabletopEnv(), [0] * 3),
    ):
        with pytest.raises(ResetNeeded) as error:
            env.step(action)
        one_line(error, "reset")


def test_a_step_after_the_end_of_an_episode():
    env = TabletopEnv("Reach", max_episode_steps=30)
    env.reset(seed=0)
    for _ in range(30):
        env.step(np.zeros(3))
    with pytest.raises(ResetNeeded) as error:
        env.step(np.zeros(3))
    one_line(error, "reset")


@pytest.mark.parametrize(
    ("reward", "word"),
    [
        (lambda f: f["gripper"], "(4, 2)"),
        (lambda f: f["sparse"].sum(), "()"),
        (lambda f: f["sparse"][:2], "(2,)"),
        (lambda f: 1.0, "float"),
        (lambda f: None, "NoneType"),
        (lambda f: f["sparse"].numpy(), "ndarray"),
    ],
)
def test_reward_functions_of_the_wrong_shape(reward, word):
    env = TabletopVectorEnv("Reach", 4, reward=reward)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="reward") as error:
        env.step(torch.zeros(4, 3))
    one_line(error, "[4]", word)
