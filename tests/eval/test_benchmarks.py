"""Benchmarks: prompts against the published ones, invented records of the released schema, and what a score is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from longtake.core.errors import ConfigError
from longtake.eval.benchmarks.base import Benchmark, averages
from longtake.eval.benchmarks.longvideobench import lookup_times, subtitle_block
from longtake.eval.benchmarks.lvbench import proof
from longtake.eval.benchmarks.mvbench import PLACES
from longtake.eval.benchmarks.released import Fields
from longtake.eval.benchmarks.vdc import bleu
from longtake.eval.result import Record
from longtake.eval.task import Item, Task, build, tasks

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOLDENS = SHARED / "goldens_eval" / "prompt_goldens.json"
RECORDS = Path(__file__).parent / "records"
# Every task, the folder of its invented records, and the videos that they name.
VIDEOS: Mapping[str, Sequence[str]] = {
    "mvbench": (
        "star/Charades_v1_480/KITE1.mp4",
        "star/Charades_v1_480/KITE2.mp4",
        "clevrer/video_validation/video_1.mp4",
        "clevrer/video_validation/video_2.mp4",
        "tvqa/frames_fps3_hq/show_s01e01_seg01_clip_01/00001.jpg",
    ),
    "mlvu": ("1_plotQA/plot_1.mp4", "1_plotQA/plot_2.mp4", "2_needle/needle_1.mp4"),
    "lvbench": ("00000901.mp4", "00000902/0001.jpg"),
    "longvideobench": ("film1.mp4", "film2.mp4"),
    "videomme": ("v001.MP4", "v601.mkv"),
    "perception_test": ("video_7.mp4", "video_8.mp4"),
    "egoschema": ("0a01.mp4",),
    "nextqa": ("401.mp4", "402.mp4"),
    "charades_sta": ("QQQ01.mp4", "QQQ02.mp4"),
    "vdc": ("clip_7.mp4",),
    "videoeval_pro": ("tour.mp4",),
}
# Sections of VDC of which there is no invented file.
UNTOLD = ("vdc-camera", "vdc-background", "vdc-main-object", "vdc-detailed")
OTHERS = {"perception": "perception_test", "charades": "charades_sta", "videoeval": "videoeval_pro"}


def folder_of(name: str) -> str:
    first = name.split("-")[0]
    return OTHERS.get(first, first)


def published() -> dict[str, type[Task]]:
    return {name: cls for name, (cls, _) in tasks().items() if issubclass(cls, Benchmark)}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty files where the videos of the invented records would be: nothing here opens one."""
    root = tmp_path_factory.mktemp("films")
    for folder, names in VIDEOS.items():
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for folder, subtitles in (("longvideobench", "subtitles"), ("videomme", "subtitle")):
        (root / folder / subtitles).symlink_to(RECORDS / folder / subtitles)
    return root


def invented(name: str, films: Path, **values: object) -> Task:
    folder = folder_of(name)
    return build(name, {"data": str(RECORDS / folder), "videos": str(films / folder)} | values)


def slices() -> Iterator[tuple[str, str]]:
    """Yield each released slice with the task that reads it."""
    yield "videomme", "videomme/test_parquet_rows.json"
    yield "charades-sta", "charades_sta/temporal_grounding_charades.json"
    for kind in PLACES:
        yield "mvbench", f"mvbench/{kind}.json"
    for kind in ("", "_cartoon", "_documentary", "_live", "_selfmedia", "_sport", "_tv"):
        yield "lvbench", f"lvbench/lvbench_clean{kind}.json"
    for number, kind in enumerate(("plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning"), 1):
        yield "mlvu", f"mlvu_mc/{number}_{kind}.json"


def every_video_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Benchmark, "locate", lambda self, name, *places: Path(name))


@pytest.fixture(scope="module")
def goldens() -> dict[str, Any]:
    if not GOLDENS.is_file():
        pytest.skip("the goldens beside the checkout are not there")
    return json.loads(GOLDENS.read_text(encoding="utf-8"))


