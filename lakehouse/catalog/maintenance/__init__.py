"""Keeping tables small and storage clean: what runs beside commits, never inside them."""
