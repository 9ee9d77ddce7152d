"""Create, list and revoke the registry's own bearer tokens."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from registry_service.domain.access import Grant
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.ports import Database
from registry_service.domain.tokens import Token, checked_name, digest_of, expiry, new_secret
from registry_service.domain.validation import checked_text


@dataclass(frozen=True, slots=True)
class TokenService:
    """The bearer tokens."""

    database: Database

    def create(self, grant: Grant, *, name: str = "", expires: str = "") -> tuple[Token, str]:
        """Create a token, and return it with its secret, which is stored nowhere.

        Args:
            grant: The role, and its project.
            name: The name; empty for the id.
            expires: When the token expires; see `domain.tokens.expiry`. Empty for never.

        Raises:
            InvalidArgumentError: The name, the project or `expires` is invalid.
            TokenExistsError: The name is taken.
        """
        if grant.project_id is not None:
            if not grant.project_id:
                raise InvalidArgumentError.of("project", "must not be empty.")
            checked_text(grant.project_id, "project")
        token_id = str(uuid.uuid4())
        secret = new_secret()
        digest = digest_of(secret)
        if digest is None:
            raise AssertionError("new_secret returns a secret")
        with self.database.transaction() as transaction:
            token = Token(
                id=token_id,
                name=checked_name(name) if name else token_id,
                grant=grant,
                create_time=transaction.now,
                expire_time=expiry(expires, transaction.now) if expires else None,
            )
            transaction.tokens.add(token, digest)
        return token, secret

    def revoke(self, token_id: str) -> Token:
        """Revoke a token by its id or its name, and return it, or raise TokenNotFoundError."""
        with self.database.transaction() as transaction:
            return transaction.tokens.revoke(token_id)

    def list(self) -> Sequence[Token]:
        """Return all tokens, oldest first, including expired and revoked ones."""
        with self.database.transaction() as transaction:
            return transaction.tokens.list()
