"""What listens or has to answer: Ray's token and dashboards on this machine, and an MLflow server that was named."""

import os
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from snnsweep.finding import Finding

PATIENCE_S = 5
PROCESSES = Path("/proc")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::", "")
CLOSE = (
    "end that head (`ray stop`), then: ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token && "
    "RAY_AUTH_MODE=token ray start --head --dashboard-host=127.0.0.1"
)


def examine() -> Iterator[Finding]:
    """Every finding."""
    yield token()
    yield from dashboards()
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        yield mlflow(uri)


def token() -> Finding:
    """Ray writes the token of a local cluster with the umask's mode."""
    try:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        there = path.exists()
    except (OSError, RuntimeError) as error:  # no home, or no right to look
        return Finding("Ray's token", f"cannot be looked for: {error}")
    if not there:
        return Finding("Ray's token", "none yet: the first local cluster writes one")
    open_to_others = bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    return Finding("Ray's token", str(path), f"chmod 600 {path}" if open_to_others else "")


def dashboards() -> Iterator[Finding]:
    """Those of Ray on this machine: whoever reaches one that asks for no token runs code here (CVE-2023-48022)."""
    if not PROCESSES.is_dir():
        yield Finding("Ray dashboards here", "not looked for: this system has no /proc")
        return
    found = sorted(set(_listening()))
    if not found:
        yield Finding("Ray dashboards here", "none")
    for host, port in found:
        at = f"{host or '0.0.0.0'}:{port}"
        guarded = _wants_a_token("127.0.0.1" if host in EVERY_ADDRESS else host, port)
        if guarded is None:
            yield Finding("Ray dashboard", f"{at} does not answer")
        elif guarded:
            yield Finding("Ray dashboard", f"{at} asks for a token")
        elif host in LOOPBACK:
            yield Finding("Ray dashboard", f"{at} asks for no token: whoever is on this machine runs code as its owner")
        else:
            yield Finding("Ray dashboard", f"{at} asks for no token: whoever reaches it runs code here", CLOSE)


def _listening() -> Iterator[tuple[str, int]]:
    """Host and port of each, as it was started."""
    for file in PROCESSES.glob("[0-9]*/cmdline"):
        try:
            words = file.read_text(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if any(word.endswith("ray/dashboard/dashboard.py") for word in words):
            given = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
            if given.get("port", "").isdecimal() and "minimal" not in given.get("modules-to-load", ""):
                yield given.get("host", ""), int(given["port"])


def _wants_a_token(host: str, port: int) -> bool | None:
    """None where nobody answers."""
    try:
        address = f"[{host}]" if ":" in host else host
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy's answer says nothing of it
        direct.open(f"http://{address}:{port}/api/jobs/", timeout=PATIENCE_S).close()
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, HTTPException):
        return None
    return False


def mlflow(uri: str) -> Finding:
    """The server that MLFLOW_TRACKING_URI names, shown without its secrets."""
    from snnsweep.tracking.address import redacted

    what, only = "MLFLOW_TRACKING_URI", "a sweep goes there with --tracking-uri alone"
    if not uri.startswith(("http://", "https://")):
        return Finding(what, f"{redacted(uri)}; {only}")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return Finding(what, f"{redacted(uri)} is no address: {error}", f"unset {what}")
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    try:
        urllib.request.urlopen(f"{place}/health", timeout=PATIENCE_S).close()
    except urllib.error.HTTPError as error:
        if error.code == 403:
            mend = f"start it there with --allowed-hosts {host}"
            return Finding(what, f"{place} answers 403 (its Host check)", mend)
        return Finding(what, f"{place} answers {error.code}; {only}")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        mend = f"start it there: mlflow server --host 127.0.0.1 --port {port or 5000}   # or: unset {what}"
        return Finding(what, f"{place} does not answer ({reason})", mend)
    return Finding(what, f"{place} answers; {only}")
