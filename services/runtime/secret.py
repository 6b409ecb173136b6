"""A provider's key: it is shown to the provider and to nobody else."""


class Secret:
    """Text that shows itself only when asked to."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text.strip()

    def reveal(self) -> str:
        return self.__text

    def redact(self, text: str) -> str:
        """`text` without the secret in it."""
        return text.replace(self.__text, "***") if self.__text else text

    @property
    def is_sendable(self) -> bool:
        """Whether it can stand in an HTTP header."""
        return bool(self.__text) and self.__text.isascii() and self.__text.isprintable()

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__text == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)
