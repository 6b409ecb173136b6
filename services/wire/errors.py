"""What a codec says when bytes are not what they should be."""


class InvalidRequest(ValueError):  # noqa: N818 - named for what the caller sent, like the reason it becomes
    """A request body that OpenAI's API would refuse; `param` is the path of the field at fault, when it is one field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidAnswer(ValueError):  # noqa: N818 - see above
    """A provider's answer that is not a JSON object."""
