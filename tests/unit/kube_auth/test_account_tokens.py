"""Tokens of service accounts: what is in them, when they count, and what ends them."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bus.identity import api_keys
from bus.kube.auth import jws
from bus.kube.auth.account_tokens import Issuer
from bus.kube.deletion import DeleteOptions
from bus.kube.targets import Write
from schemas.identity import ApiKeys
from schemas.subjects import ObjectKey
from tests.unit.kube_auth.conftest import ME, Roles

US = 1_000_000
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
NAME = "system:serviceaccount:default:default"
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
HOW = Write(ME)


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def asked(api: Roles, **spec: Any) -> dict[str, Any]:
    made: dict[str, Any] = (await api.admin("POST", f"{ACCOUNT}/token", {"spec": spec}))["status"]
    return made


async def reviewed(api: Roles, token: str, *audiences: str) -> dict[str, Any]:
    spec = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
    status: dict[str, Any] = (await api.admin("POST", REVIEW, {"spec": spec}))["status"]
    return status


async def made_pod(api: Roles, name: str = "p", **spec: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    return await api.api.create("", "pods", "default", body, how=HOW)


async def who(api: Roles, token: str) -> Any:
    """(code, name) of who the server takes the holder for."""
    code, got = await api.ask(token, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    return code, got.get("status", {}).get("userInfo", {}).get("username") if code == 201 else ""


async def test_claims_are_those_of_the_real_server(api: Roles) -> None:
    await api.api.create("", "nodes", "", {"metadata": {"name": "n"}}, how=HOW)
    pod = await made_pod(api, nodeName="n")
    account = await api.api.get("", "serviceaccounts", "default", "default")
    node = await api.api.get("", "nodes", "", "n")
    claims = claims_of((await asked(api, boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "p"}))["token"])
    assert claims["iss"] == "https://kubernetes.default.svc.cluster.local" and claims["aud"] == [claims["iss"]]
    assert claims["sub"] == NAME and claims["exp"] == claims["iat"] + 3600 and claims["nbf"] == claims["iat"]
    assert claims["jti"]
    assert claims["kubernetes.io"] == {
        "namespace": "default",
        "serviceaccount": {"name": "default", "uid": account["metadata"]["uid"]},
        "pod": {"name": "p", "uid": pod["metadata"]["uid"]},
        "node": {"name": "n", "uid": node["metadata"]["uid"]},
    }


async def test_a_pods_usual_hour_is_given_a_year_and_says_when_to_renew(api: Roles) -> None:
    await made_pod(api)
    status = await asked(api, expirationSeconds=3607, boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "p"})
    claims = claims_of(status["token"])
    assert claims["kubernetes.io"]["warnafter"] == claims["iat"] + 3607 and claims["exp"] == claims["iat"] + 365 * 86_400
    other = await asked(api, expirationSeconds=3607, audiences=["vault"])
    assert claims_of(other["token"])["exp"] == claims_of(other["token"])["iat"] + 3607, "only for the API itself"


async def test_the_holder_is_the_account(api: Roles) -> None:
    pod = await made_pod(api)
    token = (await asked(api, boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "p"}))["token"]
    code, got = await api.ask(token, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    info = got["status"]["userInfo"]
    assert code == 201 and info["username"] == NAME
    assert set(info["groups"]) == {"system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"}
    extra = {k.removeprefix("authentication.kubernetes.io/"): v for k, v in info["extra"].items()}
    assert extra["pod-name"] == ["p"] and extra["pod-uid"] == [pod["metadata"]["uid"]]
    assert extra["credential-id"] == [f"JTI={claims_of(token)['jti']}"]
    code, got = await api.ask(token, "GET", "/api/v1/namespaces/default/configmaps")
    assert code == 403 and f'User "{NAME}" cannot list' in got["message"]
    await api.role("reader", {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]})
    await api.bind("reader", "ServiceAccount/default/default")
    assert (await api.ask(token, "GET", "/api/v1/namespaces/default/configmaps"))[0] == 200


@pytest.mark.parametrize(
    ("kind", "resource", "namespace"), [("Pod", "pods", "default"), ("Secret", "secrets", "default"), ("Node", "nodes", "")]
)
async def test_a_token_ends_with_what_it_is_bound_to(api: Roles, kind: str, resource: str, namespace: str) -> None:
    body: dict[str, Any] = {"metadata": {"name": "b"}}
    if kind == "Pod":
        body["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    await api.api.create("", resource, namespace, body, how=HOW)
    token = (await asked(api, boundObjectRef={"apiVersion": "v1", "kind": kind, "name": "b"}))["token"]
    assert await who(api, token) == (201, NAME)
    await api.api.delete("", resource, namespace, "b", how=HOW, options=DeleteOptions(grace_s=0))
    assert (await who(api, token))[0] == 401
    await api.api.create("", resource, namespace, body, how=HOW)
    assert (await who(api, token))[0] == 401, "another one of the same name is another one"


async def test_a_token_ends_with_its_account(api: Roles) -> None:
    token = (await asked(api))["token"]
    await api.api.delete("", "serviceaccounts", "default", "default", how=HOW)
    assert (await who(api, token))[0] == 401
    await api.api.create("", "serviceaccounts", "default", {"metadata": {"name": "default"}}, how=HOW)
    assert (await who(api, token))[0] == 401


async def test_audiences(api: Roles) -> None:
    token = (await asked(api, audiences=["vault", "other"]))["token"]
    assert (await who(api, token))[0] == 401, "it is not for the API"
    status = await reviewed(api, token, "vault", "third")
    assert status["authenticated"] is True and status["audiences"] == ["vault"]
    assert status["user"]["username"] == NAME
    refused = await reviewed(api, token)
    assert "authenticated" not in refused and "invalid bearer token" in refused["error"]
    assert "authenticated" not in await reviewed(api, token, "third")
    mine = (await asked(api))["token"]
    assert (await reviewed(api, mine))["audiences"] == ["https://kubernetes.default.svc.cluster.local"]


async def test_review_of_other_tokens(api: Roles) -> None:
    assert (await reviewed(api, "jane/dev"))["user"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
    assert "error" in await reviewed(api, "bad")
    assert "error" in await reviewed(api, "jane/dev", "vault"), "what the server itself knows is for itself only"
    code, got = await api.ask("root/system:masters", "POST", REVIEW, {"spec": {}})
    assert (code, got["message"]) == (400, "token is required for TokenReview in authentication")


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": 1 << 33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}, 404, 'pods "none" not found'),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}}, 400, "cannot bind token to object"),
        ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}}, 409, "does not match the UID"),
    ],
)
async def test_requests_that_are_refused(api: Roles, spec: Any, code: int, says: str) -> None:
    await made_pod(api)
    got = await api.ask("root/system:masters", "POST", f"{ACCOUNT}/token", {"spec": spec})
    assert got[0] == code and says in got[1]["message"], got


async def test_a_pod_of_another_account_binds_nothing(api: Roles) -> None:
    await api.api.create("", "serviceaccounts", "default", {"metadata": {"name": "other"}}, how=HOW)
    await made_pod(api, serviceAccountName="other")
    spec = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}
    code, got = await api.ask("root/system:masters", "POST", f"{ACCOUNT}/token", {"spec": spec})
    assert code == 400 and "running with different serviceaccount name." in got["message"]
    path = "/api/v1/namespaces/default/serviceaccounts/none/token"
    assert (await api.ask("root/system:masters", "POST", path, {"spec": {}}))[0] == 404


async def test_a_token_needs_the_right_to_ask_for_it(api: Roles) -> None:
    code, got = await api.ask("jane", "POST", f"{ACCOUNT}/token", {"spec": {}})
    assert code == 403 and 'cannot create resource "serviceaccounts/token"' in got["message"]


async def test_the_key_set_checks_a_token_and_is_for_accounts(api: Roles) -> None:
    token = (await asked(api))["token"]
    code, found = await api.ask(token, "GET", "/openid/v1/jwks")
    assert code == 200 and [k["alg"] for k in found["keys"]] == ["ES256"]
    key = found["keys"][0]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(key[c] + "=")) for c in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    assert jws.verify(token, {key["kid"]: public})[1] == claims_of(token)
    code, document = await api.ask(token, "GET", "/.well-known/openid-configuration")
    assert code == 200 and document["issuer"] == claims_of(token)["iss"] and document["jwks_uri"].endswith("/openid/v1/jwks")
    assert (await api.ask("jane", "GET", "/openid/v1/jwks"))[0] == 403


def forged() -> list[str]:
    """Tokens that look like a good one, each wrong in one way."""
    seal = api_keys.Seal("x")
    key = seal.open(seal.make(0, signs_from=0))
    good = jws.sign({"a": 1}, "k", key)
    head, body, signature = good.split(".")

    def b64(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    other = b64({"a": 2})
    headers = [{"alg": "none", "kid": "k"}, {"alg": "HS256", "kid": "k"}, {"alg": "ES256"}, {"alg": "ES256", "kid": "z"}]
    out = [f"{b64(h)}.{body}.{signature}" for h in headers]
    out += [f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}", f"{head}.{body}"]
    out += [f"{head}.{body}.{'A' * len(signature)}", f"{head}.{body}={'.'}{signature}", "x" * 20_000, "é.é.é", ".."]
    return [
        *out,
        f"{b64([])}.{body}.{signature}",
        f"{b64({'alg': 'ES256', 'kid': 'k', 'crit': ['b64']})}.{body}.{signature}",
    ]


@pytest.mark.parametrize("token", forged())
def test_what_is_forged_is_refused(token: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(jws.BadToken):
        jws.verify(token, {"k": key.public_key()})


async def test_times(api: Roles) -> None:
    """The issuer's clock is moved: nothing waits."""
    issuer = api.api.issuer
    assert issuer is not None
    token = (await asked(api, expirationSeconds=600))["token"]
    born = claims_of(token)["iat"]
    for seconds, counts in ((0, True), (599, True), (600, False), (-59, True), (-120, False)):
        issuer._now_us = lambda s=seconds: (born + s) * US  # type: ignore[misc]
        assert ((await who(api, token))[0] == 201) is counts, seconds


