"""What makes a node believe in another authority, and what doesn't."""

from __future__ import annotations

from typing import Any

import pytest

from bus.identity import jwt, keys, trust
from schemas.joining import NodeIdentity

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
OLD, NEW = PEM.format("b2xk"), PEM.format("bmV3")
ACCOUNT, OTHER, SIGNING = keys.generate("account"), keys.generate("account"), keys.generate("account")
NODE = keys.generate("user").public


def identity(**more: Any) -> NodeIdentity:
    token = jwt.sign(NODE, "edge-1", {"issuer_account": ACCOUNT.public}, SIGNING, now_s=0)
    told = {"node": "edge-1", "hub": "h", "shards": 2, "jwt": token, "late_jwt": "", "expires": 0, "urls": [],
            "leaf_urls": [], "ca": OLD, "ca_generation": 2}  # fmt: skip
    return NodeIdentity(**{**told, **more})


def told(*, generation: int = 3, ca: str = NEW, hub: str = "h", by: keys.Key = ACCOUNT, **more: Any) -> NodeIdentity:
    proof = trust.sign(by, hub, generation, ca)
    return identity(**{"ca": ca, "ca_generation": generation, "hub": hub, "ca_proof": proof, **more})


def test_the_word_of_the_account_is_believed_whoever_signed_the_jwt() -> None:
    assert trust.proves(told(), identity())
    assert trust.proves(told(generation=30, ca=NEW + OLD), identity())


@pytest.mark.parametrize(
    "false",
    [
        told(by=OTHER),
        told(by=SIGNING),
        told(generation=2),
        told(generation=1),
        told(hub="another"),
        told(ca_generation=9),
        told(ca=NEW).model_copy(update={"ca": OLD}),
        told(ca=""),
        told(ca_proof=""),
        told(ca_proof="é"),
        told(ca_proof="AAAA"),
        told(jwt=jwt.sign(NODE, "edge-1", {"issuer_account": OTHER.public}, OTHER, now_s=0), by=OTHER),
    ],
)
def test_nothing_else_is(false: NodeIdentity) -> None:
    assert not trust.proves(false, identity())


@pytest.mark.parametrize("known", ["", "a.b.c", jwt.sign(NODE, "x", {}, SIGNING, now_s=0)])
def test_who_does_not_know_its_account_believes_nobody(known: str) -> None:
    assert not trust.proves(told(), identity(jwt=known))


def test_bundles_share_an_authority_however_they_are_laid_out() -> None:
    assert trust.certificates(f"# x\n{OLD}\n\n{NEW}") == [OLD.strip(), NEW.strip()]
    assert trust.share(OLD, NEW + OLD.replace("\n", "\r\n")) and not trust.share(OLD, NEW) and not trust.share("", "")
