"""Identities of the small diffusion and flow models."""

import itertools
import math

import pytest
import torch

from tutorial_utils.models import diffusion as df

NONE = torch.zeros(1, 1, 0)  # a condition that says nothing, to be expanded


def nothing(members, rows):
    return NONE.expand(members, rows, 0)


def two_modes(n=512):
    sign = torch.randint(2, (n, 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return 0.6 * sign.expand(n, 2)  # (0.6, 0.6) or (-0.6, -0.6)


@pytest.mark.parametrize("levels", [5, 50])
def test_schedule_is_the_squared_cosine(levels):
    def alpha_bar(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    k = range(levels)
    betas = [min(1 - alpha_bar((i + 1) / levels) / alpha_bar(i / levels), 0.999) for i in k]
    torch.testing.assert_close(df.scheduler(levels).betas, torch.tensor(betas))


@pytest.mark.parametrize("levels", [5, 20, 100])
def test_ddpm_step_is_the_posterior(levels):
    """x_{k-1} ~ N(mu(x_k, x0), beta~): Ho et al. 2020, equations 6 and 7."""
    schedule, generator = df.scheduler(levels), torch.Generator().manual_seed(1)
    schedule.set_timesteps(levels)
    for k in (levels - 1, levels // 2, 1):
        x, eps = torch.randn(2, 3, 4, generator=generator)
        bar, before = schedule.alphas_cumprod[k], schedule.alphas_cumprod[k - 1]
        beta = schedule.betas[k]
        x0 = ((x - (1 - bar).sqrt() * eps) / bar.sqrt()).clamp(-1, 1)
        mean = before.sqrt() * beta / (1 - bar) * x0
        mean = mean + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
        by_hand = mean + (beta * (1 - before) / (1 - bar)).sqrt() * noise
        step = schedule.step(eps, k, x, generator=torch.Generator().manual_seed(7))
        torch.testing.assert_close(step.prev_sample, by_hand, atol=1e-4, rtol=0)


def test_the_last_ddpm_step_is_the_predicted_data():
    schedule, x = df.scheduler(10), torch.full((1, 2), 0.5)
    schedule.set_timesteps(10)
    bar = schedule.alphas_cumprod[0]
    x0 = (x - (1 - bar).sqrt() * 0.3) / bar.sqrt()
    step = schedule.step(torch.full((1, 2), 0.3), 0, x)
    torch.testing.assert_close(step.prev_sample, x0)


class Oracle:
    """Knows the data point, so its noise is exact; remembers the levels that it was asked at."""

    size, members = 2, 1

    def __init__(self, schedule, point):
        self.schedule, self.point, self.asked = schedule, point, []

    def __call__(self, x, k, condition):
        self.asked.append(int(k))
        bar = self.schedule.alphas_cumprod[int(k)]
        return (x - bar**0.5 * self.point) / (1 - bar) ** 0.5


@pytest.mark.parametrize("ddim", [False, True])
def test_with_the_exact_noise_every_number_of_steps_ends_at_the_data(ddim):
    """Also where the steps do not divide the levels, such as 3 or 12 of 20."""
    point = torch.tensor([0.7, -0.2], dtype=torch.float64)
    for levels in range(1, 25):
        for steps in range(1, levels + 1):
            schedule, generator = df.scheduler(levels, ddim), torch.Generator().manual_seed(0)
            oracle = Oracle(schedule, point)
            found = df.sample(oracle, schedule, nothing(1, 3), generator, steps)
            torch.testing.assert_close(found, point.expand(1, 3, 2), atol=1e-5, rtol=0)
            assert len(oracle.asked) == steps
            assert sorted(set(oracle.asked), reverse=True) == oracle.asked
            assert (oracle.asked[0], oracle.asked[-1] >= 0) == (levels - 1, True)


@pytest.mark.parametrize(("steps", "visited"), [(5, (19, 15, 11, 7, 3)), (3, (19, 12, 6))])
def test_a_ddim_step_leads_to_the_next_level_visited(steps, visited):
    schedule, network = df.scheduler(20, ddim=True), df.Denoiser(2, 0, [0], horizon=20)
    bar = schedule.alphas_cumprod
    found = df.sample(network, schedule, nothing(1, 3), torch.Generator().manual_seed(0), steps)
    x = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    for k, j in itertools.pairwise((*visited, None)):
        eps = network(x, k, nothing(1, 3))
        x0 = ((x - (1 - bar[k]).sqrt() * eps) / bar[k].sqrt()).clamp(-1, 1)
        eps = (x - bar[k].sqrt() * x0) / (1 - bar[k]).sqrt()
        x = x0 if j is None else bar[j].sqrt() * x0 + (1 - bar[j]).sqrt() * eps
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_noise_loss_by_hand():
    network = df.Denoiser(3, 2, seeds=[0, 1], horizon=10)
    x, condition = torch.rand(2, 5, 3) * 2 - 1, torch.rand(2, 5, 2)
    schedule = df.scheduler(10)

    def generators():
        return [torch.Generator().manual_seed(i) for i in (3, 4)]

    found = df.noise_loss(schedule)(network, x, condition, generators())
    mine = generators()
    k = torch.stack([torch.randint(10, (5,), generator=g) for g in mine])
    noise = torch.stack([torch.randn(5, 3, generator=g) for g in mine])
    bar = schedule.alphas_cumprod[k][..., None]
    error = network(bar.sqrt() * x + (1 - bar).sqrt() * noise, k, condition) - noise
    assert found.shape == (2, 5)
    torch.testing.assert_close(found, error.square().mean(-1))


def test_flow_loss_is_zero_for_the_velocity_of_the_line():
    x, noise = torch.rand(1, 4, 2), None

    def velocity(point, t, condition):  # the line through `point` at t that ends in x
        return (x - point) / (1 - t[..., None])

    found = df.flow_loss(velocity, x, noise, [torch.Generator().manual_seed(0)])
    torch.testing.assert_close(found, torch.zeros(1, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_is_exact_on_a_straight_flow(steps):
    noise, velocity = torch.randn(1, 4, 2), torch.tensor([0.3, -2.0])
    found = df.flow(lambda x, t, c: velocity.expand_as(x), noise, nothing(1, 4), steps)
    torch.testing.assert_close(found, noise + velocity)


def test_members_share_nothing():
    data, schedule = two_modes(), df.scheduler(5)
    loss, condition = df.noise_loss(schedule), torch.zeros(512, 0)
    both = df.Denoiser(2, 0, seeds=[3, 4], horizon=5, hidden=16)
    alone = df.Denoiser(2, 0, seeds=[4], horizon=5, hidden=16)
    both, losses = df.fit(both, data, condition, loss, steps=5, progress=False)
    alone, own = df.fit(alone, data, condition, loss, steps=5, progress=False)
    torch.testing.assert_close(losses[:, 1:], own)
    for a, b in zip(both.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a[1:], b)


def test_fit_returns_the_average_and_leaves_the_weights_in_training():
    seen = []

    def loss(network, x, condition, generators):
        seen.append([p.detach().clone() for p in network.parameters()])
        return (network(x, 0.0, condition) - x).square().mean(-1)

    network = df.Denoiser(2, 0, seeds=[0], hidden=8)
    averaged, _ = df.fit(
        network, two_modes(), torch.zeros(512, 0), loss, steps=4, average=0.9, progress=False
    )
    states = [*seen[1:], [p.detach() for p in network.parameters()]]
    expected = states[0]  # the first update copies
    for state in states[1:]:
        expected = [0.9 * a + 0.1 * b for a, b in zip(expected, state, strict=True)]
    for a, b in zip(averaged.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad
    assert any((a != b).any() for a, b in zip(expected, states[-1], strict=True))


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "flow"])
def test_both_modes_are_learnt(kind):
    data, condition, schedule = two_modes(), torch.zeros(512, 0), df.scheduler(10, kind == "ddim")
    is_flow = kind == "flow"
    network = df.Denoiser(2, 0, seeds=[0], horizon=1.0 if is_flow else 10, hidden=32)
    loss = df.flow_loss if is_flow else df.noise_loss(schedule)
    network, losses = df.fit(network, data, condition, loss, steps=1200, progress=False)
    assert losses[-50:].mean() < losses[:50].mean()
    generator = torch.Generator().manual_seed(0)
    if is_flow:
        found = df.flow(network, torch.randn(1, 200, 2, generator=generator), nothing(1, 200), 10)
    else:
        found = df.sample(network, schedule, nothing(1, 200), generator)
    near = (found.abs() - 0.6).abs().amax(-1) < 0.25
    assert near.float().mean() > 0.8
    assert 0.3 < (found[..., 0] > 0).float().mean() < 0.7


def test_a_sample_follows_its_generator():
    network, schedule = df.Denoiser(2, 0, seeds=[0, 1], horizon=5), df.scheduler(5)
    first, again, other = (
        df.sample(network, schedule, nothing(2, 4), torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    torch.testing.assert_close(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: df.scheduler(0), "levels"),
        (lambda: df.flow(None, torch.zeros(1, 1, 2), NONE, 0), "steps"),
        (lambda: df.sample(None, df.scheduler(5), NONE, None, 9), "at most 5"),
        (lambda: df.fit(df.Denoiser(2, 0, [0]), torch.zeros(0, 2), NONE[0], None, 1), "no data"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


class Loud:
    """Predicts so much noise that the guess of the data is cut."""

    size, members = 2, 1

    def __call__(self, x, k, condition):
        return torch.full_like(x, -3.0)


def test_ddim_derives_the_noise_of_a_cut_guess_anew():
    schedule = df.scheduler(10, ddim=True)
    found = df.sample(Loud(), schedule, nothing(1, 3), torch.Generator().manual_seed(0), 2)
    x = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    bar = schedule.alphas_cumprod
    for k, j in ((9, 4), (4, None)):  # the levels that two steps visit, from the highest
        x0 = ((x + 3.0 * (1 - bar[k]).sqrt()) / bar[k].sqrt()).clamp(-1, 1)
        noise = (x - bar[k].sqrt() * x0) / (1 - bar[k]).sqrt()
        x = x0 if j is None else bar[j].sqrt() * x0 + (1 - bar[j]).sqrt() * noise
    torch.testing.assert_close(found, x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_every_grid_begins_with_pure_noise(steps):
    schedule = df.scheduler(10)
    schedule.set_timesteps(steps)
    assert schedule.timesteps[0] == 9
