"""`/v1/iterate`: generate, validate, repair."""

from fastapi import Request, Response

from chatd.routes.parts import EPISODE_HEADER, RUN_HEADER, EpisodeDep, PolicyDep, RefinerDep, naming
from schemas.iterate import IterateRequest, IterateResponse
from services import daemon, ids
from services.disconnect import while_connected
from services.errors import Forbidden
from services.metering import METERED_HEADER, TOKENS_HEADER

routes = daemon.router()


@routes.post("/v1/iterate", response_model=IterateResponse)
async def iterate(
    body: IterateRequest, request: Request, refiner: RefinerDep, policy: PolicyDep, episode_id: EpisodeDep
) -> Response:
    """Generate an artifact, have it validated, and repair it until it is accepted or the budget ends."""
    if policy is not None:
        raise Forbidden(
            "this key's answers leave only once they are validated, and an iteration shows its failed"
            " attempts; use /v1/chat/completions with `validate`",
            code="validation_policy",
        )
    episode_id = episode_id or ids.uuid7()
    headers = {EPISODE_HEADER: episode_id}
    with naming(lambda: headers):
        async with while_connected(request.receive):
            answer = await refiner.run(body, episode_id)
        headers[RUN_HEADER] = answer.attempts[-1].run_id
        if METERED_HEADER in request.headers:
            headers[TOKENS_HEADER] = str(answer.tokens)
        return Response(answer.model_dump_json(), media_type="application/json", headers=headers)
