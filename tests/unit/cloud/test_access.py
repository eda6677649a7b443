from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bus.kube.auth import users
from cloud.standalone import access


def test_the_first_start_makes_an_administrator_and_later_ones_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "tokens"
    token = access.Tokens(path).token_of("admin")
    assert path.stat().st_mode & 0o777 == 0o600
    again = access.Tokens(path)
    assert again.authenticate({"Authorization": f"Bearer {token}"}) == users.authenticated("admin", ("system:masters",))


@pytest.mark.parametrize("header", ["Bearer", "Bearer nope", "Basic abc", "Bearer \udcff"])
def test_nobody(tmp_path: Path, header: str) -> None:
    assert access.Tokens(tmp_path / "t").authenticate({"Authorization": header}) is None


def test_without_a_token_one_is_anonymous(tmp_path: Path) -> None:
    assert access.Tokens(tmp_path / "t").authenticate({}) == users.NOBODY


def test_groups_of_a_user(tmp_path: Path) -> None:
    path = tmp_path / "t"
    access.Tokens(path)
    with path.open("a") as f:
        f.write("secret jane dev,ops\n")
    jane = access.Tokens(path).authenticate({"Authorization": "Bearer secret"})
    assert jane is not None and jane.groups == ("dev", "ops", "system:authenticated")


def test_an_open_or_malformed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    access.Tokens(path)
    path.chmod(0o644)
    with pytest.raises(access.AccessError, match="chmod 600"):
        access.Tokens(path)
    path.chmod(0o600)
    path.write_text("only-a-token\n")
    with pytest.raises(access.AccessError, match="line 1"):
        access.Tokens(path)


def test_kubeconfig(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("PEM")
    path = tmp_path / "kubeconfig"
    access.write_kubeconfig(path, server="https://127.0.0.1:6443", ca=ca, token="t")
    assert path.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert config["users"][0]["user"] == {"token": "t"}
