"""What a TPM's failure is called, and key files that no TPM has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.stores import sealed, tpm


@pytest.mark.parametrize(
    ("what", "status", "said", "match"),
    [
        ("load", 1, "Esys Finish ErrorCode (0x000001df)\nERROR: Eys_Load(0x1DF) - integrity", "sealed by another TPM"),
        ("unseal", 1, "ERROR: Esys_Unseal(0x99D) - tpm:session(1):a policy check failed", "another way .*sha256:7"),
        ("unseal", 1, "ERROR: Esys_Unseal(0x128) - PCR have changed since checked", "another way"),
        ("unseal", 1, "ERROR: Esys_Unseal(0x921) - authorizations are not allowed because of lockout", "locked out"),
        ("createprimary", 1, "ERROR: Esys_CreatePrimary(0x9A2) - authorization failure", "owner hierarchy has a password"),
        ("createprimary", 1, "ERROR: Esys_CreatePrimary(0x185) - hierarchy is not enabled", "switched off"),
        ("createprimary", 1, 'ERROR: Could not load tcti, got: "device:/dev/tpmrm0"', "can't be reached"),
        ("unseal", 3, "", r"tpm2_unseal failed \(3\): it said nothing"),
    ],
)
def test_each_failure_has_words(what: str, status: int, said: str, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        raise AssertionError(tpm.reason(what, status, said, "sha256:7"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"public": "!", "private": ""}',
        '{"public": "", "private": "", "pcrs": "sha256:7; rm"}',
        '{"public": "", "private": "", "kind": "x"}',
        '{"public": "", "private": "", "more": 1}',
        "[" * 5000,
    ],
)
def test_what_no_tpm_has_sealed_is_no_key(tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    key.chmod(0o600)
    with pytest.raises((tpm.TpmError, sealed.BadStoreKey), match="no key"):
        sealed.load_key(key)


@pytest.mark.parametrize("pcrs", ["7", "sha256", "sha256:24", "md5:7", "sha256:7,", "sha256:7 -x", "sha256:7\n"])
def test_what_names_no_pcrs_is_refused_before_a_tpm_is_asked(pcrs: str) -> None:
    with pytest.raises(tpm.TpmError, match="names no PCRs"):
        tpm.seal(b"k" * 32, pcrs)
