"""`spec.service` of a Canary: how the workload is exposed and how its traffic is routed. Data only.

Parts that Istio defined (matches, retries, CORS and traffic policies) have the fields that Flagger's schema keeps of them; an API
server prunes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from canary.api.values import (
    ApiGroup,
    Defaulted,
    DnsLabel,
    Int32,
    IntOrString,
    KindName,
    ObjectName,
    PortNumber,
    Ruled,
    SectionName,
    WholeNumber,
    none_of,
    required,
)
from reconcile.api.crd import validations
from reconcile.api.meta import ApiModel

GATEWAY_GROUP = "gateway.networking.k8s.io"
PORT_MISSING = "Must have port for Service reference"


class StringMatch(Ruled):
    """How a text is matched; any text when nothing is set."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [
        none_of("exact", "prefix", "regex"),
        required("exact"),
        required("prefix"),
        required("regex"),
    ]
    RULE: ClassVar[str] = "set at most one of exact, prefix and regex"

    exact: str | None = None
    """The whole text."""
    prefix: str | None = None
    """How the text begins."""
    regex: str | None = None
    """A regular expression (RE2) for the whole text."""


class OriginMatch(Ruled):
    """Which origins a CORS policy allows."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [required("exact"), required("prefix"), required("regex")]
    RULE: ClassVar[str] = "set exactly one of exact, prefix and regex"

    exact: str | None = None
    """The whole origin."""
    prefix: str | None = None
    """How the origin begins."""
    regex: str | None = None
    """A regular expression (RE2) for the whole origin."""


class HTTPMatchRequest(ApiModel):
    """Requests that the generated route takes: all that is set must match."""

    name: str | None = None
    """Name of the match, for people and access logs."""
    uri: StringMatch | None = None
    """Path of the request."""
    ignore_uri_case: bool | None = None
    """Match the path in any case."""
    scheme: StringMatch | None = None
    """Scheme of the request."""
    method: StringMatch | None = None
    """HTTP method."""
    authority: StringMatch | None = None
    """Host header."""
    headers: dict[str, StringMatch] | None = None
    """Headers that the request must have, by their names in lower case."""
    without_headers: dict[str, StringMatch] | None = None
    """Headers that the request must not have."""
    query_params: dict[str, StringMatch] | None = None
    """Query parameters that the request must have."""
    port: int | None = None
    """Port that the client asked for."""
    source_labels: dict[str, str] | None = None
    """Labels of the client's pod."""
    source_namespace: str | None = None
    """Namespace of the client's pod."""
    gateways: list[str] | None = None
    """Gateways for which the match is meant."""


class Rewrite(ApiModel):
    """What a request is changed to before it is sent on."""

    uri: str | None = None
    """Path, or its matched prefix."""
    authority: str | None = None
    """Host header."""
    type: str | None = None
    """ReplacePrefixMatch replaces the matched prefix, anything else the whole path."""


class Retries(ApiModel):
    """How often failed requests are tried again."""

    attempts: Int32 | None = None
    """Number of further tries."""
    per_try_timeout: str | None = None
    """Limit of one try."""
    retry_on: str | None = None
    """Conditions for another try, separated by commas."""


class HeaderOperations(ApiModel):
    """Changes to headers."""

    add: dict[str, str] | None = None
    """Values that are appended."""
    set: dict[str, str] | None = None
    """Values that replace what is there."""
    remove: list[str] | None = None
    """Names of headers that are taken away."""


class Headers(ApiModel):
    """Changes to the headers of requests and responses."""

    request: HeaderOperations | None = None
    """Before a request is sent on."""
    response: HeaderOperations | None = None
    """Before a response is sent back."""


class BackendRef(Defaulted):
    """Names what mirrored requests are sent to."""

    # An API server fills in both defaults before it checks the rule.
    model_config = ConfigDict(
        json_schema_extra=validations(("(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true", PORT_MISSING))
    )

    group: ApiGroup = ""
    """API group of the backend; empty for the core group."""
    kind: KindName = "Service"
    """Kind of the backend."""
    name: ObjectName
    """Name of the backend."""
    namespace: DnsLabel | None = None
    """Its namespace; the Canary's own when unset."""
    port: PortNumber | None = None
    """Port of the backend; required for a core Service."""

    @model_validator(mode="after")
    def _service_has_a_port(self) -> Self:
        if not self.group and self.kind == "Service" and self.port is None:
            raise ValueError(PORT_MISSING)
        return self


def _nothing_required(schema: JsonDict) -> None:
    schema.pop("required", None)


