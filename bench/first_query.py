"""`python -m bench.first_query HOME TOPICS`: what the first queries of a new process cost, printed in milliseconds."""

import pickle
import sys
from pathlib import Path
from time import monotonic

from lakehouse.catalog.iceberg.table_documents import TableFiles
from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.catalog.query.content_search import ContentSearch
from lakehouse.catalog.reading.skip_index import SkipIndex
from lakehouse.catalog.settings import Settings


def main() -> None:
    home, topics_file = map(Path, sys.argv[1:])
    topics, conditions = pickle.loads(topics_file.read_bytes())
    with Lakehouse.open(Settings.load(home=home, db_url="", store_endpoint="")) as lake:
        search = ContentSearch(lake.database, lake.warehouse, SkipIndex(TableFiles(lake.warehouse)))
        for _ in range(2):
            started = monotonic()
            found = search.matching(topics, conditions)
            print(1e3 * (monotonic() - started), len(found))


if __name__ == "__main__":
    main()
