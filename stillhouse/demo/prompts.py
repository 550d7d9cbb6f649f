"""What the demo asks the model for. Short, with the format shown: the default model is a very small one."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from schemas.artifacts import JobOrder

FILL_SYSTEM = (
    "You fill job orders for a staffing agency. Choose workers from the notes, by their id. "
    'Answer with JSON only, like {"order_id":"JO-1","fills":[{"worker_id":"W-1"},{"worker_id":"W-2"}]}.'
)
SMS_SYSTEM = (
    "You write text messages for a staffing agency. Be short and friendly. "
    'Answer with JSON only, like {"to":"+12025550100","body":"Hi Ann, can you work tomorrow at 06:00?"}.'
)
PURPOSES = (
    ("can you work", "can they work{at}?"),
    ("reminder", "remind them of their shift{at}."),
    ("starts", "tell them that their shift starts{at}."),
    ("shifts", "say who we are, offer shifts, and that STOP ends the messages."),
    ("STOP", "say who we are, and that STOP ends the messages."),
)
"""What a message was for, by words in it."""
SAID = {
    "content.placeholder": "tell them whom to ask for at the site.",
    "content.pii_ssn": "ask them to check their papers at the branch.",
    "content.pii_card": "tell them that the travel card is ready.",
    "content.pii_bank": "tell them that direct deposit is set up.",
    "content.pay_disclosure": "answer what they asked about their pay.",
    "content.url_not_allowed": "ask them to sign in and look at their schedule.",
    "content.discriminatory": "tell them what the client looks for.",
    "sms.too_long": "tell them where to park and whom to see.",
}
"""The same, where a defect took the place of the message."""
WHEN = re.compile(r"(\w+day)(?: at)? (\d\d:\d\d)")


def request_of(order: JobOrder) -> str:
    """An order as a dispatcher would say it."""
    return f"{order.count} {order.role}s in {order.city}, {order.state}"


def fill_messages(order: JobOrder) -> list[dict[str, Any]]:
    wanted = f"Order {order.order_id}: {request_of(order)}, from {order.start:%d %B %H:%M}."
    return [
        {"role": "system", "content": FILL_SYSTEM},
        {"role": "user", "content": f"{wanted} Choose exactly {order.count} different workers."},
    ]


def sms_messages(order: JobOrder, worker: Mapping[str, Any]) -> list[dict[str, Any]]:
    shift = f"{order.role} in {order.city} on {order.start:%A} at {order.start:%H:%M}"
    task = f"Write to {worker['first_name']} at {worker['phone']}: can they work as {shift}?"
    return [{"role": "system", "content": SMS_SYSTEM}, {"role": "user", "content": task}]


def draft_messages(draft: Mapping[str, Any], worker: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What somebody must have been asked who wrote a draft of the sample world; `worker` receives it."""
    if draft["kind"] == "sms" and worker is not None:
        task = f"Write to {worker['first_name']} at {worker['phone']}: {purpose_of(draft)}"
        return [{"role": "system", "content": SMS_SYSTEM}, {"role": "user", "content": task}]
    context = orjson.dumps(draft["context"]).decode()
    return [{"role": "user", "content": f"Write an {draft['kind']} for {context}"}]


def purpose_of(draft: Mapping[str, Any]) -> str:
    """Why a text message is written, as far as the draft still shows it."""
    body: str = draft["artifact"]["body"]
    when = WHEN.search(body)
    at = f" on {when[1]} at {when[2]}" if when else ""
    if draft["defect"] in SAID:
        return SAID[draft["defect"]]
    purpose = next((purpose for words, purpose in PURPOSES if words in body), "ask them to call the branch.")
    return purpose.format(at=at)
