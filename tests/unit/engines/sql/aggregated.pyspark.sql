SELECT
  *
FROM (
  SELECT
    `t1`.`namespace`,
    `t1`.`workload_kind`,
    `t1`.`workload`,
    `t1`.`direction`,
    `t1`.`protocol`,
    `t1`.`port`,
    `t1`.`target_port`,
    `t1`.`peer_ip`,
    `t1`.`peer_kind`,
    `t1`.`peer_namespace`,
    `t1`.`peer_workload_kind`,
    `t1`.`peer_workload`,
    `t1`.`verdict`,
    `t1`.`own_node`,
    CAST(SUM(`t1`.`rows`) AS BIGINT) AS `rows`,
    CAST(SUM(`t1`.`connections`) AS BIGINT) AS `connections`,
    CAST(SUM(`t1`.`bytes_sent`) AS BIGINT) AS `bytes_sent`,
    CAST(SUM(`t1`.`bytes_received`) AS BIGINT) AS `bytes_received`,
    MIN(`t1`.`first_seen`) AS `first_seen`,
    MAX(`t1`.`last_seen`) AS `last_seen`,
    COLLECT_LIST(`t1`.`seen`) AS `seen`,
    IF(COUNT(`t1`.`pod`) > 0, ARRAY_SORT(ARRAY_DISTINCT(COLLECT_LIST(`t1`.`pod`))), NULL) AS `pods`,
    IF(
      COUNT(`t1`.`peer_name`) > 0,
      ARRAY_SORT(ARRAY_DISTINCT(COLLECT_LIST(`t1`.`peer_name`))),
      NULL
    ) AS `peer_names`
  FROM (
    SELECT
      `t0`.`namespace`,
      `t0`.`workload_kind`,
      `t0`.`workload`,
      `t0`.`direction`,
      `t0`.`protocol`,
      `t0`.`port`,
      `t0`.`target_port`,
      `t0`.`peer_ip`,
      `t0`.`peer_kind`,
      `t0`.`peer_namespace`,
      `t0`.`peer_workload_kind`,
      `t0`.`peer_workload`,
      `t0`.`verdict`,
      `t0`.`node`,
      `t0`.`pod`,
      `t0`.`peer_name`,
      `t0`.`day`,
      `t0`.`long_until`,
      `t0`.`rows`,
      `t0`.`connections`,
      `t0`.`bytes_sent`,
      `t0`.`bytes_received`,
      `t0`.`first_seen`,
      `t0`.`last_seen`,
      `t0`.`hours`,
      `t0`.`wrong`,
      (
        `t0`.`peer_kind` = 'node'
      )
      AND `t0`.`peer_workload` IS NOT DISTINCT FROM `t0`.`node` AS `own_node`,
      STRUCT(
        `t0`.`day` AS `day`,
        `t0`.`hours` AS `bits`,
        IF(
          `t0`.`long_until` IS NOT NULL,
          CAST(FLOOR((
            UNIX_MICROS(`t0`.`first_seen`)
          ) / (
            3600000000
          )) AS BIGINT),
          NULL
        ) AS `first`,
        `t0`.`long_until` AS `last`
      ) AS `seen`
    FROM `days` AS `t0`
  ) AS `t1`
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
) AS `t2`
ORDER BY
  `t2`.`namespace` ASC NULLS LAST,
  `t2`.`workload_kind` ASC NULLS LAST,
  `t2`.`workload` ASC NULLS LAST,
  `t2`.`direction` ASC NULLS LAST,
  `t2`.`protocol` ASC NULLS LAST,
  `t2`.`port` ASC NULLS LAST,
  `t2`.`target_port` ASC NULLS LAST,
  `t2`.`peer_ip` ASC NULLS LAST,
  `t2`.`peer_kind` ASC NULLS LAST,
  `t2`.`peer_namespace` ASC NULLS LAST,
  `t2`.`peer_workload_kind` ASC NULLS LAST,
  `t2`.`peer_workload` ASC NULLS LAST,
  `t2`.`verdict` ASC NULLS LAST,
  `t2`.`own_node` ASC NULLS LAST
