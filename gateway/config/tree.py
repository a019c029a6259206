"""The configuration: one frozen tree of settings, from a YAML file with `FLEETGATE_*` variables over it.

Every field says its unit and its default; `source` reads the file and explains what is wrong with it.
"""

from typing import Annotated, Any

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.config.access import Access, TenantConfig, named_models
from gateway.config.budgets import Budgets
from gateway.config.discovery import DiscoveryConfig
from gateway.config.document import spell
from gateway.config.fleet import Health, NodeConfig, Retries
from gateway.config.limits import LimitsConfig
from gateway.config.listen import Admin, Listen
from gateway.config.log import Log
from gateway.config.models import ModelConfig, ModelNames
from gateway.config.pressure import Pressure
from gateway.config.queue import QueueConfig
from gateway.config.redis import RedisConfig
from gateway.config.requests import Requests
from gateway.config.responses import ResponsesConfig
from gateway.config.resume import Resume
from gateway.config.routing import Routing
from gateway.config.telemetry import Telemetry
from gateway.config.thinking import LoopsConfig, OutputConfig, ThinkingConfig
from gateway.config.timeouts import Timeouts
from gateway.config.types import Secret, is_loopback
from gateway.config.usage import UsageConfig


class Config(BaseSettings):
    """Everything a gateway process needs to know."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="FLEETGATE_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    listen: Listen = Listen()
    """Where clients connect."""
    admin: Admin = Admin()
    """The second listener: metrics and control."""
    nodes: tuple[NodeConfig, ...] = ()
    """The vLLM servers; more can come from `discovery`."""
    models: tuple[ModelConfig, ...] = ()
    """Models by the nodes' names. Where any are listed, only these are offered; else whatever the nodes serve."""
    redis: RedisConfig | None = None
    """What gateways share: limits, keys made at run time, usage. Without it each process is on its own."""
    limits: LimitsConfig = LimitsConfig()
    """How limits are kept, and those of tenants without any."""
    access: Access = Access()
    """How keys are checked, and whether some are created at run time."""
    thinking: ThinkingConfig = ThinkingConfig()
    """How much may be thought: for every tenant on every model, where theirs say nothing."""
    output: OutputConfig = OutputConfig()
    """How long answers may be: for every tenant on every model, where theirs say nothing."""
    loops: LoopsConfig = LoopsConfig()
    """Which loops are ended: for every tenant on every model, where theirs say nothing."""
    queue: QueueConfig = QueueConfig()
    """What waits where all nodes are full, for how long, in which order."""
    tenants: tuple[TenantConfig, ...] = ()
    """Where none are listed and none are stored, every caller on loopback is the tenant `default`."""
    usage: UsageConfig = UsageConfig()
    """What is kept of use."""
    response_secret: Secret | None = None
    """Seals the ids of stored responses; the same in all gateways. Without it each start makes its own."""
    responses: ResponsesConfig = ResponsesConfig()
    """What gateways keep of them in Redis, sealed with that secret."""
    timeouts: Timeouts = Timeouts()
    """How long clients and nodes may take."""
    requests: Requests = Requests()
    """How large one request may be, and all of a process together."""
    health: Health = Health()
    """When a node is given work."""
    budgets: Budgets = Budgets()
    """How thinking budgets are held where nodes do not."""
    pressure: Pressure = Pressure()
    """How thinking budgets shrink while requests wait."""
    retries: Retries = Retries()
    """Tries beyond a request's first one."""
    resume: Resume = Resume()
    """How a streamed answer goes on where its node does not."""
    routing: Routing = Routing()
    """Which node a request goes to."""
    discovery: DiscoveryConfig = DiscoveryConfig()
    """Where nodes come from beside `nodes`."""
    log: Log = Log()
    """How the log is written."""
    telemetry: Telemetry = Telemetry()
    """What is told of requests beside the log."""
    workers: Annotated[int, Field(ge=1, le=256, validate_default=True)] = 1
    """Processes of this gateway."""
    no_auth: Annotated[bool, Field(validate_default=True)] = False
    """Serve beyond loopback without tenants: whoever can reach the port may use it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The arguments of the constructor alone: `source` merges the sources."""
        return (init_settings,)

    @field_validator("access")
    @classmethod
    def _somewhere(cls, access: Access, info: ValidationInfo) -> Access:
        if access.stored and info.data.get("redis", True) is None:
            raise ValueError("access.stored keeps tenants and keys in Redis: set redis.url (FLEETGATE_REDIS__URL)")
        return access

    @field_validator("nodes", "models", "tenants")
    @classmethod
    def _once(cls, items: tuple[Any, ...]) -> tuple[Any, ...]:
        """Names, URLs and keys are unique."""
        seen: set[tuple[str, str]] = set()
        for index, item in enumerate(items):
            for kind, value, *place in _identities(item):
                if (kind, value) in seen:
                    message = f"{kind} {value} is given twice"
                    raise PydanticCustomError("given_twice", "{message}", {"message": message, "at": (index, *place)})
                seen.add((kind, value))
        return items

    @field_validator("tenants")
    @classmethod
    def _on_models_that_are_there(
        cls, tenants: tuple[TenantConfig, ...], info: ValidationInfo
    ) -> tuple[TenantConfig, ...]:
        """Models are named as nodes name them: rules for any other name would have no effect, and a tenant that may use
        only such a model could use none."""
        known = ModelNames.of(info.data.get("models", ()))
        for index, tenant in enumerate(tenants):
            for name, at in named_models(tenant):
                problem = known.problem(name)
                if problem is not None:
                    raise _not_there(problem, index, *at)
            for number, key in enumerate(tenant.keys):
                for place, name in enumerate(key.models):
                    if tenant.models and name not in tenant.models:
                        beyond = f"{name} is not in the tenant's models: {', '.join(tenant.models)}"
                        raise _not_there(beyond, index, "keys", number, "models", place)
        return tenants

    @field_validator("tenants")
    @classmethod
    def _of_classes_that_are_there(
        cls, tenants: tuple[TenantConfig, ...], info: ValidationInfo
    ) -> tuple[TenantConfig, ...]:
        known = info.data.get("queue", QueueConfig())
        for index, tenant in enumerate(tenants):
            if problem := known.problem(tenant.service_class):
                raise _not_there(problem, index, "service_class")
            for number, key in enumerate(tenant.keys):
                if problem := known.problem(key.service_class):
                    raise _not_there(problem, index, "keys", number, "service_class")
        return tenants

    @field_validator("pressure")
    @classmethod
    def _on_classes_that_are_there(cls, pressure: Pressure, info: ValidationInfo) -> Pressure:
        known = info.data.get("queue", QueueConfig())
        for field in pressure.model_fields_set & {"weights", "cut_classes"}:
            for at, name in enumerate(getattr(pressure, field)):
                if problem := known.problem(name):
                    raise _not_there(problem, field, name if field == "weights" else at)
        return pressure

    @field_validator("tenants")
    @classmethod
    def _with_keys(cls, tenants: tuple[TenantConfig, ...], info: ValidationInfo) -> tuple[TenantConfig, ...]:
        """A tenant without a key is valid only where keys can be created at run time."""
        access = info.data.get("access")
        for index, tenant in enumerate(tenants):
            if not tenant.keys and access is not None and not access.stored:
                place = {"at": (index, "keys")}
                raise PydanticCustomError("no_keys", "needs at least one entry, or access.stored: true", place)
        return tenants

    @field_validator("discovery")
    @classmethod
    def _kept_somewhere(cls, discovery: DiscoveryConfig, info: ValidationInfo) -> DiscoveryConfig:
        if discovery.registrations is not None and info.data.get("redis", True) is None:
            raise ValueError("registrations are kept in Redis: set redis.url (FLEETGATE_REDIS__URL)")
        known = ModelNames.of(info.data.get("models", ()))
        for at, name in enumerate(discovery.registrations.models if discovery.registrations is not None else ()):
            problem = known.problem(name)
            if problem is not None:
                raise _not_there(problem, "registrations", "models", at)
        return discovery

    @field_validator("responses")
    @classmethod
    def _sealed_somewhere(cls, responses: ResponsesConfig, info: ValidationInfo) -> ResponsesConfig:
        """Said so, they have to be kept: by default they are where they can be."""
        if responses.stored:
            if info.data.get("redis", True) is None:
                raise ValueError("responses.stored keeps responses in Redis: set redis.url (FLEETGATE_REDIS__URL)")
            if info.data.get("response_secret", True) is None:
                raise ValueError(
                    "responses.stored seals responses: set response_secret (FLEETGATE_RESPONSE_SECRET), the same in "
                    "all gateways"
                )
        return responses

    @field_validator("admin")
    @classmethod
    def _two_ports(cls, admin: Admin, info: ValidationInfo) -> Admin:
        """The listeners are distinguished by their ports."""
        listen = info.data.get("listen")
        if listen is not None and listen.port == admin.port != 0:
            raise ValueError(f"listen.port and admin.port are both {admin.port}: the listeners need two ports")
        return admin

    @field_validator("workers")
    @classmethod
    def _limited_together(cls, workers: int, info: ValidationInfo) -> int:
        """Without Redis each process would grant the whole limit."""
        tenants, limits = info.data.get("tenants", ()), info.data.get("limits")
        limited = limits is not None and (limits.default.limits or any(tenant.limited for tenant in tenants))
        if workers > 1 and limited and info.data.get("redis", True) is None:
            raise ValueError("limits with more than one process need redis, where the processes can count together")
        return workers

    @field_validator("no_auth")
    @classmethod
    def _closed(cls, no_auth: bool, info: ValidationInfo) -> bool:
        listen, access = info.data.get("listen"), info.data.get("access")
        tenants = info.data.get("tenants") if access is None or not access.stored else None
        if listen is not None and tenants == () and not no_auth and not is_loopback(listen.host):
            raise ValueError(
                f"listen.host {listen.host} is beyond loopback and no tenants are configured: "
                "list tenants with keys, set access.stored: true to create some, "
                "or set no_auth: true (--no-auth) to let everybody in"
            )
        return no_auth


