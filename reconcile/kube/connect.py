"""The way to an API server: where it is, how it is checked, who we are.

`kubernetes.aio` reads the configuration (pod or kubeconfig, login programs, cloud providers) and makes the TLS context; requests
go over the `aiohttp` session that it makes. What the library lacks is added here: `as` and `as-groups`, token files that
are read again, login programs with a deadline, and client keys that do not stay on disk.

The order in which a configuration is searched is that of controller-runtime: the one given, `KUBECONFIG`, the pod's own,
`~/.kube/config`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import incluster_config as _pod
from kubernetes.aio.config import kube_config as _file
from kubernetes.aio.config.config_exception import ConfigException
from yarl import URL

from reconcile import __version__
from reconcile.errors import Invalid
from reconcile.kube.limiter import BURST, QPS
from reconcile.net.proxy import ProxyEnvironment
from reconcile.ports.clock import Clock

USER_AGENT = f"imagebot/{__version__}"

# These two modules of the library have no types.
incluster_config: Any = _pod
kube_config: Any = _file

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LOGIN_TIMEOUT = 60.0
"""Seconds that a login program may take."""
TOKEN_AGE = 60.0
"""Seconds after which a token is looked up again: a kubelet renews its file long before the old one ends."""


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom to act as."""

    user: str
    groups: tuple[str, ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """The request headers that say so; raises Invalid for a name that would be more than a header's value."""
        for name in (self.user, *self.groups):
            if not name.isprintable():
                raise Invalid(f"cannot act as {name!r}: nobody has such a name")
        return [("Impersonate-User", self.user), *(("Impersonate-Group", group) for group in self.groups)]


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """How to reach the cluster.

    Attributes:
        kubeconfig: file; empty: search as controller-runtime does.
        context: context of the kubeconfig; empty: its current one.
        impersonate: whom to act as, over what the kubeconfig says.
        qps: requests a second, over time.
        burst: requests at once.
        timeout: seconds for one request; a watch has its own limits.
        connections: open connections, watches included.
    """

    kubeconfig: str = ""
    context: str = ""
    impersonate: Impersonation | None = None
    qps: float = QPS
    burst: int = BURST
    timeout: float = 30.0
    connections: int = 128


Login = Callable[[bool], Awaitable[str | None]]
"""Gives the Authorization header; the argument says that the last one was refused."""


@dataclass
class Connection:
    """An open way to one API server. Its repr shows no credential."""

    server: str
    namespace: str
    """The namespace we are in: the pod's, or that of the context."""
    session: aiohttp.ClientSession
    options: Mapping[str, Any] = field(repr=False)
    """Arguments for each request of the session: proxy and expected server name."""
    impersonate: Impersonation | None
    clock: Clock
    _login: Login = field(repr=False)
    _token: str | None = field(default=None, repr=False)
    _token_time: float = float("-inf")
    _refused: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def authorization(self) -> str | None:
        """The Authorization header; None when a client certificate says who we are. Raises Invalid when the login fails."""
        if self.clock.monotonic() - self._token_time < TOKEN_AGE:
            return self._token
        async with self._lock:
            if self.clock.monotonic() - self._token_time >= TOKEN_AGE:
                refused, self._refused = self._refused, False
                self._token = await _timely(self._login, refused)
                self._token_time = self.clock.monotonic()
        return self._token

    def forget_token(self) -> None:
        """Log in again for the next request: the server has refused the present token."""
        self._token_time, self._refused = float("-inf"), True


class _Rest(RESTClientObject):
    """The library's transport; only its TLS context and its session are used."""

    def session(self) -> aiohttp.ClientSession:
        """A session with the library's connector."""
        made: aiohttp.ClientSession = self._create_pool_manager()
        return made


@asynccontextmanager
async def connect(settings: KubeSettings, clock: Clock, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Connection]:
    """A connection by these settings; closed when the block is left. Nothing is asked of the server yet.

    Raises:
        Invalid: There is no configuration, or it cannot be used.
    """
    configuration = Configuration()
    # Cluster authorities lack extensions that the strict mode of OpenSSL wants (default since Python 3.13), and Go does not.
    configuration.disable_strict_ssl_verification = True
    try:
        namespace, login, impersonate = await _configure(settings, configuration, environment)
        rest = _Rest(configuration)  # no await in between: another connection might remove the files
    except Invalid:
        raise
    except Exception as error:  # the library lets through whatever a wrong file leads it to
        where = settings.kubeconfig or environment.get("KUBECONFIG") or "configuration of the cluster"
        raise Invalid(f"{where}: {_text(error)}") from error
    finally:
        kube_config._cleanup_temp_files()  # noqa: SLF001 - client keys that the library wrote down; the context has read them
    configuration.connection_pool_maxsize = settings.connections
    rest.maxsize = settings.connections
    proxy = configuration.proxy or _proxy(configuration.host, environment)
    options = {"proxy": proxy, "server_hostname": configuration.tls_server_name}
    configuration.client_session_kwargs = {
        "cookie_jar": aiohttp.DummyCookieJar(),
        "trust_env": False,  # it would read ~/.netrc for every request; the proxy is chosen here
        "timeout": aiohttp.ClientTimeout(total=settings.timeout, connect=min(10.0, settings.timeout)),
    }
    session = rest.session()
    try:
        yield Connection(
            server=configuration.host,
            namespace=namespace,
            session=session,
            options={name: value for name, value in options.items() if value},
            impersonate=settings.impersonate or impersonate,
            clock=clock,
            _login=login,
        )
    finally:
        await session.close()


def _proxy(server: str, environment: Mapping[str, str]) -> str | None:
    address = URL(server)
    return ProxyEnvironment.read(environment).choose(address.scheme, address.host or "", address.port or 443)


async def _configure(
    settings: KubeSettings, configuration: Configuration, environment: Mapping[str, str]
) -> tuple[str, Login, Impersonation | None]:
    path = settings.kubeconfig or environment.get("KUBECONFIG", "")
    if not path and incluster_config.SERVICE_HOST_ENV_NAME in environment:
        incluster_config.load_incluster_config(configuration)
        return _pod_namespace(), _file_login(Path(incluster_config.SERVICE_TOKEN_FILENAME)), None
    return await _from_kubeconfig(_kubeconfig(path, environment), settings.context or None, configuration)


def _pod_namespace() -> str:
    return POD_NAMESPACE.read_text().strip() if POD_NAMESPACE.exists() else "default"


def _kubeconfig(path: str, environment: Mapping[str, str]) -> str:
    """`path`, or the user's own kubeconfig; raises Invalid when there is no such file."""
    path = path or str(Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config")
    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep)):
        raise Invalid(f"there is no kubeconfig {path}, and this is no pod: give one with --kubeconfig or KUBECONFIG")
    return path


