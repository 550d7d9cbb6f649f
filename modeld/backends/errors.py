"""What can go wrong with a model, as errors of the kit; the texts are the ones that Ollama's clients match.

* NotFound
  + ModelNotFound     404  no such model, or its package is not installed
* InvalidRequest
  + NotCapable        400  the model cannot do what was asked
  + ContextExceeded   400  the text is longer than the model's context
  + FormatRefused     400  the JSON Schema cannot be enforced
* Unavailable
  + ServerBusy        503  every slot is taken and the queue is full
* PlatformError
  + WeightsRefused    500  a file of the model is not the one we know
  + NotANumber        500  the model produced NaN or Inf
  + GenerationFailed  500  the model stopped for a reason of its own
"""

from services.errors import InvalidRequest, NotFound, PlatformError, Unavailable


class ModelNotFound(NotFound):
    """No such model here."""

    code = "model_not_found"


class NotCapable(InvalidRequest):
    """The model cannot do what was asked."""

    code = "not_capable"


class ContextExceeded(InvalidRequest):
    """The text is longer than the model's context."""

    code = "context_exceeded"


class FormatRefused(InvalidRequest):
    """The JSON Schema cannot be enforced, and an answer that merely looks right is not given."""

    code = "format_refused"


class ServerBusy(Unavailable):
    """Every slot is taken and the queue is full."""

    code = "server_busy"


class WeightsRefused(PlatformError):
    """A file of the model is not the one we know."""

    code = "weights_refused"


class NotANumber(PlatformError):
    """The model produced NaN or Inf."""

    code = "not_a_number"


class GenerationFailed(PlatformError):
    """The model stopped for a reason of its own."""

    code = "generation_failed"
