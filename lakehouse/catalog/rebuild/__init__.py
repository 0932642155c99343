"""The control plane from the warehouse alone, for the day the database is gone."""
