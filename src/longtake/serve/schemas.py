"""The bodies of requests; a parameter that is not known is refused, as OpenAI's servers do."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, Field

LongText = Annotated[str, Field(max_length=200_000)]
Address = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
MAX_STOPS = 4


class Strict(BaseModel):
    """A body whose every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageAddress(Strict):
    """Where a picture is: a data URL, a file's id, or an address that the server may fetch."""

    url: Address
    detail: Optional[Literal["auto", "low", "high"]] = None  # noqa: UP045


class VideoAddress(Strict):
    """Where a video is: as of a picture, or the id of a video that was ingested."""

    url: Address


class FileName(Strict):
    """An uploaded file or an ingested video."""

    file_id: str


class TextPart(Strict):
    """Text."""

    type: Literal["text"]
    text: LongText


class ImagePart(Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageAddress


class VideoPart(Strict):
    """A video."""

    type: Literal["video_url"]
    video_url: VideoAddress


class FilePart(Strict):
    """A file that was uploaded."""

    type: Literal["file"]
    file: FileName


Part = Annotated[Union[TextPart, ImagePart, VideoPart, FilePart], Field(discriminator="type")]  # noqa: UP007


class Message(BaseModel):
    """One message; what an assistant's earlier message carries beside its text is not read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Union[LongText, list[Part], None] = None  # noqa: UP007


class StreamOptions(Strict):
    """What a stream tells besides text."""

    include_usage: Optional[bool] = None  # noqa: UP045
    include_obfuscation: Optional[bool] = None  # noqa: UP045


class Longtake(Strict):
    """What this server can do beyond OpenAI's interface."""

    tokens_per_frame: Optional[Annotated[float, Field(gt=0, le=4096)]] = None  # noqa: UP045
    frames_kept: Optional[Annotated[int, Field(gt=0, le=1_000_000)]] = None  # noqa: UP045
    max_frames: Optional[Annotated[int, Field(gt=0, le=1_000_000)]] = None  # noqa: UP045


class ChatRequest(Strict):
    """A conversation to be continued. The fields in the last group are known, and refused unless they ask nothing."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Optional[Annotated[int, Field(ge=1)]] = None  # noqa: UP045
    max_completion_tokens: Optional[Annotated[int, Field(ge=1)]] = None  # noqa: UP045
    temperature: Optional[Annotated[float, Field(ge=0, le=2)]] = None  # noqa: UP045
    top_p: Optional[Annotated[float, Field(gt=0, le=1)]] = None  # noqa: UP045
    seed: Optional[Seed] = None  # noqa: UP045
    stop: Union[str, Annotated[list[str], Field(max_length=MAX_STOPS)], None] = None  # noqa: UP007
    stream: Optional[bool] = None  # noqa: UP045
    stream_options: Optional[StreamOptions] = None  # noqa: UP045
    user: Optional[str] = None  # noqa: UP045
    safety_identifier: Optional[str] = None  # noqa: UP045
    prompt_cache_key: Optional[str] = None  # noqa: UP045
    metadata: Optional[dict[str, str]] = None  # noqa: UP045
    longtake: Longtake = Longtake()

    n: Optional[int] = None  # noqa: UP045
    logprobs: Optional[bool] = None  # noqa: UP045
    top_logprobs: Optional[int] = None  # noqa: UP045
    logit_bias: Optional[dict[str, float]] = None  # noqa: UP045
    presence_penalty: Optional[float] = None  # noqa: UP045
    frequency_penalty: Optional[float] = None  # noqa: UP045
    response_format: Optional[dict[str, Any]] = None  # noqa: UP045
    tools: Optional[list[dict[str, Any]]] = None  # noqa: UP045
    tool_choice: Union[str, dict[str, Any], None] = None  # noqa: UP007
    parallel_tool_calls: Optional[bool] = None  # noqa: UP045
    functions: Optional[list[dict[str, Any]]] = None  # noqa: UP045
    modalities: Optional[list[str]] = None  # noqa: UP045
    store: Optional[bool] = None  # noqa: UP045
    service_tier: Optional[str] = None  # noqa: UP045

    def unsupported(self) -> str | None:
        """Return the first field that asks for what there is none of."""
        neutral: dict[str, tuple[object, ...]] = {
            "n": (1,),
            "logprobs": (False,),
            "top_logprobs": (0,),
            "logit_bias": ({},),
            "presence_penalty": (0,),
            "frequency_penalty": (0,),
            "response_format": ({"type": "text"},),
            "tools": ([],),
            "tool_choice": ("none", "auto"),
            "parallel_tool_calls": (True, False),
            "functions": ([],),
            "modalities": (["text"],),
            "store": (False,),
            "service_tier": ("auto", "default"),
        }
        for name, values in neutral.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                return name
        return None


class VideoRequest(Strict):
    """A video to be ingested: one of an uploaded file's id, an address, and a path below the server's root."""

    file_id: Optional[str] = None  # noqa: UP045
    url: Optional[Address] = None  # noqa: UP045
    path: Optional[Address] = None  # noqa: UP045
    name: Optional[Annotated[str, Field(max_length=1000)]] = None  # noqa: UP045
    max_frames: Optional[Annotated[int, Field(gt=0, le=1_000_000)]] = None  # noqa: UP045
    start_s: Optional[Annotated[float, Field(ge=0, le=1e9)]] = None  # noqa: UP045
    end_s: Optional[Annotated[float, Field(gt=0, le=1e9)]] = None  # noqa: UP045


class AskTurn(Strict):
    """An earlier question, or its answer."""

    role: Literal["user", "assistant"]
    text: LongText


class AskRequest(Strict):
    """A question about a video that is ready. history: what was asked and answered before, in order."""

    question: LongText
    history: Annotated[list[AskTurn], Field(max_length=1000)] = []
    max_tokens: Optional[Annotated[int, Field(ge=1)]] = None  # noqa: UP045
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Optional[Seed] = None  # noqa: UP045
    stream: bool = False
    tokens_per_frame: Optional[Annotated[float, Field(gt=0, le=4096)]] = None  # noqa: UP045
    frames_kept: Optional[Annotated[int, Field(gt=0, le=1_000_000)]] = None  # noqa: UP045
