"""The contract of an admission plugin: moments of a write, each may refuse it (StatusError).

Plugins are called in their order, for requests and for controllers alike, dry runs included.
"""

from __future__ import annotations

from bus.kube.admission.asked import Asked
from bus.kube.storage import Object, Stored
from bus.kube.targets import Target, Write


class Plugin:
    """Overridden where a plugin has something to say.

    ``listens``: whether it wants to be shown every request as webhooks and policies see it (``mutate``, ``validate``)."""

    @property
    def listens(self) -> bool:
        return False

    async def mutate(self, asked: Asked) -> None:
        """A request that is on its way, the object with its defaults filled in: may replace the object."""

    async def validate(self, asked: Asked) -> None:
        """A request that is valid and about to be done."""

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        """A new object with its defaults filled in, before it is validated: may be changed in place."""

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        """A new, valid object that is about to be stored: may not be changed any more."""

    async def placed(self, target: Target, pod: Object, how: Write) -> None:
        """A pod that is about to get the node it names here (binding): may not be changed."""

    async def admit_update(self, target: Target, new: Object, old: Stored, how: Write) -> None:
        """A valid successor of what is stored, which it is about to replace: may not be changed."""

    def update(self, target: Target, new: Object, old: Object, how: Write) -> None:
        """A valid successor that is about to be stored."""

    def status(self, target: Target, new: Object, old: Object, how: Write) -> None:
        """A successor of which only the status is another, about to be stored."""

    def remove(self, target: Target, old: Object, how: Write) -> None:
        """An object that is about to be deleted, or evicted (the subresource of ``target``)."""

    def token(self, target: Target, spec: Object, how: Write) -> None:
        """A token of the service account ``target`` that is about to be made; ``spec`` of its TokenRequest, as sent."""
