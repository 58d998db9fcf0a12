"""Plain tables: a line for the titles, three blanks between columns, nothing else, so that awk and people read them alike."""

from collections.abc import Iterable, Sequence

GAP = "   "


class Table:
    """Column widths are those of the rows given first; later rows (a watch's) keep to them as far as they can."""

    def __init__(self, titles: Sequence[str]) -> None:
        self.titles = tuple(titles)
        self._widths = [len(title) for title in titles]

    def lines(self, rows: Iterable[Sequence[str]], *, titles: bool = True) -> list[str]:
        """The rows as lines, with the titles above unless told otherwise."""
        cells = [[_one_line(cell) for cell in row] for row in rows]
        for row in cells:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]
        shown = [list(self.titles), *cells] if titles else cells
        return [self._line(row) for row in shown]

    def _line(self, row: Sequence[str]) -> str:
        return GAP.join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()


def _one_line(cell: str) -> str:
    return " ".join(cell.split()) if cell else "-"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A whole table at once."""
    return Table(titles).lines(rows)
