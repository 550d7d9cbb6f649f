"""The daemons that `/v1/iterate` works with: validators for verdicts, vectord for notes."""

import hashlib

from schemas.base import JsonObject
from schemas.runs import RetrievedText
from schemas.vectors import RetrieveRequest
from schemas.verdicts import ValidateRequest, Verdict
from services.clients import ValidatorsClient, VectordClient
from services.errors import Forbidden, InvalidRequest, NotFound


class Judge:
    """Knows what an artifact of a kind looks like, and says what is wrong with one."""

    def __init__(self, client: ValidatorsClient) -> None:
        self._client = client

    async def schema(self, kind: str, context: JsonObject) -> JsonObject:
        """The JSON Schema of a kind. Raises `InvalidRequest` naming the kinds that there are."""
        listed = await self._client.kinds()
        schemas = {description.kind: description.artifact_schema for description in listed.validators}
        if kind not in schemas:
            raise InvalidRequest(
                f"there is no validator of kind {kind!r}; there are: {', '.join(schemas)}",
                param="validate.kind",
            )
        if kind != "json_schema":
            return schemas[kind]
        own = context.get("schema")  # this kind's artifacts look as the caller says
        if not isinstance(own, dict):
            raise InvalidRequest(
                "the kind json_schema needs a JSON Schema in `validate.context.schema`",
                param="validate.context.schema",
            )
        return own

    async def judge(self, request: ValidateRequest) -> Verdict:
        """The verdict on one artifact. A refusal names the field as it stands in our caller's request."""
        try:
            return await self._client.validate(request)
        except InvalidRequest as error:
            if error.param is not None:
                error.param = f"validate.{error.param}"
            raise


class Notes:
    """Finds texts from earlier work."""

    def __init__(self, client: VectordClient) -> None:
        self._client = client

    async def find(self, request: RetrieveRequest) -> list[RetrievedText]:
        """The texts that the role gate lets through, best first. Hits without a text are left out.

        A refusal names the field as it stands in our caller's request.
        """
        try:
            answer = await self._client.retrieve(request)
        except (InvalidRequest, Forbidden, NotFound) as error:
            if error.param is not None:
                error.param = f"retrieve.{error.param}"
            raise
        return [
            RetrievedText(
                collection=hit.collection,
                id=hit.id,
                role=hit.role,
                score=hit.score,
                text=hit.text,
                text_sha256=hashlib.sha256(hit.text.encode()).hexdigest(),
            )
            for hit in answer.hits
            if hit.text
        ]
