"""Keys, JWTs, credentials, tokens and permissions as texts: what we write can be read, and what is damaged is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import nkeys
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.identity import creds, jwt, keys, permissions, tokens
from schemas import identity, subjects
from schemas.joining import JoinToken


@pytest.mark.parametrize("role", ["operator", "account", "user"])
def test_a_key_is_for_one_role(role: keys.Role) -> None:
    key = keys.generate(role)
    assert keys.from_seed(key.seed + "\n", role) == key
    assert keys.check_public(key.public, role) == key.public
    assert key.seed not in repr(key)
    for other in {"operator", "account", "user"} - {role}:
        with pytest.raises(keys.BadKey):
            keys.from_seed(key.seed, other)  # type: ignore[arg-type]


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    for check in (lambda: keys.from_seed(text, "user"), lambda: keys.check_public(text, "user")):
        with pytest.raises(keys.BadKey):
            check()


def test_one_wrong_letter_in_a_public_key_is_found() -> None:
    public = keys.generate("user").public
    for at in (1, 30, 55):
        wrong = public[:at] + ("A" if public[at] != "A" else "B") + public[at + 1 :]
        with pytest.raises(keys.BadKey):
            keys.check_public(wrong, "user")


def test_a_jwt_is_signed_over_what_it_says() -> None:
    signer, user = keys.generate("account"), keys.generate("user")
    token = jwt.sign(user.public, "edge-1", {"type": "user"}, signer, now_s=100, expires_s=200)
    claims = jwt.claims_of(token)
    assert (claims["sub"], claims["iss"], claims["iat"], claims["exp"]) == (user.public, signer.public, 100, 200)
    assert claims["nats"] == {"type": "user", "version": 2}
    head, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    assert nkeys.from_seed(signer.seed.encode()).verify(head.encode(), raw)
    later = jwt.claims_of(jwt.sign(user.public, "edge-1", {"type": "user"}, signer, now_s=101, expires_s=200))
    assert jwt.same_claims(claims, later) and claims["jti"] != later["jti"]


@given(st.text(max_size=200))
def test_any_text_is_a_jwt_or_refused(text: str) -> None:
    with pytest.raises(jwt.BadJwt):
        jwt.claims_of(text)


def test_credentials_are_read_back_and_secret(tmp_path: Path) -> None:
    key = keys.generate("user")
    made = creds.Credentials(jwt.sign(key.public, "n", {"type": "user"}, keys.generate("account"), now_s=1), key.seed)
    made.write(tmp_path / "n.creds")
    assert creds.read(tmp_path / "n.creds") == made and made.key == key
    assert (tmp_path / "n.creds").stat().st_mode & 0o777 == 0o600
    assert key.seed not in repr(made)
    (tmp_path / "n.creds").write_text("nothing")
    for path in (tmp_path / "n.creds", tmp_path / "missing"):
        with pytest.raises(creds.BadCredentials, match=path.name):
            creds.read(path)


def _token() -> JoinToken:
    return JoinToken(urls=["tls://h:1"], ca="PEM", id="abc", secret="s" * 64, jwt="j", seed=keys.generate("user").seed)


def test_a_token_survives_a_terminal_that_wraps_it() -> None:
    token = _token()
    text = tokens.encode(token)
    wrapped = "  " + "\n".join(text[i : i + 40] for i in range(0, len(text), 40)) + "\n"
    assert tokens.decode(wrapped) == token


def test_a_cut_token_is_refused_at_every_length() -> None:
    text = tokens.encode(_token())
    for length in range(len(text) - 1):
        with pytest.raises(tokens.BadToken):
            tokens.decode(text[:length])


def _matches(allowed: str, subject: str) -> bool:
    a, s = allowed.split("."), subject.split(".")
    for i, token in enumerate(a):
        if token == ">":
            return len(s) > i
        if i >= len(s) or token not in ("*", s[i]):
            return False
    return len(a) == len(s)


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?(\.[a-z0-9]{1,4})?", fullmatch=True).filter(lambda n: n != "all")


@given(NAMES, NAMES, st.integers(1, 16))
def test_no_permission_of_a_node_reaches_another(one: str, other: str, shards: int) -> None:
    if one == other:
        return
    claims = permissions.node(one, "U" + "A" * 55, shards)
    theirs = "U" + "B" * 55
    up = subjects.uplink(other, permissions.life_of(theirs))
    speak = (
        subjects.report(other, "node", shards),
        subjects.report(other, "pod", shards, "ns", "x"),
        subjects.sync_request(other, "n"),
        subjects.beat(other),
        subjects.renew_request(other),
        f"{up}.deliver.S.x",
        subjects.command(other, "exec"),
        "$JS.API.INFO",
        "cluster.core.pods.default.x",
    )
    hear = (
        f"live.{subjects.escape(other)}.core.pods.default.x",
        subjects.sync_answer(other, "n"),
        subjects.command(other, "exec"),
        f"{subjects.inbox(other)}.x",
        f"{up}.api.CONSUMER.CREATE.TELEMETRY.x",
        subjects.report(one, "node", shards),
    )
    for subject in speak:
        assert not any(_matches(a, subject) for a in claims["pub"]["allow"]), subject
    for subject in hear:
        assert not any(_matches(a, subject) for a in claims["sub"]["allow"]), subject
    assert any(_matches(a, subjects.report(one, "pod", shards, "ns", "x")) for a in claims["pub"]["allow"])
    assert any(_matches(a, subjects.beat(one)) for a in claims["pub"]["allow"])


@given(st.text(max_size=300))
def test_a_node_name_is_a_dns_name_or_refused(text: str) -> None:
    try:
        identity.check_node_name(text)
    except ValueError:
        return
    assert subjects.unescape(subjects.escape(text)) == text
    assert all(c.isascii() and (c.isalnum() or c in "-.") for c in text) and text.lower() == text
