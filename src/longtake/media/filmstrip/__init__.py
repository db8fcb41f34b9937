"""FILMSTRIP: a procedural world of films, drawn from a seed, with questions, answers and the times that prove them.

`level_spec` → `build_film` → `ask_film` gives questions; `film_frames`, `film_arrays` and `write_film` give pictures.
`twin` changes the answer and nothing else; `control_frames`, `proof_frames` and `score_blind` are what figures are held
against.
"""

from longtake.media.filmstrip.asker import Question, is_right
from longtake.media.filmstrip.controls import CONTROLS, control_frames, is_covered, proof_frames
from longtake.media.filmstrip.guesser import BlindGuesser, BlindScore, score_blind
from longtake.media.filmstrip.ladder import LADDER, FilmSpec, level_spec
from longtake.media.filmstrip.phrases import vocabulary, wide_vocabulary
from longtake.media.filmstrip.questions import ask_film
from longtake.media.filmstrip.render import Layers, Renderer, film_arrays, film_frames
from longtake.media.filmstrip.twins import TWIN_TASKS, twin
from longtake.media.filmstrip.world import Film, build_film
from longtake.media.filmstrip.write import film_bytes, write_film

__all__ = [
    "CONTROLS",
    "LADDER",
    "TWIN_TASKS",
    "BlindGuesser",
    "BlindScore",
    "Film",
    "FilmSpec",
    "Layers",
    "Question",
    "Renderer",
    "ask_film",
    "build_film",
    "control_frames",
    "film_arrays",
    "film_bytes",
    "film_frames",
    "is_covered",
    "is_right",
    "level_spec",
    "proof_frames",
    "score_blind",
    "twin",
    "vocabulary",
    "wide_vocabulary",
    "write_film",
]