class Mirror(ApiModel):
    """A backend that always gets a copy of the requests."""

    # Flagger's schema asks for the backend at the wrong place, so that an API server takes entries without.
    model_config = ConfigDict(json_schema_extra=_nothing_required)

    backend_ref: BackendRef
    """The backend."""


class GatewayRef(Defaulted):
    """Names a Gateway, or another parent, that routes attach to (a ParentReference of the Gateway API)."""

    group: ApiGroup = GATEWAY_GROUP
    """API group of the parent; `core` for a Service."""
    kind: KindName = "Gateway"
    """Kind of the parent."""
    name: ObjectName
    """Name of the parent."""
    namespace: DnsLabel | None = None
    """Its namespace; the Canary's own when unset."""
    section_name: SectionName | None = None
    """Name of the listener; all of them when unset."""
    port: PortNumber | None = None
    """Port of the listener; all of them when unset."""


class CorsPolicy(ApiModel):
    """Cross-origin resource sharing."""

    allow_origin: list[str] | None = None
    """Origins that are allowed, as whole texts (old form)."""
    allow_origins: list[OriginMatch] | None = None
    """Origins that are allowed."""
    allow_methods: list[str] | None = None
    """Methods that are allowed."""
    allow_headers: list[str] | None = None
    """Request headers that are allowed."""
    expose_headers: list[str] | None = None
    """Response headers that browsers may read."""
    max_age: str | None = None
    """How long browsers may keep the answer to a preflight request."""
    allow_credentials: bool | None = None
    """Whether requests may carry credentials."""


class HTTPConnectionPool(ApiModel):
    """Limits of HTTP connections."""

    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] | None = None
    """Whether HTTP/1.1 connections are upgraded to HTTP/2."""
    http1_max_pending_requests: Int32 | None = None
    """Most requests that wait for a connection."""
    http2_max_requests: Int32 | None = None
    """Most requests at a time."""
    idle_timeout: str | None = None
    """When an idle connection is closed."""
    max_requests_per_connection: Int32 | None = None
    """Most requests of one connection."""
    max_retries: Int32 | None = None
    """Most retries under way at a time."""


class ConnectionPool(ApiModel):
    """Limits of connections."""

    http: HTTPConnectionPool | None = None
    """Limits of HTTP connections."""


class HTTPCookie(ApiModel):
    """The cookie that consistent hashing goes by."""

    name: str | None = None
    """Name of the cookie."""
    path: str | None = None
    """Path of the cookie."""
    ttl: str | None = None
    """Life of the cookie."""


class ConsistentHash(ApiModel):
    """What decides which pod a client always gets."""

    http_header_name: str | None = None
    """A header."""
    http_cookie: HTTPCookie | None = None
    """A cookie."""
    use_source_ip: bool | None = None
    """The client's address."""
    http_query_parameter_name: str | None = None
    """A query parameter."""
    minimum_ring_size: int | None = None
    """Least number of virtual nodes of the hash ring."""


class Distribute(ApiModel):
    """Where the traffic of one locality goes."""

    from_: Annotated[str | None, Field(alias="from")] = None
    """Locality of the clients."""
    to: dict[str, int] | None = None
    """Percentages by locality of the pods."""


class Failover(ApiModel):
    """Where traffic goes when a region fails."""

    from_: Annotated[str | None, Field(alias="from")] = None
    """Region that fails."""
    to: str | None = None
    """Region that takes over."""


class LocalityLoadBalancer(ApiModel):
    """Load balancing by locality."""

    distribute: list[Distribute] | None = None
    """Shares by locality."""
    failover: list[Failover] | None = None
    """Failover by region."""
    enabled: bool | None = None
    """Whether it is on; the setting of the mesh when unset."""


_HASHES = ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")


