"""What is said about embeddings: the OpenAI-compatible request and answer of `/v1/embeddings`."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Flag, Model, OpenAIModel

EncodingFormat = Literal["float", "base64"]
InputType = Literal["query", "document"]


class EmbeddingRequest(OpenAIModel):
    """Texts to embed. Arrays of token ids are part of OpenAI's format, and refused by `embedd` by name.

    Two fields are ours: `input_type` says what the texts are for, where a model wants to be told by a prefix;
    `truncate` allows a text beyond the model's context to be cut, which is otherwise refused.
    """

    model: Annotated[str, Field(min_length=1)]
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: EncodingFormat = "float"
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = None
    user: str | None = None
    input_type: InputType | None = None
    truncate: Flag = False


class Embedding(Model):
    """One vector: L2-normalised float32, as numbers or as little-endian bytes in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Model):
    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(Model):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
