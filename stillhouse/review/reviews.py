"""The queue and the decisions, as the gateway has them."""

from collections import deque
from urllib.parse import quote, urlencode

from schemas.distill import Agreement, ReviewItem, ReviewPage, ReviewRequest
from schemas.review import Review
from stillhouse.client import GatewayClient

QUEUE = "/v1/distill/review"
PAGE_ITEMS = 20


class Feed:
    """What waits for a reviewer, piece by piece, and at most `items_max` of it. A `session.Source`.

    With `undecided_by`, what that reviewer has not decided, others' decisions since the last `score` or not.
    """

    def __init__(
        self, gateway: GatewayClient, *, role: str | None, undecided_by: str | None, items_max: int | None
    ) -> None:
        self.waiting = 0
        self._gateway = gateway
        self._params = {"role": role, "undecided_by": undecided_by}
        self._left = items_max
        self._read: deque[ReviewItem] = deque()
        self._cursor: str | None = None
        self._begun = False

    def next(self) -> ReviewItem | None:
        if self._left == 0:
            return None
        while not self._read and (not self._begun or self._cursor is not None):
            self._read_page()
        if not self._read:
            return None
        if self._left is not None:
            self._left -= 1
        return self._read.popleft()

    def _read_page(self) -> None:
        page = page_of(self._gateway, limit=PAGE_ITEMS, cursor=self._cursor, **self._params)
        if not self._begun:
            self.waiting = page.waiting if self._left is None else min(page.waiting, self._left)
        self._begun, self._cursor = True, page.cursor
        self._read.extend(page.evidence)


class One:
    """A single piece, whether or not it waits. A `session.Source`."""

    waiting = 1

    def __init__(self, gateway: GatewayClient, evidence_id: str) -> None:
        self._gateway = gateway
        self._id: str | None = evidence_id

    def next(self) -> ReviewItem | None:
        if self._id is None:
            return None
        item = item_of(self._gateway, self._id)
        self._id = None
        return item


def page_of(gateway: GatewayClient, **params: str | int | None) -> ReviewPage:
    given = {name: value for name, value in params.items() if value is not None}
    return gateway.get(f"{QUEUE}?{urlencode(given)}", ReviewPage)


def item_of(gateway: GatewayClient, evidence_id: str) -> ReviewItem:
    return gateway.get(f"{QUEUE}/{quote(evidence_id, safe='')}", ReviewItem)


def decide(gateway: GatewayClient, evidence_id: str, request: ReviewRequest) -> Review:
    body = request.model_dump(mode="json", exclude_unset=True)  # an output without text says so
    return gateway.post(f"{QUEUE}/{quote(evidence_id, safe='')}", Review, body)


def agreement_of(gateway: GatewayClient) -> Agreement:
    return gateway.get(f"{QUEUE}/agreement", Agreement)
