"""What an exploration found: `Finding`, one defect or property of the data, and `Findings`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd

from kft import plots
from kft.messages import count_of, harmless

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 140  # of the text, in characters
MOST_ROWS = 1000  # rows that a finding keeps


class Severity(IntEnum):
    """How much a finding matters; severities can be compared.

    INFO describes the data. WARNING names what may mislead a model or a score. ERROR names what
    makes a model or its score wrong.

    Example:
        >>> Severity.ERROR > Severity.WARNING, str(Severity.INFO)
        (True, 'info')
    """

    INFO = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, eq=False)
class Finding:
    """One property of a data set, with its evidence and what it means.

    Args:
        severity: How much it matters.
        code: Name of what was found, such as "suspected-sentinel".
        subject: The column, split or group that it is about.
        evidence: Numbers that show it, by name.
        meaning: One sentence on what it means.
        advice: One sentence on what it should change in the preparation or the choice of a model.
        rows: Positions from 0 of the records that show it, at most 1,000; the evidence has their
            number. Empty if it is about all records.

    Example:
        >>> found = Finding(Severity.WARNING, "constant-column", "x", {"value": 3.0},
        ...                 "It has one value.", "Leave it out.")
        >>> print(found.code, found.severity)
        constant-column warning
    """

    severity: Severity
    code: str
    subject: str
    evidence: Mapping[str, Any]
    meaning: str
    advice: str
    rows: Sequence[int] = ()

    def __post_init__(self) -> None:
        rows = tuple(int(row) for row in list(self.rows)[:MOST_ROWS])
        object.__setattr__(self, "severity", Severity(self.severity))
        object.__setattr__(self, "rows", rows)

    @property
    def numbers(self) -> str:
        """The evidence as text, a line for each number."""
        return "\n".join(f"{name}: {_written(value)}" for name, value in self.evidence.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain Python values, as `Findings.to_json` writes them."""
        return {
            "severity": str(self.severity),
            "code": self.code,
            "subject": self.subject,
            "evidence": _plain(self.evidence),
            "meaning": self.meaning,
            "advice": self.advice,
            "rows": list(self.rows),
        }


def info(*args: Any, **options: Any) -> Finding:
    """Make a finding of severity INFO; the other arguments are those of `Finding`."""
    return Finding(Severity.INFO, *args, **options)


def warning(*args: Any, **options: Any) -> Finding:
    """Make a finding of severity WARNING; the other arguments are those of `Finding`."""
    return Finding(Severity.WARNING, *args, **options)


def error(*args: Any, **options: Any) -> Finding:
    """Make a finding of severity ERROR; the other arguments are those of `Finding`."""
    return Finding(Severity.ERROR, *args, **options)


