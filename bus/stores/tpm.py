"""The store's key, sealed to the machine's TPM 2.0: the key file then opens nothing on another machine.

What is in the file is the TPM's own wrapping of the key under its storage primary, which every TPM derives anew from a seed
that never leaves it (TCG, "TPM 2.0 Library", part 1, 14 and 27).  With PCRs named the TPM also gives the key back only while
they are what they were: a machine that was started from another disk or with another kernel gets nothing.  Without them who
takes the whole machine and starts it from a disk of his own can ask its TPM as we do.

By Debian's tpm2-tools in processes of their own, three at a start (some 30 ms each with swtpm; a hardware TPM may take a
second): the daemon stays as small as it was, and nothing is built against the TPM's library, as tpm2-pytss would.  The key
itself goes through pipes only.  Both objects have ``noda``: their authorisation is empty, so there is nothing to guess, and
a TPM that others have locked out by guessing still opens it.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bus.stores import base

TOOLS = ("tpm2_createprimary", "tpm2_create", "tpm2_createpolicy", "tpm2_load", "tpm2_unseal", "tpm2_flushcontext")
TOOL_S_MAX = 60.0  # a hardware TPM that is asked by others as well
DEVICE = Path("/dev/tpmrm0")  # the kernel's, which shares the TPM among processes
TCTI = "TPM2TOOLS_TCTI"  # tpm2-tools' own way to name another one
FILE_BYTES_MAX = 16 << 10
PCRS = re.compile(r"sha(1|256|384|512):([0-9]|1[0-9]|2[0-3])(,([0-9]|1[0-9]|2[0-3])){0,23}")
ATTRIBUTES = "fixedtpm|fixedparent|noda"
PRIMARY_ATTRIBUTES = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"

_CODE = re.compile(r"\(0x([0-9A-Fa-f]{1,8})\)")
# TPM 2.0 Library, part 2, 6.6.3.  The upper bits of a format-one code say which parameter or session it is about.
_INTEGRITY, _POLICY_FAIL, _BAD_AUTH, _AUTH_FAIL, _SIZE = 0x9F, 0x9D, 0xA2, 0x8E, 0x95
_LOCKOUT, _PCR_CHANGED, _HIERARCHY = 0x921, 0x128, 0x85


class TpmError(base.StoreError):
    """The TPM is not there or does not give the key back; the message says why and what can be done."""


class Sealed(BaseModel):
    """What a key file holds in the place of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["skerry store key, sealed by a TPM 2.0"] = "skerry store key, sealed by a TPM 2.0"
    public: str
    private: str
    pcrs: str = ""


def is_sealed(text: str) -> bool:
    return text.lstrip().startswith("{")


def pcrs_of(text: str) -> str:
    """The PCRs that a sealed key is bound to.  Raises TpmError."""
    return _sealed(text).pcrs


def seal(key: bytes, pcrs: str = "") -> str:
    """The text of a key file.  ``pcrs``: ``sha256:0,7``, those that must not change.  Raises TpmError."""
    if pcrs and not PCRS.fullmatch(pcrs):
        raise TpmError(f"{pcrs!r} names no PCRs: sha256:7 does, or sha256:0,2,4,7")
    with _Tools() as tools:
        tools.primary()
        policy = []
        attributes = f"{ATTRIBUTES}|userwithauth"
        if pcrs:
            tools.run("createpolicy", "--policy-pcr", "-l", pcrs, "-L", "policy")
            policy, attributes = ["-L", "policy"], ATTRIBUTES
        tools.run("create", "-C", "primary", "-i", "-", "-u", "public", "-r", "private", "-a", attributes, *policy, give=key)
        public, private = tools.read("public"), tools.read("private")
    text = Sealed(public=public, private=private, pcrs=pcrs).model_dump_json(indent=1) + "\n"
    if unseal(text) != key:
        raise TpmError("the TPM gave back another key than it was given: nothing was changed")
    return text


def unseal(text: str) -> bytes:
    """The key.  Raises TpmError."""
    sealed = _sealed(text)
    with _Tools() as tools:
        tools.write("public", base64.b64decode(sealed.public))
        tools.write("private", base64.b64decode(sealed.private))
        tools.primary()
        tools.run("load", "-C", "primary", "-u", "public", "-r", "private", "-c", "key")
        how = ["-p", f"pcr:{sealed.pcrs}"] if sealed.pcrs else []
        return tools.run("unseal", "-c", "key", *how, pcrs=sealed.pcrs)