class LoadBalancer(Ruled):
    """How a pod is chosen for a request."""

    ONE_OF: ClassVar[Sequence[JsonDict]] = [
        required("simple"),
        {
            "properties": {"consistentHash": {"oneOf": [required(name) for name in _HASHES]}},
            "required": ["consistentHash"],
        },
    ]
    RULE: ClassVar[str] = f"set either simple, or consistentHash with exactly one of {', '.join(_HASHES)}"

    simple: Literal["ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "LEAST_REQUEST"] | None = None
    """A way that needs no more settings."""
    consistent_hash: ConsistentHash | None = None
    """The same pod for the same client."""
    locality_lb_setting: LocalityLoadBalancer | None = None
    """Load balancing by locality."""
    warmup_duration_secs: str | None = None
    """How long a new pod gets less traffic."""


class OutlierDetection(ApiModel):
    """When a pod that fails is left out for a while."""

    consecutive_errors: Int32 | None = None
    """Errors in a row (old form of consecutive5xxErrors)."""
    consecutive_5xx_errors: Annotated[int | None, Field(alias="consecutive5xxErrors")] = None
    """Answers with a status of 500 and above in a row."""
    consecutive_gateway_errors: Int32 | None = None
    """Answers with status 502, 503 or 504 in a row."""
    consecutive_local_origin_failures: Int32 | None = None
    """Connections that failed on our side in a row."""
    split_external_local_origin_errors: bool | None = None
    """Whether failures on our side are counted by themselves."""
    interval: str | None = None
    """How often pods are judged."""
    base_ejection_time: str | None = None
    """Least time that a pod is left out."""
    max_ejection_percent: Int32 | None = None
    """Most percent of the pods that are left out."""
    min_health_percent: Int32 | None = None
    """Percent of healthy pods below which none is left out."""


class ClientTLS(ApiModel):
    """TLS of connections to the pods."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] | None = None
    """Whether and how TLS is used."""
    client_certificate: str | None = None
    """File of the client's certificate."""
    private_key: str | None = None
    """File of the client's key."""
    ca_certificates: str | None = None
    """File of the certificates that the server's is checked against."""
    subject_alt_names: list[str] | None = None
    """Names one of which the server's certificate must have."""
    sni: str | None = None
    """Server name that is asked for."""


class TrafficPolicy(ApiModel):
    """Istio's TrafficPolicy, copied into both DestinationRules."""

    connection_pool: ConnectionPool | None = None
    """Limits of connections."""
    load_balancer: LoadBalancer | None = None
    """How a pod is chosen for a request."""
    outlier_detection: OutlierDetection | None = None
    """When a pod that fails is left out for a while."""
    tls: ClientTLS | None = None
    """TLS of connections to the pods."""


class CustomMetadata(ApiModel):
    """Labels and annotations of generated objects."""

    labels: dict[str, str] | None = None
    """Labels."""
    annotations: dict[str, str] | None = None
    """Annotations."""


class UnmanagedMetadata(ApiModel):
    """Labels and annotations of the generated Services that are left as they are found."""

    annotations: list[str] | None = None
    """Names of annotations."""
    labels: list[str] | None = None
    """Names of labels."""


class CanaryService(ApiModel):
    """The Services of a Canary and the route to them."""

    name: str | None = None
    """Name of the service that clients use; that of the target when unset. Not to be changed afterwards."""
    port: WholeNumber
    """Port of the generated Services."""
    port_name: str | None = None
    """Name of that port; http when unset."""
    target_port: IntOrString | None = None
    """Number or name of the container port; the port when unset."""
    app_protocol: str | None = None
    """Application protocol of the port; `tcp` makes Istio's route one for TCP."""
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None
    """Which pods are preferred; set when the Services are made."""
    port_discovery: bool | None = None
    """Add the other container ports of the target to the Services."""
    headless: bool | None = None
    """Services without an address of their own; set when they are made."""
    timeout: str | None = None
    """Limit of one request."""
    backend_timeout: str | None = None
    """Limit of one request to one backend (Gateway API v1)."""
    gateways: list[str] | None = None
    """Gateways of Istio's VirtualService; mesh when unset."""
    gateway_refs: Annotated[list[GatewayRef], Field(max_length=32)] | None = None
    """Parents of the HTTPRoute; required by the Gateway API providers."""
    hosts: list[str] | None = None
    """Host names of the route."""
    delegation: bool | None = None
    """Make Istio's VirtualService one that another delegates to: without hosts and gateways."""
    traffic_policy: TrafficPolicy | None = None
    """Istio's TrafficPolicy for both DestinationRules."""
    match: list[HTTPMatchRequest] | None = None
    """Requests that the generated route takes; all when unset."""
    rewrite: Rewrite | None = None
    """What a request is changed to before it is sent on."""
    retries: Retries | None = None
    """How often failed requests are tried again."""
    headers: Headers | None = None
    """Changes to headers."""
    mirror: list[Mirror] | None = None
    """Backends that always get a copy of the requests (Gateway API)."""
    cors_policy: CorsPolicy | None = None
    """Cross-origin resource sharing."""
    mesh_name: str | None = None
    """Name of the App Mesh mesh."""
    backends: list[str] | None = None
    """Backends of the App Mesh virtual nodes."""
    apex: CustomMetadata | None = None
    """Metadata of the service that clients use, and of the route."""
    primary: CustomMetadata | None = None
    """Metadata of the Service in front of the primary."""
    canary: CustomMetadata | None = None
    """Metadata of the Service in front of the target."""
    unmanaged_metadata: UnmanagedMetadata | None = None
    """Labels and annotations of the Services that are left as they are found."""
