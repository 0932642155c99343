"""All contracts there are: those shipped, and those in the user's folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from lakehouse.catalog.errors import NotFoundError, quoted
from lakehouse.contracts.document import BrokenContractError, Problem, read_document
from lakehouse.contracts.model import Contract
from lakehouse.contracts.parsing import parse_contract

SHIPPED, USER = "shipped", "user"
ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class ContractLibrary:
    """The contracts in force, and what is wrong with files that are not.

    Attributes:
        contracts: By id; those of the user after those shipped. Retired ones (`status: retired`) are left out.
        problems: One broken file does not stop the others, and must not be overlooked either.
    """

    contracts: tuple[Contract, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def load(cls, folder: Path | None, extra: Iterable[Path] = ()) -> "ContractLibrary":
        """Read everything.

        Args:
            folder: The user's; it need not exist.
            extra: More files, treated as if they lay in the folder.
        """
        found = {contract.id: contract for contract in shipped_contracts()}
        problems: list[Problem] = []
        for path in (*_contract_files(folder), *extra):
            try:
                contract = read_contract(path)
                other = found.get(contract.id)
                if other is not None and other.origin == USER:
                    text = f"duplicated contract id {quoted(contract.id)}, first in {other.file}; this file is not used"
                    raise BrokenContractError([Problem(path.name, None, text)])
            except BrokenContractError as error:
                problems += error.problems
                continue
            # A user's contract with the id of a shipped one stands in its place.
            found.pop(contract.id, None)
            found[contract.id] = contract
        active = tuple(contract for contract in found.values() if contract.status != "retired")
        return cls(active, tuple(problems))

    def get(self, contract_id: str) -> Contract:
        """A contract by its id.

        Raises:
            NotFoundError: If there is none.
        """
        for contract in self.contracts:
            if contract.id == contract_id:
                return contract
        raise NotFoundError("contract", contract_id)


def read_contract(path: Path, origin: str = USER) -> Contract:
    """Read one file.

    Raises:
        BrokenContractError: If it is no valid contract.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise BrokenContractError([Problem(path.name, None, "not UTF-8 text")]) from None
    except OSError as error:
        raise BrokenContractError([Problem(path.name, None, f"cannot be read: {error.strerror}")]) from None
    return parse_contract(read_document(path.name, text), origin)


@cache
def shipped_contracts() -> tuple[Contract, ...]:
    """The contracts that come with the product, in order of their files."""
    entries = sorted((files(__package__) / "shipped").iterdir(), key=lambda entry: entry.name)
    return tuple(
        parse_contract(read_document(entry.name, entry.read_text("utf-8")), SHIPPED)
        for entry in entries
        if entry.name.endswith(ENDINGS)
    )


def _contract_files(folder: Path | None) -> Iterator[Path]:
    if folder is not None and folder.is_dir():
        yield from sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file())


def raise_problems(problems: Iterable[Problem]) -> None:
    """For callers that must not go on with a broken file.

    Raises:
        BrokenContractError: If there are any.
    """
    found = list(problems)
    if found:
        raise BrokenContractError(found)
