"""Several searches in one call: all of them, or the error of the first that is wrong."""

import asyncio
from typing import Final

from schemas.vectors import SearchBatchRequest, SearchBatchResponse, SearchRequest, SearchResponse
from services.errors import PlatformError
from vectord.engine.gate import Limited
from vectord.engine.limits import Limits, at_most
from vectord.engine.searches import Searches

AT_ONCE: Final = 8
"""Searches of one call under way at a time, so that one caller does not take every thread."""


async def search_batch(
    searches: Searches, name: str, request: SearchBatchRequest, limited: Limited, limits: Limits
) -> SearchBatchResponse:
    """Each search as on its own, in its own role. Errors say which: `searches.3.vector`."""
    at_most("searches", len(request.searches), limits.batch_max, param="searches")
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, search: SearchRequest) -> SearchResponse:
        async with turns:
            try:
                return await searches.search(name, search, limited)
            except PlatformError as error:
                place = f"searches.{number}"
                error.param = f"{place}.{error.param}" if error.param else place
                raise

    tasks = [one(number, search) for number, search in enumerate(request.searches)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return SearchBatchResponse(results=[item for item in answers if isinstance(item, SearchResponse)])
