"""The tasks of the lab, as data: what is on the table, what counts as success, what to say.

Lengths are in table units: the table is the square [-1, 1] x [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._validate import one_of

OBJECT_RADIUS = 0.10
GRASP_RADIUS = 0.13  # two pixels of a 32 px image; also where closed fingers touch a disc
BUTTON_RADIUS = 0.13
REACH_RADIUS = 0.12
PLACE_RADIUS = 0.15
CLEARANCE = 0.10  # the gripper and the discs keep this distance from walls and table edges

COLORS = ("blue", "orange", "green", "red", "pink", "cyan")

Box = tuple[float, float, float, float]  # x low, x high, y low, y high


@dataclass(frozen=True)
class Disc:
    """A fixed disc on the table: an obstacle that ends the episode or a hazard that costs."""

    center: Box  # where its centre is drawn from
    radius: float


@dataclass(frozen=True)
class Task:
    """One task of the lab.

    Success is the only sparse reward: with objects, each object i lies within `PLACE_RADIUS` of
    zone i and is not held; without, the gripper is within `REACH_RADIUS` of zone 0.
    """

    name: str
    summary: str
    instructions: tuple[str, ...]
    paraphrases: tuple[str, ...]  # held out: used only under `Shift(paraphrase=True)`
    horizon: int
    objects: int = 0
    zones: int = 1
    graspable: bool = True
    button: bool = False  # pressing it opens the walls for the rest of the episode
    walls: tuple[Box, ...] = ()
    obstacle: Disc | None = None
    hazard: Disc | None = None
    max_step: float = 0.12  # table units per step and axis at a full action
    gamma: float = 0.98  # discount of the task, a learner's default
    gripper_area: Box = (-0.85, 0.85, -0.85, 0.85)
    mirrored_start: bool = False  # the gripper's x is mirrored on half of the episodes
    object_area: Box = (-0.8, 0.8, -0.8, 0.8)
    zone_area: Box = (-0.8, 0.8, -0.8, 0.8)
    button_area: Box = (-0.8, 0.8, -0.8, 0.8)
    same_color: bool = False  # zone i has the colour of object i

    @property
    def env_id(self) -> str:
        """The Gymnasium id."""
        return f"Tabletop/{self.name}-v0"


_TASKS = (
    Task(
        "Reach",
        "move the gripper to the zone",
        ("move to the {zone} zone", "reach the {zone} zone"),
        ("go over to the area in {zone}", "bring the gripper to the {zone} area"),
        horizon=30,
    ),
    Task(
        "Push",
        "push the disc to the zone without grasping it",
        ("push the {object} disc to the {zone} zone", "shove the {object} disc to the {zone} zone"),
        ("nudge the {object} puck until it is on the {zone} area",),
        horizon=60,
        objects=1,
        graspable=False,
        object_area=(-0.6, 0.6, -0.6, 0.6),
        zone_area=(-0.6, 0.6, -0.6, 0.6),
    ),
    Task(
        "PickPlace",
        "grasp the disc and let go of it in the zone",
        ("put the {object} disc in the {zone} zone", "place the {object} disc on the {zone} zone"),
        ("carry the {object} puck over to the {zone} area", "the {object} puck goes to {zone}"),
        horizon=40,
        objects=1,
    ),
    Task(
        "Sort",
        "bring two discs, each to the zone of its own colour",
        ("sort the discs by colour", "put each disc in the zone of its colour"),
        ("every puck belongs on the area that matches it",),
        horizon=80,
        objects=2,
        zones=2,
        same_color=True,
    ),
    Task(
        "PressThenPlace",
        "press the button, which opens the gate, then place the disc behind it",
        ("press the button, then put the {object} disc in the {zone} zone",),
        ("open the gate and carry the {object} puck to the {zone} area",),
        horizon=80,
        objects=1,
        button=True,
        walls=((0.2, 0.28, -1.0, 1.0),),
        gripper_area=(-0.85, 0.0, -0.85, 0.85),
        object_area=(-0.8, 0.0, -0.8, 0.8),
        zone_area=(0.5, 0.8, -0.8, 0.8),
        button_area=(-0.8, 0.0, -0.8, 0.8),
    ),
    Task(
        "AroundObstacle",
        "reach the zone behind the obstacle; touching the obstacle ends the episode in failure",
        ("go around the obstacle to the {zone} zone",),
        ("get past the pillar to the {zone} area without touching it",),
        horizon=32,
        obstacle=Disc((0.0, 0.0, 0.0, 0.0), 0.40),
        gripper_area=(0.20, 0.30, -0.85, -0.85),
        mirrored_start=True,
        zone_area=(0.0, 0.0, 0.8, 0.8),
    ),
    Task(
        "PastHazard",
        "reach the zone; every step inside the hazard costs 1",
        ("reach the {zone} zone, keep out of the hazard",),
        ("head for the {zone} area and stay clear of the danger",),
        horizon=32,
        hazard=Disc((-0.2, 0.2, -0.1, 0.1), 0.40),
        gripper_area=(-0.3, 0.3, -0.85, -0.75),
        zone_area=(-0.3, 0.3, 0.75, 0.8),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def get_task(task: str | Task) -> Task:
    """Look a task up by name ("PickPlace") or Gymnasium id ("Tabletop/PickPlace-v0").

    Raises:
        ValueError: unknown name, or a "Dense" id, which names a reward as well.
    """
    if isinstance(task, Task):
        return task
    name = task.removeprefix("Tabletop/").removesuffix("-v0") if isinstance(task, str) else task
    if isinstance(name, str) and (plain := name.removesuffix("Dense")) in TASKS and plain != name:
        raise ValueError(f'{task!r} is for gymnasium.make: here take {plain!r}, reward="oracle".')
    return TASKS[one_of(name, TASKS, "task")]


@dataclass(frozen=True)
class Shift:
    """A difference between training and test. The default is no shift.

    Args:
        rotation: actions are rotated by this angle, in radians.
        gain: actions are multiplied by this factor.
        wind: constant drift, in units of a full action.
        inward: drift towards the centre line x = 0, in units of a full action.
        slip: probability per step that the fingers lose (or miss) a disc.
        dim: 0 to 1, how far all colours move towards grey.
        camera: offset of the camera, in table units.
        pairs: "all", "seen" or "unseen" colours for the task: one pair of colours in six is unseen.
        paraphrase: use the held-out instruction templates.
    """

    rotation: float = 0.0
    gain: float = 1.0
    wind: tuple[float, float] = (0.0, 0.0)
    inward: float = 0.0
    slip: float = 0.0
    dim: float = 0.0
    camera: tuple[float, float] = (0.0, 0.0)
    pairs: str = "all"
    paraphrase: bool = False

    def __post_init__(self) -> None:
        one_of(self.pairs, ("all", "seen", "unseen"), "value of pairs")
        for name in ("wind", "camera"):
            if isinstance(value := getattr(self, name), list):  # as JSON has it
                object.__setattr__(self, name, tuple(value))
        for name in ("rotation", "wind", "inward", "camera"):
            value = getattr(self, name)
            if not all(map(math.isfinite, value if hasattr(value, "__len__") else [value])):
                raise ValueError(f"{name} must be finite, not {value!r}.")
        for name in ("slip", "dim"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}.")
        if not 0 < self.gain <= 1.5:  # above it a step could jump through a wall
            raise ValueError(f"gain must be above 0 and at most 1.5, not {self.gain!r}.")

    @property
    def moves(self) -> bool:
        """Whether the shift changes how actions move the gripper."""
        return (self.rotation, self.gain, self.wind, self.inward) != (0.0, 1.0, (0.0, 0.0), 0.0)
