"""The fake node: a vLLM-shaped server without a model, for tests, demos and load tests (docs/fake-node.md)."""

from workers.fake.faults import Fault
from workers.fake.server import FakeNode, serve_fake
from workers.fake.settings import FakeSettings

__all__ = ["FakeNode", "FakeSettings", "Fault", "serve_fake"]