async def test_a_former_issuers_tokens_still_count(api: Roles) -> None:
    was = api.api.issuer
    assert was is not None
    token = (await asked(api))["token"]
    new = "https://tokens.example.com"
    for names, known in (((new,), False), ((new, was.name), True)):
        issuer = Issuer(was._keys, api.storage, was._now_us, names=names)
        if known:
            assert issuer.user(token)[0].name == NAME
        else:
            with pytest.raises(jws.BadToken):
                issuer.user(token)
        account = api.storage.get(ObjectKey("", "serviceaccounts", "default", "default"))
        assert account is not None
        made, _ = issuer.issue(account.object, issuer.audiences, 3600, {})
        assert claims_of(made)["iss"] == new and issuer.user(made)[0].name == NAME
        assert issuer.configuration("api.example.com:6443")["issuer"] == new


# --- the ring --------------------------------------------------------------------------------------------------------


def ring_of(*made: int) -> tuple[api_keys.Seal, ApiKeys]:
    seal = api_keys.Seal("secret")
    ring = ApiKeys(keys=[seal.make(0, signs_from=0)])
    for at in made:
        ring = api_keys.rotated(ring, seal.make(at, signs_from=at + api_keys.SETTLE_US), at)
    return seal, ring


def test_a_new_key_signs_when_everybody_knows_it_and_the_old_ones_tokens_count_until_they_end() -> None:
    seal, ring = ring_of(100 * US)
    old, new = ring.keys
    assert api_keys.signing(ring, 101 * US) == old and api_keys.signing(ring, 110 * US) == new
    ends = 110 * US + api_keys.LIFE_US_MAX
    assert api_keys.verifying(ring, ends - 1) == [old, new] and api_keys.verifying(ring, ends) == [new]
    later = api_keys.rotated(ring, seal.make(ends, signs_from=ends + api_keys.SETTLE_US), ends)
    assert old not in later.keys and len(later.keys) == 2, "what is over is dropped"


