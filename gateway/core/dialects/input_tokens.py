"""`/v1/responses/input_tokens`: how many tokens the prompt of a response has.

Nodes have no such path: they are asked to tokenize the chat that stands for the response.
"""

from gateway.core.bodies import Body
from gateway.core.dialects.base import NEVER, Ask
from gateway.core.dialects.responses import Responses


class InputTokens(Responses):
    """Counts the tokens of a response's prompt; the answer is one number."""

    name = "input_tokens"
    path = "/v1/responses/input_tokens"
    takes_salt = False
    computes = False
    mints_ids = False
    output_fields = ()

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        ask.stream = ask.background = False
        ask.continues, ask.taken_since = None, NEVER
        return ask
