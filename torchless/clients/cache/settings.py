"""Settings of the cache of embeddings."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, SecretStr, field_validator

from torchless.settings import SettingsGroup

_SCHEMES = ("redis://", "rediss://", "unix://")
_OPTIONS = frozenset({"db", "username", "password"})
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})


class CacheSettings(SettingsGroup):
    """The cache of embeddings by exact input: memory in each process, and Redis behind it where there is one."""

    enabled: bool = True
    """Whether there is a cache. Without one, every request goes to the service."""
    memory_mib: float = Field(default=16.0, ge=0, le=65536)
    """Memory that entries may take in each process, their overhead included, in MiB; 0: no memory level. 16 hold about
    8,000 vectors of 384 dimensions."""
    ttl_s: int = Field(default=86_400, ge=1, le=31_536_000)
    """Seconds that an entry is served after it was computed, in either level."""
    revision_interval_s: float = Field(default=15.0, gt=0, le=3600)
    """How often the service is asked which revisions it serves, in seconds: a replaced model's entries are served no
    longer than this after it was replaced."""
    redis_url: SecretStr = SecretStr("")
    """Where Redis is: `redis://`, `rediss://` (TLS) or `unix://`, with user and password where it wants them; empty: no
    Redis. It is read by whoever may read its entries, so several tenants' gateways share it as they share a service."""
    redis_timeout_s: float = Field(default=0.05, gt=0, le=10)
    """Most that a request waits for Redis, in seconds."""
    redis_pause_s: float = Field(default=1.0, gt=0, le=300)
    """How long a Redis that failed is left alone before it is tried again, in the background, in seconds."""
    redis_connections: int = Field(default=8, ge=1, le=1024)
    """Connections to Redis that each process holds at most."""
    redis_queue_mib: float = Field(default=8.0, gt=0, le=1024)
    """Entries that wait to be written to Redis, in MiB of each process; past that they are dropped, and counted."""
    warm_mib: float = Field(default=8.0, ge=0, le=65536)
    """Most that is read from Redis into memory at start, in MiB, the newest entries first; 0: nothing."""
    warm_s: float = Field(default=10.0, gt=0, le=3600)
    """Most time that this takes, in seconds; requests are served meanwhile."""
    namespace: str = Field(default="torchless", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """First part of every key in Redis. Deployments that share a Redis and not their models have one each."""

    @field_validator("redis_url")
    @classmethod
    def _usable(cls, url: SecretStr) -> SecretStr:
        # The value is not told: it may hold a password.
        value = url.get_secret_value()
        if value and not value.startswith(_SCHEMES):
            raise ValueError(f"begins with one of {', '.join(_SCHEMES)}")
        if value and not _has_a_port(value):
            raise ValueError(
                "has no number where its port stands; in a password, / ? # and @ are written %2F %3F %23 %40"
            )
        if value and not _has_only_known_options(value):
            raise ValueError(
                "takes no options behind its ? but db, a number, username and password; with rediss://, also "
                "ssl_ca_certs, ssl_ca_path, ssl_certfile, ssl_keyfile and ssl_check_hostname"
            )
        return url


def _has_a_port(url: str) -> bool:
    """Whether what stands where the port does is one, or nothing."""
    try:
        urlsplit(url).port  # noqa: B018  # reading it is what raises
    except ValueError:
        return False
    return True


def _has_only_known_options(url: str) -> bool:
    """Whether its options are of those that say where Redis is; others would win over how it is called."""
    known = _OPTIONS | (_TLS_OPTIONS if url.startswith("rediss://") else frozenset())
    options = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    return all(name in known and (name != "db" or value.isdecimal()) for name, value in options)
