"""How long and how hard a film is: the ladder L0 … L5 and the settings of one film."""

from __future__ import annotations

import dataclasses

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.media.filmstrip.attributes import balanced, split_of

TASKS = ("N1", "NH", "OR", "CO", "MO", "DE", "TG", "AB")
MAX_HOPS = 4
MAX_TRAINING_HOPS = 3
# What training shows, and with it what else there is; frames that one of a kind takes.
MOTION_KINDS = ("direction", "turn")
MOTION_FRAMES = {"direction": 6, "turn": 6, "bounce": 12, "speed": 8, "path": 7}
HAPPENINGS = ("flash", "ring", "curtain")
HAPPENING_FRAMES = {"flash": 1, "ring": 1, "curtain": 1, "split": 3, "entry": 3, "rotation": 3}
NUM_KINDS_TO_COUNT = 3
MAX_CARDS = 120
MAX_POSTER_SIDE, MAX_TILES_SIDE = 6, 3
KNOWN: dict[str, tuple[str, ...]] = {
    "tasks": TASKS,
    "motion_kinds": tuple(MOTION_FRAMES),
    "happening_kinds": tuple(HAPPENING_FRAMES),
    "pointers": ("pictures", "codes"),
    "poster": ("letters", "tiles"),
    "style": ("plain", "rich"),
    "sets": ("waves", "voronoi"),
}
# Settings that hold several names, with how many at least; and numbers that need not be whole.
SEVERAL = {"tasks": 0, "motion_kinds": 1, "happening_kinds": 1}
FRACTIONAL = ("fps", "needle_s", "needle_size", "detail_px", "depth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One rung: how many frames, how long and large a needle is, and how much surrounds it.

    needle_size: share of the picture's area. detail_px: height of a letter of a poster in a picture of 128 pixels.
    hops: fewest and most pictures to follow in a chain of cards.
    """

    num_frames: int
    fps: float
    needle_s: float
    needle_size: float
    num_extras: int
    hops: tuple[int, int]
    detail_px: float
    num_cards: int
    num_kinds_to_count: int = NUM_KINDS_TO_COUNT
    num_motions: int = 1


LADDER = {
    "L0": Level(num_frames=16, fps=1.0, needle_s=4.0, needle_size=0.60, num_extras=0, hops=(1, 1), detail_px=18.0,
                num_cards=3, num_kinds_to_count=1),
    "L1": Level(num_frames=64, fps=1.0, needle_s=4.0, needle_size=0.40, num_extras=2, hops=(1, 2), detail_px=14.0,
                num_cards=8, num_kinds_to_count=2),
    "L2": Level(num_frames=256, fps=1.0, needle_s=2.0, needle_size=0.40, num_extras=4, hops=(1, 2), detail_px=12.0,
                num_cards=24, num_motions=4),
    "L3": Level(num_frames=1024, fps=1.0, needle_s=2.0, needle_size=0.30, num_extras=4, hops=(1, 3), detail_px=10.0,
                num_cards=32, num_motions=8),
    "L4": Level(num_frames=4096, fps=2.0, needle_s=1.0, needle_size=0.25, num_extras=6, hops=(1, 4), detail_px=8.0,
                num_cards=48, num_motions=8),
    "L5": Level(num_frames=10_000, fps=2.0, needle_s=0.5, needle_size=0.20, num_extras=6, hops=(1, 4), detail_px=6.0,
                num_cards=64, num_motions=8),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmSpec(StrictConfig):
    """Everything a film follows from; equal settings give equal films, in every process.

    seed: chooses the split too (attributes.split_of). tasks: what is planted: cards (N1, NH, OR, TG, AB), counted
    events (CO), motions (MO), posters (DE). fps: frames a second of the film; one step of a motion is one frame at
    this rate. hops: pictures to follow in each of the four chains of NH. depth: where the first card stands, as a
    share of the film; None leaves it to chance. motion_kinds, happening_kinds: what MO and CO draw from (keys of
    MOTION_FRAMES and HAPPENING_FRAMES). pointers: what a card of a chain shows of the next one, a small picture or
    its code. poster: a grid of letters, or of coloured tiles with codes below. style: rich adds digits, papers,
    strokes and a slow zoom. sets: what is behind; Voronoi cells are for films that do not train. salt: set it for
    a hidden test.

    Raises: ConfigError if a value is out of its range, or if a seed asks for what is held out of its split.
    """

    seed: int
    tasks: tuple[str, ...] = ("N1",)
    level: str = "L1"
    num_frames: int = 64
    fps: float = 1.0
    needle_s: float = 4.0
    needle_size: float = 0.4
    num_extras: int = 2
    num_cards: int = 8
    hops: int = 1
    num_kinds_to_count: int = 2
    num_motions: int = 1
    motion_kinds: tuple[str, ...] = MOTION_KINDS
    happening_kinds: tuple[str, ...] = HAPPENINGS
    pointers: str = "pictures"
    poster: str = "letters"
    poster_side: int = 3
    style: str = "plain"
    sets: str = "waves"
    still_frames: int = 4
    detail_px: float = 14.0
    depth: float | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        for name, known in KNOWN.items():
            _check_names(name, getattr(self, name), known)
        ranges = {
            "seed": (0, 2**62), "num_frames": (1, 10**7), "fps": (0.01, 240.0), "needle_s": (0.0, 3600.0),
            "needle_size": (0.05, 0.8), "num_extras": (0, 32), "num_cards": (2, MAX_CARDS), "hops": (1, MAX_HOPS),
            "num_kinds_to_count": (1, NUM_KINDS_TO_COUNT), "num_motions": (1, 64),
            "still_frames": (1, 10**6), "detail_px": (3.0, 40.0), "depth": (0.0, 1.0),
            "poster_side": (1, MAX_TILES_SIDE if self.poster == "tiles" else MAX_POSTER_SIDE),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            _check_number(name, getattr(self, name), low, high)
        if self.hops > MAX_TRAINING_HOPS and split_of(self.seed) != "test":
            raise ConfigError(
                f"hops {self.hops} arrived with seed {self.seed}; expected at most {MAX_TRAINING_HOPS}, since longer "
                "chains are for the test split alone; choose fewer hops, or a seed of the test split"
            )
        if self.sets == "voronoi" and split_of(self.seed) == "train":
            raise ConfigError(
                f"sets 'voronoi' arrived with seed {self.seed}, which is for training; expected 'waves', since Voronoi "
                "sets are held out; choose a seed of the validation or test split"
            )

    @property
    def duration_s(self) -> float:
        """Length of the film in seconds."""
        return self.num_frames / self.fps


def _check_names(name: str, arrived: object, known: tuple[str, ...]) -> None:
    """Refuse names that are not known, and for the settings that hold several, what is no list of different ones."""
    several = name in SEVERAL
    if several and not (isinstance(arrived, tuple) and len(set(arrived)) == len(arrived) >= SEVERAL[name]):
        raise ConfigError(
            f"{name} is {arrived!r}; expected a tuple of different names, {SEVERAL[name]} of them or more, out of "
            f"{', '.join(known)}; write a lone one as ({known[0]!r},)"
        )
    for value in arrived if isinstance(arrived, tuple) else (arrived,):
        if value not in known:
            raise ConfigError(f"{name} has {value!r}; {nearest_name(str(value), list(known))}")


def _check_number(name: str, value: object, low: int | float, high: int | float) -> None:
    if name == "depth" and value is None:
        return
    kinds = (int, float) if name in FRACTIONAL else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a number" if name in FRACTIONAL else "a whole number"
        raise ConfigError(f"{name} is {value!r}; expected {kind} from {low:g} to {high:g}; choose such a value")


def level_spec(level: str, seed: int, tasks: tuple[str, ...] = ("N1",), **overrides: object) -> FilmSpec:
    """Return the settings of a film on a rung of the ladder; any of them can be overridden.

    The number of hops goes through the rung's range in turn over consecutive seeds; chains of four are for the test
    split alone.

    Raises: ConfigError on an unknown level or setting.
    """
    if level not in LADDER:
        raise ConfigError(f"level {level!r} arrived; {nearest_name(level, list(LADDER))}")
    values = dataclasses.asdict(LADDER[level])
    low, high = values.pop("hops")
    high = high if split_of(seed) == "test" else min(high, MAX_TRAINING_HOPS)
    values |= {"level": level, "seed": seed, "tasks": tasks, "hops": low + balanced(seed, high - low + 1, "hops")}
    return FilmSpec.from_dict(values | overrides)
