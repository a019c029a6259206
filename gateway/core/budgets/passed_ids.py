"""The token ids that a client has of tokens that are made again."""


class PassedIds:
    """The ids that come next, as far as the model makes the same ones, and that the client has."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._ids)

    def add(self, ids: list[int]) -> None:
        """These are made again, before those that were to be made again already."""
        self._ids[:0] = ids

    def clear(self) -> None:
        """Nothing is made again."""
        self._ids.clear()

    def new(self, ids: list[int]) -> list[int]:
        """Those of the next `ids` that the client does not have yet."""
        for known, made in enumerate(ids):
            if not self._ids:
                return ids[known:]
            if self._ids.pop(0) != made:  # drawn otherwise: what the client has of them stays
                self._ids.clear()
                return ids[known:]
        return []
