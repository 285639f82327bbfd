"""Reward programs of language models: right results, one-line refusals, and nothing ever runs."""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import os
import random
import re
import subprocess
import tokenize
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import perf_counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutorial_utils.language import ProgramError, compile_reward
from tutorial_utils.language.programs import RewardProgram, extract

FIELDS = {name: torch.Size([2]) for name in ("gripper", "object", "zone")}
FIELDS |= {"action": torch.Size([3]), "holding": torch.Size([]), "success": torch.Size([])}
SECONDS = 0.2  # for one answer, hostile or not
FUZZ = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def robots(n: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {k: torch.rand(n, *s, generator=generator) for k, s in FIELDS.items()}
    flags = {k: values[k] > 0.5 for k in ("holding", "success")}
    return values | flags | {"unused": torch.arange(n)}


def reward(body: str, **options) -> RewardProgram:
    lines = "\n".join("    " + line for line in body.split("\n"))
    return compile_reward("def compute_reward():\n" + lines, options.get("fields", FIELDS))


def refused(source: object, *words: str, fields=FIELDS) -> str:
    """The one line with which `source` is refused, when compiled or when first called."""
    seconds = []
    while not seconds or (min(seconds) > SECONDS and len(seconds) < 5):  # others use the machine
        start = perf_counter()
        with warnings.catch_warnings(action="error"), pytest.raises(ProgramError) as error:
            compile_reward(source, fields)(robots())
        seconds.append(perf_counter() - start)
    text = str(error.value)
    assert text
    assert text.isprintable()  # hence one line
    assert len(text) <= 600
    for word in words:
        assert word in text
    assert min(seconds) < SECONDS
    return text


# What models write


def norm(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(-1).sqrt()


EUREKA = '''The reward should guide the gripper first.

```python
import torch
from typing import Tuple, Dict
from torch import Tensor

@torch.jit.script
def compute_reward(
    gripper: Tensor,
    object: Tensor,  # the block
    zone: Tensor,
) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
    """Reach, then carry."""
    # Temperatures
    reach_temp: float = 5.0
    carry_temp: float = 0.1
    reach_dist = torch.norm(gripper - object, p=2, dim=-1)
    carry_dist = torch.linalg.norm(object - zone, dim=1)
    reach_reward = torch.exp(-reach_temp * reach_dist)
    carry_reward = torch.exp(-carry_dist / carry_temp)
    total_reward = 0.3 * reach_reward + 0.7 * carry_reward
    reward_components = {
        "reach_reward": reach_reward,
        "carry_reward": carry_reward,
    }
    return total_reward, reward_components
```

This rewards **both** stages.
'''
TEXT2REWARD = """<think>
First `def compute_reward(gripper): return 1/0`? No, that is wrong.
</think>
Here is the function:

def compute_reward(gripper, object, zone, holding, success):
    # stage 1: reach
    d = np.linalg.norm(gripper - object, axis=-1)
    reach = 1 - np.tanh(5 * d)

    # stage 2: lift & place
    placed = 1 - np.tanh(closeness(zone, b=object))
    bonus = np.where(success & ~(d > 0.5), 10.0, 0.0)
    reward = reach
    reward += holding * placed
    reward += bonus
    reward -= 0.01 * torch.sum(action ** 2, dim=-1)
    return reward

def closeness(a, b):
    return SCALE * distance(a, b)

SCALE = 5.0

I hope that this helps!
"""
OLD_BLOCK = """```py
def compute_reward(gripper):
    return gripper
```
Wait, that is a vector. The corrected version:
~~~
def compute_reward(gripper, zone):
    return -(gripper - zone).norm(dim=-1).clamp(max=1.0)
~~~
"""
ITEMS = """```python
def compute_reward(
    gripper: torch.Tensor, object: torch.Tensor, zone: torch.Tensor
) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
    components: Dict[str, torch.Tensor] = {}
    reach = torch.exp(-5.0 * distance(gripper, object))
    components["reach"] = reach
    # Carry
    carry = torch.exp(-distance(object, zone) / 0.1)
    components['carry'] = 0.7 * carry
    components["alive"] = 0.1
    total = 0.3 * reach + 0.7 * carry
    return total, components
```"""
UNTERMINATED = """Sure:
  ```Python
  def near(a, b, radius):
      return (distance(a, b) < radius).float()

  def compute_reward(gripper, object, zone) -> torch.Tensor:
      reach, carry = near(gripper, object, 0.3), near(object, b=zone, radius=0.4)
      for x in (reach, carry):
          x = x * 2
      return reach + 0.5 * carry - x"""


def eureka(gripper, object, zone, **_):
    reach, carry = torch.exp(-5 * norm(gripper - object)), torch.exp(-norm(object - zone) / 0.1)
    return 0.3 * reach + 0.7 * carry, {"reach_reward": reach, "carry_reward": carry}


def text2reward(gripper, object, zone, holding, success, action, **_):
    d = norm(gripper - object)
    reach, placed = 1 - torch.tanh(5 * d), 1 - torch.tanh(5 * norm(zone - object))
    bonus = torch.where(success & ~(d > 0.5), 10.0, 0.0)
    effort = -0.01 * action.square().sum(-1)
    parts = {"reach": reach, "term_1": holding * placed, "bonus": bonus, "term_2": effort}
    return sum(parts.values()), parts


def old_block(gripper, zone, **_):
    total = -norm(gripper - zone).clamp(max=1)
    return total, {"term_1": total}


def items(gripper, object, zone, **_):
    total, parts = eureka(gripper, object, zone)
    alive = torch.full((len(zone),), 0.1)
    return total, {"reach": parts["reach_reward"], "carry": 0.7 * parts["carry_reward"]} | {
        "alive": alive
    }


def unterminated(gripper, object, zone, **_):
    reach = (norm(gripper - object) < 0.3).float()
    carry = (norm(object - zone) < 0.4).float()
    parts = {"reach": reach, "carry": 0.5 * carry, "x": -2 * carry}
    return sum(parts.values()), parts


@pytest.mark.parametrize("n", [1, 2, 3, 320])
@pytest.mark.parametrize(
    ("answer", "by_hand"),
    [
        (EUREKA, eureka),
        (TEXT2REWARD, text2reward),
        (OLD_BLOCK, old_block),
        (ITEMS, items),
        (UNTERMINATED, unterminated),
    ],
)
def test_answers_as_models_write_them(answer, by_hand, n):
    program = compile_reward(answer, FIELDS)
    total, components = program(robots(n))
    wanted, parts = by_hand(**robots(n))
    assert list(program.components) == list(components) == list(parts)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, wanted)
    for name, part in parts.items():
        torch.testing.assert_close(components[name], part)
    assert compile_reward(program.source, FIELDS).source == program.source
    assert "```" not in program.source
    assert "think" not in program.source


X = robots()
G, O, Z, A = (X[name] for name in ("gripper", "object", "zone", "action"))  # noqa: E741
D, E = norm(G - O), norm(O - Z)
EXPRESSIONS = {
    "-distance(gripper, object)": -D,
    "norm(gripper - object) + 2 * success": D + 2 * X["success"],
    "(gripper - object).square().sum(dim=-1).sqrt()": D,
    "torch.linalg.vector_norm(gripper - object, dim=-1)": D,
    "math.exp(-3) * np.exp(-norm(object - zone, axis=1))": 0.049787068 * torch.exp(-E),
    "where(distance(gripper, object) < 0.5, 1.0, -action[:, 2])": torch.where(D < 0.5, 1, -A[:, 2]),
    "gripper[..., -1] % 0.3 + action[:, :2].mean(dim=-1)": G[:, 1] % 0.3 + A[:, :2].mean(-1),
    "dot(gripper, object) / (1e-6 + norm(zone))": (G * O).sum(-1) / (1e-6 + norm(Z)),
    "(0.2 < gripper[:, 0] < 0.7)": ((G[:, 0] > 0.2) & (G[:, 0] < 0.7)).float(),
    "torch.clip(object[:, 0], 0.2, object[:, 1])": torch.minimum(O[:, 0].clamp(min=0.2), O[:, 1]),
    "F.relu(gripper[:, 0] - 0.5) ** 1.5": torch.relu(G[:, 0] - 0.5) ** 1.5,
    "2 ** gripper[:, 0] - pow(object[:, 0], 3)": 2 ** G[:, 0] - O[:, 0] ** 3,
    "min(gripper[:, 0], 0.4) + torch.max(object[:, 0], object[:, 1])": G[:, 0].clamp(max=0.4)
    + O.amax(1),
    "hypot(gripper[:, 0], gripper[:, 1])": norm(G),
    "torch.logical_not(success) * float(holding)": ~X["success"] * X["holding"].float(),
    "(success == holding) & (action[:, 0] != 0) | success": (
        (X["success"] == X["holding"]) | X["success"]
    ).float(),
    "success + success + True": 2 * X["success"].float() + 1,
    "torch.zeros_like(norm(zone)) + ones_like(zone).sum(-1) + torch.tensor(0.5)": torch.full(
        (7,), 2.5
    ),
    "torch.sign(gripper[:, 0] - 0.5) * math.pi": torch.sign(G[:, 0] - 0.5) * torch.pi,
    "norm(gripper[:, :1] * zone)": norm(G[:, :1] * Z),
    "success.float().clone().to(torch.float32) - 1": X["success"].float() - 1,
    "sigmoid(log1p(abs(sin(gripper[:, 0]) - cos(object[:, 1]))))": torch.sigmoid(
        torch.log1p((torch.sin(G[:, 0]) - torch.cos(O[:, 1])).abs())
    ),
    "1.5": torch.full((7,), 1.5),
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_are_those_of_torch(expression):
    program = reward(f"return {expression}")
    total, components = program(robots())
    torch.testing.assert_close(total, EXPRESSIONS[expression].float())
    torch.testing.assert_close(sum(components.values()), total)


@pytest.mark.parametrize(
    ("body", "components"),
    [
        ("return success + 0.5 * holding - success / 4", ["success", "holding"]),
        ("a = norm(zone)\nb = -a\ntotal = a - 2 * b\nreturn total", ["a", "b"]),
        ("t = 0.0\nfor d in (norm(zone), norm(object)):\n  t = t - d\nreturn t", ["d"]),
        ("return exp(norm(zone)) - 0.1 + success * holding", ["term_1", "term_2", "term_3"]),
        ("total = success + holding\ntotal = total * 2\nreturn total", ["total"]),
        ("return " + " + ".join(f"norm(zone * {i})" for i in range(2, 20)), None),
        ("parts = {'a': success, 'b': 1}\nreturn success + 1, parts", ["a", "b"]),
        ("return success + holding, {}", ["success", "holding"]),
        ("p = {}\nreturn success + holding, p", ["success", "holding"]),
        ("p = {}\np['a'] = success\nreturn success, p", ["a"]),
        (
            "t, p = 0, {'b': holding}\np['a'] = success\nt = success\nreturn t + holding, p",
            ["b", "a"],
        ),
        ("p = {}\nfor x in (success,):\n  p['a'] = x\nreturn success, p", ["a"]),
        ("p = {}\np['x'] = 3\np = {}\np['a'] = success\nreturn success, p", ["a"]),
        ("p = q = 1\np = {}\np['a'] = success\nreturn success, p", ["a"]),
        ("a = b = norm(zone)\na, b = b - 1, a\na *= 2\nreturn a * b", ["term_1"]),
        ("return 0", ["term_1"]),
    ],
)
def test_components_are_the_named_terms_and_add_up(body, components):
    program = reward(body)
    total, parts = program(robots())
    names = components or [*(f"term_{i}" for i in range(1, 12)), "other"]
    assert list(program.components) == names
    if "{'a'" not in body:
        torch.testing.assert_close(sum(parts.values()), total)


@pytest.mark.parametrize(
    "answer",
    [
        "The function def compute_reward(zone) is:\n\n{}\n\nNote: x = y holds.\nUse it.",
        "Reasoning: def compute_reward(): return 0</think>{}",
        "<think>```\ndef compute_reward(): return 0\n```</think>```\n{}\n```",
        "```\nnorm(x)\n```\nand\n````python3\n{}\n````\nwith\n```\ny = f(x)\n```",
        "{}\n\n- first\n- second = better\n1. d = 3\n",
        "~~~py\n{}",
    ],
)
def test_extract_finds_the_program_and_nothing_else(answer):
    program = "def compute_reward(\n    zone,\n):\n    # a = b\n\n    return norm(zone)"
    assert extract(answer.format(program)) == program
    indented = "\n".join("    " + line for line in program.split("\n")).replace("    \n", "\n")
    assert extract(f"Here:\n\n{indented}\n\nDone.".replace("\n", "\r\n")) == program


# Programs in the forms that models publish them in
FORMS = {
    "another name": """
def compute_reward_v2(gripper, zone):
    return -torch.norm(gripper - zone, dim=1)""",
    "byte-order mark": "\ufeffimport torch\ndef compute_reward(zone):\n    return zone[:, 0]",
    "imports": """
import torch, math
import numpy as np
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F
from typing import Tuple, Dict
def compute_reward(zone: Tensor) -> Tuple[Tensor, Dict[str, Tensor]]:
    return F.relu(torch.exp(zone[:, 0]) - math.e / np.pi), {}""",
    "devices": """
device = "cpu"
def bonus(x, device):
    return x * torch.tensor(0.3, device=device)
def compute_reward(gripper, zone, success):
    two = torch.tensor(2.0, device=device)
    near = (gripper[:, 0] < 0.5).to(zone.device) & success
    far = torch.linalg.norm(gripper - zone, dim=-1).to(zone.device)
    far = far + torch.zeros_like(far, device=far.device, dtype=zone.dtype)
    half = near.to(dtype=far.dtype) / 2
    none = torch.tensor(0.0, device=None)
    paid = torch.where(success, torch.tensor(1.0, device=zone.device), none)
    return bonus(paid, zone.device) + half - two * far.to(device=device, dtype=torch.float)""",
    "a statement for the device": """
def compute_reward(gripper, zone):
    device, dtype = zone.device, zone.dtype
    far = torch.norm(gripper - zone, dim=-1)
    return torch.exp(-far / torch.tensor(0.3, device=device, dtype=dtype))""",
    "functions": """
def compute_reward(gripper, object):
    a, b = gripper[:, 0], torch.sub(object[:, 1], 0.5)
    x = torch.mul(a, 3.0) + torch.div(b, 7) - torch.add(a, b) + torch.full_like(a, 0.3)
    x = x + torch.full_like(input=b, fill_value=2.0, device=b.device)
    return x * torch.atan2(a, b) + torch.acos(a) * torch.floor(b) - a.mul(2).add(b)""",
    "reductions": """
def compute_reward(gripper, object, zone, action):
    near = torch.all(torch.abs(gripper - zone) < 0.3, dim=-1)
    either = (action > 0.9).any(dim=1)
    spread = torch.amax(action, dim=-1) - action.amin(-1)
    way = F.normalize(zone - gripper, p=2, dim=-1) * torch.nn.functional.normalize(object)
    return spread + way.sum(-1) + near.float() - 0.5 * either.float()""",
    "axes that stay": """
def compute_reward(gripper, zone, success):
    length = torch.norm(zone, dim=-1, keepdim=True)
    way = zone / (length + 1e-6) + gripper.mean(dim=1, keepdim=False).unsqueeze(-1)
    kept = torch.all(zone > 0.1, dim=-1, keepdim=True) * way
    paid = success.float().unsqueeze(dim=1) * way - torch.amax(kept, dim=1, keepdim=True)
    return paid.sum(dim=-1) + length.sum(-1)""",
    "columns": """
def compute_reward(gripper, zone):
    way = zone - gripper
    way[:, 1] = 0.0
    copy = way.clone()
    copy[..., 0] = copy[:, 1] - gripper[:, 0]
    copy[:, -1] = 2
    return torch.norm(way, dim=-1) + copy.sum(dim=-1) + (zone - gripper)[:, 1]""",
    "components": """
def compute_reward(gripper, zone, success):
    parts = dict(reach=-torch.norm(gripper - zone, dim=-1))
    parts["done"] = torch.where(success, 5.0, 0.0)
    parts["flag"] = success
    parts["done"] = parts["done"] + 1.0
    total = parts["reach"] + parts["done"]
    return total + sum(parts.values()), parts""",
    "a helper named as a function": """
def norm(x):
    return torch.sqrt(torch.sum(x ** 2, dim=-1) + 0.1)
def compute_reward(zone):
    return norm(zone) - torch.norm(zone, dim=-1)""",
}


def by_torch(source: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What Python itself makes of a program, which is one of ours."""
    names = {"torch": torch, "F": torch.nn.functional, "np": np}
    exec(source.lstrip("\ufeff"), names)
    function = next(v for k, v in names.items() if k.startswith("compute_reward"))
    asked = inspect.signature(function).parameters
    result = function(**{k: robots()[k] for k in asked if k in FIELDS})
    return result if isinstance(result, tuple) else (result, {})


@pytest.mark.parametrize("form", FORMS)
def test_published_forms_compile_and_equal_torch_exactly(form):
    source = FORMS[form]
    total, components = compile_reward(source, FIELDS)(robots())
    wanted, parts = by_torch(source)
    assert torch.equal(total, wanted)
    for name, part in parts.items():
        assert torch.equal(components[name], part)
    survives(source)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["compute_dense_reward"], "defines no function compute_reward, but compute_dense_reward."),
        (["compute_reward_a", "compute_reward_b"], "compute_reward, not compute_reward_a, comp"),
        (["computeReward", "helper"], "but computeReward, helper."),
    ],
)
def test_a_program_of_another_name_is_refused_by_the_names_found(names, found):
    refused("\n".join(f"def {name}(zone): return zone[:, 0]" for name in names), found)


def test_the_exact_name_wins_over_longer_ones():
    helper = "def compute_reward_near(zone):\n    return zone[:, 1]\n"
    main = "def compute_reward(zone):\n    return 2 * compute_reward_near(zone)\n"
    later = "```\ndef compute_rewards(self):\n    self.reward = compute_reward(self.zone)\n```"
    program = compile_reward(f"```\n{helper}{main}```\nCall it so:\n{later}", FIELDS)
    assert torch.equal(program(robots())[0], 2 * robots()["zone"][:, 1])


def test_fields_are_those_that_are_read():
    source = "def compute_reward(gripper, object):\n  return gripper[:, 0]"
    program = compile_reward(source, FIELDS)
    assert list(program.fields) == ["gripper"]
    program({"gripper": torch.rand(4, 2, dtype=torch.float64)})
    program({"gripper": torch.ones(4, 2, dtype=torch.int64)})
    for values in (
        {},
        {"gripper": [1.0]},
        {"gripper": torch.rand(4)},
        {"gripper": torch.rand(4, 3)},
        {"gripper": torch.tensor(1.0)},
    ):
        with pytest.raises(ProgramError, match="field 'gripper' must be"):
            program(values)
    two = reward("return distance(gripper, zone)")
    with pytest.raises(ProgramError, match=r"'zone' must be \[4, 2\], not \(5, 2\)"):
        two({"gripper": torch.rand(4, 2), "zone": torch.rand(5, 2)})


def test_results_are_copies():
    values = robots()
    total, parts = reward("return gripper[:, 0]")(values)
    before = values["gripper"].clone()
    total += 1
    for part in parts.values():
        part += 1
    assert torch.equal(values["gripper"], before)


def test_not_finite_is_an_error_at_the_call_that_names_the_part():
    program = reward("bad = log(gripper[:, 0] - 2)\nreturn success, {'fine': success, 'bad': bad}")
    with pytest.raises(ProgramError, match=r"robots: bad\.$"):
        program(robots())
    chosen = reward("x = gripper[:, 0]\nreturn where(x > 2, log(x - 2), x)")
    assert torch.equal(chosen(robots())[0], robots()["gripper"][:, 0])  # an unused NaN is harmless
    large = reward("return gripper[:, 0] * 3e38")  # finite, but the sum over robots overflows
    assert large(robots())[0].isfinite().all()


@pytest.mark.parametrize("answer", [EUREKA, TEXT2REWARD, OLD_BLOCK, ITEMS, UNTERMINATED])
def test_a_robot_is_scored_by_itself(answer):
    program, values = compile_reward(answer, FIELDS), robots(9)
    total, _ = program(values)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(program({k: x[order] for k, x in values.items()})[0], total[order])
    other = robots(9, seed=5)
    mixed = {k: torch.cat([other[k][:4], x[4:]]) for k, x in values.items()}
    torch.testing.assert_close(program(mixed)[0][4:], total[4:])


def test_a_list_of_answers_keeps_its_order():
    good, bad = "def compute_reward(zone):\n  return norm(zone)", "I cannot do that."
    results = []
    for answer in (good, bad, good, None, EUREKA):
        try:
            results.append(compile_reward(answer, FIELDS))
        except ProgramError as error:
            results.append(error)
    kinds = [RewardProgram, ProgramError, RewardProgram, ProgramError, RewardProgram]
    assert [type(x) for x in results] == kinds


# What must be refused


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return nrom(zone)", ["line 2", "unknown function 'nrom'", "norm"]),
        ("return foo", ["line 2", "unknown field 'foo': the fields are gripper, object, zone"]),
        ("return norm(success)", ["mix robots", "dim=-1"]),
        ("return zone.mean(dim=0)", ["mix robots"]),
        ("return zone[0]", ["x[:, 0]"]),
        ("return success[..., 0]", ["x[:, 0]"]),
        ("return zone", ["one number per robot", "[N, 2]"]),
        ("return norm(zone) * zone", ["[N] and [N, 2] do not fit"]),
        ("return norm(action - zone)", ["[N, 3] and [N, 2] do not fit"]),
        ("return success and holding", ["use (a < b) & (c < d)"]),
        ("return not success", ["use ~"]),
        ("return 1 if success else 0", ["use where("]),
        ("if success:\n  return 1.0\nreturn 0.0", ["use where("]),
        ("return zone[:, 0] < 1 & success", ["in parentheses"]),
        ("return zone @ object", ["mix robots", "dot(a, b)"]),
        ("zone = 1\nreturn zone", ["'zone' is taken"]),
        ("return 1 / 0", ["not finite"]),
        ("x = norm(zone)", ["end with a return"]),
        (
            "return torch.max(zone)",
            ["line 2", "max would mix robots: use amax(x, dim=-1) or max(x, y)"],
        ),
        ("return torch.amin(zone)", ["amin would mix robots", "dim=-1"]),
        ("return zone.any()", ["any would mix robots"]),
        ("return zone.unsqueeze(0)", ["unsqueeze would mix robots"]),
        ("return F.normalize(zone, dim=0)", ["normalize would mix robots"]),
        ("return torch.sum(zone, dims=-1)", ["torch.sum() takes x, dim, keepdim", "not 'dims'"]),
        ("return norm(zone, dim=-1, axis=1)", ["norm() takes", "each once, not 'axis'"]),
        ("return exp(success, out=zone)", ["exp() takes", "not 'out'"]),
        ("return atan2(success)", ["atan2() takes x, y", "y missing"]),
        ("return exp(success, device=open('x'))", ["device=open('x') is no device"]),
        ("return success.to(dtype=torch.quint8)", ["dtype=torch.quint8 is no dtype"]),
        ("d = zone.device\nreturn success * d", ["'d' can be passed on, but is no value"]),
        ("return success / zone.shape[0]", ["attribute '.shape' is not allowed"]),
        ("p = {'a': success}\nreturn p['b']", ["line 3", "the components are a here"]),
        ("zone[:, 0] = 1\nreturn success", ["line 2", "one's own dict"]),
        ("x = zone\nx[:, 0] = 1\nreturn success", ["line 3", "y.clone()"]),
        ("x = zone * 2\ny = x[:, 0]\nx[:, 0] = 1\nreturn y", ["line 4", "x = y.clone()"]),
        ("x = zone * 2\ny = x\nx[:, 0] = 1\nreturn norm(y)", ["line 4", "x = y.clone()"]),
        ("x = y = zone * 2\nx[:, 0] = 1\nreturn norm(y)", ["line 3", "x = y.clone()"]),
        ("x = zone * 2\np = {'a': x}\nx[:, 0] = 1\nreturn norm(x)", ["line 4", "y.clone()"]),
        ("p = {}\nx = zone * 2\np['a'] = x\nx[:, 0] = 1\nreturn norm(x)", ["line 5", "y.clone()"]),
        ("x = zone * 2\nfor y in (x,):\n  x[:, 0] = 1\nreturn norm(x)", ["line 4", "y.clone()"]),
        ("x = zone\nx += zone\nx[:, 0] = 1\nreturn norm(x)", ["line 4", "y.clone()"]),
        ("x = zone * 2\nx[:, 0] = zone\nreturn norm(x)", ["line 3", "one number per robot"]),
        ("x = zone * 2\nx[:, :2] = 1\nreturn norm(x)", ["line 3", "one column at a time"]),
        ("p = {'a': success}\np['a'] += 1\nreturn success, p", ["line 3", "only names"]),
        ("zone['a'] = 1\nreturn 1", ["line 2", "one's own dict"]),
        ("p = {}\np['a b'] = 1\nreturn 1, p", ["line 3", "names of letters"]),
        ("return norm(zone, p=1)", ["p=2"]),
        ("for i in range(3):\n  pass\nreturn 1", ["literal tuple of at most 8"]),
    ],
)
def test_refusals_say_what_to_do(body, words):
    lines = "\n".join("  " + line for line in body.split("\n"))
    refused(f"def compute_reward():\n{lines}", *words)


BODIES = r"""
().__class__.__bases__[0].__subclasses__()
zone.__class__
zone.data
zone.numpy()
zone.__array__()
zone.T.sum(dim=-1)
zone.shape[0]
zone.grad
zone.storage()
zone.tolist()
zone.register_hook(print)
zone.apply_(exp)
torch.load('x')
torch.ops.aten
torch.hub.load('a', 'b')
torch.save(zone, 'x')
torch.utils.cpp_extension.load_inline('x', 'y')
torch.linalg.norm.__globals__
np.ctypeslib.load_library('x', 'y')
np.fromfile('x')
np.lib.npyio
math.__loader__
math.inf
F.__builtins__
getattr(zone, 'data')
setattr(zone, 'data', 0)
eval('1')
exec('1')
compile('1', '', 'eval')
open('/etc/passwd')
__import__('os').system('true')
print(1)
input()
globals()
vars()
locals()
type(zone)
breakpoint()
help()
exit()
__builtins__
__name__
_x
norm
torch
compute_reward
[x for x in (1, 2)]
{x for x in (1, 2)}
{x: 1 for x in (1, 2)}
sum(x for x in (1, 2))
(lambda: 1)()
lambda x=zone: x
f'{zone}'
f'{zone.__class__}'
'{0.__class__}'.format(zone)
'%s' % zone
'a' * 10**9
'a' + 'b'
b'a'
1j
...
None
(x := 1)
zone[::10**9]
zone[:, ::10**9]
zone[:, 10**9]
zone[:, 0:0]
zone[:, zone]
zone[:, None]
zone[:, None, None]
zone[()]
zone[:]
where(zone[:, :1] < 1, zone, action)
zone[:, [0, 1]]
zone[success]
9**9**9**9
2.0**1e9
1e400
10**400
(-8)**0.5
1e39 * success
zeros((10**6, 10**6))
zeros(10**9)
ones(len(zone), 10**9)
full((success,), 1)
tensor([zone])
tensor([])
cat([zone] * 10**9, dim=-1)
stack(zone, dim=-1)
success, dict(zone)
success, dict(**zone)
success, dict(a=success, **{'b': success})
success, {}['a']
sum([])
sum(zone.values())
max(zone.values())
sum(range(10**30))
zone.max().values
norm(zone, dim=-1).values
norm(zone, dim=-1)[0]
norm(zone, p=open('x'), dim=-1)
norm(zone, dim=-1, keepdim=2)
clamp(success, min=open('x'))
success.to(device=open('x'))
success.to(torch.load)
success.to(zone)
success.squeeze(0)
success.view(10**9, 1)
torch.device('cuda')
torch.device(open('x'))
len(zone)
zone.size(0)
zone.repeat(10**9)
zone.expand(10, 10)
zone.view(-1)
torch.cdist(zone, zone)
zone @ zone.T
zone[:, None] - zone
torch.sum(zone)[0]
sum(norm(zone))
success.mean()
norm(norm(zone), dim=0)
norm(zone, dim=0)
norm(*zone)
norm(**zone)
norm(zone, nonsense=1)
norm(zone, 2, -1, False, None, None, 1)
norm()
norm(zone, x=zone)
where(True, 1, 2)
where(success, 1)
tensor([1.0] * 10**8)
tensor(zone)
clamp(zone, 'a')
zone.to('cuda')
zone.to(device='cuda')
zone.type('torch.cuda.FloatTensor')
zone is None
1 in (1, 2)
zone == None
*zone
(zone, zone, zone)
[zone, zone]
{'a': success}
'text'
success, 3
success, {1: success}
success, {'a b': success}
success, {'': success}
success, {'__class__': success}
success, {'a': success, 'a': success}
success, {'a': zone}
success, {**zone}
success, {'a' * 9: success}
success, {'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa': success}
success, {f'{zone}': success}
success, {'a': log(success - 2)}
log(success - 2)
0 / (success - success)
where(zone[:, 0] > -1, log(success - 2), 0.0)
(yield)
(yield from zone)
(await zone)
success // 2
success << 2
success >> 2
success ^ success
~norm(zone)
-(success,)
zone(1)
success()()
'abc'[0]
compute_reward()
""".strip().splitlines()
STATEMENTS = r"""
x: __import__('os').system('true') = 1
x.y = 1
zone[0] = 1
zone.data = 0
zone += 1
*x, y = (1, 2)
x, y = zone
x, y = 1, 2, 3
(x, (y, z)) = (1, (2, 3))
norm: int
del zone
assert zone
raise ValueError
import os
import torch as os
import torch, os
from os import *
from typing import *
from torch import load
from torch import norm, load
from torch import nn as os
from torch.hub import load
from torch.nn import functional as os
from numpy import fromfile
import torch, math, os
import torch.hub
import torch.nn.functional as torch
device = open('x').device
device = torch.device(open('x'))
device = zone.device.type
x = zone * 2\nx[:, 0:1, 0] = 1
x = zone * 2\nx[:, 9] = 1
x = zone * 2\nx[success] = 1
x = success * 2\nx[:, 0] = 1
x = tensor([1, 2])\nx[0] = 1
from . import x
from __future__ import annotations
global zone
nonlocal zone
while True: pass
with zone: pass
try: pass\nexcept: pass
try: pass\nfinally: pass
class A: pass
def f(): return 1
async def f(): pass
async for x in zone: pass
async with zone: pass
match zone:\n  case _: pass
if zone: pass
return success
for x in zone: pass
for x in (zone for y in zone): pass
for x in 'aaaaaaaaa': pass
for x in (1, 2): return success
for x in (1, 2): break
for x in (1, 2): pass\nelse: pass
for zone in (1, 2): pass
for x in (1, 2, 3, 4, 5, 6, 7, 8, 9): pass
for x in (): pass
for x.y in (1, 2): pass
norm(zone)
print('x')
zone
lambda: zone
torch = 3
_ = 1
__x = 1
x = y = z = nothing
exec = exec
type X = int
x = 1 if 1 else 2
zone['a'] = 1
x = norm(zone)\nx['a'] = 1
x = 3\nx['a'] = 1
nothing['a'] = 1
norm['a'] = 1
torch['a'] = 1
p['a'] = 1\np = {}
p = {}\np.a = 1
p = {}\np['a'].b = 1
p = {}\np.a['a'] = 1
p = {}\np['a']['b'] = 1
p = {'a': success}\np['a'][0] = 1
p = {}\np[success] = 1
p = {}\np[0] = 1
p = {}\np[b'a'] = 1
p = {}\np[None] = 1
p = {}\np[:] = 1
p = {}\np['a':] = 1
p = {}\np['a', 'b'] = 1
p = {}\np['a',] = 1
p = {}\np[*'a'] = 1
p = {}\n*p['a'], x = (1, 2)
p = {}\n*p['a'] = 1
p = {}\n(p['a'],) = (1,)
p = {}\np['a'], p['b'] = 1, 2
p = {}\np['a' + 'b'] = 1
p = {}\np['a' * 9] = 1
p = {}\np[f'a'] = 1
p = {}\np['a'.upper()] = 1
p = {}\np[(k := 'a')] = 1
p = {}\n(p['a'] := 1)
p = {}\np[''] = 1
p = {}\np['_a'] = 1
p = {}\np['__class__'] = 1
p = {}\np['a b'] = 1
p = {}\np['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'] = 1
p = {}\np['\u00e9'] = 1
p = {}\np['a'] += 1
p = {}\np['a']: float
p = {'a': success}\np['a'] += 1
p = {'a': success}\ndel p['a']
p = {}\nx = p['a'] = 1
p = {}\np['a'] = p['b'] = 1
p = {}\np['a'] = p
p = {}\np['a'] = {}
p = {}\np['a'] = {'b': success}
p = {}\np['a'] = 'text'
p = {}\np['a'] = success, success
p = {}\np['a'] = open('x')
p = {}\np['a'] = (yield)
p = {}\nq = p\nq['a'] = 1
p = {}\nq = p\np['a'] = 1
p = {}\nq, r = p, 1\np['a'] = 1
p = q = {}\np['a'] = 1
p = {}\nfor q in (p,):\n  q['a'] = 1
p = {}\nfor p['a'] in (1, 2): pass
p = {}\nfor k in ('a', 'b'): p[k] = 1
p = {}\nfor k, x in (('a', 1),): p[k] = x
p = [1]\np['a'] = 1
p = {}\n{}['a'] = 1
p = {}\n(p if 1 else p)['a'] = 1
p = {}\np.update({'a': 1})
p = {}\np |= {'a': 1}
""".strip().splitlines()
MAIN = "def compute_reward(gripper):\n  return norm(gripper)\n"
MODULES = {
    "none": None,
    "int": 3,
    "bytes": MAIN.encode(),
    "list": [MAIN],
    "empty": "",
    "blank": "   \n",
    "null byte inside": MAIN.replace("norm", "no\0rm"),
    "surrogate": MAIN.replace("norm", "\ud800"),
    "surrogate name": MAIN.replace("gripper", "\udfff"),
    "homoglyph": MAIN.replace("norm", "n\u043erm"),
    "full width": MAIN.replace("norm", "\uff4eorm"),
    "full width eval": MAIN.replace("norm(gripper)", "\uff45val('1')"),
    "line separator": MAIN.replace("norm", "a\u2028b"),
    "long name": MAIN.replace("norm", "x" * 5000),
    "newline in error": MAIN.replace("norm(gripper)", "'''a\nb'''"),
    "10 KB": MAIN + "#" * 10_000,
    "10 KB code": MAIN + "x = 1\n" * 1700,
    "70 KB": "x" * 70_000 + MAIN,
    "64 KB of thoughts": "<think>" * 9000 + MAIN,
    "64 KB of ends": MAIN + "</think>" * 8000,
    "64 KB of fences": "```\n~~~\n" * 8000 + "x",
    "64 KB of lines": "def compute_reward(\n" * 3000,
    "64 KB of statements": "a\n" * 30_000 + MAIN,
    "64 KB of comments": "# x\n" * 15_000 + MAIN,
    "64 KB of spaces": " " * 60_000 + "\n" + "def compute_reward",
    "nodes": "def compute_reward():\n" + "  x = 1\n" * 140 + "  return 1",
    "parentheses": MAIN.replace("norm", "(" * 4000),
    "brackets": "def compute_reward(): return " + "[" * 4000,
    "minus": "def compute_reward(): return " + "-" * 8000 + "1",
    "not": "def compute_reward(): return " + "not " * 1900 + "1",
    "plus": "def compute_reward(): return 1" + " + 1" * 1900,
    "depth": "def compute_reward(): return " + "-" * 28 + "1",
    "power": "def compute_reward(): return 1" + "**9" * 2000,
    "attributes": "def compute_reward(): return zone" + ".x" * 3000,
    "calls": "def compute_reward(): return zone" + "()" * 3000,
    "lambdas": "def compute_reward(): return " + "lambda: " * 900 + "1",
    "digits": "def compute_reward(): return " + "9" * 8000,
    "indents": "def compute_reward():\n" + "".join(" " * i + "if 1:\n" for i in range(1, 110)),
    "loops": "def compute_reward():\n  x = 1.0\n"
    + "".join(" " * (2 + i) + f"for a{i} in (1,2,3,4,5,6,7,8):\n" for i in range(4))
    + "       x = x * 1.0\n  return x",
    "helper bomb": "\n".join(
        f"def f{i}(x): return f{i + 1}(x) + f{i + 1}(x) + f{i + 1}(x)" for i in range(7)
    )
    + "\ndef f7(x): return x\ndef compute_reward(): return f0(success)",
    "recursion": "def f(x): return f(x)\ndef compute_reward(): return f(1)",
    "mutual": "def f(x): return g(x)\ndef g(x): return f(x)\ndef compute_reward(): return f(1)",
    "self": "def compute_reward(): return compute_reward()",
    "twice": MAIN + MAIN,
    "helper twice": "def f(): return 1\ndef f(): return 2\n" + MAIN,
    "shadow field": "def zone(x): return 0\n" + MAIN,
    "shadow torch": "def torch(x): return 0\n" + MAIN,
    "call of a variable": "def compute_reward():\n  abs = 3\n  return abs(success)",
    "default": "def compute_reward(gripper=3): return norm(gripper)",
    "hostile default": "def compute_reward(x=open('x')): return 1.0",
    "helper default": "def f(a=1): return a\n" + MAIN,
    "columns of an argument": "def f(x):\n  x[:, 0] = 1\n  return x\n"
    "def compute_reward():\n  x = zone * 2\n  return norm(f(x)) + norm(x)",
    "args": "def compute_reward(*args): return 1.0",
    "kwargs": "def compute_reward(**kwargs): return 1.0",
    "keyword only": "def compute_reward(*, gripper): return 1.0",
    "positional only": "def compute_reward(gripper, /): return 1.0",
    "unknown parameter": "def compute_reward(self, gripper): return 1.0",
    "decorator": "@staticmethod\n" + MAIN,
    "decorator call": "@torch.jit.script(open('x'))\n" + MAIN,
    "async": "async " + MAIN,
    "doubling": "def compute_reward():\n  x = success\n" + "  x = x + x\n" * 60 + "  return x",
    "cookie": "# -*- coding: utf-7 -*-\n" + MAIN.replace("norm", "+AGU-val"),
    "top level helper": "def f(x): return x\ny = f(success)\n" + MAIN,
    "top level main": MAIN + "y = compute_reward(success)",
    "64 KB of tildes": "~" * 65_000,
    "64 KB of ticks": "`" * 65_000,
    "64 KB of indents": MAIN + " " * 60_000 + "~~~",
    "precedence": "def compute_reward(): return holding & zone[:, 0] < 0.5",
    "class": "class A:\n  def compute_reward(gripper): return 1.0",
    "lambda": "compute_reward = lambda gripper: 1.0",
    "nested": "def f():\n  def compute_reward(): return 1\n  return 1",
    "type parameters": "def compute_reward[T](gripper): return norm(gripper)",
    "annotation": "def compute_reward(gripper: open('x')): return norm(gripper)",
    "return annotation": MAIN.replace("):", ") -> exec('1'):", 1),
    "import": "import os\n" + MAIN,
    "top level call": MAIN + "print(compute_reward)",
    "top level loop": "while True: pass\n" + MAIN,
    "top level tensor": "x = success\n" + MAIN,
    "top level return": "return 1\n" + MAIN,
    "only a string": "'''\ndef compute_reward(): return 1\n'''",
    "no body": "def compute_reward(gripper):",
    "pass": "def compute_reward(gripper): pass",
    "bare return": "def compute_reward(gripper): return",
    "unfinished thought": "<think>" + MAIN,
    "missing argument": "def f(a, b): return a\ndef compute_reward(): return f(1)",
    "huge number": "def compute_reward(): return 0x" + "f" * 400,
    "warnings": "def compute_reward(): return 1 is '\\d'",
    "bad escape": "def compute_reward(): return '\\N{nothing}'",
    "helper's item": "def f(p):\n  p['a'] = 1\n  return 1\n"
    "def compute_reward():\n  p = {}\n  return f(p), p",
    "item of the caller": "def f(x):\n  p['a'] = x\n  return x\n"
    "def compute_reward():\n  p = {}\n  return f(success), p",
    "dict of a helper": "def f():\n  p = {}\n  return p\n"
    "def compute_reward():\n  p = f()\n  p['a'] = 1\n  return 1, p",
    "dict at the top": "p = {}\np['a'] = 1\ndef compute_reward():\n  return success, p",
    "item of the top": "p = {}\ndef compute_reward():\n  p['a'] = success\n  return success, p",
    "vector item": "def compute_reward():\n  p = {}\n  p['a'] = zone\n  return 1, p",
    "infinite item": "def compute_reward():\n  p = {}\n  p['a'] = log(success - 2)\n  return 1, p",
    "13 items": "def compute_reward():\n  p = {}\n"
    + "".join(f"  p['a{i}'] = success\n" for i in range(13))
    + "  return success, p",
    "huge key": "def compute_reward():\n  p = {}\n  p['" + "a" * 7000 + "'] = 1\n  return 1, p",
    "endless items": "def compute_reward():\n  p = {}\n" + "  p['a'] = 1\n" * 80 + "  return 1, p",
    "13 components": "def compute_reward(): return success, {"
    + ", ".join(f"'a{i}': success" for i in range(13))
    + "}",
}
HOSTILE = [f"def compute_reward():\n  return {body}" for body in BODIES]
HOSTILE += [
    "def compute_reward():\n  " + line.replace("\\n", "\n  ") + "\n  return success"
    for line in STATEMENTS
]


@pytest.mark.parametrize("source", [*HOSTILE, *MODULES.values()], ids=lambda x: ascii(x)[:60])
def test_hostile_programs_are_refused_in_one_line_and_at_once(source):
    refused(source)


def test_limits_are_exact():
    def sized(nodes: int) -> str:  # module, function, arguments, return and number; pass
        return "def compute_reward():\n" + "  pass\n" * (nodes - 5) + "  return 1"

    compile_reward(sized(400), FIELDS)
    refused(sized(401), "400")
    compile_reward(MAIN + "#" * (8192 - len(MAIN)), FIELDS)
    refused(MAIN + "#" * (8193 - len(MAIN)), "8192")


def test_wide_or_missing_fields_are_out_of_reach():
    image = {"image": (3, 8, 8), "wide": (9,), "zone": (8,)}
    refused("def compute_reward(image): return 1.0", "unknown field 'image'", "zone", fields=image)
    refused("def compute_reward(): return norm(wide)", "unknown field 'wide'", fields=image)
    refused("def compute_reward(): return 1.0", "needs a field", fields={})
    compile_reward("def compute_reward(): return norm(zone)", image)


# Fuzzing

CORPUS = [extract(x) for x in (EUREKA, TEXT2REWARD, OLD_BLOCK, ITEMS, UNTERMINATED)]
CORPUS += [extract(x) for x in FORMS.values()]
CORPUS += [f"def compute_reward():\n    return {x}" for x in EXPRESSIONS]


def tokens(source: str) -> list[str]:
    try:
        return [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline)]
    except (tokenize.TokenError, SyntaxError):
        return source.split(" ")


WORDS = sorted({t for source in CORPUS for t in tokens(source) if t.strip()})


DOORS = [(builtins, name) for name in ("open", "exec", "eval", "print", "input", "__import__")]
DOORS += [(os, name) for name in ("system", "popen", "remove", "fork", "open")]
DOORS += [(subprocess, "Popen"), (torch, "load"), (torch, "save")]


@contextmanager
def closed_doors() -> Iterator[None]:
    """Whatever a program could do harm with is replaced by a canary that must stay silent."""
    called: list[str] = []
    originals = [getattr(owner, name) for owner, name in DOORS]
    own = re.compile(r"torch|_?warnings|unicodedata|encodings|codecs|re|ast")
    importer = builtins.__import__

    def canary(door: str, *args, **options):
        if door == "__import__" and own.match(args[0]):  # by torch and Python themselves
            return importer(*args, **options)
        called.append(f"{door}{args}")
        raise SystemError(door)

    for owner, name in DOORS:
        setattr(owner, name, partial(canary, name))
    try:
        yield
    finally:
        for (owner, name), original in zip(DOORS, originals, strict=True):
            setattr(owner, name, original)
        assert called == []


def attempt(source: object, values: dict[str, torch.Tensor]) -> tuple | str:
    """The program and its results, or the line with which it was refused."""
    with closed_doors():
        try:
            program = compile_reward(source, FIELDS)
            return program, *program(values)
        except ProgramError as error:
            return str(error)


def survives(source: str) -> None:
    """Either refused, or a program of which every promise holds."""
    values, other = robots(4), robots(4, seed=1)
    result = attempt(source, values)
    if isinstance(result, str):
        assert result.isprintable()
        return
    program, total, parts = result
    assert list(parts) == list(program.components)
    for x in (total, *parts.values()):
        assert x.shape == (4,)
        assert x.dtype == torch.float32
        assert x.isfinite().all()
    flipped, _ = program({k: x.flip(0) for k, x in values.items()})
    torch.testing.assert_close(flipped.flip(0), total)
    with suppress(ProgramError):  # the other robots may be out of a logarithm's range
        mixed, _ = program({k: torch.cat([other[k][:2], x[2:]]) for k, x in values.items()})
        torch.testing.assert_close(mixed[2:], total[2:])
    assert isinstance(attempt(program.source, values), tuple)


def test_hostile_programs_call_nothing():
    for source in [*HOSTILE, *MODULES.values()]:
        assert isinstance(attempt(source, robots()), str)


@settings(FUZZ, max_examples=150)
@given(st.text(max_size=60), st.text(max_size=60))
def test_fuzz_text(before, inside):
    survives(before)
    survives(f"{before}\ndef compute_reward(gripper):\n    {inside}\n    return norm(gripper)")


@settings(FUZZ, max_examples=400)
@given(st.sampled_from(CORPUS), st.integers(0, 2**32), st.integers(1, 2))
def test_fuzz_mutations(source, seed, changes):
    rng = random.Random(seed)
    lines = source.split("\n")
    for _ in range(changes):
        row = rng.randrange(len(lines))
        parts = [x for x in tokens(lines[row].strip()) if x.strip()]
        if not parts:
            continue
        indent = lines[row][: len(lines[row]) - len(lines[row].lstrip())]
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(5)
        if kind == 0:
            del parts[i]
        elif kind == 1:
            parts.insert(j, parts[i])
        elif kind == 2:
            parts[i], parts[j] = parts[j], parts[i]
        elif kind == 3:
            like = [w for w in WORDS if w[0].isalpha() == parts[i][0].isalpha()]
            parts[i] = rng.choice(like)
        else:
            lines.insert(rng.randrange(len(lines)), lines[row])
            continue
        lines[row] = indent + " ".join(parts)
    survives("\n".join(lines))


LEAVES = st.sampled_from(
    ["success", "holding", "zone", "gripper", "object", "action", "0.5", "(2)", "(-1)", "True", "x"]
)


def larger(child: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.sampled_from(["norm", "exp", "tanh", "sum", "sqrt", "abs", "log", "float", "~", "-"])
    two = "+ - * / ** % < <= == & | @ and".split()  # noqa: SIM905
    functions = st.sampled_from(["distance", "dot", "min", "maximum", "pow", "hypot", "clamp"])
    return st.one_of(
        st.builds("{}({})".format, one, child),
        st.builds("({} {} {})".format, child, st.sampled_from(two), child),
        st.builds("{}({}, {})".format, functions, child, child),
        st.builds("where({}, {}, {})".format, child, child, child),
        st.builds("{}[{}]".format, child, st.sampled_from([":, 0", ":, :2", "..., 1", "0"])),
        st.builds("{}.{}".format, child, st.sampled_from(["sum(dim=-1)", "norm(dim=0)", "bool()"])),
    )


@settings(FUZZ, max_examples=400)
@given(st.lists(st.recursive(LEAVES, larger, max_leaves=10), min_size=1, max_size=4))
def test_fuzz_trees(expressions):
    *first, last = [ast.unparse(ast.parse(e.replace("\n", ""))) for e in expressions]
    lines = "".join(f"    x = {line}\n" for line in first)
    survives(f"def compute_reward():\n    x = 1.0\n{lines}    return {last}")
