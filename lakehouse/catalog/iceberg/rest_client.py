"""The HTTP client of a REST catalog: PyIceberg's, with our access to it."""

from collections.abc import Callable, Mapping
from typing import Any

import requests
from pyiceberg.catalog.rest import Endpoint, HttpMethod, RestCatalog
from pyiceberg.catalog.rest.auth import AuthManagerAdapter, NoopAuthManager
from pyiceberg.exceptions import AuthorizationExpiredError, ForbiddenError, OAuthError, RESTError, UnauthorizedError

from lakehouse.catalog.errors import ConfigurationError
from lakehouse.catalog.iceberg.rest_access import (
    Access,
    AuthorizationServerError,
    ClientCredentials,
    GivenToken,
    ObtainedHeader,
)
from lakehouse.catalog.iceberg.rest_transport import CatalogTransport
from lakehouse.catalog.iceberg.sql_catalog import CATALOG_NAME
from lakehouse.catalog.settings import Settings

TRANSACTIONS = "transactions/commit"
UNAUTHORIZED, TOKEN_EXPIRED = 401, 419
# Refusals, and not failures.
ACCESS_ERRORS = (UnauthorizedError, ForbiddenError, AuthorizationExpiredError, OAuthError)


class RestClient(RestCatalog):
    """PyIceberg's client, which also says what the server can do and posts any request.

    Args:
        access: What the server is shown.
        properties: As PyIceberg documents them.
    """

    def __init__(self, access: Access, **properties: str) -> None:
        self._access = access
        super().__init__(CATALOG_NAME, **properties)

    def _create_session(self) -> requests.Session:
        session: requests.Session = super()._create_session()
        self._auth_manager = self._access
        session.auth = AuthManagerAdapter(self._access)
        session.mount("http://", CatalogTransport())
        session.mount("https://", CatalogTransport())
        return session

    def _refresh_token(self) -> None:
        # PyIceberg comes here when a token was refused, and then tries again.
        if isinstance(self._access, ClientCredentials):
            self._access.forget()

    @property
    def announces_transactions(self) -> bool:
        wanted = Endpoint(http_method=HttpMethod.POST, path=f"/v1/{{prefix}}/{TRANSACTIONS}")
        return wanted in self._supported_endpoints

    @property
    def ignores_first_commits(self) -> bool:
        """Whether the server does not check that a table has no snapshot yet, which null asks for by the protocol.

        Nessie does not: of two first commits both would win, and the rows of one would be lost.
        """
        return bool(self.properties.get("nessie.is-nessie-catalog") == "true")

    def post(self, path: str, body: Mapping[str, Any], before: Callable[[], None] = lambda: None) -> requests.Response:
        """Send a request; once more, with another token, if the one it had was refused.

        Args:
            path: Below the catalog's prefix.
            body: What is sent as JSON.
            before: Called when the token is there and just before the request is sent, each time; what it raises
                keeps the request from being sent.

        Raises:
            OAuthError: If the authorization server gives no token.
            AuthorizationServerError: If it fails, or cannot be reached.
            requests.RequestException: If nobody knows what the catalog did.
        """
        response = self._post(path, body, before)
        if response.status_code in (UNAUTHORIZED, TOKEN_EXPIRED) and isinstance(self._access, ClientCredentials):
            self._access.forget()
            response = self._post(path, body, before)
        return response

    def _post(self, path: str, body: Mapping[str, Any], before: Callable[[], None]) -> requests.Response:
        shown = ObtainedHeader(self._access)
        before()
        response: requests.Response = self._session.post(self.url(path), json=body, auth=shown)
        return response

    def table_path(self, identifier: str) -> str:
        parts = self._split_identifier_for_path(identifier)
        return f"namespaces/{parts['namespace']}/tables/{parts['table']}"


def connect(settings: Settings, properties: Mapping[str, str]) -> RestClient:
    """A client of the catalog that `settings` name.

    Args:
        settings: `catalog_uri` and what follows it.
        properties: More for PyIceberg, such as those of the storage.

    Raises:
        ConfigurationError: If it refuses, or cannot be reached.
    """
    if settings.catalog_warehouse:
        properties = {**properties, "warehouse": settings.catalog_warehouse}
    try:
        return RestClient(_access(settings), uri=settings.catalog_uri, **properties)
    except OAuthError as error:
        raise ConfigurationError(f"LAKEHOUSE_CATALOG_CREDENTIAL: no token is given for it ({error})") from error
    except ACCESS_ERRORS:
        raise ConfigurationError("LAKEHOUSE_CATALOG_TOKEN or _CREDENTIAL: the catalog refuses access") from None
    except AuthorizationServerError as error:
        raise ConfigurationError(
            f"LAKEHOUSE_CATALOG_OAUTH2_SERVER_URI: no token for LAKEHOUSE_CATALOG_CREDENTIAL, because the "
            f"authorization server fails or cannot be reached ({error})"
        ) from None
    except (RESTError, NotImplementedError, requests.RequestException, ValueError) as error:
        # Without its cause: an answer that is not understood, and a header that cannot be sent, are in its text.
        text = f"LAKEHOUSE_CATALOG_URI: the catalog cannot be reached or refuses ({type(error).__name__})"
        raise ConfigurationError(text) from None


def _access(settings: Settings) -> Access:
    if credential := settings.catalog_credential.get_secret_value():
        return ClientCredentials(settings.catalog_token_url, credential, settings.catalog_scope)
    token = settings.catalog_token.get_secret_value()
    return GivenToken(token) if token else NoopAuthManager()
