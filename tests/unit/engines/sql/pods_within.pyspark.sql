SELECT
  *
FROM (
  SELECT
    `t13`.`namespace`,
    `t13`.`workload_kind`,
    `t13`.`workload`,
    `t13`.`pod`,
    `t13`.`node`,
    MIN(`t13`.`first_seen`) AS `first_seen`,
    MAX(`t13`.`last_seen`) AS `last_seen`
  FROM (
    SELECT
      *
    FROM (
      SELECT
        *
      FROM (
        SELECT
          `t7`.`namespace`,
          `t7`.`workload_kind`,
          `t7`.`workload`,
          `t7`.`direction`,
          `t7`.`protocol`,
          `t7`.`port`,
          `t7`.`target_port`,
          `t7`.`peer_ip`,
          `t7`.`peer_kind`,
          `t7`.`peer_namespace`,
          `t7`.`peer_workload_kind`,
          `t7`.`peer_workload`,
          `t7`.`verdict`,
          `t7`.`node`,
          `t7`.`pod`,
          `t7`.`peer_name`,
          `t7`.`day`,
          `t7`.`long_until`,
          COUNT(*) AS `rows`,
          CAST(SUM(`t7`.`connections`) AS BIGINT) AS `connections`,
          CAST(SUM(`t7`.`bytes_sent`) AS BIGINT) AS `bytes_sent`,
          CAST(SUM(`t7`.`bytes_received`) AS BIGINT) AS `bytes_received`,
          MIN(`t7`.`first_seen`) AS `first_seen`,
          MAX(`t7`.`last_seen`) AS `last_seen`,
          BIT_OR(`t7`.`seen`) AS `hours`,
          CAST(SUM(CAST(`t7`.`is_wrong` AS BIGINT)) AS BIGINT) AS `wrong`
        FROM (
          SELECT
            `t5`.`first_seen`,
            `t5`.`last_seen`,
            `t5`.`node`,
            `t5`.`namespace`,
            `t5`.`workload_kind`,
            `t5`.`workload`,
            `t5`.`pod`,
            `t5`.`direction`,
            `t5`.`protocol`,
            `t5`.`port`,
            `t5`.`target_port`,
            `t5`.`peer_ip`,
            `t5`.`peer_kind`,
            `t5`.`peer_namespace`,
            `t5`.`peer_workload_kind`,
            `t5`.`peer_workload`,
            `t5`.`peer_name`,
            `t5`.`verdict`,
            `t5`.`connections`,
            `t5`.`bytes_sent`,
            `t5`.`bytes_received`,
            `t5`.`rtt_us`,
            `t5`.`retransmits`,
            `t5`.`rule`,
            `t5`.`filename`,
            `t5`.`first_hour`,
            `t5`.`last_hour`,
            CAST(FLOOR((
              `t5`.`first_hour`
            ) / (
              24
            )) AS BIGINT) AS `day`,
            `t5`.`last_hour` - `t5`.`first_hour` AS `more`,
            IF(
              `t5`.`last_hour` - `t5`.`first_hour` BETWEEN 0 AND 23,
              CAST(NULL AS BIGINT),
              `t5`.`last_hour`
            ) AS `long_until`,
            IF(
              `t5`.`last_hour` - `t5`.`first_hour` BETWEEN 0 AND 23,
              SHIFTLEFT(
                (
                  (
                    SHIFTLEFT(CAST(1 AS BIGINT), (
                      (
                        `t5`.`last_hour` - `t5`.`first_hour`
                      ) + 1
                    ))
                  ) - 1
                ),
                (
                  `t5`.`first_hour` - (
                    CAST(FLOOR((
                      `t5`.`first_hour`
                    ) / (
                      24
                    )) AS BIGINT) * 24
                  )
                )
              ),
              0
            ) AS `seen`,
            CAST(COALESCE(
              NOT (
                `t5`.`port` BETWEEN 0 AND 65535
              )
              OR NOT (
                `t5`.`target_port` BETWEEN 0 AND 65535
              )
              OR (
                `t5`.`last_seen` < `t5`.`first_seen`
              )
              OR (
                `t5`.`rtt_us` < 0
              )
              OR NOT (
                `t5`.`verdict` IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
              )
              OR NOT (
                `t5`.`direction` IN ('ingress', 'egress')
              )
              OR NOT (
                `t5`.`protocol` IN ('TCP', 'UDP', 'SCTP', 'ICMP')
              )
              OR NOT (
                `t5`.`peer_kind` IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
              )
              OR (
                `t5`.`connections` < 0
              )
              OR (
                `t5`.`bytes_sent` < 0
              )
              OR (
                `t5`.`bytes_received` < 0
              )
              OR (
                `t5`.`retransmits` < 0
              )
              OR (
                `t5`.`first_seen` IS NULL
              )
              OR (
                `t5`.`last_seen` IS NULL
              )
              OR (
                `t5`.`node` IS NULL
              )
              OR (
                `t5`.`direction` IS NULL
              )
              OR (
                `t5`.`protocol` IS NULL
              )
              OR (
                `t5`.`port` IS NULL
              )
              OR (
                `t5`.`peer_kind` IS NULL
              )
              OR (
                `t5`.`verdict` IS NULL
              )
              OR (
                `t5`.`connections` IS NULL
              )
              OR (
                `t5`.`bytes_sent` IS NULL
              )
              OR (
                `t5`.`bytes_received` IS NULL
              )
              OR (
                `t5`.`retransmits` IS NULL
              ),
              FALSE
            ) AS TINYINT) AS `is_wrong`
          FROM (
            SELECT
              `t3`.`first_seen`,
              `t3`.`last_seen`,
              `t3`.`node`,
              `t3`.`namespace`,
              `t3`.`workload_kind`,
              `t3`.`workload`,
              `t3`.`pod`,
              `t3`.`direction`,
              `t3`.`protocol`,
              `t3`.`port`,
              `t3`.`target_port`,
              `t3`.`peer_ip`,
              `t3`.`peer_kind`,
              `t3`.`peer_namespace`,
              `t3`.`peer_workload_kind`,
              `t3`.`peer_workload`,
              `t3`.`peer_name`,
              `t3`.`verdict`,
              `t3`.`connections`,
              `t3`.`bytes_sent`,
              `t3`.`bytes_received`,
              `t3`.`rtt_us`,
              `t3`.`retransmits`,
              `t3`.`rule`,
              `t3`.`filename`,
              CAST(FLOOR((
                UNIX_MICROS(`t3`.`first_seen`)
              ) / (
                3600000000
              )) AS BIGINT) AS `first_hour`,
              CAST(FLOOR((
                UNIX_MICROS(`t3`.`last_seen`)
              ) / (
                3600000000
              )) AS BIGINT) AS `last_hour`
            FROM (
              SELECT
                *
              FROM `flow_rows` AS `t1`
              WHERE
                `t1`.`first_seen` >= CAST('2026-03-05T00:00:00+00:00' AS TIMESTAMP)
                AND `t1`.`first_seen` <= CAST('2026-03-05T08:30:00+00:00' AS TIMESTAMP)
            ) AS `t3`
          ) AS `t5`
        ) AS `t7`
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
      ) AS `t9`
      UNION ALL
      SELECT
        *
      FROM (
        SELECT
          *
        FROM (
          SELECT
            *
          FROM `days` AS `t0`
          WHERE
            `t0`.`day` >= 20515 AND `t0`.`day` < 20517
        ) AS `t2`
        UNION ALL
        SELECT
          *
        FROM (
          SELECT
            `t8`.`namespace`,
            `t8`.`workload_kind`,
            `t8`.`workload`,
            `t8`.`direction`,
            `t8`.`protocol`,
            `t8`.`port`,
            `t8`.`target_port`,
            `t8`.`peer_ip`,
            `t8`.`peer_kind`,
            `t8`.`peer_namespace`,
            `t8`.`peer_workload_kind`,
            `t8`.`peer_workload`,
            `t8`.`verdict`,
            `t8`.`node`,
            `t8`.`pod`,
            `t8`.`peer_name`,
            `t8`.`day`,
            `t8`.`long_until`,
            COUNT(*) AS `rows`,
            CAST(SUM(`t8`.`connections`) AS BIGINT) AS `connections`,
            CAST(SUM(`t8`.`bytes_sent`) AS BIGINT) AS `bytes_sent`,
            CAST(SUM(`t8`.`bytes_received`) AS BIGINT) AS `bytes_received`,
            MIN(`t8`.`first_seen`) AS `first_seen`,
            MAX(`t8`.`last_seen`) AS `last_seen`,
            BIT_OR(`t8`.`seen`) AS `hours`,
            CAST(SUM(CAST(`t8`.`is_wrong` AS BIGINT)) AS BIGINT) AS `wrong`
          FROM (
            SELECT
              `t6`.`first_seen`,
              `t6`.`last_seen`,
              `t6`.`node`,
              `t6`.`namespace`,
              `t6`.`workload_kind`,
              `t6`.`workload`,
              `t6`.`pod`,
              `t6`.`direction`,
              `t6`.`protocol`,
              `t6`.`port`,
              `t6`.`target_port`,
              `t6`.`peer_ip`,
              `t6`.`peer_kind`,
              `t6`.`peer_namespace`,
              `t6`.`peer_workload_kind`,
              `t6`.`peer_workload`,
              `t6`.`peer_name`,
              `t6`.`verdict`,
              `t6`.`connections`,
              `t6`.`bytes_sent`,
              `t6`.`bytes_received`,
              `t6`.`rtt_us`,
              `t6`.`retransmits`,
              `t6`.`rule`,
              `t6`.`filename`,
              `t6`.`first_hour`,
              `t6`.`last_hour`,
              CAST(FLOOR((
                `t6`.`first_hour`
              ) / (
                24
              )) AS BIGINT) AS `day`,
              `t6`.`last_hour` - `t6`.`first_hour` AS `more`,
              IF(
                `t6`.`last_hour` - `t6`.`first_hour` BETWEEN 0 AND 23,
                CAST(NULL AS BIGINT),
                `t6`.`last_hour`
              ) AS `long_until`,
              IF(
                `t6`.`last_hour` - `t6`.`first_hour` BETWEEN 0 AND 23,
                SHIFTLEFT(
                  (
                    (
                      SHIFTLEFT(CAST(1 AS BIGINT), (
                        (
                          `t6`.`last_hour` - `t6`.`first_hour`
                        ) + 1
                      ))
                    ) - 1
                  ),
                  (
                    `t6`.`first_hour` - (
                      CAST(FLOOR((
                        `t6`.`first_hour`
                      ) / (
                        24
                      )) AS BIGINT) * 24
                    )
                  )
                ),
                0
              ) AS `seen`,
              CAST(COALESCE(
                NOT (
                  `t6`.`port` BETWEEN 0 AND 65535
                )
                OR NOT (
                  `t6`.`target_port` BETWEEN 0 AND 65535
                )
                OR (
                  `t6`.`last_seen` < `t6`.`first_seen`
                )
                OR (
                  `t6`.`rtt_us` < 0
                )
                OR NOT (
                  `t6`.`verdict` IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
                )
                OR NOT (
                  `t6`.`direction` IN ('ingress', 'egress')
                )
                OR NOT (
                  `t6`.`protocol` IN ('TCP', 'UDP', 'SCTP', 'ICMP')
                )
                OR NOT (
                  `t6`.`peer_kind` IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
                )
                OR (
                  `t6`.`connections` < 0
                )
                OR (
                  `t6`.`bytes_sent` < 0
                )
                OR (
                  `t6`.`bytes_received` < 0
                )
                OR (
                  `t6`.`retransmits` < 0
                )
                OR (
                  `t6`.`first_seen` IS NULL
                )
                OR (
                  `t6`.`last_seen` IS NULL
                )
                OR (
                  `t6`.`node` IS NULL
                )
                OR (
                  `t6`.`direction` IS NULL
                )
                OR (
                  `t6`.`protocol` IS NULL
                )
                OR (
                  `t6`.`port` IS NULL
                )
                OR (
                  `t6`.`peer_kind` IS NULL
                )
                OR (
                  `t6`.`verdict` IS NULL
                )
                OR (
                  `t6`.`connections` IS NULL
                )
                OR (
                  `t6`.`bytes_sent` IS NULL
                )
                OR (
                  `t6`.`bytes_received` IS NULL
                )
                OR (
                  `t6`.`retransmits` IS NULL
                ),
                FALSE
              ) AS TINYINT) AS `is_wrong`
            FROM (
              SELECT
                `t4`.`first_seen`,
                `t4`.`last_seen`,
                `t4`.`node`,
                `t4`.`namespace`,
                `t4`.`workload_kind`,
                `t4`.`workload`,
                `t4`.`pod`,
                `t4`.`direction`,
                `t4`.`protocol`,
                `t4`.`port`,
                `t4`.`target_port`,
                `t4`.`peer_ip`,
                `t4`.`peer_kind`,
                `t4`.`peer_namespace`,
                `t4`.`peer_workload_kind`,
                `t4`.`peer_workload`,
                `t4`.`peer_name`,
                `t4`.`verdict`,
                `t4`.`connections`,
                `t4`.`bytes_sent`,
                `t4`.`bytes_received`,
                `t4`.`rtt_us`,
                `t4`.`retransmits`,
                `t4`.`rule`,
                `t4`.`filename`,
                CAST(FLOOR((
                  UNIX_MICROS(`t4`.`first_seen`)
                ) / (
                  3600000000
                )) AS BIGINT) AS `first_hour`,
                CAST(FLOOR((
                  UNIX_MICROS(`t4`.`last_seen`)
                ) / (
                  3600000000
                )) AS BIGINT) AS `last_hour`
              FROM (
                SELECT
                  *
                FROM `flow_rows` AS `t1`
                WHERE
                  `t1`.`last_seen` >= CAST('2026-03-02T08:00:00.000001+00:00' AS TIMESTAMP)
                  AND `t1`.`first_seen` < CAST('2026-03-03T00:00:00+00:00' AS TIMESTAMP)
              ) AS `t4`
            ) AS `t6`
          ) AS `t8`
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
        ) AS `t10`
      ) AS `t11`
    ) AS `t12`
    WHERE
      `t12`.`workload` IS NOT NULL AND `t12`.`pod` IS NOT NULL
  ) AS `t13`
  GROUP BY
    1,
    2,
    3,
    4,
    5
) AS `t14`
ORDER BY
  `t14`.`namespace` ASC NULLS LAST,
  `t14`.`workload_kind` ASC NULLS LAST,
  `t14`.`workload` ASC NULLS LAST,
  `t14`.`pod` ASC NULLS LAST,
  `t14`.`node` ASC NULLS LAST
