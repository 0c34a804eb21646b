SELECT
  *
FROM (
  SELECT
    "t15"."namespace",
    "t15"."workload_kind",
    "t15"."workload",
    "t15"."pod",
    "t15"."node",
    MIN("t15"."first_seen") AS "first_seen",
    MAX("t15"."last_seen") AS "last_seen"
  FROM (
    SELECT
      *
    FROM (
      SELECT
        *
      FROM (
        SELECT
          "t9"."namespace",
          "t9"."workload_kind",
          "t9"."workload",
          "t9"."direction",
          "t9"."protocol",
          "t9"."port",
          "t9"."target_port",
          "t9"."peer_ip",
          "t9"."peer_kind",
          "t9"."peer_namespace",
          "t9"."peer_workload_kind",
          "t9"."peer_workload",
          "t9"."verdict",
          "t9"."node",
          "t9"."pod",
          "t9"."peer_name",
          "t9"."day",
          "t9"."long_until",
          "t9"."rows",
          "t9"."connections",
          "t9"."bytes_sent",
          "t9"."bytes_received",
          "t9"."first_seen",
          "t9"."last_seen",
          "t9"."hours",
          CASE
            WHEN COALESCE(
              NOT (
                "t9"."port" BETWEEN 0 AND 65535
              )
              OR NOT (
                "t9"."target_port" BETWEEN 0 AND 65535
              )
              OR NOT (
                "t9"."verdict" IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
              )
              OR NOT (
                "t9"."direction" IN ('ingress', 'egress')
              )
              OR NOT (
                "t9"."protocol" IN ('TCP', 'UDP', 'SCTP', 'ICMP')
              )
              OR NOT (
                "t9"."peer_kind" IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
              )
              OR (
                "t9"."node" IS NULL
              )
              OR (
                "t9"."direction" IS NULL
              )
              OR (
                "t9"."protocol" IS NULL
              )
              OR (
                "t9"."port" IS NULL
              )
              OR (
                "t9"."peer_kind" IS NULL
              )
              OR (
                "t9"."verdict" IS NULL
              ),
              FALSE
            )
            THEN "t9"."rows"
            ELSE "t9"."wrong"
          END AS "wrong"
        FROM (
          SELECT
            "t7"."namespace",
            "t7"."workload_kind",
            "t7"."workload",
            "t7"."direction",
            "t7"."protocol",
            "t7"."port",
            "t7"."target_port",
            "t7"."peer_ip",
            "t7"."peer_kind",
            "t7"."peer_namespace",
            "t7"."peer_workload_kind",
            "t7"."peer_workload",
            "t7"."verdict",
            "t7"."node",
            "t7"."pod",
            "t7"."peer_name",
            "t7"."day",
            "t7"."long_until",
            COUNT(*) AS "rows",
            CAST(SUM("t7"."connections") AS BIGINT) AS "connections",
            CAST(SUM("t7"."bytes_sent") AS BIGINT) AS "bytes_sent",
            CAST(SUM("t7"."bytes_received") AS BIGINT) AS "bytes_received",
            MIN("t7"."first_seen") AS "first_seen",
            MAX("t7"."last_seen") AS "last_seen",
            BIT_OR("t7"."seen") AS "hours",
            CAST(SUM(CAST("t7"."is_wrong" AS BIGINT)) AS BIGINT) AS "wrong"
          FROM (
            SELECT
              "t5"."first_seen",
              "t5"."last_seen",
              "t5"."node",
              "t5"."namespace",
              "t5"."workload_kind",
              "t5"."workload",
              "t5"."pod",
              "t5"."direction",
              "t5"."protocol",
              "t5"."port",
              "t5"."target_port",
              "t5"."peer_ip",
              "t5"."peer_kind",
              "t5"."peer_namespace",
              "t5"."peer_workload_kind",
              "t5"."peer_workload",
              "t5"."peer_name",
              "t5"."verdict",
              "t5"."connections",
              "t5"."bytes_sent",
              "t5"."bytes_received",
              "t5"."rtt_us",
              "t5"."retransmits",
              "t5"."rule",
              "t5"."filename",
              "t5"."first_hour",
              "t5"."last_hour",
              CAST(FLOOR((
                "t5"."first_hour"
              ) / (
                24
              )) AS BIGINT) AS "day",
              "t5"."last_hour" - "t5"."first_hour" AS "more",
              CASE
                WHEN "t5"."last_hour" - "t5"."first_hour" BETWEEN 0 AND 23
                THEN CAST(NULL AS BIGINT)
                ELSE "t5"."last_hour"
              END AS "long_until",
              CASE
                WHEN "t5"."last_hour" - "t5"."first_hour" BETWEEN 0 AND 23
                THEN (
                  (
                    CAST(1 AS BIGINT) << (
                      (
                        "t5"."last_hour" - "t5"."first_hour"
                      ) + 1
                    )
                  ) - 1
                ) << (
                  "t5"."first_hour" - (
                    CAST(FLOOR((
                      "t5"."first_hour"
                    ) / (
                      24
                    )) AS BIGINT) * 24
                  )
                )
                ELSE 0
              END AS "seen",
              CAST(COALESCE(
                (
                  "t5"."last_seen" < "t5"."first_seen"
                )
                OR (
                  "t5"."rtt_us" < 0
                )
                OR (
                  "t5"."connections" < 0
                )
                OR (
                  "t5"."bytes_sent" < 0
                )
                OR (
                  "t5"."bytes_received" < 0
                )
                OR (
                  "t5"."retransmits" < 0
                )
                OR (
                  "t5"."first_seen" IS NULL
                )
                OR (
                  "t5"."last_seen" IS NULL
                )
                OR (
                  "t5"."connections" IS NULL
                )
                OR (
                  "t5"."bytes_sent" IS NULL
                )
                OR (
                  "t5"."bytes_received" IS NULL
                )
                OR (
                  "t5"."retransmits" IS NULL
                ),
                FALSE
              ) AS TINYINT) AS "is_wrong"
            FROM (
              SELECT
                "t3"."first_seen",
                "t3"."last_seen",
                "t3"."node",
                "t3"."namespace",
                "t3"."workload_kind",
                "t3"."workload",
                "t3"."pod",
                "t3"."direction",
                "t3"."protocol",
                "t3"."port",
                "t3"."target_port",
                "t3"."peer_ip",
                "t3"."peer_kind",
                "t3"."peer_namespace",
                "t3"."peer_workload_kind",
                "t3"."peer_workload",
                "t3"."peer_name",
                "t3"."verdict",
                "t3"."connections",
                "t3"."bytes_sent",
                "t3"."bytes_received",
                "t3"."rtt_us",
                "t3"."retransmits",
                "t3"."rule",
                "t3"."filename",
                CAST(FLOOR((
                  EPOCH_US("t3"."first_seen")
                ) / (
                  3600000000
                )) AS BIGINT) AS "first_hour",
                CAST(FLOOR((
                  EPOCH_US("t3"."last_seen")
                ) / (
                  3600000000
                )) AS BIGINT) AS "last_hour"
              FROM (
                SELECT
                  *
                FROM "flow_rows" AS "t1"
                WHERE
                  "t1"."first_seen" >= MAKE_TIMESTAMPTZ(2026, 3, 5, 0, 0, 0.0, 'UTC')
                  AND "t1"."first_seen" <= MAKE_TIMESTAMPTZ(2026, 3, 5, 8, 30, 0.0, 'UTC')
              ) AS "t3"
            ) AS "t5"
          ) AS "t7"
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
        ) AS "t9"
      ) AS "t11"
      UNION ALL
      SELECT
        *
      FROM (
        SELECT
          *
        FROM (
          SELECT
            *
          FROM "days" AS "t0"
          WHERE
            "t0"."day" >= 20515 AND "t0"."day" < 20517
        ) AS "t2"
        UNION ALL
        SELECT
          *
        FROM (
          SELECT
            "t10"."namespace",
            "t10"."workload_kind",
            "t10"."workload",
            "t10"."direction",
            "t10"."protocol",
            "t10"."port",
            "t10"."target_port",
            "t10"."peer_ip",
            "t10"."peer_kind",
            "t10"."peer_namespace",
            "t10"."peer_workload_kind",
            "t10"."peer_workload",
            "t10"."verdict",
            "t10"."node",
            "t10"."pod",
            "t10"."peer_name",
            "t10"."day",
            "t10"."long_until",
            "t10"."rows",
            "t10"."connections",
            "t10"."bytes_sent",
            "t10"."bytes_received",
            "t10"."first_seen",
            "t10"."last_seen",
            "t10"."hours",
            CASE
              WHEN COALESCE(
                NOT (
                  "t10"."port" BETWEEN 0 AND 65535
                )
                OR NOT (
                  "t10"."target_port" BETWEEN 0 AND 65535
                )
                OR NOT (
                  "t10"."verdict" IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
                )
                OR NOT (
                  "t10"."direction" IN ('ingress', 'egress')
                )
                OR NOT (
                  "t10"."protocol" IN ('TCP', 'UDP', 'SCTP', 'ICMP')
                )
                OR NOT (
                  "t10"."peer_kind" IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
                )
                OR (
                  "t10"."node" IS NULL
                )
                OR (
                  "t10"."direction" IS NULL
                )
                OR (
                  "t10"."protocol" IS NULL
                )
                OR (
                  "t10"."port" IS NULL
                )
                OR (
                  "t10"."peer_kind" IS NULL
                )
                OR (
                  "t10"."verdict" IS NULL
                ),
                FALSE
              )
              THEN "t10"."rows"
              ELSE "t10"."wrong"
            END AS "wrong"
          FROM (
            SELECT
              "t8"."namespace",
              "t8"."workload_kind",
              "t8"."workload",
              "t8"."direction",
              "t8"."protocol",
              "t8"."port",
              "t8"."target_port",
              "t8"."peer_ip",
              "t8"."peer_kind",
              "t8"."peer_namespace",
              "t8"."peer_workload_kind",
              "t8"."peer_workload",
              "t8"."verdict",
              "t8"."node",
              "t8"."pod",
              "t8"."peer_name",
              "t8"."day",
              "t8"."long_until",
              COUNT(*) AS "rows",
              CAST(SUM("t8"."connections") AS BIGINT) AS "connections",
              CAST(SUM("t8"."bytes_sent") AS BIGINT) AS "bytes_sent",
              CAST(SUM("t8"."bytes_received") AS BIGINT) AS "bytes_received",
              MIN("t8"."first_seen") AS "first_seen",
              MAX("t8"."last_seen") AS "last_seen",
              BIT_OR("t8"."seen") AS "hours",
              CAST(SUM(CAST("t8"."is_wrong" AS BIGINT)) AS BIGINT) AS "wrong"
            FROM (
              SELECT
                "t6"."first_seen",
                "t6"."last_seen",
                "t6"."node",
                "t6"."namespace",
                "t6"."workload_kind",
                "t6"."workload",
                "t6"."pod",
                "t6"."direction",
                "t6"."protocol",
                "t6"."port",
                "t6"."target_port",
                "t6"."peer_ip",
                "t6"."peer_kind",
                "t6"."peer_namespace",
                "t6"."peer_workload_kind",
                "t6"."peer_workload",
                "t6"."peer_name",
                "t6"."verdict",
                "t6"."connections",
                "t6"."bytes_sent",
                "t6"."bytes_received",
                "t6"."rtt_us",
                "t6"."retransmits",
                "t6"."rule",
                "t6"."filename",
                "t6"."first_hour",
                "t6"."last_hour",
                CAST(FLOOR((
                  "t6"."first_hour"
                ) / (
                  24
                )) AS BIGINT) AS "day",
                "t6"."last_hour" - "t6"."first_hour" AS "more",
                CASE
                  WHEN "t6"."last_hour" - "t6"."first_hour" BETWEEN 0 AND 23
                  THEN CAST(NULL AS BIGINT)
                  ELSE "t6"."last_hour"
                END AS "long_until",
                CASE
                  WHEN "t6"."last_hour" - "t6"."first_hour" BETWEEN 0 AND 23
                  THEN (
                    (
                      CAST(1 AS BIGINT) << (
                        (
                          "t6"."last_hour" - "t6"."first_hour"
                        ) + 1
                      )
                    ) - 1
                  ) << (
                    "t6"."first_hour" - (
                      CAST(FLOOR((
                        "t6"."first_hour"
                      ) / (
                        24
                      )) AS BIGINT) * 24
                    )
                  )
                  ELSE 0
                END AS "seen",
                CAST(COALESCE(
                  (
                    "t6"."last_seen" < "t6"."first_seen"
                  )
                  OR (
                    "t6"."rtt_us" < 0
                  )
                  OR (
                    "t6"."connections" < 0
                  )
                  OR (
                    "t6"."bytes_sent" < 0
                  )
                  OR (
                    "t6"."bytes_received" < 0
                  )
                  OR (
                    "t6"."retransmits" < 0
                  )
                  OR (
                    "t6"."first_seen" IS NULL
                  )
                  OR (
                    "t6"."last_seen" IS NULL
                  )
                  OR (
                    "t6"."connections" IS NULL
                  )
                  OR (
                    "t6"."bytes_sent" IS NULL
                  )
                  OR (
                    "t6"."bytes_received" IS NULL
                  )
                  OR (
                    "t6"."retransmits" IS NULL
                  ),
                  FALSE
                ) AS TINYINT) AS "is_wrong"
              FROM (
                SELECT
                  "t4"."first_seen",
                  "t4"."last_seen",
                  "t4"."node",
                  "t4"."namespace",
                  "t4"."workload_kind",
                  "t4"."workload",
                  "t4"."pod",
                  "t4"."direction",
                  "t4"."protocol",
                  "t4"."port",
                  "t4"."target_port",
                  "t4"."peer_ip",
                  "t4"."peer_kind",
                  "t4"."peer_namespace",
                  "t4"."peer_workload_kind",
                  "t4"."peer_workload",
                  "t4"."peer_name",
                  "t4"."verdict",
                  "t4"."connections",
                  "t4"."bytes_sent",
                  "t4"."bytes_received",
                  "t4"."rtt_us",
                  "t4"."retransmits",
                  "t4"."rule",
                  "t4"."filename",
                  CAST(FLOOR((
                    EPOCH_US("t4"."first_seen")
                  ) / (
                    3600000000
                  )) AS BIGINT) AS "first_hour",
                  CAST(FLOOR((
                    EPOCH_US("t4"."last_seen")
                  ) / (
                    3600000000
                  )) AS BIGINT) AS "last_hour"
                FROM (
                  SELECT
                    *
                  FROM "flow_rows" AS "t1"
                  WHERE
                    "t1"."last_seen" >= MAKE_TIMESTAMPTZ(2026, 3, 2, 8, 0, 1e-06, 'UTC')
                    AND "t1"."first_seen" < MAKE_TIMESTAMPTZ(2026, 3, 3, 0, 0, 0.0, 'UTC')
                ) AS "t4"
              ) AS "t6"
            ) AS "t8"
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
          ) AS "t10"
        ) AS "t12"
      ) AS "t13"
    ) AS "t14"
    WHERE
      "t14"."workload" IS NOT NULL AND "t14"."pod" IS NOT NULL
  ) AS "t15"
  GROUP BY
    1,
    2,
    3,
    4,
    5
) AS "t16"
ORDER BY
  "t16"."namespace" ASC,
  "t16"."workload_kind" ASC,
  "t16"."workload" ASC,
  "t16"."pod" ASC,
  "t16"."node" ASC
