"""Chains of Gaussian steps, and PPO on them."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers import one_line
from torch.distributions import Normal

from tutorial_utils.learning import dppo
from tutorial_utils.learning.ppo import gae
from tutorial_utils.models import diffusion as df
from tutorial_utils.models.chains import DiffusionPolicy, GaussianPolicy
from tutorial_utils.tabletop import Shift, TabletopVectorEnv, robot_keys

TASK, LEVELS, LENGTH, SEEDS = "AroundObstacle", 5, 4, [3, 4]
SMALL = dppo.DPPOConfig(robots=6, minibatches=4, batch=50)


def base(seeds=SEEDS, condition=7):
    network = df.Denoiser(2 * LENGTH, condition, seeds, horizon=LEVELS, hidden=16)
    with torch.no_grad():  # an untrained denoiser predicts nearly nothing
        network.network[-1].weight.mul_(10)
    return network


def diffusion(seeds=SEEDS, **settings):
    return DiffusionPolicy(base(seeds), df.scheduler(LEVELS), **settings)


def gaussian(seeds=SEEDS, condition=7, **settings):
    return GaussianPolicy(base(seeds, condition), **settings)


def generators(seeds=SEEDS):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def states(members=2, rows=9):
    return torch.rand(members, rows, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1


def episodes(policy, robots=6):
    env = TabletopVectorEnv(TASK, policy.members * robots)
    env.reset(seed=torch.cat([robot_keys(seed, robots, env.device) for seed in policy.seeds]))
    return env, dppo.collect(env, policy, LENGTH, generators(policy.seeds), 0.9)


@pytest.fixture(params=["diffusion", "last two steps", "gaussian"])
def policy(request):
    made = {"diffusion": diffusion, "gaussian": gaussian}
    return made[request.param]() if request.param in made else diffusion(tuned=2)


# ------------------------------------------------------------------------------- the chains


@pytest.mark.parametrize("level", range(LEVELS))
def test_a_step_of_deployment_is_the_schedulers(level):
    policy, x, obs = diffusion(), torch.randn(2, 9, 2 * LENGTH), states()
    levels = df.scheduler(LEVELS)
    levels.set_timesteps(LEVELS)
    with torch.no_grad():
        noise = policy.actor(x, level, obs)
        step = levels.step(noise, level, x, generator=torch.Generator().manual_seed(7))
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        own = policy.mean(obs, x, level) + policy.sigma[level] * z
    torch.testing.assert_close(own, step.prev_sample, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tuned", [1, 2, LEVELS])
def test_a_chain_has_one_more_element_than_steps(tuned):
    chain, log_prob = diffusion(tuned=tuned).sample(states(), generators())
    assert chain.shape == (2, 9, tuned + 1, 2 * LENGTH)
    assert log_prob.shape == (2, 9, tuned)


def test_chains_of_any_length_end_in_the_same_chunk():
    """As long as nothing is trained, who makes a step does not matter, but for its floor."""
    ends = [
        diffusion(tuned=tuned).sample(states(), generators(), explore=False)[0][:, :, -1]
        for tuned in (1, 3, LEVELS)
    ]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_log_probs_are_those_of_normal_distributions(policy):
    obs = states()
    chain, drawn = policy.sample(obs, generators())
    for step in range(policy.steps):
        level = policy.steps - 1 - step
        mean = policy.mean(obs, chain[:, :, step], level)
        known = Normal(mean, policy.std[level]).log_prob(chain[:, :, step + 1]).sum(-1)
        places = torch.full((2, 9), step)
        found = policy.log_prob(obs, chain[:, :, step], chain[:, :, step + 1], places)
        torch.testing.assert_close(found, known, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(drawn[:, :, step], known, atol=1e-3, rtol=1e-4)


def test_the_floor_is_under_the_noise_of_exploration_alone():
    policy = diffusion(floor=0.3)
    assert policy.std.min() == pytest.approx(0.3)
    assert (policy.std >= policy.sigma).all()
    assert policy.sigma[0] == 0
    one, other = (
        policy.sample(states(), generators([s, s]), explore=False)[0][:, :, -2:] for s in (0, 1)
    )
    assert not one[:, :, 0].equal(other[:, :, 0])
    with torch.no_grad():  # the last step of deployment adds nothing
        torch.testing.assert_close(one[:, :, 1], policy.mean(states(), one[:, :, 0], 0))


def test_noise_is_cut_at_three_deviations():
    policy = gaussian(std=0.5)
    chain, log_prob = policy.sample(states(rows=5000), generators())
    with torch.no_grad():
        z = (chain[:, :, 1] - policy.mean(states(rows=5000), chain[:, :, 0], 0)) / 0.5
    assert z.abs().max() == pytest.approx(3, abs=1e-4)
    assert log_prob.shape == (2, 5000, 1)


def test_a_gaussian_without_exploration_is_its_mean():
    policy = gaussian()
    chain, _ = policy.sample(states(), generators(), explore=False)
    with torch.no_grad():
        assert chain[:, :, 1].equal(policy.mean(states(), chain[:, :, 0], 0))


def test_the_network_handed_in_is_never_trained():
    network = base()
    before = copy.deepcopy(network.state_dict())
    policy = DiffusionPolicy(network, df.scheduler(LEVELS), tuned=2)
    frozen = copy.deepcopy(policy.frozen.state_dict())
    dppo.fine_tune(policy, TASK, 12, SMALL, progress=False, reward="oracle")
    for name, weight in before.items():
        assert network.state_dict()[name].equal(weight)
        assert policy.frozen.state_dict()[name].equal(frozen[name])
    assert all(p.grad is None for p in policy.frozen.parameters())
    moved = zip(policy.actor.parameters(), network.parameters(), strict=True)
    assert all(not a.equal(b) for a, b in moved)


def test_deployment_repeats_itself_and_takes_the_trained_network():
    policy, obs = diffusion(), states()
    first, second = (policy.deployed(LENGTH, seed=5)(obs) for _ in range(2))
    assert first.equal(second)
    assert first.shape == (2, 9, 3)
    assert (first[..., 2] == -1).all()
    with torch.no_grad():
        policy.actor.network[-1].bias.add_(1.0)
    assert not policy.deployed(LENGTH, seed=5)(obs).equal(first)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: diffusion(tuned=0), "tuned"),
        (lambda: diffusion(tuned=LEVELS + 1), "at most 5"),
        (lambda: diffusion(floor=0.0), "floor"),
        (lambda: gaussian(std=0.0), "std"),
        (lambda: dppo.fine_tune(diffusion(), TASK, 5, SMALL), "at least 6 episodes"),
        (lambda: dppo.fine_tune(diffusion(), TASK, 0, SMALL), "episodes"),
        (lambda: dppo.fine_tune(diffusion(), "Aroundobstacle", 12, SMALL), "AroundObstacle"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=r".") as error:
        call()
    one_line(error, words)


# ------------------------------------------------------------------------------- the episodes


def test_episodes_are_those_of_the_environment(policy):
    """Playing the last elements of the chains again gives the same rewards and observations."""
    env, data = episodes(policy)
    again = TabletopVectorEnv(TASK, 12)
    again.reset(seed=torch.cat([robot_keys(seed, 6, env.device) for seed in SEEDS]))
    obs, _ = again.reset()
    alive = torch.ones(12, dtype=torch.bool)
    for t in range(8):
        assert data.active[:, t].flatten().equal(alive)
        assert data.obs[:, t].flatten(0, 1).equal(obs)
        gained, won = torch.zeros(12), torch.zeros(12, dtype=torch.bool)
        for h in range(LENGTH):
            move = data.chain[:, t, :, -1].flatten(0, 1).unflatten(-1, (LENGTH, 2))[:, h]
            action = torch.cat((move, -torch.ones(12, 1)), 1)
            reward, terminated, _, _ = again.advance(action)
            gained += 0.9**h * alive * reward
            won |= alive & (reward > 0)
            alive = alive & ~terminated
        obs = again.observe()
        assert data.next_obs[:, t].flatten(0, 1).equal(obs)
        assert data.reward[:, t].flatten().equal(gained)
        assert data.success[:, t].flatten().equal(won)
    assert data.terminated.sum((1, 2)).equal((~alive).view(2, 6).sum(1))


def test_the_ratio_is_1_before_the_first_update(policy):
    _, data = episodes(policy)
    obs, chain, old = (x.flatten(1, 2) for x in (data.obs, data.chain, data.log_prob))
    for step in range(policy.steps):
        places = torch.full(obs.shape[:2], step)
        new = policy.log_prob(obs, chain[:, :, step], chain[:, :, step + 1], places)
        ratio = torch.exp(new - old[:, :, step])
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-3, rtol=0)


def test_advantages_are_standardised_over_the_real_chunks():
    _, data = episodes(diffusion())
    data.reward = torch.randn(data.reward.shape) * data.active
    data.active[:, 5:] = False
    critic = torch.nn.Linear(7, 1)
    advantage, target = dppo.advantages(data, critic, 0.9, dppo.DPPOConfig(lam=0.8))
    assert (advantage[~data.active] == 0).all()
    for own, active in zip(advantage, data.active, strict=True):
        assert own[active].mean() == pytest.approx(0, abs=1e-5)
        assert own[active].std(unbiased=False) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        value, following = critic(data.obs)[..., 0], critic(data.next_obs)[..., 0]
    ended, cut = data.terminated, data.terminated.clone()
    cut[:, -1] = True
    raw = gae(data.reward, value, following, ended, cut, 0.9**LENGTH, 0.8)
    torch.testing.assert_close(target, raw + value)


# ------------------------------------------------------------------------------- the loss


def test_the_clip_widens_towards_the_last_step():
    config = dppo.DPPOConfig(clip=0.2, clip_first=0.01)
    widths = dppo.clip_widths(5, config)
    assert widths[0] == pytest.approx(0.01)
    assert widths[-1] == pytest.approx(0.2)
    assert (widths.diff().diff() > 0).all()  # ever faster
    assert dppo.clip_widths(1, config).tolist() == pytest.approx([0.2])


def test_loss_by_hand():
    config = dppo.DPPOConfig(clip=0.1, clip_first=0.1, gamma_denoising=0.5, average=False)
    ratio = torch.tensor([[1.05, 1.5, 1.5, 0.5, 0.5]])
    advantage = torch.tensor([[2.0, 2.0, -2.0, 2.0, -2.0]])
    step = torch.tensor([[1, 1, 1, 1, 0]])
    found = dppo.dppo_loss(ratio.log(), torch.zeros(1, 5), advantage, step, 2, 8, config)
    # gains are cut at 1.1, losses are not; of the first of two steps half of the advantage counts
    known = [-2.1, -2.2, 3.0, -1.0, 0.5 * 2 * 0.9]
    torch.testing.assert_close(found, torch.tensor([known]))


def test_averaged_log_probs_divide_by_the_size_of_a_chunk():
    new, old = torch.tensor([[0.04]]), torch.zeros(1, 1)
    one, step = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long)
    config = dppo.DPPOConfig(clip=1.0, clip_first=1.0)
    mean = dppo.dppo_loss(new, old, one, step, 1, 8, config)
    total = dppo.dppo_loss(new, old, one, step, 1, 8, replace(config, average=False))
    torch.testing.assert_close(mean, -torch.exp(new / 8))
    torch.testing.assert_close(total, -torch.exp(new))


@pytest.mark.parametrize(("batch", "rounds"), [(8, 1), (20, 2)])
def test_minibatches_go_through_all_steps_of_real_chunks(batch, rounds):
    active = torch.tensor([[True, False, True, True], [True, True, True, False]])
    config = dppo.DPPOConfig(minibatches=3, batch=batch)
    parts = list(dppo._minibatches(active, 8, config, generators()))
    assert [part.shape for part in parts] == [(2, batch)] * 3
    for own, numbers in zip(active, torch.cat(parts, 1), strict=True):
        steps = [8 * chunk + i for chunk in own.nonzero()[:, 0].tolist() for i in range(8)]
        assert set(numbers.tolist()) == set(steps)
        assert numbers.bincount().max() <= rounds + 1
        assert sorted(numbers[:24].tolist()) == steps  # none twice before each once
    assert not torch.cat(parts, 1)[0, :24].equal(torch.cat(parts, 1)[0, :24].sort().values)


# ------------------------------------------------------------------------------- training


def test_without_any_success_nothing_moves():
    policy, before = diffusion(), base().state_dict()
    run = dppo.fine_tune(policy, TASK, 12, SMALL, progress=False, shift=Shift(inward=1.0))
    assert not run.success.any()  # the wind blows everyone into the obstacle
    for name, weight in policy.actor.state_dict().items():
        assert weight.equal(before[name])


@pytest.mark.parametrize("make", [diffusion, gaussian])
def test_members_train_as_they_would_alone(make):
    both, alone = make(), make([4])
    curves = [dppo.fine_tune(p, TASK, 18, SMALL, progress=False) for p in (both, alone)]
    assert curves[0].success[1].tolist() == curves[1].success[0].tolist()
    for a, b in zip(both.actor.parameters(), alone.actor.parameters(), strict=True):
        torch.testing.assert_close(a[1:], b)


def test_the_run_tells_what_happened():
    seen = []
    run = dppo.fine_tune(
        gaussian(), TASK, 20, SMALL, progress=False, on_iteration=lambda i, data: seen.append(data)
    )
    assert run.episodes.tolist() == [6, 12, 18]
    assert run.success.shape == (2, 3)
    assert (run.seconds[1:] > run.seconds[:-1]).all()
    for i, data in enumerate(seen):
        share = data.success.any(1).float().mean(1)
        assert run.success[:, i].tolist() == share.tolist()


def test_fine_tuning_learns():
    config = replace(SMALL, robots=50, batch=100, clip=0.2, learning_rate=3e-3, average=False)
    config = replace(config, minibatches=8)
    policy = GaussianPolicy(df.Denoiser(2 * LENGTH, 5, [0, 1], hidden=32), std=0.5)
    run = dppo.fine_tune(policy, "Reach", 3000, config, progress=False, reward="oracle")
    assert (run.success[:, 0] < 0.2).all()
    assert (run.success[:, -1] > 0.8).all()