@pytest.mark.shared
@pytest.mark.parametrize("name, file", list(slices()), ids=lambda value: value)
def test_prompt_is_the_published_one_to_the_byte(
    name: str, file: str, goldens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    every_video_is_there(monkeypatch)
    task = build(name, {"data": str(SHARED / "annotations" / file)})
    prompts = [task.prompt(item) for item in task.items()]
    assert prompts == goldens[file]
    assert len(prompts) == 20
    assert len({item.id for item in task.items()}) == 20


@pytest.mark.shared
def test_no_golden_prompt_is_left_untested(goldens: dict[str, Any]) -> None:
    tested = {file for _, file in slices()}
    rest = {name for name in goldens if name.split("#")[0] not in tested}
    assert rest == {"longvideobench#frame_times", "longvideobench#subtitle_block"}


@pytest.mark.shared
def test_mlvu_asks_its_own_model_otherwise(goldens: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    every_video_is_there(monkeypatch)
    for _, file in (one for one in slices() if one[0] == "mlvu"):
        task = build("mlvu", {"data": str(SHARED / "annotations" / file), "template": "vcf-best-option"})
        expected = goldens[f"{file}#newprompt"]
        assert [task.prompt(item) for item in task.items()][: len(expected)] == expected


@pytest.mark.shared
def test_subtitles_are_looked_up_as_published(goldens: dict[str, Any]) -> None:
    for key, expected in goldens["longvideobench#frame_times"].items():
        duration_s, most = json.loads(key.replace("(", "[").replace(")", "]"))
        assert lookup_times(duration_s, most) == expected
    for case in goldens["longvideobench#subtitle_block"]:
        times = lookup_times(case["duration"], case["max_frames"])
        assert subtitle_block(case["subtitles"], times, case["duration"], case["shift"]) == case["text"]


@pytest.mark.shared
@pytest.mark.parametrize("file", ["lvb_val.json", "validation_parquet_rows.json", "validation.first20.parquet"])
def test_longvideobench_reads_either_form_alike(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SHARED / "annotations" / "longvideobench"
    if not folder.is_dir():
        pytest.skip("the slices beside the checkout are not there")
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="parquet needs the extra")
    every_video_is_there(monkeypatch)
    values = {"template": "upstream"}
    items = build("longvideobench", {"data": str(folder / file)} | values).items()
    other = build("longvideobench", {"data": str(folder / "lvb_val.json")} | values).items()
    told = [(item.id, item.question, item.choices, item.answer, item.duration_class) for item in items]
    assert told == [(item.id, item.question, item.choices, item.answer, item.duration_class) for item in other]
    assert len(told) == 20


@pytest.mark.shared
def test_videomme_parquet_holds_what_its_rows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs the extra")
    folder = SHARED / "annotations" / "videomme"
    if not folder.is_dir():
        pytest.skip("the slices beside the checkout are not there")
    every_video_is_there(monkeypatch)
    one, other = (
        build("videomme", {"data": str(folder / file)}) for file in ("test.first20.parquet", "test_parquet_rows.json")
    )
    assert one.items() == other.items()
    assert one.dataset_hash() == other.dataset_hash()


@pytest.mark.shared
def test_hidden_test_answers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = SHARED / "annotations" / "longvideobench" / "test_parquet_rows.json"
    if not file.is_file():
        pytest.skip("the slices beside the checkout are not there")
    every_video_is_there(monkeypatch)
    with pytest.raises(ConfigError, match="hidden"):
        build("longvideobench-no-subtitles", {"data": str(file)}).items()


def test_every_benchmark_of_the_papers_is_there() -> None:
    found = {folder_of(name) for name in published()}
    assert found == set(VIDEOS)


@pytest.mark.parametrize("name", sorted(name for name in published() if name not in UNTOLD))
def test_oracle_is_right_and_silence_is_wrong(name: str, films: Path) -> None:
    """A perfect reply scores 1, none at all 0, but for PVC's matcher, for which silence is always right."""
    task = invented(name, films)
    for item in task.items():
        prompt = task.prompt(item)
        assert item.question.strip() in prompt or name.startswith("vdc")
        reply = f"({item.answer})" if item.choices else item.answer
        if name.startswith("vdc"):
            assert task.score(reply, item).value == pytest.approx(1.0)
            continue
        assert task.score(reply, item).right == (item.answer != "")
        silent = task.score("", item)
        assert silent.right == (name == "mvbench-pvc" and item.answer != "")
        assert (silent.parsed is None) == (name != "mvbench-pvc")
    assert len({item.id for item in task.items()}) == len(task.items())


@pytest.mark.parametrize("name", ["mvbench", "mlvu", "lvbench", "videomme", "perception-test", "nextqa"])
def test_a_constant_letter_scores_the_letters_prior(name: str, films: Path) -> None:
    task = invented(name, films)
    for letter in "ABCD":
        rights = [task.score(letter, item).right for item in task.items()]
        assert rights == [item.answer == letter for item in task.items()]


@pytest.mark.shared
def test_one_choice_items_make_mvbench_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    every_video_is_there(monkeypatch)
    folder = SHARED / "annotations" / "mvbench"
    if not folder.is_dir():
        pytest.skip("the slices beside the checkout are not there")
    task = build("mvbench", {"data": str(folder)})
    assert len(task.items()) == 400
    counts = {len(item.choices) for item in task.items()}
    assert counts == {2, 3, 4, 5}
    assert all(task.chance(item) == 1 / len(item.choices) for item in task.items())


def by_id(task: Task) -> dict[str, Item]:
    return {item.id: item for item in task.items()}


def test_mvbench_shows_the_part_that_the_record_names(films: Path) -> None:
    items = by_id(invented("mvbench", films))
    assert (items["action_sequence-000"].start_s, items["action_sequence-000"].end_s) == (2.0, 9.5)
    assert items["counterfactual_inference-000"].start_s is None
    episode = items["episodic_reasoning-000"]
    assert isinstance(episode.media, Path) and episode.media.is_dir()
    assert (episode.start_s, episode.end_s, episode.folder_fps) == (0.0, 6.0, 3.0)
    kinds = invented("mvbench", films, kinds=["action_sequence"])
    assert {item.extra["kind"] for item in kinds.items()} == {"action_sequence"}


def test_pvc_prompt_by_hand(films: Path) -> None:
    task = invented("mvbench-pvc", films)
    prompt = task.prompt(by_id(task)["counterfactual_inference-001"])
    assert prompt.endswith(
        "accurately addresses the question.\n\nQuestion: Which event happens if the ring is taken away?\nOptions:\n"
        "(A) The cone and the ball collide\n(B) The ball leaves\nOnly give the best option."
    )


def test_longvideobench_prompt_by_hand(films: Path) -> None:
    task = invented("longvideobench", films)
    prompt = task.prompt(by_id(task)["film1_0"])
    assert prompt == (
        " This video's subtitles are listed below: \nIt looks like rain.\nTake the lamp.\nOpen end..\n Select the best "
        "answer to the following multiple-choice question based on the video and the subtitles. Respond with only the "
        "letter of the correct option.\nQuestion: What does the man hold when the subtitle mentions rain?\n(A). An oar"
        "\n(B). A bag\n(C). A lamp\nAnswer with the option's letter from the given choices directly.\n"
    )


def test_videomme_subtitles_by_hand(films: Path) -> None:
    items = by_id(invented("videomme-subtitles", films))
    task = invented("videomme-subtitles", films)
    choices = "A. One.\nB. Two.\nC. Three.\nD. Four.\nThe best answer is:"
    request = "Respond with only the letter (A, B, C, or D) of the correct option."
    assert task.prompt(items["001-1"]) == (
        "This video's subtitles are listed below: \nLook at the moons.\nThere are two.\nThese are the frames and "
        "subtitles of a video. Select the best answer to the following multiple-choice question based on the video and "
        f"the subtitles. {request}\nQuestion: How many moons are drawn?\nOption:\n{choices}"
    )
    assert task.prompt(items["601-1"]).startswith("\nThese are the frames of a video. Select")


def test_videomme_takes_the_durations_that_are_asked_for(films: Path) -> None:
    task = invented("videomme", films, durations=["long"])
    assert [item.duration_class for item in task.items()] == ["long"]
    assert task.breakdowns(task.items()[0])["duration"] == "long"
    with pytest.raises(ConfigError, match="medium"):
        invented("videomme", films, durations=["huge"])


def test_questions_about_a_video_are_one_group(films: Path) -> None:
    assert [item.cluster for item in invented("videomme", films).items()] == ["v001", "v001", "v601"]


def test_other_prompts_by_hand(films: Path) -> None:
    def first(name: str) -> str:
        task = invented(name, films)
        return task.prompt(task.items()[0])

    assert first("perception-test") == (
        "\nQuestion: Where was the cup put?\n(A). On the shelf\n(B). Under it\n(C). Nowhere\nOnly give the best option."
    )
    assert first("egoschema").endswith("E. C runs.\nAnswer with the option's letter from the given choices directly.")
    assert first("nextqa") == ("why did the boy turn around\nA. to wave\nB. to run\nC. to sit\nD. to eat\nE. to sleep")
    assert first("videoeval-pro") == "What does the guide point at? Keep the answer short and concise."
    assert first("videoeval-pro-mcq").endswith("C. A tower\nAnswer with the option letter only.")


def test_missing_videos_are_reported_and_left_out(films: Path) -> None:
    task = invented("videoeval-pro", films)
    assert [item.answer for item in task.items()] == ["A waterfall"]
    assert task.missing() == ["gone.mp4"]
    subtitled = invented("longvideobench", films)
    assert subtitled.missing() == ["subtitles/film2_en.json"]
    assert invented("longvideobench-no-subtitles", films).missing() == []


def test_no_video_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 of its videos are not in"):
        invented("charades-sta", films=tmp_path).items()


@pytest.mark.parametrize(
    "data, match", [("", "data is ''"), ("/nowhere", "'/nowhere'"), (str(RECORDS / "vdc"), "has no")]
)
def test_wrong_folder_says_what_is_expected(data: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build("mlvu", {"data": data}).items()


@pytest.mark.parametrize(
    "record, match",
    [
        ({"video": "a.mp4"}, "expected 'timestamp'"),
        ({"video": "a.mp4", "caption": "x", "timestamp": [1]}, "two times"),
        ({"video": 3, "caption": "x", "timestamp": [1, 2]}, "'video' of record 0"),
    ],
)
def test_records_of_another_schema_are_refused(record: dict[str, object], match: str, tmp_path: Path) -> None:
    file = tmp_path / "temporal_grounding_charades.json"
    file.write_text(json.dumps([record]))
    with pytest.raises(ConfigError, match=match):
        build("charades-sta", {"data": str(tmp_path)}).items()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "temporal_grounding_charades.json"
    for text, match in (("[{", "damaged"), ('{"a": 1}', "no list of records")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=match):
            build("charades-sta", {"data": str(tmp_path)}).items()


def test_unknown_settings_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="lmms-ranked"):
        build("mlvu", {"parser": "lmms_ranked"})
    with pytest.raises(ConfigError, match="pvc"):
        build("mvbench", {"template": "pcv"})


def test_spans_are_scored_by_their_overlap(films: Path) -> None:
    task = invented("charades-sta", films)
    first, second = task.items()
    assert task.score("The event happens in the 4.0 - 12.0 seconds.", first).value == pytest.approx(1.0)
    half = task.score("8 to 12", first)
    assert half.right and half.value == pytest.approx(0.5)
    assert not task.score("9 to 12", first).right
    assert task.score("no idea", second).parsed is None
    records = [
        Record(id=str(number), arm="model", group="g", right=iou >= 0.5, score=iou, extra={"iou": iou})
        for number, iou in enumerate((1.0, 0.5, 0.35, 0.0))
    ]
    assert task.figures(records) == {
        "mIoU": pytest.approx(46.25), "R@0.3": 75.0, "R@0.5": 50.0, "R@0.7": 25.0, "n": 4,
    }  # fmt: skip


def test_lvbench_proofs_and_several_types(films: Path) -> None:
    task = invented("lvbench", films)
    first, second = task.items()
    assert first.spans_s == ((135.0, 140.0),) and second.spans_s == ((3605.0, 3720.0),)
    assert task.breakdowns(first) == {
        "type": "tv",
        "question type, entity recognition": "yes",
        "question type, key information retrieval": "yes",
    }
    assert proof("see above") == () and proof("03:00-02:00") == ()


# Questions of each type and accuracies (%) of the logs that XComp's repository has of its baseline and of itself.
MLVU_TYPES = {"plotQA": 539, "findNeedle": 355, "ego": 352, "count": 206, "order": 259, "anomaly_reco": 200,
              "topic_reasoning": 264}  # fmt: skip
MLVU_LOGS = [
    ((76.2523, 81.4085, 65.3409, 33.0097, 24.7104, 73.0000, 82.5758), 65.5632, 62.33),
    ((77.9221, 79.7183, 62.5000, 40.7767, 28.5714, 76.5000, 81.8182), 66.6667, 63.97),
]


@pytest.mark.parametrize("accuracies, micro, macro", MLVU_LOGS)
def test_micro_and_macro_of_the_published_logs(accuracies: Sequence[float], micro: float, macro: float) -> None:
    records = []
    for (kind, count), accuracy in zip(MLVU_TYPES.items(), accuracies, strict=True):
        right = round(accuracy / 100 * count)
        records += [
            Record(id=f"{kind}-{number}", arm="model", group=kind, right=number < right, breakdowns={"type": kind})
            for number in range(count)
        ]
    records.append(Record(id="broken", arm="model", group="", error="VideoError: gone", breakdowns={"type": "ego"}))
    figures = averages(records, "type")
    assert figures["n"] == 2175
    assert figures["micro"] == pytest.approx(micro, abs=5e-4)
    assert figures["macro"] == pytest.approx(macro, abs=5e-3)


def test_mlvu_answers_that_are_no_choice_are_never_right(films: Path) -> None:
    task = invented("mlvu", films)
    lost = by_id(task)["2_needle-000"]
    assert lost.answer == ""
    assert not any(task.score(letter, lost).right for letter in "ABCD")


def judge(question: str, answer: str, reply: str) -> float:
    """Stand in for a language model: is the answer's word in the reply?"""
    return float(answer.lower() in reply.lower())


def test_captions_are_judged_by_the_user_or_only_compared(films: Path) -> None:
    plain = invented("vdc-short", films)
    item = plain.items()[0]
    assert plain.prompt(item) == "Write a one-sentence summary of the video."
    scored = plain.score("A boy in a red coat feeds ducks at a pond.", item)
    assert scored.value == pytest.approx(1.0) and not scored.right
    judged = invented("vdc-short", films, judge=f"{__name__}:judge")
    assert judged.score("Someone in red.", item).value == 0.5
    records = [Record(id="a", arm="model", group="g", extra=scored.extra)]
    assert "no published figure" in str(plain.figures(records)["judge"])
    with pytest.raises(ConfigError, match="module:function"):
        invented("vdc-short", films, judge="nowhere:nothing").score("x", item)


def test_vdc_prompts_of_the_user_are_drawn_by_name(films: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"short": ["Sum it up.", "In a sentence?"]}))
    drawn = {invented("vdc-short", films, prompts=str(file)).items()[0].question for _ in range(3)}
    assert len(drawn) == 1 and drawn <= {"Sum it up.", "In a sentence?"}


