"""Links between sites, and which models their users ask for, from CSV files."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.problem.csv_rows import shown
from finecast.problem.csv_table import read_table
from finecast.problem.files import FormatError
from finecast.problem.sites import CLOUD, DISTRICT, EVERY_SITE, LARGEST


def read_links(path: str | os.PathLike[str], names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return the rates of links in a CSV file.

    A row holds for both directions, unless the other one has a row too. Sites without a row between
    them have no link.

    Parameters
    ----------
    path
        Columns `from`, `to`, `gbps`. `from` may be `cloud`.
    names
        (N,) of the sites.

    Returns
    -------
    between, cloud
        (N, N) Gbit/s `[source, receiver]`, 0 for no link; and (N,) from the cloud, NaN where no
        row says it.

    Raises
    ------
    FormatError
        The file is no such table, a site is unknown, a link stands twice, begins and ends at one
        site or leads to the cloud, a rate is negative, or one from the cloud is 0. The message
        names line and column.
    """
    between = np.zeros((len(names), len(names)))
    cloud = np.full(len(names), np.nan)
    line_of: dict[tuple[int, int], int] = {}
    known = [*names, CLOUD]
    rows = read_table(path, ["from", "to", "gbps"])
    for row in rows:
        source = row.one_of("from", known, "site")
        receiver = row.one_of("to", names, "site")
        if source == receiver:
            raise row.wrong("to", f"{shown(row.text('to'))} is where the link begins")
        if (source, receiver) in line_of:
            line = line_of[source, receiver]
            raise row.wrong("to", f"this link stands in line {line} already")
        line_of[source, receiver] = row.line
        if source == len(names):
            cloud[receiver] = row.number("gbps", low=1 / LARGEST, high=LARGEST)
        else:
            between[source, receiver] = row.number("gbps", low=0.0, high=LARGEST)
    for source, receiver in line_of:
        if source < len(names) and (receiver, source) not in line_of:
            between[receiver, source] = between[source, receiver]
    return between, cloud


def read_weights(
    path: str | os.PathLike[str],
    names: Sequence[str],
    model_names: Sequence[str],
    models: int,
    districts: Sequence[str] = (),
) -> tuple[FloatArray, str]:
    """Return how often the users of each site, or district, ask for each model, in a CSV file.

    Parameters
    ----------
    path
        Columns `model` (a name, or a number from 0) and `weight`; if wanted `site` or `district`.
        The rows of `*` are for all sites, or districts, without rows of their own. A model without
        a row has weight 0.
    names
        (N,) of the sites.
    model_names
        (M,), or none.
    models
        M.
    districts
        D different ones, of the sites or of the cells of users.

    Returns
    -------
    weight
        (N, M) or (D, M); (1, M) where the file has neither column.
    column
        "site" or "district", what its rows stand for; empty for neither.

    Raises
    ------
    FormatError
        The file is no such table, a site, district or model is unknown, a pair stands twice, a
        number is negative, or a site or district has no weight at all. The message names line and
        column.
    """
    rows = read_table(path, ["model", "weight"], ["site", DISTRICT])
    columns = [column for column in ("site", DISTRICT) if column in rows[0].fields]
    if len(columns) == 2:
        raise FormatError(path, "line 1: give either the column 'site' or 'district'")
    column = "".join(columns)
    known = {"": (), "site": names, DISTRICT: districts}[column]
    if column and not known:
        needs = (
            "sites with names, give 'nodes.file'"
            if column == "site"
            else "a column 'district' in the file of the sites ('nodes.file') or of the users "
            "('users.file')"
        )
        raise FormatError(path, f"line 1: column {column!r} needs {needs}")
    of_name = {str(m): m for m in range(models)} | {name: m for m, name in enumerate(model_names)}
    places = [*known, EVERY_SITE]
    weight = np.full((len(places), models), np.nan)
    for row in rows:
        place = row.one_of(column, places, column) if column else 0
        if row.text("model") not in of_name:
            row.one_of("model", model_names or [str(m) for m in range(models)], "model")
        m = of_name[row.text("model")]
        if not np.isnan(weight[place, m]):
            raise row.wrong("model", f"{shown(row.text('model'))} has a row already")
        weight[place, m] = row.number("weight", low=0.0, high=LARGEST)
    listed = ~np.isnan(weight).all(axis=1)
    weight = np.asarray(np.nan_to_num(weight))
    if column:
        weight = np.asarray(np.where(listed[:-1, None], weight[:-1], weight[-1]))
    for n in np.flatnonzero(weight.sum(axis=1) <= 0).tolist():
        whose = f"for {column} {shown(known[n])}" if column else "for any model"
        raise FormatError(path, f"column 'weight': none above 0 {whose}")
    return weight, column
