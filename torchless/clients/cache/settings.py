"""Settings of the embedding cache."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, SecretStr, field_validator

from torchless.settings import SettingsGroup

_SCHEMES = ("redis://", "rediss://", "unix://")
_OPTIONS = frozenset({"db", "username", "password"})
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})


class CacheSettings(SettingsGroup):
    """The embedding cache by exact input: memory in each process, and Redis behind it, if configured."""

    enabled: bool = True
    """Whether answers are cached. Otherwise every request goes to the service."""
    memory_mib: float = Field(default=16.0, ge=0, le=65536)
    """Memory for entries in each process, including their overhead, in MiB; 0: no memory level. 16 MiB hold about 8,000
    vectors of 384 dimensions."""
    ttl_s: int = Field(default=86_400, ge=1, le=31_536_000)
    """Time to live of an entry in either level, in seconds."""
    revision_interval_s: float = Field(default=15.0, gt=0, le=3600)
    """Time between two checks of which model revisions the service serves, in seconds. After a model was replaced, its
    old entries are served no longer than this."""
    redis_url: SecretStr = SecretStr("")
    """URL of Redis: `redis://`, `rediss://` (TLS) or `unix://`, with user and password if required; empty: no Redis.
    Access to this Redis is access to the entries of all tenants."""
    redis_timeout_s: float = Field(default=0.05, gt=0, le=10)
    """Longest time that a request waits for Redis, in seconds."""
    redis_pause_s: float = Field(default=1.0, gt=0, le=300)
    """Pause after a failure of Redis, in seconds; then it is tried again in the background."""
    redis_connections: int = Field(default=8, ge=1, le=1024)
    """Most connections to Redis of each process."""
    redis_queue_mib: float = Field(default=8.0, gt=0, le=1024)
    """Memory for entries that wait to be written to Redis, in MiB per process; more are dropped and counted."""
    warm_mib: float = Field(default=8.0, ge=0, le=65536)
    """Memory filled from Redis at start, in MiB, the newest entries first; 0: none."""
    warm_s: float = Field(default=10.0, gt=0, le=3600)
    """Longest time for that, in seconds; requests are served meanwhile."""
    namespace: str = Field(default="torchless", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Prefix of every key in Redis. Deployments that share a Redis but not their models need different ones."""

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr) -> SecretStr:
        # The message does not quote the value, which may hold a password.
        value = url.get_secret_value()
        if value and not value.startswith(_SCHEMES):
            raise ValueError(f"must begin with {', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}")
        if value and not _has_valid_port(value):
            raise ValueError("the port must be a number; in a password, write / ? # and @ as %2F %3F %23 and %40")
        if value and not _has_known_options(value):
            raise ValueError(
                "the options after the ? can be db (a number), username and password; with rediss:// also "
                "ssl_ca_certs, ssl_ca_path, ssl_certfile, ssl_keyfile and ssl_check_hostname"
            )
        return url


def _has_valid_port(url: str) -> bool:
    """Whether the port is a number, or missing."""
    try:
        urlsplit(url).port  # noqa: B018  # reading it raises
    except ValueError:
        return False
    return True


def _has_known_options(url: str) -> bool:
    """Whether all options say where Redis is; others would override how the cache calls it."""
    known = _OPTIONS | (_TLS_OPTIONS if url.startswith("rediss://") else frozenset())
    options = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return all(name in known and (name != "db" or value.isdecimal()) for name, value in options)
