SELECT
  *
FROM (
  SELECT
    "t3"."namespace",
    "t3"."workload_kind",
    "t3"."workload",
    "t3"."direction",
    "t3"."protocol",
    "t3"."port",
    "t3"."target_port",
    "t3"."peer_ip",
    "t3"."peer_kind",
    "t3"."peer_namespace",
    "t3"."peer_workload_kind",
    "t3"."peer_workload",
    "t3"."verdict",
    "t3"."own_node",
    CAST(SUM("t3"."rows") AS BIGINT) AS "rows",
    CAST(SUM("t3"."connections") AS BIGINT) AS "connections",
    CAST(SUM("t3"."bytes_sent") AS BIGINT) AS "bytes_sent",
    CAST(SUM("t3"."bytes_received") AS BIGINT) AS "bytes_received",
    MIN("t3"."first_seen") AS "first_seen",
    MAX("t3"."last_seen") AS "last_seen",
    LIST_SORT(
      LIST_DISTINCT(FLATTEN(ARRAY_AGG("t3"."hours") FILTER(WHERE
        "t3"."hours" IS NOT NULL)))
    ) AS "hours",
    CASE
      WHEN CAST(SUM("t3"."known_pods") AS BIGINT) > 0
      THEN LIST_SORT(
        LIST_DISTINCT(FLATTEN(ARRAY_AGG("t3"."pods") FILTER(WHERE
          "t3"."pods" IS NOT NULL)))
      )
      ELSE NULL
    END AS "pods",
    CASE
      WHEN CAST(SUM("t3"."known_peer_names") AS BIGINT) > 0
      THEN LIST_SORT(
        LIST_DISTINCT(
          FLATTEN(ARRAY_AGG("t3"."peer_names") FILTER(WHERE
            "t3"."peer_names" IS NOT NULL))
        )
      )
      ELSE NULL
    END AS "peer_names"
  FROM (
    SELECT
      "t2"."namespace",
      "t2"."workload_kind",
      "t2"."workload",
      "t2"."direction",
      "t2"."protocol",
      "t2"."port",
      "t2"."target_port",
      "t2"."peer_ip",
      "t2"."peer_kind",
      "t2"."peer_namespace",
      "t2"."peer_workload_kind",
      "t2"."peer_workload",
      "t2"."verdict",
      "t2"."own_node",
      "t2"."day",
      "t2"."long_until",
      "t2"."rows",
      "t2"."connections",
      "t2"."bytes_sent",
      "t2"."bytes_received",
      "t2"."first_seen",
      "t2"."last_seen",
      "t2"."seen",
      "t2"."pods",
      "t2"."peer_names",
      "t2"."known_pods",
      "t2"."known_peer_names",
      CASE
        WHEN "t2"."long_until" IS NULL
        THEN LIST_FILTER(
          RANGE(
            "t2"."day" * 24,
            (
              "t2"."day" * 24
            ) + CASE WHEN "t2"."seen" >= 16777216 THEN 48 ELSE 24 END,
            1
          ),
          LAMBDA __ibis_param_hour__ : (("t2"."seen" >> (__ibis_param_hour__ - ("t2"."day" * 24))) & 1) = 1
        )
        ELSE RANGE(
          CAST(FLOOR((
            EPOCH_US("t2"."first_seen")
          ) / (
            3600000000
          )) AS BIGINT),
          "t2"."long_until" + 1,
          1
        )
      END AS "hours"
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
        "t1"."day",
        "t1"."long_until",
        CAST(SUM("t1"."rows") AS BIGINT) AS "rows",
        CAST(SUM("t1"."connections") AS BIGINT) AS "connections",
        CAST(SUM("t1"."bytes_sent") AS BIGINT) AS "bytes_sent",
        CAST(SUM("t1"."bytes_received") AS BIGINT) AS "bytes_received",
        MIN("t1"."first_seen") AS "first_seen",
        MAX("t1"."last_seen") AS "last_seen",
        BIT_OR("t1"."hours") AS "seen",
        ARRAY_AGG("t1"."pod") FILTER(WHERE
          "t1"."pod" IS NOT NULL) AS "pods",
        ARRAY_AGG("t1"."peer_name") FILTER(WHERE
          "t1"."peer_name" IS NOT NULL) AS "peer_names",
        COUNT("t1"."pod") AS "known_pods",
        COUNT("t1"."peer_name") AS "known_peer_names"
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
          AND "t0"."peer_workload" IS NOT DISTINCT FROM "t0"."node" AS "own_node"
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
        14,
        15,
        16
    ) AS "t2"
  ) AS "t3"
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
) AS "t4"
ORDER BY
  "t4"."namespace" ASC,
  "t4"."workload_kind" ASC,
  "t4"."workload" ASC,
  "t4"."direction" ASC,
  "t4"."protocol" ASC,
  "t4"."port" ASC,
  "t4"."target_port" ASC,
  "t4"."peer_ip" ASC,
  "t4"."peer_kind" ASC,
  "t4"."peer_namespace" ASC,
  "t4"."peer_workload_kind" ASC,
  "t4"."peer_workload" ASC,
  "t4"."verdict" ASC,
  "t4"."own_node" ASC
