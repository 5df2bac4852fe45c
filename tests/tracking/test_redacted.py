"""Nothing secret of an address is written or shown, whatever form it has."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from snnsweep import doctor_servers
from snnsweep.cli import main
from snnsweep.errors import UserError
from snnsweep.sweep.storage import check_checkpoints
from snnsweep.tracking.address import redacted

ADDRESSES = [
    "postgresql://u:SECRET@h/db",
    "http:/me:SECRET@host:5000",
    "mysql://h/db?passwd=SECRET",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3DSECRET%3BUID%3Da",
    "http://h/?access_token=SECRET&order=1",
    "http://h/?auth_token=SECRET",
    "http://h/?secret_key=SECRET",
    "http://h/?api-key=SECRET",
    "http://h/#token=SECRET",
    "http://h/?sig=SECRET",
    "http://h/?X-Amz-Signature=SECRET",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_secret_is_left(address: str):
    assert "SECRET" not in redacted(f"cannot open {address}: no")


@pytest.mark.parametrize("address", ["sqlite:///a.db", "https://h/api/2.0/runs?order_by=x", "s3://bucket/path"])
def test_an_address_without_secrets_stays(address: str):
    assert redacted(address) == address


def test_checkpoints_with_credentials_are_refused_before_anything_is_tried():
    with pytest.raises(UserError, match="credentials come from the environment") as refused:
        check_checkpoints("s3://KEY:SECRET@bucket/path")
    assert "SECRET" not in str(refused.value)


def test_what_a_space_raises_is_shown_without_secrets(tmp_path: Path):
    space = tmp_path / "space.py"
    space.write_text('def space(trial):\n    raise RuntimeError("cannot open postgresql://me:SECRET@h/db")\n')
    result = CliRunner().invoke(main, ["check", str(space)])
    assert result.exit_code == 2
    assert "postgresql://***@h/db" in result.output
    assert "SECRET" not in result.output


@pytest.mark.parametrize("uri", ["http://127.0.0.1:abc", "http://a b:5000", "http://[::1", "http://h:99999"])
def test_an_address_that_is_none_is_a_finding_of_the_doctor(uri: str):
    assert doctor_servers.mlflow(uri).mend


def test_a_name_too_long_for_a_file():
    assert CliRunner().invoke(main, ["run", "a" * 300]).exit_code == 2
