"""The command line as a newcomer meets it, and what a daemon carries of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest
from click.testing import CliRunner

from ops import cli


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


EVERY = dict(_commands(cli.cli))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_says_what_it_does_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.cli, [*path, "--help"])
    assert result.exit_code == 0, result.output
    command = EVERY[path]
    assert command.help
    if not isinstance(command, click.Group):
        assert f"skerry {' '.join(path)}" in result.output.partition("Example")[2]
        assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_the_promised_commands_are_there() -> None:
    names = {" ".join(p) for p in EVERY}
    assert names >= {
        "hub init", "hub run", "hub status", "cloud run", "edge join", "edge run", "edge status", "token create",
        "token list", "token revoke", "mapper run", "schema export",
        "replay log", "replay story", "replay at", "replay verify", "status",
        "doctor", "version",
    }  # fmt: skip


def test_errors_of_ours_are_sentences_and_bugs_are_not_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli.main(["hub", "status", "--data", str(tmp_path)]) == 1
    assert "holds no hub" in capsys.readouterr().err
    assert cli.main(["no-such-command"]) == 2
    assert cli.main(["edge", "join"]) == 2
    assert cli.main(["edge", "join", "not-a-token", "--data", str(tmp_path / "n")]) == 1
    assert "join token" in capsys.readouterr().err

    @click.command()
    def broken() -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(cli.Lazy, "get_command", lambda *_: broken)
    with pytest.raises(KeyError):
        cli.main(["version"])


@pytest.mark.parametrize("url", ["http://a.example.com", "https://", "https://a.example.com/?x", "tokens"])
def test_an_issuer_of_tokens_is_an_https_url(tmp_path: Path, url: str) -> None:
    ran = CliRunner().invoke(cli.cli, ["cloud", "run", "--hub", str(tmp_path), "--service-account-issuer", url])
    assert ran.exit_code == 2 and "is no https URL" in ran.output


def test_schema_export_writes_documents_that_hold_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "export", str(tmp_path / "out")]) == 0
    written = {p.name: json.loads(p.read_text()) for p in (tmp_path / "out").iterdir()}
    assert "asyncapi.json" in written
    jsonschema.Draft202012Validator.check_schema(written["Event.schema.json"])
    (tmp_path / "file").write_text("")
    assert cli.main(["schema", "export", str(tmp_path / "file" / "x")]) == 1


HEAVY = ("aiohttp.web", "cryptography", "kubernetes", "pymodbus", "rich", "jsonschema", "cloud", "mappers")


def test_the_edge_daemon_carries_nothing_that_it_does_not_need() -> None:
    """Everything that `skerry edge run` imports before it serves, in a process of its own."""
    script = (
        "import sys\nfrom ops import cli\nfrom ops.cli import edge\nfrom ops import logs\nlogs.configure()\n"
        "from bus.identity import join\nfrom edge import daemon\nprint(*sorted(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert "edge.daemon" in out
    assert [m for m in HEAVY if m in out] == []


def test_a_command_imports_only_its_own_module() -> None:
    script = "import sys\nfrom ops import cli\ncli.main(['--help'])\nprint(*sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert [m for m in out if m.startswith("ops.cli.")] == []
    assert "nats" not in out
