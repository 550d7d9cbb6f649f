"""What the demo asks the model for. Short, with the format shown: the default model is a very small one."""

from collections.abc import Mapping
from typing import Any

from schemas.artifacts import JobOrder

FILL_SYSTEM = (
    "You fill job orders for a staffing agency. Choose workers from the notes, by their id. "
    'Answer with JSON only, like {"order_id":"JO-1","fills":[{"worker_id":"W-1"},{"worker_id":"W-2"}]}.'
)
SMS_SYSTEM = (
    "You write text messages for a staffing agency. Be short and friendly. "
    'Answer with JSON only, like {"to":"+12025550100","body":"Hi Ann, can you work tomorrow at 06:00?"}.'
)


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
