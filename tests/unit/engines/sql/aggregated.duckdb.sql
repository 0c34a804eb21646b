SELECT
  *
FROM (
  SELECT
    "t1"."namespace",
    "t1"."workload_kind",
    "t1"."workload",
    "t1"."direction",
    "t1"."protocol",
    "t1"."port",
    "t1"."target_port",
    "t1"."peer_ip",
    "t1"."peer_kind",
    "t1"."peer_namespace",
    "t1"."peer_workload_kind",
    "t1"."peer_workload",
    "t1"."verdict",
    "t1"."own_node",
    CAST(SUM("t1"."rows") AS BIGINT) AS "rows",
    CAST(SUM("t1"."connections") AS BIGINT) AS "connections",
    CAST(SUM("t1"."bytes_sent") AS BIGINT) AS "bytes_sent",
    CAST(SUM("t1"."bytes_received") AS BIGINT) AS "bytes_received",
    MIN("t1"."first_seen") AS "first_seen",
    MAX("t1"."last_seen") AS "last_seen",
    ARRAY_AGG("t1"."seen") FILTER(WHERE
      "t1"."seen" IS NOT NULL) AS "seen",
    CASE
      WHEN COUNT("t1"."pod") > 0
      THEN LIST_SORT(LIST_DISTINCT(ARRAY_AGG("t1"."pod") FILTER(WHERE
        "t1"."pod" IS NOT NULL)))
      ELSE NULL
    END AS "pods",
    CASE
      WHEN COUNT("t1"."peer_name") > 0
      THEN LIST_SORT(
        LIST_DISTINCT(ARRAY_AGG("t1"."peer_name") FILTER(WHERE
          "t1"."peer_name" IS NOT NULL))
      )
      ELSE NULL
    END AS "peer_names"
  FROM (
    SELECT
      "t0"."namespace",
      "t0"."workload_kind",
      "t0"."workload",
      "t0"."direction",
      "t0"."protocol",
      "t0"."port",
      "t0"."target_port",
      "t0"."peer_ip",
      "t0"."peer_kind",
      "t0"."peer_namespace",
      "t0"."peer_workload_kind",
      "t0"."peer_workload",
      "t0"."verdict",
      "t0"."node",
      "t0"."pod",
      "t0"."peer_name",
      "t0"."day",
      "t0"."long_until",
      "t0"."rows",
      "t0"."connections",
      "t0"."bytes_sent",
      "t0"."bytes_received",
      "t0"."first_seen",
      "t0"."last_seen",
      "t0"."hours",
      "t0"."wrong",
      (
        "t0"."peer_kind" = 'node'
      )
      AND "t0"."peer_workload" IS NOT DISTINCT FROM "t0"."node" AS "own_node",
      {'day': "t0"."day", 'bits': "t0"."hours", 'first': CASE
        WHEN "t0"."long_until" IS NOT NULL
        THEN CAST(FLOOR((
          EPOCH_US("t0"."first_seen")
        ) / (
          3600000000
        )) AS BIGINT)
        ELSE NULL
      END, 'last': "t0"."long_until"} AS "seen"
    FROM "days" AS "t0"
  ) AS "t1"
  GROUP BY
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14
) AS "t2"
ORDER BY
  "t2"."namespace" ASC,
  "t2"."workload_kind" ASC,
  "t2"."workload" ASC,
  "t2"."direction" ASC,
  "t2"."protocol" ASC,
  "t2"."port" ASC,
  "t2"."target_port" ASC,
  "t2"."peer_ip" ASC,
  "t2"."peer_kind" ASC,
  "t2"."peer_namespace" ASC,
  "t2"."peer_workload_kind" ASC,
  "t2"."peer_workload" ASC,
  "t2"."verdict" ASC,
  "t2"."own_node" ASC
