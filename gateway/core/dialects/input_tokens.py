"""`/v1/responses/input_tokens`: how many tokens the prompt of a response has.

Nodes have no such path: they are asked to tokenize the chat that stands for the response.
"""

from gateway.core.dialects.responses import ChatOnlyResponses


class InputTokens(ChatOnlyResponses):
    """Counts the tokens of a response's prompt; the answer is one number."""

    name = "input_tokens"
    path = "/v1/responses/input_tokens"
    takes_salt = False
    computes = False
    output_fields = ()
