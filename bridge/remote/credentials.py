"""What another broker is shown: user and password from where the configuration says, and certificates.

They are read anew for each connection, so that a password or certificate that was replaced needs no restart. Reading
may wait for a disk: call it in a thread.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.config_remote import RemoteTable


class CredentialsMissing(Exception):
    """A file or variable cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one connection."""

    username: str | None
    password: bytes | None = field(repr=False)
    context: ssl.SSLContext | None
    """None: without TLS."""


def read_credentials(table: RemoteTable) -> Credentials:
    """Raises: CredentialsMissing"""
    return Credentials(table.username, _password(table), _context(table) if table.broker.is_encrypted else None)


def _password(table: RemoteTable) -> bytes | None:
    if table.password_env is not None:
        value = os.environ.get(table.password_env)
        if value is None:
            raise CredentialsMissing(f"the environment has no {table.password_env} (password_env)")
        return value.encode()
    if table.password_file is None:
        return None
    try:
        lines = Path(table.password_file).read_bytes().splitlines()
    except OSError as error:
        raise CredentialsMissing(_text("password_file", table.password_file, error)) from error
    if not lines:
        raise CredentialsMissing(f"password_file {table.password_file} is empty")
    return lines[0]


def _context(table: RemoteTable) -> ssl.SSLContext:
    """TLS with the broker's certificate verified: against `ca_file`, or what the system trusts."""
    try:
        context = ssl.create_default_context(cafile=table.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise CredentialsMissing(_text("ca_file", str(table.ca_file), error)) from error
    context.check_hostname = table.check_hostname
    if table.certificate_file is not None and table.key_file is not None:
        try:
            # A key that is locked is an error: asking for its password on the terminal would hang here.
            context.load_cert_chain(table.certificate_file, table.key_file, password="")
        except OSError as error:
            raise CredentialsMissing(_text("certificate_file or key_file", table.certificate_file, error)) from error
    return context


def _text(key: str, path: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{key} {path} cannot be used: {reason[:1].lower()}{reason[1:]}"
