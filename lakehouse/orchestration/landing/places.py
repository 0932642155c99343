"""All the places where recordings land, as the settings name them."""

from lakehouse.catalog.errors import BadRequestError, quoted
from lakehouse.catalog.settings import Settings
from lakehouse.orchestration.landing.drop_folder import DropFolder
from lakehouse.orchestration.landing.place import LandingPlace
from lakehouse.orchestration.landing.prefix import LandingPrefix
from lakehouse.orchestration.recordings.naming import sequence_name_of


class LandingPlaces:
    """The drop folder and, where configured, the object store prefix."""

    def __init__(self, settings: Settings) -> None:
        self.drop_folder = DropFolder(settings.drop_path)
        self.prefix = LandingPrefix.of(settings, self.drop_folder.rejected)
        self.all: list[LandingPlace] = [place for place in (self.drop_folder, self.prefix) if place is not None]

    def of(self, location: str) -> LandingPlace:
        """The place that a location belongs to.

        Raises:
            BadRequestError: If it belongs to none.
        """
        for place in self.all:
            if place.holds(location):
                return place
        raise BadRequestError(f"{quoted(location)} is not below a place that recordings are taken from")

    def find(self, sequence: str) -> str | None:
        """Where a recording is that would become this sequence: waiting, or put aside after it was ingested.

        Raises:
            StorageError: If a place cannot be read.
        """
        for place in self.all:
            for recording in place.waiting():
                if sequence_name_of(recording.name) == sequence:
                    return recording.location
        return next((found for place in self.all if (found := place.find_ingested(sequence))), None)
