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
  "t3"."node",
  "t3"."pod",
  "t3"."peer_name",
  "t3"."day",
  "t3"."long_until",
  "t3"."rows",
  "t3"."connections",
  "t3"."bytes_sent",
  "t3"."bytes_received",
  "t3"."first_seen",
  "t3"."last_seen",
  "t3"."hours",
  CASE
    WHEN COALESCE(
      NOT (
        "t3"."port" BETWEEN 0 AND 65535
      )
      OR NOT (
        "t3"."target_port" BETWEEN 0 AND 65535
      )
      OR NOT (
        "t3"."verdict" IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
      )
      OR NOT (
        "t3"."direction" IN ('ingress', 'egress')
      )
      OR NOT (
        "t3"."protocol" IN ('TCP', 'UDP', 'SCTP', 'ICMP')
      )
      OR NOT (
        "t3"."peer_kind" IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
      )
      OR (
        "t3"."node" IS NULL
      )
      OR (
        "t3"."direction" IS NULL
      )
      OR (
        "t3"."protocol" IS NULL
      )
      OR (
        "t3"."port" IS NULL
      )
      OR (
        "t3"."peer_kind" IS NULL
      )
      OR (
        "t3"."verdict" IS NULL
      ),
      FALSE
    )
    THEN "t3"."rows"
    ELSE "t3"."wrong"
  END AS "wrong"
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
    "t2"."node",
    "t2"."pod",
    "t2"."peer_name",
    "t2"."day",
    "t2"."long_until",
    COUNT(*) AS "rows",
    CAST(SUM("t2"."connections") AS BIGINT) AS "connections",
    CAST(SUM("t2"."bytes_sent") AS BIGINT) AS "bytes_sent",
    CAST(SUM("t2"."bytes_received") AS BIGINT) AS "bytes_received",
    MIN("t2"."first_seen") AS "first_seen",
    MAX("t2"."last_seen") AS "last_seen",
    BIT_OR("t2"."seen") AS "hours",
    CAST(SUM(CAST("t2"."is_wrong" AS BIGINT)) AS BIGINT) AS "wrong"
  FROM (
    SELECT
      "t1"."first_seen",
      "t1"."last_seen",
      "t1"."node",
      "t1"."namespace",
      "t1"."workload_kind",
      "t1"."workload",
      "t1"."pod",
      "t1"."direction",
      "t1"."protocol",
      "t1"."port",
      "t1"."target_port",
      "t1"."peer_ip",
      "t1"."peer_kind",
      "t1"."peer_namespace",
      "t1"."peer_workload_kind",
      "t1"."peer_workload",
      "t1"."peer_name",
      "t1"."verdict",
      "t1"."connections",
      "t1"."bytes_sent",
      "t1"."bytes_received",
      "t1"."rtt_us",
      "t1"."retransmits",
      "t1"."rule",
      "t1"."filename",
      "t1"."first_hour",
      "t1"."last_hour",
      CAST(FLOOR((
        "t1"."first_hour"
      ) / (
        24
      )) AS BIGINT) AS "day",
      "t1"."last_hour" - "t1"."first_hour" AS "more",
      CASE
        WHEN "t1"."last_hour" - "t1"."first_hour" BETWEEN 0 AND 23
        THEN CAST(NULL AS BIGINT)
        ELSE "t1"."last_hour"
      END AS "long_until",
      CASE
        WHEN "t1"."last_hour" - "t1"."first_hour" BETWEEN 0 AND 23
        THEN (
          (
            CAST(1 AS BIGINT) << (
              (
                "t1"."last_hour" - "t1"."first_hour"
              ) + 1
            )
          ) - 1
        ) << (
          "t1"."first_hour" - (
            CAST(FLOOR((
              "t1"."first_hour"
            ) / (
              24
            )) AS BIGINT) * 24
          )
        )
        ELSE 0
      END AS "seen",
      CAST(COALESCE(
        (
          "t1"."last_seen" < "t1"."first_seen"
        )
        OR (
          "t1"."rtt_us" < 0
        )
        OR (
          "t1"."connections" < 0
        )
        OR (
          "t1"."bytes_sent" < 0
        )
        OR (
          "t1"."bytes_received" < 0
        )
        OR (
          "t1"."retransmits" < 0
        )
        OR (
          "t1"."first_seen" IS NULL
        )
        OR (
          "t1"."last_seen" IS NULL
        )
        OR (
          "t1"."connections" IS NULL
        )
        OR (
          "t1"."bytes_sent" IS NULL
        )
        OR (
          "t1"."bytes_received" IS NULL
        )
        OR (
          "t1"."retransmits" IS NULL
        ),
        FALSE
      ) AS TINYINT) AS "is_wrong"
    FROM (
      SELECT
        "t0"."first_seen",
        "t0"."last_seen",
        "t0"."node",
        "t0"."namespace",
        "t0"."workload_kind",
        "t0"."workload",
        "t0"."pod",
        "t0"."direction",
        "t0"."protocol",
        "t0"."port",
        "t0"."target_port",
        "t0"."peer_ip",
        "t0"."peer_kind",
        "t0"."peer_namespace",
        "t0"."peer_workload_kind",
        "t0"."peer_workload",
        "t0"."peer_name",
        "t0"."verdict",
        "t0"."connections",
        "t0"."bytes_sent",
        "t0"."bytes_received",
        "t0"."rtt_us",
        "t0"."retransmits",
        "t0"."rule",
        "t0"."filename",
        CAST(FLOOR((
          EPOCH_US("t0"."first_seen")
        ) / (
          3600000000
        )) AS BIGINT) AS "first_hour",
        CAST(FLOOR((
          EPOCH_US("t0"."last_seen")
        ) / (
          3600000000
        )) AS BIGINT) AS "last_hour"
      FROM "flow_rows" AS "t0"
    ) AS "t1"
  ) AS "t2"
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
    16,
    17,
    18
) AS "t3"
