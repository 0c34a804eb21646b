"""How regular the calls to given peers are: one row for each pod and peer. Judges nothing.

Reads the rows of these peers only, and only when asked. The engine sorts and counts; what comes
back is small, whatever the capture holds.

A row is what a pod did in one drain interval: ``n`` connections, the first of them at
``first_seen``. So the time from there to the next row's first connection is ``n`` intervals. That
time divided by ``n`` is an interval whose spread shrinks with the root of ``n``: rhythms finer
than the drain are seen as well. Rows without a new connection add bytes to the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd
import pyarrow as pa

__all__ = ["rhythms"]

_ASKED = ("namespace", "workload_kind", "workload", "protocol", "port", "peer_ip")


def rhythms(
    connection: duckdb.DuckDBPyConnection,
    asked: pd.DataFrame,
    tolerance: float,
    test: str,
    values: Sequence[object],
) -> pa.Table:
    """One row for each destination and pod of ``asked``.

    Parameters
    ----------
    asked: ``namespace``, ``workload_kind``, ``workload``, ``protocol``, ``port``, ``peer_ip``, and
        the number of the ``destination`` that they belong to; several addresses may be one. No
        row twice.
    tolerance: an interval may differ so much from the median one, as a share of it; the payload
        by half as much, or by 32 bytes.
    test, values: the window, as SQL over ``flows``.

    Returns
    -------
    ``destination``, ``pod``, ``first_seen`` and ``last_seen`` (first and last connection);
    ``connections``; ``events`` (rows that opened any); ``hours`` (distinct); ``period`` (s, the
    median interval); ``jitter`` (the median deviation from it, scaled to a standard deviation, as
    a share of it); ``sent`` and ``received`` (median bytes of a connection); ``steady`` and
    ``even`` (the shares of intervals and of payloads within the tolerance).
    """
    connection.register("asked_peers", asked)
    try:
        return connection.sql(
            f"""
            WITH chosen AS (
                SELECT destination, pod, first_seen, peer_ip,
                    connections, bytes_sent, bytes_received
                FROM flows JOIN asked_peers USING ({", ".join(_ASKED)})
                WHERE direction = 'egress' AND peer_kind = 'external' AND pod IS NOT NULL
                    AND verdict IN ('allowed', 'audited') AND {test}
            ), numbered AS (
                SELECT *, sum((connections > 0)::INT) OVER (
                    PARTITION BY destination, pod
                    ORDER BY first_seen, connections DESC, peer_ip, bytes_sent, bytes_received
                    ROWS UNBOUNDED PRECEDING
                ) AS event FROM chosen
            ), events AS (
                SELECT destination, pod, event, min(first_seen) AS began,
                    sum(connections)::DOUBLE AS n,
                    sum(bytes_sent) / n AS sent, sum(bytes_received) / n AS received
                FROM numbered WHERE event > 0 GROUP BY ALL
            ), gaps AS (
                SELECT *, (epoch_us(lead(began) OVER (
                    PARTITION BY destination, pod ORDER BY began, event
                )) - epoch_us(began)) / 1e6 / n AS gap FROM events
            ), typical AS (
                SELECT destination, pod, count(*) AS events, sum(n)::BIGINT AS connections,
                    min(began) AS first_seen, max(began) AS last_seen,
                    count(DISTINCT epoch_us(began) // 3600000000) AS hours,
                    median(gap) AS period, median(sent) AS sent, median(received) AS received
                FROM gaps GROUP BY destination, pod
            )
            SELECT typical.*,
                1.4826 * median(abs(gap / period - 1) * sqrt(n)) AS jitter,
                avg((abs(gap / period - 1) <= ? / sqrt(n))::INT) AS steady,
                avg((abs(gaps.sent - typical.sent) <= greatest(typical.sent * ?, 32)
                    AND abs(gaps.received - typical.received)
                        <= greatest(typical.received * ?, 32))::INT) AS even
            FROM typical JOIN gaps USING (destination, pod)
            GROUP BY ALL ORDER BY destination, pod
            """,  # noqa: S608
            params=[*values, tolerance, tolerance / 2, tolerance / 2],
        ).to_arrow_table()
    finally:
        connection.unregister("asked_peers")
