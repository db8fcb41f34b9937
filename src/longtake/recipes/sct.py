"""XComp's supervised compression tuning: the language model learns to live with LP-Comp.

Source: XComp section 3.3 and its released trainer state. Released: 8 devices x 1 x 4 = 32 samples a step, one budget
(16 tokens a frame, down to one at the last layer). The paper says that only the language model is tuned; the released
script tunes the connector too, and sends videos of 512 frames or more through it without a gradient.
"""

from __future__ import annotations

import dataclasses

from longtake.data.samples import DataSettings
from longtake.media.sampling import SamplingRule
from longtake.train.recipe import CompressionSettings, OptimSettings, Rates, Recipe

CLIP_FRAMES = 8

XCOMP = Recipe(
    name="xcomp",
    rates=Rates(connector=1e-5, language=1e-5),
    data=DataSettings(
        rule=SamplingRule(fps=8.0, frame_multiple=CLIP_FRAMES, min_frames=128),
        max_frames=1024,
        set_seed=12345,
        keep_share=0.25,
    ),
    optim=OptimSettings(batch=1, accumulation=4),
    compression=CompressionSettings(method="lp_comp", no_grad_frames=512),
)

# Ours: another budget every step, so that one checkpoint serves many. Squares, since tiles of pictures are maps.
SCT = dataclasses.replace(XCOMP, name="sct", compression=dataclasses.replace(XCOMP.compression, budgets=(16, 9, 4)))
