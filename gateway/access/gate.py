"""The gate: authenticates requests by their headers.

Keys that this process knows are checked at once; only an unknown one is looked up in Redis. Where no key is needed
(`Tenants.anonymous`), requests of web pages are refused instead (see `core.access.browser_guard`).
"""

import time
from collections.abc import Mapping

import structlog

from gateway.access.blocks import Blocks
from gateway.access.keyring import Keyring
from gateway.core.access.api_keys import is_damaged, is_whole, key_digest
from gateway.core.access.browser_guard import BrowserGuard
from gateway.core.access.tenants import Identity, Tenants, demanded_key
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.errors import CrossSiteRequest, TenantBlocked, TooManyWrongKeys, Unauthenticated
from gateway.core.http.addresses import source_of
from gateway.core.telemetry.log_throttle import LogThrottle

log = structlog.get_logger("fleetgate.access")


class Gate:
    """Checks keys of the configuration (`tenants`) and, by way of the keyring, those of Redis."""

    def __init__(
        self,
        tenants: Tenants,
        throttle: WrongKeyThrottle,
        keyring: Keyring | None = None,
        guard: BrowserGuard | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        """`guard` checks requests that need no key; None lets them all in. `blocks` is None without Redis."""
        self._blocks = blocks
        self._guard = guard
        self._refused = LogThrottle(crowded=True)
        self._throttle = throttle
        self._keyring = keyring
        self.configure(tenants)

    def configure(self, tenants: Tenants) -> None:
        """Know these tenants of the configuration from now on."""
        self.tenants = tenants
        if self._keyring is not None:
            self._keyring.configure(tenants)

    def known(self, headers: Mapping[bytes, bytes]) -> Identity | None:
        """The caller, where the key is known here; otherwise None: await `find`.

        Raises `Unauthenticated` where no key came, `TenantBlocked` where it is blocked, `CrossSiteRequest` where none
        is needed and a web page calls.
        """
        anonymous = self.tenants.anonymous
        if anonymous is not None:
            problem = self._guard.problem(headers) if self._guard is not None else None
            if problem is not None:
                self._log_refusal("cross_site_request_refused", "", problem=problem)
                raise CrossSiteRequest(problem)
            return anonymous
        digest = key_digest(demanded_key(headers))
        caller = self.tenants.of_key(digest)
        if caller is None and self._keyring is not None:
            caller = self._keyring.known(digest)
        return self._unblocked(caller) if caller is not None and caller.expires > time.time() else None

    async def identify(self, headers: Mapping[bytes, bytes], address: str) -> Identity:
        """The caller, known here or looked up."""
        return self.known(headers) or await self.find(headers, address)

    async def find(self, headers: Mapping[bytes, bytes], address: str) -> Identity:
        """The caller whose key is not known here. A wrong key raises `Unauthenticated`, or `TooManyWrongKeys` where a
        minute's number of them came from `address`. The key is looked up before that, so that right ones always work.
        """
        key = demanded_key(headers)
        if self._keyring is not None and is_whole(key):
            caller = await self._keyring.find(key_digest(key))
            if caller is not None and caller.expires > time.time():
                return self._unblocked(caller)
        wait = self._throttle.wrong(address, time.monotonic())
        if wait > 0:
            self._log_refusal("wrong_keys_throttled", source_of(address), address=address)
            raise TooManyWrongKeys(
                f"Too many invalid API keys from your address; retry in {wait:.0f} s with a valid key.",
                retry_after=wait,
            )
        raise _wrong(key)

    def _unblocked(self, caller: Identity) -> Identity:
        """`caller`; `TenantBlocked` where it is blocked."""
        blocks = self._blocks
        if blocks is not None and blocks.subjects and blocks.bars(caller):
            raise TenantBlocked(
                f"The tenant {caller.tenant.name} or this API key is blocked: ask the gateway's operator.",
                code="blocked",
            )
        return caller

    def _log_refusal(self, event: str, source: str, **facts: str) -> None:
        """Log once a minute for each `source`."""
        count = self._refused.due(event + source, time.monotonic())
        if count:
            log.warning(event, requests=count, **facts)


def _wrong(key: bytes) -> Unauthenticated:
    hint = " Its checksum does not match: it was mistyped or cut off." if is_damaged(key) else ""
    return Unauthenticated(f"The API key is not valid.{hint}", code="invalid_api_key")
