"""Time on the air of a group of users, from what reaches each of them: no beamforming.

Alone, user k has exactly snr_k(Q) = (sum_{n in Q} reach_kn)^2, reach_kn = sqrt(P_n) max(0, |g_kn| -
eps_kn). If channels were orthogonal and powers pooled, a group would have snr_U = 1 / sum_{k in U}
1 / snr_k; it has at most |U| times as much, and

    snr_U(Q) = |U|^c / sum_{k in U} 1 / snr_k(Q)

with an exponent c that is fitted to the rates of real beams. The inverse is linear in who belongs
to the group, so the same formula serves for a group of which only the shares are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray
from finecast.problem.sinr import rate
from finecast.problem.tolerances import LOWEST_SNR


@dataclass(frozen=True, eq=False)
class Air:
    """What decides on the time on the air.

    Attributes
    ----------
    reach
        (K, N) amplitude that each node gives a user alone, noise 1; or (F, K, N), draws of it over
        which times are averaged.
    exponent
        c of the group size.
    bandwidth, max_spectral_efficiency
        Hz and bit/s/Hz.
    """

    reach: FloatArray
    exponent: float
    bandwidth: float
    max_spectral_efficiency: float

    def seconds(self, share: FloatArray, sending: BoolArray) -> FloatArray:
        """Return the seconds per byte of messages to groups.

        Parameters
        ----------
        share
            (..., K) of each user in the group: 1, it belongs to it; 0, it does not.
        sending
            (S, N) sets of nodes.

        Returns
        -------
        (..., S); 0 for a group of nobody.
        """
        draws = self.reach.reshape(-1, *self.reach.shape[-2:])
        size = share.sum(axis=-1)[..., None]
        nobody = size == 0
        gain = np.where(nobody, 1.0, size) ** self.exponent
        total = np.zeros((*share.shape[:-1], len(sending)))
        for reach in draws:
            single = np.maximum((sending @ reach.T) ** 2, LOWEST_SNR)  # (S, K)
            inverse = np.where(nobody, 1.0, share @ (1.0 / single).T)
            total += 8.0 / rate(gain / inverse, self.bandwidth, self.max_spectral_efficiency)
        return np.where(nobody, 0.0, total / len(draws))


Part = tuple[BoolArray, BoolArray]
"""The listeners (K,) and the senders (N,) of one of the messages in which a block goes out."""


def serving_sets(
    member: BoolArray, senders: BoolArray, cloud: FloatArray
) -> tuple[BoolArray, FloatArray]:
    """Return who sends a part when Q has the block, and what it costs if none of its senders do.

    A part that no node of Q may serve: one of its senders fetches from the cloud first.

    Parameters
    ----------
    member
        (S, N) the sets Q.
    senders
        (N,) the nodes that may send the part.
    cloud
        (N,) seconds per byte from the cloud.

    Returns
    -------
    (S, N) sets of nodes, and (S,) seconds per byte.
    """
    sending = member & senders
    lacking = np.asarray(~sending.any(axis=1))
    fetched = np.where(lacking, cloud[senders].min(), 0.0)
    return np.where(lacking[:, None], senders, sending), fetched


def group_times(
    air: Air, share: FloatArray, parts: list[Part], member: BoolArray, cloud: FloatArray
) -> FloatArray:
    """Return the time on the air of a block that groups of users want, from every set of nodes.

    Parameters
    ----------
    air
        What decides on it.
    share
        (S, K) of each user in each group.
    parts
        The messages in which the block goes out, each to its listeners in the group.
    member
        (2^N, N) the sets of nodes.
    cloud
        (N,) seconds per byte from the cloud.

    Returns
    -------
    (2^N, S) seconds per byte; infinite from no node, even for a group of nobody.
    """
    times = np.zeros((len(share), len(member)))
    for listeners, senders in parts:
        heard = share * listeners
        serving, fetched = serving_sets(member, senders, cloud)
        asked = np.asarray(heard.any(axis=1))
        times += np.where(asked[:, None], air.seconds(heard, serving) + fetched, 0.0)
    times[:, ~member.any(axis=1)] = np.inf
    return np.ascontiguousarray(times.T)
