"""Everything in a collection, page by page, for those who may see everything."""

import base64

from schemas.vectors import ExportedPoint, ExportRequest, ExportResponse
from services.errors import Forbidden, InvalidRequest
from vectord.backends import Record, Where
from vectord.engine.archive import float32
from vectord.engine.collections import Collections
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits, at_most, check_filter
from vectord.engine.runner import Runner


class Exports:
    def __init__(self, collections: Collections, *, runner: Runner, limits: Limits) -> None:
        self._collections = collections
        self._runner = runner
        self._limits = limits

    async def page(self, name: str, request: ExportRequest, limited: Limited) -> ExportResponse:
        """A page of points, whatever their role. A key limited to roles gets none of a gated collection."""
        at_most("limit", request.limit, self._limits.points_max, param="limit")
        check_filter(request.filter)
        with self._collections.use(name) as opened:
            if limited is not None and opened.spec.gated:
                raise Forbidden(
                    "this key is limited to some job roles: an export of a gated collection holds other"
                    " roles' points",
                    code="role_forbidden",
                )
            try:
                page = await self._runner.run(
                    opened.shard.scroll,
                    Where(request.filter),
                    limit=request.limit,
                    cursor=request.cursor,
                    with_vector=True,
                )
            except ValueError as error:
                raise InvalidRequest(
                    "this is no cursor of ours: give the `cursor` of the page before", param="cursor"
                ) from error
        points = await self._runner.run(lambda: [_exported(record) for record in page.records])
        return ExportResponse(points=points, cursor=page.cursor)


def _exported(record: Record) -> ExportedPoint:
    return ExportedPoint(
        id=record.id,
        vector=base64.b64encode(float32(record.vector)).decode(),
        text=record.text,
        role=record.role,
        payload=record.payload,
    )
