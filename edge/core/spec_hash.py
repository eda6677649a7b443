"""What makes a running container the right one.

Name and image only, as the kubelet does since 1.31: they are what the API allows to change in place, and a hash over every
field would restart healthy containers whenever an API server fills in one more default.
"""

from __future__ import annotations

import hashlib


def spec_hash(container: str, image: str) -> str:
    return hashlib.sha256(f"{container}\0{image}".encode()).hexdigest()[:16]
