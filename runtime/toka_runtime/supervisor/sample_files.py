"""What the sample workspace holds, commit by commit: a small project with the flaws that small projects have.

Its flaws are wanted, for there to be something to find: a link to a missing page, a page that nothing links to, a
dependency that is never imported, an error that is swallowed, a changelog that is one version behind.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleCommit:
    at: str
    """ISO date and time with zone: part of the commit's name."""
    message: str
    files: dict[str, str]
    """Whole contents by path; later commits replace earlier ones."""


_README = """\
# tally

Counts what is on the shelves of a small shop and says what has to be ordered.

```
make test                                  # run the tests
python3 -m tally.report stock.csv          # print the report
```

How to use it: [docs/usage.md](docs/usage.md). How it is built: [docs/design.md](docs/design.md).
"""

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "tally"
version = "{version}"
description = "Counts stock and says what has to be ordered"
requires-python = ">=3.9"
dependencies = [{dependencies}]

[tool.setuptools.packages.find]
where = ["src"]
"""

_MAKEFILE = """\
.PHONY: test report

test:
\tPYTHONPATH=src python3 -m unittest discover --start-directory tests

report:
\tPYTHONPATH=src python3 -m tally.report stock.csv
"""

_STOCK = '''\
"""Items on the shelves."""

import csv
from dataclasses import dataclass


@dataclass
class Item:
    name: str
    count: int
    price_cents: int
    reorder_at: int = 5

    @property
    def value_cents(self):
        return self.count * self.price_cents


class Stock:
    """All items, by name."""

    def __init__(self, items=()):
        self.items = {item.name: item for item in items}

    def add(self, name, count):
        if count < 0:
            raise ValueError("count must not be negative")
        self.items[name].count += count

    def take(self, name, count):
        item = self.items[name]
        if count > item.count:
            raise ValueError(f"only {item.count} of {name} left")
        item.count -= count

    def to_order(self):
        """Items at or below their limit, the emptiest first."""
        low = [item for item in self.items.values() if item.count <= item.reorder_at]
        return sorted(low, key=lambda item: item.count)


def load(path):
    """Read a CSV file with the columns name, count, price_cents, reorder_at."""
    items = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                items.append(Item(row["name"], int(row["count"]), int(row["price_cents"]), int(row["reorder_at"])))
            except Exception:
                pass
    return Stock(items)
'''

_REPORT = '''\
"""The report that is printed each morning."""

import sys

from tally.stock import load


def money(cents):
    return f"{cents // 100}.{cents % 100:02d}"


def lines(stock):
    total = 0
    for item in sorted(stock.items.values(), key=lambda item: item.name):
        total += item.value_cents
        yield f"{item.name:<20} {item.count:>5} {money(item.value_cents):>10}"
    yield f"{'total':<26} {money(total):>10}"
    # TODO: group by supplier
    for item in stock.to_order():
        yield f"order: {item.name} ({item.count} left)"


def main():
    for line in lines(load(sys.argv[1])):
        print(line)


if __name__ == "__main__":
    main()
'''

_TEST_STOCK = """\
import unittest

from tally.stock import Item, Stock


class StockTest(unittest.TestCase):
    def setUp(self):
        self.stock = Stock([Item("soap", 12, 199), Item("tea", 3, 450)])

    def test_add_and_take(self):
        self.stock.add("soap", 3)
        self.stock.take("soap", 5)
        self.assertEqual(self.stock.items["soap"].count, 10)

    def test_no_more_than_there_is(self):
        with self.assertRaises(ValueError):
            self.stock.take("tea", 4)

    def test_what_has_to_be_ordered(self):
        self.assertEqual([item.name for item in self.stock.to_order()], ["tea"])


if __name__ == "__main__":
    unittest.main()
"""

_TEST_REPORT = """\
import unittest

from tally.report import lines, money
from tally.stock import Item, Stock


class ReportTest(unittest.TestCase):
    def test_money(self):
        self.assertEqual(money(1205), "12.05")

    def test_total_and_orders(self):
        text = "\\n".join(lines(Stock([Item("tea", 3, 450)])))
        self.assertIn("13.50", text)
        self.assertIn("order: tea (3 left)", text)


if __name__ == "__main__":
    unittest.main()
"""

_STOCK_CSV = """\
name,count,price_cents,reorder_at
soap,12,199,5
tea,3,450,5
candles,40,89,10
matches,8,25,20
"""

_USAGE = """\
# Using tally

Keep a file `stock.csv` with the columns `name`, `count`, `price_cents` and `reorder_at`, and print the report:

    make report

An item is on the order list when its count is at or below `reorder_at`.

Where the file lies and how money is written can be changed: see [configuration](configuration.md).
Terms are explained in the [README](../README.md#terms).
"""

_DESIGN = """\
# How tally is built

Two modules. `tally.stock` knows items and counts, `tally.report` turns them into text. Nothing is stored but the CSV
file, which is read whole each time.

An item is on the order list when its count is at or below `reorder_at`.
"""

_SUPPLIERS = """\
# Suppliers

Notes for the next version: each item gets a supplier, and the order list is grouped by it. Prices of suppliers change
on the first of the month.
"""

_CHANGELOG = """\
# Changelog

## 0.2.0

- The report lists what has to be ordered.

## 0.1.0

- First version: items, counts, values.
"""

HISTORY = (
    SampleCommit(
        "2025-03-03T09:12:00+00:00",
        "Count items and their value",
        {
            "README.md": _README.partition("\nHow to use it")[0],
            ".gitignore": "__pycache__/\n*.egg-info/\nbuild/\n",
            "pyproject.toml": _PYPROJECT.format(version="0.1.0", dependencies=""),
            "Makefile": _MAKEFILE,
            "stock.csv": _STOCK_CSV,
            "src/tally/__init__.py": "",
            "src/tally/stock.py": _STOCK,
            "tests/test_stock.py": _TEST_STOCK,
        },
    ),
    SampleCommit(
        "2025-04-11T16:40:00+00:00",
        "Print a report with what has to be ordered",
        {
            "pyproject.toml": _PYPROJECT.format(version="0.2.0", dependencies='"requests>=2.31"'),
            "src/tally/report.py": _REPORT,
            "tests/test_report.py": _TEST_REPORT,
            "CHANGELOG.md": _CHANGELOG,
        },
    ),
    SampleCommit(
        "2025-06-20T11:05:00+00:00",
        "Say how it is used and how it is built",
        {
            "README.md": _README,
            "pyproject.toml": _PYPROJECT.format(version="0.3.0", dependencies='"requests>=2.31"'),
            "docs/usage.md": _USAGE,
            "docs/design.md": _DESIGN,
            "docs/suppliers.md": _SUPPLIERS,
        },
    ),
)
