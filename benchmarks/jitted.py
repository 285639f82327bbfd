"""What PPO learns from one rollout beside the same in JAX, jitted as a whole, where that is there.

Both sides start from the same weights and take the same rollout of 5 seeds, minibatches and steps:
values, advantages, and in each step loss, gradient, clipping and Adam. The rollouts themselves are
left out, as the lab is not written in JAX. One core for both.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from common import Row, processor, rates, sgemm_peak

from tutorial_utils.learning import ppo
from tutorial_utils.models import ActorCritic
from tutorial_utils.tabletop import TabletopVectorEnv, get_task

TASK, SEEDS, CONFIG = "PickPlace", 5, ppo.PPOConfig()
GAMMA, RATE = get_task(TASK).gamma, CONFIG.learning_rate
MISSING = "- PPO in JAX not measured: jax is not installed: pip install 'duality-book[bench]'."


def rollout() -> tuple[ActorCritic, ppo.Rollout]:
    """A new population and what it saw."""
    env = TabletopVectorEnv(TASK, SEEDS * CONFIG.robots, reward="oracle")
    obs = env.reset(seed=0, options={"stagger": True})[0].unflatten(0, (SEEDS, -1))
    policy = ActorCritic(obs.shape[2:], range(SEEDS), hidden=CONFIG.hidden)
    noise = torch.randn(SEEDS, CONFIG.rollout, CONFIG.robots, 3)
    data, _ = ppo.collect(env, policy, obs, noise)
    seen = {name: x.clone() for name, x in vars(data).items() if x is not None}
    return policy, ppo.Rollout(**seen)  # normal tensors, as autograd wants them


def orders(seed: int) -> np.ndarray:
    """The rows of every minibatch, [epochs * minibatches, B], in the order of `ppo.update`."""
    dice, rows = torch.Generator().manual_seed(seed), CONFIG.rollout * CONFIG.robots
    epochs = [torch.randperm(rows, generator=dice) for _ in range(CONFIG.epochs)]
    return torch.cat(epochs).view(CONFIG.epochs * CONFIG.minibatches, -1).numpy()


def network(layers: list, x: Any) -> Any:
    """A population of networks: [P, B, in] -> [P, B, out]."""
    import jax

    for weight, bias in layers[:-1]:
        x = jax.nn.leaky_relu(x @ weight + bias, 0.01)
    weight, bias = layers[-1]
    return x @ weight + bias


def value(w: dict, obs: Any) -> Any:
    """V(obs), [P, B]."""
    return network(w["critic"], obs)[..., 0]


def loss(w: dict, obs: Any, action: Any, old: Any, gain: Any, target: Any) -> Any:
    """`ppo.ppo_loss` and its value term, summed over members."""
    from jax import numpy as jnp

    gain = (gain - gain.mean(1, keepdims=True)) / (gain.std(1, ddof=1, keepdims=True) + 1e-8)
    z = (action - network(w["actor"], obs)) * jnp.exp(-w["log_std"])
    constant = w["log_std"].sum(-1) + 0.5 * jnp.log(2 * jnp.pi) * action.shape[-1]
    ratio = jnp.exp(-0.5 * (z * z).sum(-1) - constant - old)
    clipped = ratio.clip(1 - CONFIG.clip, 1 + CONFIG.clip)
    surrogate = jnp.minimum(ratio * gain, clipped * gain)
    error = 0.5 * (value(w, obs) - target) ** 2
    return (CONFIG.value_coef * error - surrogate).mean(1).sum()


def advantages(w: dict, d: dict) -> tuple[Any, Any]:
    """`ppo.gae` and the returns, both [P, T, n]."""
    import jax
    from jax import numpy as jnp

    now, later = (
        value(w, d[name].reshape(SEEDS, -1, d[name].shape[-1])).reshape(d["reward"].shape)
        for name in ("obs", "next_obs")
    )
    delta = d["reward"] + GAMMA * later * (1 - d["terminated"]) - now
    goes_on = GAMMA * CONFIG.lam * (1 - jnp.maximum(d["terminated"], d["truncated"]))

    def back(running: Any, at: tuple[Any, Any]) -> tuple[Any, Any]:
        running = at[0] + at[1] * running
        return running, running

    by_time = (delta.swapaxes(0, 1), goes_on.swapaxes(0, 1))
    gain = jax.lax.scan(back, jnp.zeros_like(delta[:, 0]), by_time, reverse=True)[1]
    gain = gain.swapaxes(0, 1)
    return gain, gain + now


def fused() -> Callable[..., Any]:
    """The jitted peer: (weights, their two Adam averages, rollout, rows) -> all three, anew."""
    import jax
    from jax import numpy as jnp

    def adam(w: Any, m: Any, v: Any, t: Any) -> Any:
        return w - RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)

    @jax.jit
    def learn(w: dict, m: dict, v: dict, d: dict, rows: Any) -> tuple[dict, dict, dict]:
        gain, target = advantages(w, d)
        parts = (d["obs"], d["action"], d["log_prob"], gain, target)
        batch = [x.reshape(SEEDS, -1, *x.shape[3:]) for x in parts]

        def step(state: tuple, at: tuple) -> tuple[tuple, None]:
            (w, m, v), (chosen, t) = state, at
            g = jax.grad(loss)(w, *(x[:, chosen] for x in batch))
            square = sum((x * x).sum((1, 2)) for x in jax.tree.leaves(g))
            scale = jnp.minimum(CONFIG.max_grad_norm / (jnp.sqrt(square) + 1e-6), 1.0)
            g = jax.tree.map(lambda x: x * scale[:, None, None], g)
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
            return (jax.tree.map(lambda *x: adam(*x, t), w, m, v), m, v), None

        return jax.lax.scan(step, (w, m, v), (rows, jnp.arange(1.0, len(rows) + 1)))[0]

    return learn


def weights(policy: ActorCritic) -> dict[str, Any]:
    """The weights in numpy, in the order of the layers."""
    flat = {name: x.detach().clone().numpy() for name, x in policy.named_parameters()}
    parts: dict[str, Any] = {"log_std": flat["log_std"]}
    for part in ("actor", "critic"):
        own = [x for name, x in flat.items() if name.startswith(part)]
        parts[part] = list(zip(own[::2], own[1::2], strict=True))
    return parts


@contextmanager
def one_core() -> Iterator[None]:
    """JAX counts the cores that it may use when it starts, and makes as many threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sides() -> tuple[dict[str, Callable[[], int]], float]:
    """Both, from the same start every time, and JAX's seconds of compiling.

    Gradient steps without new rollouts would soon leave what PPO meets: probabilities of the old
    actions that are too small for a normal float, which only JAX counts as 0.
    """
    import jax

    policy, data = rollout()
    first, start = copy.deepcopy(policy.state_dict()), weights(policy)
    given = {name: np.float32(x) for name, x in vars(data).items() if name != "taught"}
    none, order, began = jax.tree.map(np.zeros_like, start), orders(0), time.perf_counter()
    learn = fused().lower(start, none, none, given, order).compile()
    compiling = time.perf_counter() - began

    def ours() -> int:
        policy.load_state_dict(first)
        adam, dice = torch.optim.Adam(policy.parameters(), RATE, fused=True), torch.Generator()
        ppo.update(policy, adam, data, CONFIG, GAMMA, dice.manual_seed(0))
        return data.reward.numel()

    def theirs() -> int:
        jax.block_until_ready(learn(start, none, none, given, order))
        return data.reward.numel()

    ours()
    learnt = learn(start, none, none, given, order)[0]
    pairs = zip(jax.tree.leaves(weights(policy)), jax.tree.leaves(learnt), strict=True)
    apart = max(float(np.abs(a - b).mean()) for a, b in pairs)
    if apart > RATE / 100:  # a step of Adam is as long as the rate
        raise RuntimeError(f"JAX learnt something else: its weights are {apart:.1e} apart.")
    return {"ours": ours, "jax": theirs}, compiling


def own_peak() -> float:
    """GFLOP/s of a float32 matrix product in JAX."""
    import jax

    x, product = jax.numpy.ones((1024, 1024)), jax.jit(lambda x: x @ x)
    return sgemm_peak(lambda _: product(x).block_until_ready())


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figure, and a line to print below the table."""
    try:
        from jax import __version__ as version
    except ImportError:
        return [], [MISSING]
    with one_core():
        both, compiling = sides()
        speed, torch_peak, jax_peak = rates(both, 3 if quick else 31), sgemm_peak(), own_peak()
    what = f"PPO, {TASK}, {SEEDS} seeds at once, gradient steps without rollouts"
    row = Row(what, speed["ours"], "steps/s", f"JAX {version}, jitted", speed["jax"])
    return [row], [
        f"- JAX compiled these gradient steps in {compiling:.1f} s, outside the figure. Its sgemm "
        f"peak on one core is {jax_peak:.0f} GFLOP/s, torch's {torch_peak:.0f} ({processor()})."
    ]
