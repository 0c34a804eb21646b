SELECT
  *
FROM (
  SELECT
    `t1`.`filename`,
    CAST(SUM(
      CAST(CAST(COALESCE(NOT (
        `t1`.`port` BETWEEN 0 AND 65535
      ), FALSE) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_0`,
    CAST(SUM(
      CAST(CAST(COALESCE(NOT (
        `t1`.`target_port` BETWEEN 0 AND 65535
      ), FALSE) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_1`,
    CAST(SUM(
      CAST(CAST(COALESCE(`t1`.`last_seen` < `t1`.`first_seen`, FALSE) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_2`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`rtt_us` < 0, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_3`,
    CAST(SUM(
      CAST(CAST(COALESCE(
        NOT (
          `t1`.`verdict` IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
        ),
        FALSE
      ) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_4`,
    CAST(SUM(
      CAST(CAST(COALESCE(NOT (
        `t1`.`direction` IN ('ingress', 'egress')
      ), FALSE) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_5`,
    CAST(SUM(
      CAST(CAST(COALESCE(NOT (
        `t1`.`protocol` IN ('TCP', 'UDP', 'SCTP', 'ICMP')
      ), FALSE) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_6`,
    CAST(SUM(
      CAST(CAST(COALESCE(
        NOT (
          `t1`.`peer_kind` IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
        ),
        FALSE
      ) AS TINYINT) AS BIGINT)
    ) AS BIGINT) AS `wrong_7`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`connections` < 0, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_8`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`bytes_sent` < 0, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_9`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`bytes_received` < 0, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_10`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`retransmits` < 0, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_11`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`first_seen` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_12`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`last_seen` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_13`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`node` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_14`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`direction` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_15`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`protocol` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_16`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`port` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_17`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`peer_kind` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_18`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`verdict` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_19`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`connections` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_20`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`bytes_sent` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_21`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`bytes_received` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_22`,
    CAST(SUM(CAST(CAST(COALESCE(`t1`.`retransmits` IS NULL, FALSE) AS TINYINT) AS BIGINT)) AS BIGINT) AS `wrong_23`
  FROM (
    SELECT
      *
    FROM `flow_rows` AS `t0`
    WHERE
      COALESCE(NOT (
        `t0`.`port` BETWEEN 0 AND 65535
      ), FALSE)
      OR COALESCE(NOT (
        `t0`.`target_port` BETWEEN 0 AND 65535
      ), FALSE)
      OR COALESCE(`t0`.`last_seen` < `t0`.`first_seen`, FALSE)
      OR COALESCE(`t0`.`rtt_us` < 0, FALSE)
      OR COALESCE(
        NOT (
          `t0`.`verdict` IN ('allowed', 'denied', 'audited', 'refused', 'failed', 'listening')
        ),
        FALSE
      )
      OR COALESCE(NOT (
        `t0`.`direction` IN ('ingress', 'egress')
      ), FALSE)
      OR COALESCE(NOT (
        `t0`.`protocol` IN ('TCP', 'UDP', 'SCTP', 'ICMP')
      ), FALSE)
      OR COALESCE(
        NOT (
          `t0`.`peer_kind` IN ('workload', 'service', 'node', 'external', 'loopback', 'unknown')
        ),
        FALSE
      )
      OR COALESCE(`t0`.`connections` < 0, FALSE)
      OR COALESCE(`t0`.`bytes_sent` < 0, FALSE)
      OR COALESCE(`t0`.`bytes_received` < 0, FALSE)
      OR COALESCE(`t0`.`retransmits` < 0, FALSE)
      OR COALESCE(`t0`.`first_seen` IS NULL, FALSE)
      OR COALESCE(`t0`.`last_seen` IS NULL, FALSE)
      OR COALESCE(`t0`.`node` IS NULL, FALSE)
      OR COALESCE(`t0`.`direction` IS NULL, FALSE)
      OR COALESCE(`t0`.`protocol` IS NULL, FALSE)
      OR COALESCE(`t0`.`port` IS NULL, FALSE)
      OR COALESCE(`t0`.`peer_kind` IS NULL, FALSE)
      OR COALESCE(`t0`.`verdict` IS NULL, FALSE)
      OR COALESCE(`t0`.`connections` IS NULL, FALSE)
      OR COALESCE(`t0`.`bytes_sent` IS NULL, FALSE)
      OR COALESCE(`t0`.`bytes_received` IS NULL, FALSE)
      OR COALESCE(`t0`.`retransmits` IS NULL, FALSE)
  ) AS `t1`
  GROUP BY
    1
) AS `t2`
ORDER BY
  `t2`.`filename` ASC NULLS LAST
LIMIT 1