async def _from_kubeconfig(
    path: str, context: str | None, configuration: Configuration
) -> tuple[str, Login, Impersonation | None]:
    async with asyncio.timeout(LOGIN_TIMEOUT):
        loader = await kube_config.load_kube_config(path, context, configuration, persist_config=False)
    chosen = loader._current_context["context"]  # noqa: SLF001 - the library has no other way to ask
    user: Any = loader._user if loader._user is not None else {}  # noqa: SLF001
    impersonate = None
    if "as" in user:
        groups = user["as-groups"].value if "as-groups" in user else ()
        impersonate = Impersonation(str(user["as"]), tuple(str(group) for group in groups))
    namespace = str(chosen["namespace"]) if "namespace" in chosen else "default"
    if "tokenFile" in user and "token" not in user:
        return namespace, _file_login(Path(user.path or path).parent / str(user["tokenFile"])), impersonate
    return namespace, _library_login(loader, configuration, "exec" in user), impersonate


def _file_login(path: Path) -> Login:
    async def login(_refused: bool) -> str:
        token = (await asyncio.to_thread(path.read_text)).strip()
        if not token:
            raise Invalid(f"the token file {path} is empty")
        return f"Bearer {token}"

    return login


def _library_login(loader: Any, configuration: Configuration, program: bool) -> Login:
    async def login(refused: bool) -> str | None:
        if program and (refused or hasattr(loader, "exec_plugin_expiry")):
            if refused:
                vars(loader).pop("exec_plugin_expiry", None)
            # Runs the program when its last answer is about to expire. It logs its failure instead of raising it.
            if not await loader.load_from_exec_plugin():
                raise Invalid("the login program of the kubeconfig gave no usable credential; its message is in the log")
            configuration.api_key.update({"BearerToken": loader.token} if getattr(loader, "token", None) else {})
        elif not program and loader.provider:
            await loader._load_authentication()  # noqa: SLF001 - renews tokens of the auth-providers gcp and oidc
            configuration.api_key["BearerToken"] = loader.token
        value: str | None = configuration.api_key.get("BearerToken")
        return value

    return login


async def _timely(login: Login, refused: bool) -> str | None:
    try:
        async with asyncio.timeout(LOGIN_TIMEOUT):
            return await login(refused)
    except TimeoutError as error:
        raise Invalid(f"logging in to the cluster took longer than {LOGIN_TIMEOUT:g} seconds") from error
    except (ConfigException, OSError, KeyError, ValueError) as error:
        raise Invalid(f"cannot log in to the cluster: {_text(error)}") from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
