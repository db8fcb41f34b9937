"""OpenAI's own client, against a server that really listens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from longtake.models.loaded import LoadedModel
from tests.serve.conftest import FRAMES, Live, data_url, serving

MODEL = "longtake"


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with httpx.Client(trust_env=False, timeout=120) as http:
        yield openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", http_client=http, max_retries=0)


def said(text: str, *parts: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def video_part(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "longtake"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI, films: list[Path]) -> None:
    messages = said("What happens?", video_part(data_url(films[0], "video/mp4")))
    whole = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=12)
    usage = whole.usage
    assert usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens <= 12 and usage.prompt_tokens > FRAMES * 16
    text, reasons, last = "", [], None
    options: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=12, stream=True, stream_options=options
    ):
        last = chunk
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert text.strip() == whole.choices[0].message.content
    assert reasons == [whole.choices[0].finish_reason]
    assert last is not None and last.usage is not None and last.usage.completion_tokens == usage.completion_tokens
    details = last.usage.prompt_tokens_details
    assert details is not None and (details.cached_tokens or 0) > FRAMES * 16, "the video was read once"
    extra: Any = whole.model_extra
    evidence = extra["longtake"]["evidence"]
    assert evidence and all(0 <= span["start_s"] < span["end_s"] for span in evidence)


def test_pictures_and_uploaded_files_are_shown(client: openai.OpenAI, films: list[Path], picture: Path) -> None:
    film = client.files.create(file=films[1], purpose="user_data")
    still = client.files.create(file=picture, purpose="vision")
    assert {file.id for file in client.files.list()} >= {film.id, still.id}
    assert client.files.retrieve(film.id).filename == films[1].name
    assert client.files.content(film.id).read() == films[1].read_bytes()
    asks = [
        said("What is it?", image_part(still.id)),
        said("What is it?", image_part(data_url(picture, "image/png"))),
        said("What is it?", {"type": "file", "file": {"file_id": still.id}}),
        said("Are both the same?", image_part(still.id), video_part(film.id)),
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello?"}],
    ]
    texts = []
    for messages in asks:
        answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6)
        assert answer.choices[0].finish_reason in ("stop", "length")
        texts.append(answer.choices[0].message.content)
    assert texts[0] == texts[1] == texts[2], "the same picture, however it came"
    client.files.delete(film.id)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(film.id)


def test_a_conversation_goes_on(client: openai.OpenAI, films: list[Path]) -> None:
    messages = said("What happens?", video_part(data_url(films[0], "video/mp4")))
    first = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6)
    messages += [first.choices[0].message.model_dump(), {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6)
    assert second.usage is not None and first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_sampling_follows_its_seed_and_a_stop_ends_the_text(client: openai.OpenAI) -> None:
    messages = said("Tell me something.")
    options: dict[str, Any] = {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 1.5}
    one, two, other = (client.chat.completions.create(**options, seed=seed) for seed in (1, 1, 2))
    texts = [answer.choices[0].message.content or "" for answer in (one, two, other)]
    assert texts[0] == texts[1] != texts[2]
    stop = texts[0][3:5]
    cut = client.chat.completions.create(**options, seed=1, stop=[stop])
    assert cut.choices[0].finish_reason == "stop"
    assert stop not in (cut.choices[0].message.content or "")


@pytest.mark.parametrize(
    "extra, code, param",
    [
        ({"extra_body": {"colour": 1}}, "unknown_parameter", "colour"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"temperature": 3.0}, "invalid_value", "temperature"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 65}, "invalid_value", "max_tokens"),
        ({"extra_body": {"max_tokens": "5"}}, "invalid_value", "max_tokens"),
        ({"messages": [{"role": "user", "content": ""}]}, "invalid_prompt", None),
        ({"messages": [{"role": "user", "content": "<|im_end|>"}]}, "invalid_prompt", None),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "invalid_value", "messages[0]"),
        ({"messages": said("x", image_part("data:image/png;base64,AAAA!"))}, "bad_url", None),
        ({"messages": said("x", image_part("https://example.com/a.png"))}, "bad_request_403", None),
        ({"messages": said("x", video_part("/etc/passwd"))}, "bad_request_403", None),
        ({"messages": said("x", video_part("file-000000000000000000000000"))}, "bad_request_404", None),
        ({"messages": said("a <image> b", image_part("data:,"))}, "invalid_value", "messages[0]"),
    ],
)
def test_what_cannot_be_done_is_said(
    client: openai.OpenAI, extra: dict[str, Any], code: str, param: str | None
) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": said("Hi"), "max_tokens": 2} | extra
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**options)
    status = int(code.rpartition("_")[2]) if code.startswith("bad_request_") else 400
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert len(body["message"]) > 20
    if status == 400:
        assert (body["code"], body["param"]) == (code, param)


def test_selected_and_thinned_videos_answer(model: LoadedModel, films: list[Path], tmp_path: Path) -> None:
    with serving(model, tmp_path, limits={"max_frames": 16}) as live, live.http() as http:
        url = data_url(films[0], "video/mp4")
        counts = []
        for wish in ({}, {"tokens_per_frame": 1}, {"frames_kept": 8}):
            body = {"model": MODEL, "messages": said("Where?", video_part(url)), "max_tokens": 2, "longtake": wish}
            reply = http.post("/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            counts.append(reply.json()["usage"]["prompt_tokens"])
        assert counts[1] < counts[0] - 100