def _sealed(text: str) -> Sealed:
    try:
        sealed = Sealed.model_validate_json(text)
        for part in (sealed.public, sealed.private):
            base64.b64decode(part, validate=True)
    except (ValidationError, ValueError) as e:
        raise TpmError(f"it is no key that a TPM has sealed: {e}") from e
    if sealed.pcrs and not PCRS.fullmatch(sealed.pcrs):
        raise TpmError(f"it is no key that a TPM has sealed: {sealed.pcrs[:80]!r} names no PCRs")
    return sealed


class _Tools:
    """tpm2-tools in a folder of their own.  What lies there, the TPM has encrypted."""

    def __enter__(self) -> _Tools:
        missing = [t for t in TOOLS if shutil.which(t) is None]
        if missing:
            raise TpmError(f"{missing[0]} is not installed: apt-get install tpm2-tools (the store's key is kept by a TPM)")
        self._env = dict(os.environ)
        if not self._env.get(TCTI):
            if not DEVICE.exists():
                raise TpmError(f"this machine has no TPM 2.0 that can be used: no {DEVICE} (or name one in ${TCTI})")
            self._env[TCTI] = f"device:{DEVICE}"
        self._shared = self._env[TCTI].startswith((f"device:{DEVICE}", "tabrmd"))
        self._folder = tempfile.TemporaryDirectory(prefix="skerry-tpm-")
        self._path = Path(self._folder.name)
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()

    def write(self, name: str, data: bytes) -> None:
        (self._path / name).write_bytes(data)

    def read(self, name: str) -> str:
        return base64.b64encode((self._path / name).read_bytes()).decode()

    def primary(self) -> None:
        self.run("createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-a", PRIMARY_ATTRIBUTES, "-c", "primary")

    def run(self, what: str, *args: str, give: bytes = b"", pcrs: str = "") -> bytes:
        """Raises TpmError."""
        out = self._run(what, args, give, pcrs)
        if not self._shared:  # without a resource manager what was loaded stays, and there is room for three
            self._run("flushcontext", ("-t",), b"", "")
        return out

    def _run(self, what: str, args: tuple[str, ...], give: bytes, pcrs: str) -> bytes:
        try:
            done = subprocess.run(
                [f"tpm2_{what}", *args],
                input=give,
                capture_output=True,
                check=False,
                cwd=self._path,
                env=self._env,
                timeout=TOOL_S_MAX,
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise TpmError(f"tpm2_{what} did not end: {e}") from e
        if done.returncode:
            raise TpmError(reason(what, done.returncode, done.stderr.decode(errors="replace"), pcrs))
        return done.stdout


def reason(what: str, status: int, said: str, pcrs: str = "") -> str:
    """A tool's failure in words that help.  Pure."""
    codes = [int(c, 16) for c in _CODE.findall(said)]
    code = codes[-1] & 0xFFF if codes else 0
    kind = code & 0xBF if code & 0x80 else code  # without the parameter's number
    resync = "or remove the key file and the store (the node is synced again; reports that were not sent are lost)"
    if code == _LOCKOUT:
        return f"the TPM is locked out, somebody guessed wrong too often: wait, or tpm2_dictionarylockout -c, {resync}"
    if kind in (_BAD_AUTH, _AUTH_FAIL) and what == "createprimary":
        return "the TPM's owner hierarchy has a password of its own, which is not supported: tpm2_changeauth -c owner"
    if code & 0x80 and code & 0x3F == _HIERARCHY & 0x3F and what == "createprimary":
        return "the TPM's owner hierarchy is switched off in the machine's firmware"
    if what == "load" and kind in (_INTEGRITY, _SIZE):
        return f"the key was sealed by another TPM, or this one was cleared: use the machine that it was sealed on, {resync}"
    if what == "unseal" and (kind == _POLICY_FAIL or code == _PCR_CHANGED):
        return (
            f"the machine was started in another way than when the key was sealed ({pcrs}): start it as then, "
            f"unseal the key (--store-key-in file) and seal it anew, {resync}"
        )
    if status == 4 or "tcti" in said.lower():
        return f"the TPM can't be reached: {_last(said)}"
    return f"tpm2_{what} failed ({status}): {_last(said)}"


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:400] or "it said nothing"
