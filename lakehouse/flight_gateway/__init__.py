"""The engineers' door: Apache Arrow Flight, as the official Mosaico client speaks it."""