@dataclass(frozen=True, eq=False)
class Summary:
    """Tables that describe the data, which the figures of `Findings` show.

    Attributes:
        records: Number of records.
        target: Name of the target, or None.
        columns: One row per column: kind, dtype, missing, distinct, and the quartiles of numbers.
        histograms: Column -> (counts (B,), edges (B + 1,)), without suspected sentinels.
        missing: Share of missing values, one row per column that has any: over all records, then
            by class.
        correlation: Correlations of the columns of numbers.
        balance: Number of records by class (rows) and split or group (columns).
        covariance: Covariances of the columns of numbers, in the product of their units.
    """

    records: int = 0
    target: str | None = None
    columns: pd.DataFrame = field(default_factory=pd.DataFrame)
    histograms: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)
    correlation: pd.DataFrame = field(default_factory=pd.DataFrame)
    balance: pd.DataFrame = field(default_factory=pd.DataFrame)
    covariance: pd.DataFrame = field(default_factory=pd.DataFrame)

    def related(self, most: int = 10) -> pd.DataFrame:
        """Return the pairs of columns that correlate most, with their covariance.

        Args:
            most: Largest number of pairs.

        Returns:
            Table of columns `one`, `other`, `correlation` and `covariance`, the strongest first.
            The covariance is NaN in findings that an earlier version has stored without it.

        Example:
            >>> table = pd.DataFrame([[1, -0.5], [-0.5, 1]], index=["a", "b"], columns=["a", "b"])
            >>> Summary(correlation=table, covariance=4 * table).related().values.tolist()
            [['a', 'b', -0.5, -2.0]]
        """
        values = self.correlation.to_numpy(dtype=float)
        first, second = np.triu_indices(len(values), 1)
        known = np.isfinite(values[first, second])
        first, second = first[known], second[known]
        order = np.argsort(-np.abs(values[first, second]), kind="stable")[:most]
        first, second = first[order], second[order]
        covariance = self.covariance.reindex_like(self.correlation).to_numpy(dtype=float)
        return pd.DataFrame(
            {
                "one": self.correlation.index[first],
                "other": self.correlation.columns[second],
                "correlation": values[first, second],
                "covariance": covariance[first, second],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as plain Python values, for JSON; `from_dict` reads them."""
        tables = {name: getattr(self, name) for name in TABLES}
        return {
            "target": self.target,
            **{name: _plain(table.to_dict(orient="split")) for name, table in tables.items()},
            "histograms": [
                [str(name), _plain(counts), _plain(edges)]
                for name, (counts, edges) in self.histograms.items()
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], records: int = 0) -> Summary:
        """Make a summary of what `to_dict` returned.

        Args:
            content: As `to_dict` returned it.
            records: Number of records.
        """
        tables = {
            name: pd.DataFrame(**content[name]).fillna(np.nan)
            for name in TABLES
            if content.get(name)
        }
        histograms = {
            name: (np.asarray(counts), np.asarray(edges))
            for name, counts, edges in content.get("histograms", [])
        }
        return cls(records, content.get("target"), histograms=histograms, **tables)


TABLES = ("columns", "missing", "correlation", "balance", "covariance")  # of `Summary`


class Findings(Sequence[Finding]):
    """What an exploration found, the most severe first; printing shows a table.

    Args:
        found: The findings.
        name: Name of the data.
        summary: Tables that describe the data.

    Attributes:
        name: Name of the data.
        summary: As given; `summary.columns` is a table with one row per column.

    Example:
        >>> import pandas as pd
        >>> from kft.exploration import explore
        >>> found = explore(pd.DataFrame({"x": [1, 2, 3] * 20, "y": [0, 1, 1] * 20}), target="y")
        >>> [finding.code for finding in found.at_least("warning")]
        ['column-tells-target']
    """

    def __init__(
        self, found: Iterable[Finding], name: str = "data", summary: Summary | None = None
    ):
        self._found = sorted(found, key=lambda finding: -finding.severity)  # keeps the order else
        self.name = name
        self.summary = summary or Summary()

    @overload
    def __getitem__(self, at: int) -> Finding: ...
    @overload
    def __getitem__(self, at: slice) -> Findings: ...
    def __getitem__(self, at: int | slice) -> Finding | Findings:
        if isinstance(at, slice):
            return Findings(self._found[at], self.name, self.summary)
        return self._found[at]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    @property
    def codes(self) -> list[str]:
        """The codes that were found, each once, the most severe first."""
        return list(dict.fromkeys(finding.code for finding in self))

    def at_least(self, severity: Severity | str) -> Findings:
        """Return the findings of at least this severity.

        Args:
            severity: "info", "warning" or "error", or a `Severity`.

        Returns:
            The findings.

        Raises:
            ValueError: There is no such severity.
        """
        least = _severity(severity)
        return Findings([x for x in self if x.severity >= least], self.name, self.summary)

    def of(self, code: str) -> Findings:
        """Return the findings with a code.

        Args:
            code: Code, such as "suspected-sentinel".

        Returns:
            The findings, perhaps none.
        """
        return Findings([x for x in self if x.code == code], self.name, self.summary)

    def to_frame(self) -> pd.DataFrame:
        """Return a table with one row per finding.

        Returns:
            Columns severity, code, subject, evidence (a dict), meaning, advice and rows.
        """
        columns = ["severity", "code", "subject", "evidence", "meaning", "advice", "rows"]
        return pd.DataFrame([x.to_dict() for x in self], columns=columns)

    def to_json(self) -> str:
        """Return the findings as JSON.

        Returns:
            An object with the name of the data, the number of records, the findings and the tables
            of the summary; numbers that are NaN or infinite are null.
        """
        content = {
            "name": self.name,
            "records": self.summary.records,
            "findings": [finding.to_dict() for finding in self],
            "summary": self.summary.to_dict(),
        }
        return json.dumps(content, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Findings:
        """Read what `to_json` wrote.

        Args:
            text: The JSON.

        Returns:
            The findings, whose numbers are Python's own.

        Raises:
            ValueError: The text was not written by `to_json`.

        Example:
            >>> found = Findings([Finding(Severity.INFO, "a", "x", {"n": 1}, "So.", "Do.", [2])])
            >>> Findings.from_json(found.to_json())[0].rows
            (2,)
        """
        try:
            content = json.loads(text)
            found = [
                Finding(**{**finding, "severity": _severity(finding["severity"])})
                for finding in content["findings"]
            ]
            records = content["records"]
            summary = Summary.from_dict(content.get("summary", {}), records)
            return cls(found, content["name"], summary)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"text must be what Findings.to_json wrote, received {text[:60]!r}."
            ) from error

    def figures(self) -> dict[str, tuple[Figure, str]]:
        """Draw the distributions, the missing values, the correlations and the balance of classes.

        Returns:
            Name -> (figure, caption), of those figures that there are data for.
        """
        summary, drawn = self.summary, {}
        if summary.histograms:
            drawn["distributions"] = plots.plot_distributions(
                summary.histograms, summary.target, self.name, summary.records
            )
        if len(summary.missing):
            drawn["missing"] = plots.plot_missing(summary.missing, self.name, summary.records)
        if len(summary.correlation) > 1:
            drawn["correlation"] = plots.plot_correlation(
                summary.correlation, self.name, summary.records
            )
        if len(summary.balance):
            drawn["balance"] = plots.plot_balance(summary.balance, self.name)
        return drawn

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        counts = [f"{sum(x.severity == s for x in self)} {s}" for s in reversed(Severity)]
        title = f"{self.name}: {count_of(self.summary.records, 'record')}; {', '.join(counts)}"
        grid = Table(title=Text(harmless(title, keep="\n")), title_justify="left", show_lines=True)
        for name in ("severity", "code", "subject", "evidence", "meaning and advice"):
            grid.add_column(name, overflow="fold")
        for finding in self:
            cells = [
                str(finding.severity), finding.code, finding.subject,
                finding.numbers, f"{finding.meaning} {finding.advice}",
            ]  # fmt: skip
            grid.add_row(*(Text(harmless(cell, keep="\n")) for cell in cells))
        console = Console(width=WIDTH, no_color=True)
        with console.capture() as captured:
            console.print(grid)
        return captured.get().rstrip("\n")

    def __repr__(self) -> str:
        return f"Findings({len(self)} of {self.name!r}: {', '.join(self.codes)})"


def _severity(value: Severity | str) -> Severity:
    if isinstance(value, str) and value.upper() in Severity.__members__:
        return Severity[value.upper()]
    if isinstance(value, Severity):
        return value
    raise ValueError(
        f"severity must be one of {', '.join(map(str, Severity))}; received {value!r}."
    )


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Index):
        return [_plain(x) for x in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _written(value: Any, most: int = 4) -> str:
    if isinstance(value, Mapping):
        parts = [f"{key} {_written(x)}" for key, x in list(value.items())[:most]]
    elif isinstance(value, list | tuple | np.ndarray):
        parts = [_written(x) for x in list(value)[:most]]
    elif isinstance(value, float | np.floating):
        return f"{value:.3g}" if abs(float(value)) < 1e5 else f"{value:.4g}"
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    else:
        text = str(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    more = len(value) - len(parts)
    return ", ".join(parts) + (f" and {more:,} more" if more else "")
