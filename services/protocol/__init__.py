"""The server's side of HTTP/1.1: what is no HTTP gets the envelope too, and size and time are bounded.

`guarded` holds connections to their bounds, `envelope` adds the short ways, `doors` says what may take one,
`exchange` is a request on it, `heads` knows those again that came before, and `leaving` closes with care.
"""

from services.protocol.doors import JSON_TYPE, Direct, Doors, Porter, says_json
from services.protocol.envelope import EnvelopeProtocol
from services.protocol.exchange import DirectExchange, Door
from services.protocol.guarded import ARRIVED, DROPPED_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX

__all__ = [
    "ARRIVED",
    "DROPPED_BYTES_MAX",
    "HEADERS_MAX",
    "HEAD_BYTES_MAX",
    "JSON_TYPE",
    "Direct",
    "DirectExchange",
    "Door",
    "Doors",
    "EnvelopeProtocol",
    "Porter",
    "says_json",
]
