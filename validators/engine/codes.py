"""Every code that a finding can carry, and what it means. A code is never renamed and never reused."""

from typing import Final

SCHEMA: Final = {
    "schema.invalid": "The artifact does not have the shape of its kind: a wrong type, a missing or "
    "unknown key, text that is not JSON, or a time without an offset.",
}

CONTENT: Final = {
    "content.placeholder": "A template left-over such as `{{name}}` or `[DATE]`.",
    "content.pii_ssn": "A US social security number, or the taxpayer number of one who has none.",
    "content.pii_card": "A payment card number.",
    "content.pii_bank": "A bank account, routing number or IBAN.",
    "content.pay_disclosure": "Money wording that this audience must not read, with an amount near it.",
    "content.url_not_allowed": "A link to a host that is not on the allow-list; review where there is none.",
    "content.discriminatory": "Wording that closes a job to a protected group; review where it only may.",
}

FILL: Final = SCHEMA | {
    "fill.order_mismatch": "The proposal is for another order than the one it is checked against.",
    "fill.count_short": "Fewer workers are proposed than the order asks for.",
    "fill.count_over": "More workers are proposed than the order asks for.",
    "fill.worker_unknown": "No worker on the roster has this id.",
    "fill.name_mismatch": "The name is not that of the worker with this id.",
    "fill.worker_inactive": "The worker is inactive or not to be placed.",
    "fill.duplicate_worker": "The worker is proposed already, earlier in the list.",
    "fill.role_mismatch": "The worker does not have the order's role.",
    "fill.location_mismatch": "The worker is not in the order's city and state.",
    "fill.client_blocked": "The worker may not be sent to this client.",
    "fill.double_booked": "The worker has another assignment during the shift, or, by the policy, "
    "too close to it.",
    "fill.cert_missing": "The worker lacks a certificate that the order requires.",
    "fill.cert_expired": "A required certificate runs out before the shift's last day.",
    "fill.underage": "The worker is too young on the shift's first day, or of unknown age.",
    "fill.hours_exceeded": "The shift takes the worker beyond the hours of a week that the policy allows.",
}

SMS: Final = (
    SCHEMA
    | {
        "sms.number_invalid": "`to` is not a telephone number that can be texted.",
        "sms.body_missing": "There is no text, or only white space.",
        "sms.too_long": "The text takes more segments than allowed.",
        "sms.recipient_mismatch": "`to` is not the number of the worker whom the context names.",
        "sms.name_mismatch": "The greeting names somebody else than the recipient.",
        "sms.opted_out": "The recipient has opted out of messages.",
        "sms.opt_out_missing": "A first message does not say how to opt out.",
        "sms.sender_missing": "A first message names none of the senders that the policy lists.",
    }
    | CONTENT
)

EMAIL: Final = (
    SCHEMA
    | {
        "email.address_invalid": "An address cannot be delivered to, or there is none.",
        "email.address_homograph": "An address holds letters that pass for others (a Cyrillic `a`).",
        "email.recipient_mismatch": "An address in `to` is not that of the recipient in the context.",
        "email.header_injection": "A header holds control characters, or sets what the draft itself sets.",
        "email.subject_missing": "There is no subject, or only white space.",
        "email.subject_too_long": "The subject is longer than 998 characters; a warning above 78.",
        "email.body_missing": "There is no text, or only white space.",
        "email.line_too_long": "A line of the text, or a header, is longer than the 998 octets of RFC 5322.",
        "email.name_mismatch": "The greeting names somebody else than the recipient.",
    }
    | CONTENT
)

CODES: Final = FILL | EMAIL | SMS
"""Code to meaning, for all kinds."""