def test_the_key_that_signs_is_not_retired_but_any_other() -> None:
    _, ring = ring_of()
    with pytest.raises(api_keys.KeyProblem, match="rotate first"):
        api_keys.retired(ring, ring.keys[0].kid, 0)
    _, ring = ring_of(100 * US)
    left = api_keys.retired(ring, ring.keys[0].kid[:12], 101 * US)
    assert left.keys == ring.keys[1:] and api_keys.signing(left, 101 * US) == ring.keys[1], "it signs at once then"
    with pytest.raises(api_keys.KeyProblem, match="no key begins"):
        api_keys.retired(ring, "nope", 0)


def test_there_are_not_ever_more_keys() -> None:
    seal, ring = ring_of(*range(US, (api_keys.KEYS_MAX) * US, US))
    with pytest.raises(api_keys.KeyProblem, match="retire some"):
        for at in itertools.count(1):
            ring = api_keys.rotated(ring, seal.make(at, signs_from=at), at)


def test_the_log_alone_signs_nothing() -> None:
    seal, ring = ring_of()
    assert seal.open(ring.keys[0]).curve.name == "secp256r1"
    with pytest.raises(api_keys.KeyProblem, match="can't be opened"):
        api_keys.Seal("another hub").open(ring.keys[0])
    assert "PRIVATE" not in ring.model_dump_json()


async def test_a_retired_keys_tokens_are_refused_at_once(api: Roles) -> None:
    issuer = api.api.issuer
    assert issuer is not None
    seal, ring = ring_of()
    keys = api_keys.Ring(seal)
    keys.take(ring)
    issuer._keys = keys
    token = (await asked(api))["token"]
    assert await who(api, token) == (201, NAME)
    now = 1 << 51  # in the year 2041
    keys.take(rotated := api_keys.rotated(ring, seal.make(now, signs_from=now), 0))
    assert await who(api, token) == (201, NAME)
    keys.take(api_keys.retired(rotated, ring.keys[0].kid, now))
    assert (await who(api, token))[0] == 401
    assert await who(api, (await asked(api))["token"]) == (201, NAME)
