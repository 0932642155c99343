"""Each kind of damage that robots know, found by the contracts that ship, through the lake."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from lakehouse.catalog.lakehouse import Lakehouse
from lakehouse.contracts.collection import ContractLibrary
from lakehouse.contracts.findings import Finding, Verdict
from lakehouse.contracts.judging import PlainJudge
from lakehouse.contracts.selection import select_subjects
from lakehouse.contracts.validation import Validator
from lakehouse.ontology.registry import model_arrow_schema
from tests.contracts.recordings import NS, START, imu_rows, imu_table, record_sequence

Row = dict[str, Any]


def table(tag: str, rows: list[Row], period_ns: int = NS // 10) -> pa.Table:
    """Rows under the shipped schema, ten a second."""
    times = ({"timestamp_ns": START + number * period_ns} for number in range(len(rows)))
    return pa.Table.from_pylist(
        [time | row for time, row in zip(times, rows, strict=True)], schema=model_arrow_schema(tag)
    )


def broken(lake: Lakehouse) -> dict[str, Finding]:
    report = Validator(lake, ContractLibrary.load(None), PlainJudge()).validate(select_subjects(lake))
    return {f"{f.subject} {f.rule.id}": f for f in report.findings if f.verdict is not Verdict.PASSED}


def fixes(count: int) -> list[Row]:
    """A receiver that drives north at 10 m/s."""
    status = {"status": 0, "service": 1, "satellites": 9, "hdop": 0.8, "vdop": 1.2}
    place = {"y": 8.0, "z": 100.0, "covariance": [1.0, 0, 0, 0, 1, 0, 0, 0, 4]}
    return [{"position": place | {"x": 50 + number * 9e-6}, "status": dict(status)} for number in range(count)]


def picture(size: tuple[int, int] = (8, 6)) -> Row:
    buffer = io.BytesIO()
    Image.new("L", size, 9).save(buffer, "png")
    shape = {"width": 8, "height": 6, "stride": 8, "encoding": "mono8", "is_bigendian": False}
    return {"data": buffer.getvalue(), "format": "png", **shape}


def test_what_is_whole_passes(lake: Lakehouse) -> None:
    record_sequence(
        lake, "s", {"gps": ("GPS", table("GPS", fixes(50))), "camera": ("Image", table("Image", [picture()] * 50))}
    )
    assert broken(lake) == {}


def test_fixes_that_jump_leave_the_earth_or_claim_the_impossible(lake: Lakehouse) -> None:
    rows = fixes(50)
    rows[10]["position"]["x"] = 51.0  # 110 km away, and back
    rows[20]["position"]["y"] = 190.0
    rows[30]["status"]["status"] = 7
    rows[40]["position"]["covariance"] = [1.0, 0.5, 0, 0, 1, 0, 0, 0, 4]
    rows[45]["position"]["covariance"] = [-2.0, 0, 0, 0, 1, 0, 0, 0, 4]
    record_sequence(lake, "s", {"gps": ("GPS", table("GPS", rows))})
    found = broken(lake)
    assert {name: f.rows_failed for name, f in found.items()} == {
        "s/gps position_bounds": 1,
        "s/gps position_jump": 4,
        "s/gps fix_status": 1,
        "s/gps position_covariance": 2,
    }
    jump = found["s/gps position_jump"]
    assert (jump.ranges[0].start_ns, jump.ranges[0].end_ns) == (START + 9 * NS // 10, START + 11 * NS // 10)


def test_pictures_that_do_not_open_or_have_another_size(lake: Lakehouse) -> None:
    rows = [picture() for _ in range(50)]
    rows[3] = picture((7, 6))
    rows[5]["data"] = rows[5]["data"][:30]
    rows[7]["data"] = b""
    compressed: list[Row] = [{"data": row["data"], "format": "png"} for row in rows]
    topics = {"raw": ("Image", table("Image", rows)), "jpg": ("CompressedImage", table("CompressedImage", compressed))}
    record_sequence(lake, "s", topics)
    found = {name: f.rows_failed for name, f in broken(lake).items() if "decodes" in f.rule.rule}
    assert list(found.values()) == [3, 2], "a compressed image announces no size"


def test_clocks_that_go_back_stand_still_tremble_or_are_slow(lake: Lakehouse) -> None:
    rows = fixes(50)
    for number, row in enumerate(rows):
        row["header"] = {"timestamp": {"seconds": 1000 + (number if number != 25 else 3), "nanoseconds": 0}}
    trembling = imu_rows(1000)
    trembling["times"] += np.tile([0, 8_000_000], 500)
    slow = imu_rows(20, hz=1.0)
    topics = {
        "gps": ("GPS", table("GPS", rows)),
        "trembling": ("IMU", imu_table(trembling)),
        "slow": ("IMU", imu_table(slow)),
    }
    record_sequence(lake, "s", topics)
    assert set(broken(lake)) == {"s/gps header_time", "s/trembling jitter", "s/slow rate"}
