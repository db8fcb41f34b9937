"""FILMSTRIP: a procedural world of films, drawn from a seed, with questions, answers and the times that prove them.

`level_spec` → `build_film` → `ask_film` gives questions; `film_frames`, `film_arrays` and `write_film` give pictures.
"""

from longtake.media.filmstrip.ladder import LADDER, FilmSpec, level_spec
from longtake.media.filmstrip.questions import Question, ask_film, vocabulary
from longtake.media.filmstrip.render import Layers, Renderer, film_arrays, film_frames
from longtake.media.filmstrip.world import Film, build_film
from longtake.media.filmstrip.write import film_bytes, write_film

__all__ = [
    "LADDER",
    "Film",
    "FilmSpec",
    "Layers",
    "Question",
    "Renderer",
    "ask_film",
    "build_film",
    "film_arrays",
    "film_bytes",
    "film_frames",
    "level_spec",
    "vocabulary",
    "write_film",
]