def _not_there(problem: str, *at: str | int) -> PydanticCustomError:
    return PydanticCustomError("not_there", "{message}", {"message": problem, "at": at})


def unchecked_models(config: Config) -> list[str]:
    """The paths of model names that cannot be checked: without `models`, nodes decide which models exist."""
    if config.models:
        return []
    places = [("tenants", index, *at) for index, tenant in enumerate(config.tenants) for _, at in named_models(tenant)]
    registrations = config.discovery.registrations
    places += [
        ("discovery", "registrations", "models", at)
        for at in range(0 if registrations is None else len(registrations.models))
    ]
    return [spell(place) for place in places]


def _identities(item: Any) -> list[tuple[Any, ...]]:
    """Values that must be unique: the kind, the value, and its path below the item."""
    match item:
        case NodeConfig():
            return [("the node URL", item.url)]
        case ModelConfig():
            return [("the model name or alias", name) for name in item.names]
        case TenantConfig():
            keys = [("the key with the SHA-256", key.sha256, "keys", at, "sha256") for at, key in enumerate(item.keys)]
            models = [
                ("the tenant's model", f"{item.name}: {each.model}", "per_model", at, "model")
                for at, each in enumerate(item.per_model)
            ]
            return [("the tenant", item.name), *keys, *models]
    return []
