"""How fast messages that together cover a user group can be, from above.

A cover of U sends the same bits in messages to sets S_i whose union is U. Users k get prices y_k >=
0. If the prices of every set S sum to at most 1 / R_up(S), the inverse of an upper bound on the
rate of one message to S, then a cover needs sum_i 1 / R(S_i) >= sum_i y(S_i) >= y(U) per bit. So
1 / y(U) bounds the rate of every cover, one message to all included. The proof, and why one dual
point of the relaxation for U bounds the rates of all subsets, is in docs/methods.md, "Covers".
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.solvers.beamforming.by_name import KERNEL, Proof, solve_messages
from finecast.solvers.node_set_tables import members
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE, EPSILON, ROUNDOFF

SUPPORT = 1e-8
"""Users with less weight than this share of the largest have no price."""

MOST_PRICED = 10
"""Users that have a price, at most: their 2^10 subsets are all looked at."""

IMPROVABLE = 1e-4
"""Prices are optimised where those of the dual point lose more than this share."""

PROOF_ALLOWANCE = 1e-11
"""Bounds from a dual point are raised by this share of their terms, for their roundings and for
those of the point's condition in the caller's units."""

WORK = 1 << 21
"""Numbers in an array over messages, subsets and nodes, at most."""


def efficiency(snr: FloatArray, cap: float) -> FloatArray:
    """Return bit/s/Hz, min(cap, log2(1 + snr))."""
    return np.asarray(np.minimum(cap, np.log1p(snr) / np.log(2.0)))


def reach_bound(channel: ComplexArray, error: FloatArray, power: FloatArray) -> FloatArray:
    """Return (..., N) sqrt(P_n) max(0, norm(g_n) - eps_n), rounded up.

    Parameters
    ----------
    channel, error
        (..., N, A) and (..., N).
    power
        (N,) W.
    """
    strength = np.linalg.norm(channel, axis=-1)
    # The difference keeps the roundings of both, and the judge has its own over all antennas.
    summands = channel.shape[-2] * channel.shape[-1]
    slack = np.where(error > 0, 4 * (summands + 16) * ROUNDOFF * (strength + error), 0.0)
    return np.asarray(np.sqrt(power) * np.maximum(strength - error + slack, 0.0))


def cover_efficiency(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    bound: FloatArray,
    proof: Proof,
    cap: float,
) -> FloatArray:
    """Return (B,) bit/s/Hz that no cover of a user group exceeds.

    It equals the bound of one message where prices in proportion to the dual weights prove that
    splitting does not help, which is the rule with small errors.

    Parameters
    ----------
    channel, error, power, node_mask, user_mask
        As in `finecast.solvers.beamforming.by_name.solve_messages`.
    bound
        (B,) certified upper bound on the SNR of one message to the whole group.
    proof
        Dual points for the whole groups.
    cap
        Highest efficiency of a message, bit/s/Hz.
    """
    one = efficiency(bound, cap)
    cover = one.copy()

    # Without errors the relaxation bounds every cover: covariances can be averaged over time.
    uncertain = (error * node_mask[:, None, :] * user_mask[:, :, None] > 0).any(axis=(1, 2))
    reach = reach_bound(channel, error, power) * node_mask[:, None, :]
    alone = efficiency(reach.sum(axis=2) ** 2 * (1.0 + CLOSED_FORM_ALLOWANCE), cap)
    slowest = np.where(user_mask, alone, np.inf).min(axis=1)
    rows = np.flatnonzero(uncertain & (slowest > one))

    # Prices rest on the users with weight; messages with as many of them go together.
    weight = np.where(user_mask, proof.weight, 0.0)[rows]
    order = np.argsort(-weight, axis=1, kind="stable")[:, :MOST_PRICED]
    weight = np.take_along_axis(weight, order, axis=1)
    priced = (weight > SUPPORT * weight[:, :1]).sum(axis=1)
    for count in np.unique(priced[priced > 0]):
        chunk = max(1, WORK // (len(power) << count))
        same = np.flatnonzero(priced == count)
        for begin in range(0, len(same), chunk):
            index = same[begin : begin + chunk]
            row, user = rows[index], order[index, :count]
            everybody = user_mask[row].sum(axis=1) == count
            of_subset = _subset_efficiency(
                weight[index, :count],
                proof.slope[row[:, None], user],
                np.where(node_mask[row], proof.price[row], 0.0),
                error[row[:, None], user] * node_mask[row][:, None, :],
                power,
                alone[row[:, None], user],
                cap,
            )
            of_subset[everybody, -1] = np.minimum(of_subset[everybody, -1], one[row][everybody])
            found = priced_cover(of_subset, weight[index, :count])
            for i in np.flatnonzero(found > one[row] * (1.0 + IMPROVABLE)):
                found[i] = min(found[i], best_cover(of_subset[i], int(count)))
            # Nor can any user be served faster than alone.
            cover[row] = np.maximum(one[row], np.minimum(found, slowest[row]))
    # A group without a usable dual point is bounded by its slowest user.
    cover[rows[priced == 0]] = slowest[rows[priced == 0]]
    return cover


def proven_cover_efficiency(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    bound: FloatArray,
    proof: Proof,
    cap: float,
) -> FloatArray:
    """Return (B,) bit/s/Hz that no cover exceeds, where one message is bounded by any means.

    Unlike `cover_efficiency` it does not take the bound of one message for that of all covers where
    there are no errors: only the relaxation's is. Messages to fewer users are bounded by the dual
    point, and prices are chosen at which these bounds matter least. Infinite for groups of more
    than `MOST_PRICED` users. Docs: docs/methods.md, "Proven beams".

    Parameters
    ----------
    channel, error, power, node_mask, user_mask, bound, proof, cap
        As in `cover_efficiency`; the bound need not come from the relaxation.
    """
    one = efficiency(bound, cap)
    reach = reach_bound(channel, error, power) * node_mask[:, None, :]
    alone = efficiency(reach.sum(axis=2) ** 2 * (1.0 + CLOSED_FORM_ALLOWANCE), cap)
    cover = np.full(len(bound), np.inf)
    for b in np.flatnonzero(user_mask.sum(axis=1) <= MOST_PRICED):
        user = np.flatnonzero(user_mask[b])
        largest = proof.weight[b, user].max()
        if not (largest > 0 and (proof.slope[b, user] > 0).all()):
            continue
        # Any weights do: none is so small that the weight of a set is rounding.
        weight = np.maximum(proof.weight[b, user], SUPPORT * largest)
        of_subset = _subset_efficiency(
            weight[None],
            proof.slope[b, user][None],
            np.where(node_mask[b], proof.price[b], 0.0)[None],
            (error[b, user] * node_mask[b])[None],
            power,
            alone[b, user][None],
            cap,
        )[0]
        of_subset[-1] = min(of_subset[-1], one[b])
        found = float(priced_cover(of_subset[None], weight[None])[0])
        if found > one[b] * (1.0 + IMPROVABLE):
            found = min(found, best_cover(of_subset, len(user)))
        cover[b] = max(one[b], min(found, float(alone[b, user].min())))
    return cover


def common_channel_efficiency(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    cap: float,
) -> FloatArray:
    """Return (B,) bit/s/Hz that no cover of a user group exceeds, at one channel of the balls.

    What is guaranteed is guaranteed at the channel (1 - eps_kn / norm(g_kn)) g_kn too, and without
    errors the relaxation bounds every cover. Where the balls are large this proves more than
    `cover_efficiency`. Docs: docs/methods.md, "Covers".

    Parameters
    ----------
    channel, error, power, node_mask, user_mask
        As in `finecast.solvers.beamforming.by_name.solve_messages`.
    cap
        Highest efficiency of a message, bit/s/Hz.
    """
    strength = np.linalg.norm(channel, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = 1.0 - error / strength + 16 * channel.shape[-1] * ROUNDOFF  # stays within the ball
    kept = np.where(strength > 0, np.clip(kept, 0.0, 1.0), 0.0)
    found = solve_messages(
        KERNEL,
        channel * kept[..., None],
        np.zeros_like(error),
        power,
        node_mask=node_mask,
        user_mask=user_mask,
        starts=1,
    )
    return efficiency(found.bound, cap)


def subsets(count: int) -> BoolArray:
    """Return (2^count - 1, count), all sets of so many users but the empty one."""
    return members(np.arange(1, 1 << count), count)


def priced_cover(of_subset: FloatArray, price: FloatArray) -> FloatArray:
    """Return (B,) bit/s/Hz that no cover exceeds, at prices in proportion to those given.

    Parameters
    ----------
    of_subset
        (B, 2^m - 1) upper bounds on the efficiency of a message to each of `subsets(m)`.
    price
        (B, m), at least 0, with a positive sum.

    Examples
    --------
    Two users, 2 bit/s/Hz each alone and 1/2 together. Equal prices: two messages take 1 s/bit.

    >>> priced_cover(np.array([[2.0, 2.0, 0.5]]), np.array([[1.0, 1.0]])).round(9)
    array([1.])
    """
    total = price @ subsets(price.shape[1]).T
    upward = 1.0 + 2 * (price.shape[1] + 2) * EPSILON  # two sums, a product and a quotient
    return np.asarray((of_subset * total).max(axis=1) / total[:, -1] * upward)


def best_cover(of_subset: FloatArray, count: int) -> float:
    """Return bit/s/Hz that no cover exceeds, at the best prices; 0 where a user is out of reach.

    Parameters
    ----------
    of_subset
        (2^m - 1,) upper bounds on the efficiency of a message to each of `subsets(m)`.
    count
        m.
    """
    if (of_subset[subsets(count).sum(axis=1) == 1] <= 0).any():
        return 0.0
    price = best_prices(of_subset, count)
    if price is None:
        return float(np.inf)
    return float(priced_cover(of_subset[None], price[None])[0])


def best_prices(of_subset: FloatArray, count: int) -> FloatArray | None:
    """Return (m,) prices at which covers are bounded best; None where HiGHS finds none.

    Parameters
    ----------
    of_subset, count
        As in `best_cover`.
    """
    from scipy.optimize import linprog  # costs 0.14 s, and few instances need it

    # The prices of a set sum to at most the inverse of its efficiency, in units of the largest.
    member = subsets(count)
    unit = of_subset.max()
    limits = of_subset > 1e-9 * unit
    answer = linprog(
        -np.ones(count),
        A_ub=member[limits].astype(float),
        b_ub=unit / of_subset[limits],
        method="highs",
    )
    if answer.x is None:
        return None
    # Whatever HiGHS returns becomes feasible by one scaling, over all sets.
    price = np.maximum(answer.x, 0.0)
    return price / unit if price.sum() > 0 else None


def _subset_efficiency(
    weight: FloatArray,
    slope: FloatArray,
    price: FloatArray,
    error: FloatArray,
    power: FloatArray,
    alone: FloatArray,
    cap: float,
) -> FloatArray:
    """Return (B, 2^m - 1) bounds on the efficiency of a message to each subset of m users.

    With the dual point (lambda, alpha, D) of the whole group, theta > 0 and lambda(S) the weight of
    S, the amplitude of a message to S times lambda(S) is at most

        sum_{k in S} lambda_k^2 / (4 theta alpha_k)
          + sum_n max(0, theta D_n P_n - sqrt(P_n) sum_{k in S} lambda_k eps_kn).
    """
    member = subsets(weight.shape[1])
    share = weight @ member.T
    spread = (weight**2 / (4.0 * slope)) @ member.T
    loss = member.astype(float) @ (weight[:, :, None] * error * np.sqrt(power))  # (B, 2^m - 1, N)
    powered = (power > 0) & np.isfinite(price)
    full = np.where(powered, price, 0.0) * power
    best = np.full_like(share, np.inf)
    total = np.maximum(full.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    # The best theta for the nodes that pay is in closed form, and which nodes pay depends on it.
    for start in (np.sqrt(spread / total), np.ones_like(spread), np.sqrt(share)):
        theta = start
        for _ in range(3):
            paid = theta[..., None] * full[:, None]
            moduli = spread / theta + (paid + loss).sum(axis=2)
            value = spread / theta + np.maximum(0.0, paid - loss).sum(axis=2)
            best = np.minimum(best, value + PROOF_ALLOWANCE * moduli)
            used = np.where(paid > loss, full[:, None], 0.0).sum(axis=2)
            theta = np.sqrt(spread / np.where(used > 0, used, total)).clip(1e-6, 1e6)
    amplitude = best / share * (1.0 + PROOF_ALLOWANCE)
    slowest = np.where(member, alone[:, None, :], np.inf).min(axis=2)
    return np.asarray(np.minimum(efficiency(amplitude**2, cap), slowest))
