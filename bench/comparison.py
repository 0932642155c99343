"""Lines of a report that compare transfers."""

from collections.abc import Mapping, Sequence

from bench.client import Transfer
from bench.measuring import Spread, ratio, ratio_of_times
from bench.report import Line

# What the product must reach of the slower of the two things that it is made of.
GOAL = 0.8


def throughput(
    what: str, found: Mapping[str, Sequence[Transfer]], references: Sequence[str], *, has_goal: bool = True
) -> Line:
    """Ours against the slowest of the references, in megabytes per second."""
    speeds = {name: Spread.of(done.megabytes_per_second for done in transfers) for name, transfers in found.items()}
    reached = ratio(speeds["ours"], *(speeds[name] for name in references))
    return Line(
        what,
        speeds["ours"].text(unit="MB/s"),
        ", ".join(f"{name} {speeds[name].text()}" for name in references) + " MB/s",
        reached.text(2),
        f"≥ {GOAL}" if has_goal else "",
        reached.median >= GOAL if has_goal else None,
    )


def first_batch(what: str, found: Mapping[str, Sequence[Transfer]], references: Sequence[str]) -> Line:
    """Ours against the slowest of the references, in milliseconds to the first batch."""
    times = {name: first_batch_ms(transfers) for name, transfers in found.items()}
    reached = ratio_of_times(times["ours"], *(times[name] for name in references))
    return Line(
        what,
        times["ours"].text(1, "ms"),
        ", ".join(f"{name} {times[name].text(1)}" for name in references) + " ms",
        reached.text(2),
        f"≥ {GOAL}",
        reached.median >= GOAL,
    )


def first_batch_ms(transfers: Sequence[Transfer]) -> Spread:
    return Spread.of(1e3 * done.seconds_to_first for done in transfers)


def processor_time(what: str, found: Mapping[str, Sequence[Transfer]], parts: Sequence[str]) -> Line:
    """The sum of what the parts take per gigabyte against what ours does: how much the product adds to its parts.

    Unlike throughput it depends neither on the number of cores nor on who else uses them.
    """
    costs = {
        name: Spread.of(done.processor_seconds_per_gigabyte for done in transfers) for name, transfers in found.items()
    }
    rounds = zip(costs["ours"].values, *(costs[name].values for name in parts), strict=True)
    share = Spread.of(sum(rest) / own for own, *rest in rounds)
    return Line(
        what,
        costs["ours"].text(2, "s/GB"),
        " + ".join(f"{name} {costs[name].text(2)}" for name in parts) + " s/GB",
        share.text(2),
    )