@pytest.mark.parametrize(
    "text, reference, longest, expected",
    [
        ("the cat sat", "the cat sat", 1, 1.0),
        ("the the the", "the cat sat", 1, 1 / 3),  # a word counts as often as the reference has it
        ("the cat", "the cat sat down", 1, 0.36787944),  # exp(1 - 4 / 2)
        ("a b c d e", "a b c d f", 4, (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ("a b", "a b", 4, 0.0),
        ("", "a b", 1, 0.0),
    ],
)
def test_bleu_by_hand(text: str, reference: str, longest: int, expected: float) -> None:
    assert bleu(text, reference, longest) == pytest.approx(expected)


def test_open_answers_without_a_judge_have_to_be_there_word_for_word(films: Path) -> None:
    task = invented("videoeval-pro", films)
    item = task.items()[0]
    assert task.score("It is a waterfall!", item).right
    assert not task.score("Water falls.", item).right
    judged = invented("videoeval-pro", films, judge=f"{__name__}:judge")
    assert judged.score("A WATERFALL", item).right and not judged.score("A bridge", item).right


def test_fields_know_where_they_stand() -> None:
    fields = Fields({"a": True, "b": ["x", 1]}, Path("f.json"), 3)
    with pytest.raises(ConfigError, match="'a' of record 3 of f.json is True"):
        fields.number_of("a")
    with pytest.raises(ConfigError, match="expected texts"):
        fields.texts("b")
