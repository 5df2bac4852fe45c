"""Where MLflow is: tried before a sweep begins, shown without its secrets, served for the browser."""

import re
import sys
from pathlib import Path

import sqlalchemy

from snnsweep.errors import UserError

_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SCHEMES = ("http", "https", *_DATABASES, "databricks")


_SECRET = re.compile(  # the value of a setting in an address, also of one that was encoded in it
    r"(?i)((?:[?&;#]|%3B|%26)[\w.-]*?(?:pass(?:wd|word)?|pwd|token|secret|key|sig(?:nature)?|credential)[\w.-]*(?:=|%3D))"
    r"(?:(?!%3B|%26)[^\s&;'\"])+"
)


def redacted(text: str) -> str:
    """`text` without the user, passwords and tokens of the URIs in it."""
    text = re.sub(r"(?<=://)[^\s/][^\s]*@", "***@", text)
    text = re.sub(r"(?<=https:/)(?!/)[^\s/]+@|(?<=http:/)(?!/)[^\s/]+@", "***@", text)  # a slash was forgotten
    return _SECRET.sub(r"\1***", text)


def kept(uri: str) -> str:
    """A redacted address as one to use: who may enter is MLflow's to know then, from MLFLOW_TRACKING_USERNAME."""
    return uri.replace("://***@", "://")


def absolute(uri: str) -> str:
    """A sqlite address that means the same file from every folder."""
    if not uri.startswith(_SQLITE):
        return uri
    return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).resolve())


def artifacts_of(uri: str) -> Path | None:
    """Where the files of runs in a sqlite database go: beside it. A server knows for itself."""
    return Path(uri.removeprefix(_SQLITE)).parent / "mlflow-artifacts" if uri.startswith(_SQLITE) else None


def check(uri: str) -> None:
    """Raises:
    UserError: MLflow knows no such kind of address.
    """
    if uri.partition(":")[0].partition("+")[0] not in _SCHEMES:
        raise UserError(
            f"--tracking-uri {redacted(uri)}: has to start with http://, https:// or a database such as sqlite:///"
        )


def server_command(tracking_uri: str, artifacts: Path, port: int) -> list[str]:
    """The command that shows a sweep's embedded MLflow at http://127.0.0.1:`port`."""
    places = ["--backend-store-uri", tracking_uri, "--artifacts-destination", str(artifacts)]
    return [sys.executable, "-m", "mlflow", "server", *places, "--host", "127.0.0.1", "--port", str(port), "-w", "1"]


def page(port: int, experiment_id: str) -> str:
    """The runs of an experiment; by default MLflow opens its pages for language models."""
    return f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def probe(uri: str) -> None:
    """Fail at once where MLflow would try for minutes, or would say it in a page."""
    scheme = uri.partition(":")[0].partition("+")[0]
    check(uri)
    if scheme not in _DATABASES:
        return
    if scheme == "sqlite":
        Path(uri.partition(":///")[2] or ".").parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        if scheme == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # opens it for writing; rolled back at once
    engine.dispose()
