"""One store a process for each place where libraries are kept, opened with its first library, closed with its last."""

from __future__ import annotations

import atexit
import threading
import weakref

from medssl.library.memory_store import MEMORY, MemoryStore
from medssl.library.server_store import ServerStore
from medssl.library.shard_store import ShardStore
from medssl.library.store import Store

_STORES: weakref.WeakValueDictionary[tuple, Store] = weakref.WeakValueDictionary()
_STORES_LOCK = threading.Lock()


def is_server(location: str) -> bool:
    """Whether a location is the address of a Qdrant server."""
    return location.startswith(("http://", "https://"))


def open_store(location: str, api_key: str | None, timeout: int) -> Store:
    """A store of the kind that a location asks for: memory, a server, else a folder. Raises LibraryError."""
    if location == MEMORY:
        return MemoryStore()
    return ServerStore(location, api_key, timeout) if is_server(location) else ShardStore(location)


def shared_store(location: str, api_key: str | None, timeout: int, library: object) -> Store:
    """The process's one store at a location, opened if need be, with this library among its users."""
    with _STORES_LOCK:
        store = _STORES.get((location, api_key)) or open_store(location, api_key, timeout)
        _STORES[(location, api_key)] = store
        store.libraries.add(library)
        return store


def release(store: Store, library: object) -> None:
    """Forget a library; with the last one the store is closed."""
    with _STORES_LOCK:
        store.libraries.discard(library)
        if not len(store.libraries):
            for key in [key for key, other in _STORES.items() if other is store]:
                del _STORES[key]
            store.close()


@atexit.register
def _close_all() -> None:
    """Close folders before the interpreter takes the modules away that closing needs."""
    for store in list(_STORES.values()):
        store.close()
