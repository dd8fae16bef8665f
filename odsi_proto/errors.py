"""The exceptions of the project; each message is one line that says what, where and what to do.

Who is at fault decides the class. A peer's fault never raises out of an endpoint (it becomes a
close, reset or refusal effect); a caller's fault raises :class:`LocalProtocolError` and changes
nothing; anything that is not an :class:`OdsiError` is a bug of ours.
"""


class OdsiError(Exception):
    """Base of every error that a user can cause or meet; ``str()`` is fit to be shown as it is."""


class Malformed(OdsiError):
    """Bytes that no conforming peer sends."""

    def __init__(self, what: str, *, spec: str = "") -> None:
        self.what = what
        self.spec = spec
        super().__init__(f"{what} ({spec})" if spec else what)


class Incomplete(OdsiError):
    """The bytes so far are a proper prefix of something; more are needed to tell what."""


class LocalProtocolError(OdsiError):
    """The caller asked for what the protocol forbids in this state; nothing changed."""


class RemoteProtocolError(OdsiError):
    """A peer broke a rule: the wire error code, the place and the requirement it broke."""

    def __init__(self, code: int, what: str, *, spec: str = "") -> None:
        self.code = code
        self.what = what
        self.spec = spec
        super().__init__(f"{what} ({spec})" if spec else what)


class ConfigError(OdsiError):
    """A flag, a setting or an argument that can not be used."""


class IdentityError(OdsiError):
    """An identity that can not be read, written or trusted."""


class ModelError(OdsiError):
    """A model file, manifest or template that can not be used: names the file and the tensor or field."""


class CapacityError(OdsiError):
    """What was asked for does not fit; the message has both numbers."""


class PeerError(OdsiError):
    """A peer that can not be reached, is somebody else, went silent or closed the connection."""


class RequestFailedError(OdsiError):
    """A request that ended without its tokens; names the stage and the reason."""
