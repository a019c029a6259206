"""The frames between a gateway and the process that reads bodies for it (see `child`)."""

import struct
from typing import Final

REQUEST: Final = struct.Struct("!HQ")
ANSWER: Final = struct.Struct("!Q")
