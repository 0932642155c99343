"""The engineers' door: Apache Arrow Flight, as the official Mosaico client speaks it."""

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 6726
