"""The four stages of VideoChat-Flash: align, short pre-training, joint tuning, high resolution.

Source: VideoChat-Flash section 4 and its training scripts. The released batch of a step is batch x accumulation x
devices: 16 x 4 x 8 = 512 in stage 1, 1 x 8 x 32 = 256 after it; on fewer devices raise optim.accumulation.
"""

from __future__ import annotations

import dataclasses

from longtake.data.samples import DataSettings
from longtake.media.sampling import SamplingRule
from longtake.train.recipe import OptimSettings, Rates, Recipe, SavingSettings

CLIP_FRAMES = 4
SAVING = SavingSettings(every=8000)

# 1: only the connector learns, from captions behind four frames of the middle of equal intervals.
ALIGN = Recipe(
    name="stage1",
    rates=Rates(connector=1e-3),
    data=DataSettings(
        template="plain",
        rule=SamplingRule(kind="middle", frame_multiple=CLIP_FRAMES, min_frames=CLIP_FRAMES),
        max_frames=CLIP_FRAMES,
        image_mode="square",
        max_length=8192,
    ),
    optim=OptimSettings(batch=16, accumulation=4),
    saving=SAVING,
)

# 2: everything learns, from pictures and short videos.
SHORT = Recipe(
    name="stage2",
    rates=Rates(tower=2e-6, connector=1e-5, language=1e-5),
    data=DataSettings(rule=SamplingRule(frame_multiple=CLIP_FRAMES, min_frames=1), max_frames=8),
    optim=OptimSettings(batch=1, accumulation=8),
    saving=SAVING,
)

# 3: everything learns, from pictures, short and long videos.
JOINT = dataclasses.replace(
    SHORT,
    name="stage3",
    data=DataSettings(rule=SamplingRule(frame_multiple=CLIP_FRAMES, min_frames=64), max_frames=512),
)

# 4: what sees learns at a higher resolution; the language model stays as it is.
HIGH_RESOLUTION = dataclasses.replace(JOINT, name="stage4", rates=Rates(tower=2e-6, connector=1e-5))

STAGES = (ALIGN, SHORT, JOINT, HIGH_RESOLUTION)
