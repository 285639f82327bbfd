"""The small vision-language-action policy: supervised training and reinforcement learning."""

from __future__ import annotations

import time

import torch
from common import Row

from tutorial_utils.learning import vla_rl
from tutorial_utils.models import vla, vla_training
from tutorial_utils.tabletop import COLORS, TASKS

TASK, CAMERA = "AroundObstacle", 32
STEPS, SECONDS = 750, 60  # supervised steps of a policy, and the target
RATE = 3_000  # environment steps/s, rendering and gradient steps included


def supervised_seconds(policy: vla.VLA, texts: list[str], steps: int) -> float:
    """Seconds of supervised training; what the examples show makes no difference to it."""
    n, dice = 500, torch.Generator().manual_seed(0)
    image = torch.randint(256, (n, CAMERA, CAMERA, 3), generator=dice).byte()
    tokens = torch.randint(policy.bins, (n, 3 * policy.length), generator=dice)
    words = policy.vocabulary.encode([texts[i % len(texts)] for i in range(n)])
    data = vla_training.Examples(image, words, tokens, torch.zeros(n, dtype=torch.long))
    start = time.perf_counter()
    vla_training.fit(policy, data, steps, progress=False)
    return time.perf_counter() - start


def rows(quick: bool = False) -> tuple[list[Row], list[str]]:
    """The figure, and a line to print below the table."""
    texts = [t.format(zone=color) for t in TASKS[TASK].instructions for color in COLORS]
    policy = vla.VLA(vla.Vocabulary(texts), [0], CAMERA)
    run = vla_rl.fine_tune(
        policy, TASK, 1 if quick else 20, vla_rl.RLConfig(dynamic=False), progress=False
    )
    what = f"VLA, GRPO at {CAMERA} px, gradient steps of all groups included"
    row = Row(what, run.steps[-1] / run.seconds[-1], "env steps/s", least=RATE)
    steps = 5 if quick else STEPS
    spent = supervised_seconds(policy, texts, steps)
    met = "met" if spent < SECONDS else "missed"
    note = f"- VLA, {steps} supervised steps of 128 images: {spent:.0f} s"
    return [row], [note + ("." if quick else f" (target: under {SECONDS} s, {met}).")]
