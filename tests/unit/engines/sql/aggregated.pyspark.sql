SELECT
  *
FROM (
  SELECT
    `t3`.`namespace`,
    `t3`.`workload_kind`,
    `t3`.`workload`,
    `t3`.`direction`,
    `t3`.`protocol`,
    `t3`.`port`,
    `t3`.`target_port`,
    `t3`.`peer_ip`,
    `t3`.`peer_kind`,
    `t3`.`peer_namespace`,
    `t3`.`peer_workload_kind`,
    `t3`.`peer_workload`,
    `t3`.`verdict`,
    `t3`.`own_node`,
    CAST(SUM(`t3`.`rows`) AS BIGINT) AS `rows`,
    CAST(SUM(`t3`.`connections`) AS BIGINT) AS `connections`,
    CAST(SUM(`t3`.`bytes_sent`) AS BIGINT) AS `bytes_sent`,
    CAST(SUM(`t3`.`bytes_received`) AS BIGINT) AS `bytes_received`,
    MIN(`t3`.`first_seen`) AS `first_seen`,
    MAX(`t3`.`last_seen`) AS `last_seen`,
    ARRAY_SORT(ARRAY_DISTINCT(FLATTEN(COLLECT_LIST(`t3`.`hours`)))) AS `hours`,
    IF(
      CAST(SUM(`t3`.`known_pods`) AS BIGINT) > 0,
      ARRAY_SORT(ARRAY_DISTINCT(FLATTEN(COLLECT_LIST(`t3`.`pods`)))),
      NULL
    ) AS `pods`,
    IF(
      CAST(SUM(`t3`.`known_peer_names`) AS BIGINT) > 0,
      ARRAY_SORT(ARRAY_DISTINCT(FLATTEN(COLLECT_LIST(`t3`.`peer_names`)))),
      NULL
    ) AS `peer_names`
  FROM (
    SELECT
      `t2`.`namespace`,
      `t2`.`workload_kind`,
      `t2`.`workload`,
      `t2`.`direction`,
      `t2`.`protocol`,
      `t2`.`port`,
      `t2`.`target_port`,
      `t2`.`peer_ip`,
      `t2`.`peer_kind`,
      `t2`.`peer_namespace`,
      `t2`.`peer_workload_kind`,
      `t2`.`peer_workload`,
      `t2`.`verdict`,
      `t2`.`own_node`,
      `t2`.`day`,
      `t2`.`long_until`,
      `t2`.`rows`,
      `t2`.`connections`,
      `t2`.`bytes_sent`,
      `t2`.`bytes_received`,
      `t2`.`first_seen`,
      `t2`.`last_seen`,
      `t2`.`seen`,
      `t2`.`pods`,
      `t2`.`peer_names`,
      `t2`.`known_pods`,
      `t2`.`known_peer_names`,
      IF(
        `t2`.`long_until` IS NULL,
        FILTER(
          IF(
            (
              1 <> 0
            )
            AND (
              SIGN(1) = SIGN(
                (
                  (
                    `t2`.`day` * 24
                  ) + IF(`t2`.`seen` >= 16777216, 48, 24)
                ) - (
                  `t2`.`day` * 24
                )
              )
            ),
            IF(
              ELEMENT_AT(
                SEQUENCE(`t2`.`day` * 24, (
                  `t2`.`day` * 24
                ) + IF(`t2`.`seen` >= 16777216, 48, 24), 1),
                SIZE(
                  SEQUENCE(`t2`.`day` * 24, (
                    `t2`.`day` * 24
                  ) + IF(`t2`.`seen` >= 16777216, 48, 24), 1)
                )
              ) = (
                (
                  `t2`.`day` * 24
                ) + IF(`t2`.`seen` >= 16777216, 48, 24)
              ),
              SLICE(
                SEQUENCE(`t2`.`day` * 24, (
                  `t2`.`day` * 24
                ) + IF(`t2`.`seen` >= 16777216, 48, 24), 1),
                1,
                SIZE(
                  SEQUENCE(`t2`.`day` * 24, (
                    `t2`.`day` * 24
                  ) + IF(`t2`.`seen` >= 16777216, 48, 24), 1)
                ) - 1
              ),
              SEQUENCE(`t2`.`day` * 24, (
                `t2`.`day` * 24
              ) + IF(`t2`.`seen` >= 16777216, 48, 24), 1)
            ),
            ARRAY()
          ),
          __ibis_param_hour__ -> (
            (
              SHIFTRIGHT(`t2`.`seen`, (
                __ibis_param_hour__ - (
                  `t2`.`day` * 24
                )
              ))
            ) & 1
          ) = 1
        ),
        IF(
          (
            1 <> 0
          )
          AND (
            SIGN(1) = SIGN(
              (
                `t2`.`long_until` + 1
              ) - CAST(FLOOR((
                UNIX_MICROS(`t2`.`first_seen`)
              ) / (
                3600000000
              )) AS BIGINT)
            )
          ),
          IF(
            ELEMENT_AT(
              SEQUENCE(
                CAST(FLOOR((
                  UNIX_MICROS(`t2`.`first_seen`)
                ) / (
                  3600000000
                )) AS BIGINT),
                `t2`.`long_until` + 1,
                1
              ),
              SIZE(
                SEQUENCE(
                  CAST(FLOOR((
                    UNIX_MICROS(`t2`.`first_seen`)
                  ) / (
                    3600000000
                  )) AS BIGINT),
                  `t2`.`long_until` + 1,
                  1
                )
              )
            ) = (
              `t2`.`long_until` + 1
            ),
            SLICE(
              SEQUENCE(
                CAST(FLOOR((
                  UNIX_MICROS(`t2`.`first_seen`)
                ) / (
                  3600000000
                )) AS BIGINT),
                `t2`.`long_until` + 1,
                1
              ),
              1,
              SIZE(
                SEQUENCE(
                  CAST(FLOOR((
                    UNIX_MICROS(`t2`.`first_seen`)
                  ) / (
                    3600000000
                  )) AS BIGINT),
                  `t2`.`long_until` + 1,
                  1
                )
              ) - 1
            ),
            SEQUENCE(
              CAST(FLOOR((
                UNIX_MICROS(`t2`.`first_seen`)
              ) / (
                3600000000
              )) AS BIGINT),
              `t2`.`long_until` + 1,
              1
            )
          ),
          ARRAY()
        )
      ) AS `hours`
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
        `t1`.`day`,
        `t1`.`long_until`,
        CAST(SUM(`t1`.`rows`) AS BIGINT) AS `rows`,
        CAST(SUM(`t1`.`connections`) AS BIGINT) AS `connections`,
        CAST(SUM(`t1`.`bytes_sent`) AS BIGINT) AS `bytes_sent`,
        CAST(SUM(`t1`.`bytes_received`) AS BIGINT) AS `bytes_received`,
        MIN(`t1`.`first_seen`) AS `first_seen`,
        MAX(`t1`.`last_seen`) AS `last_seen`,
        BIT_OR(`t1`.`hours`) AS `seen`,
        COLLECT_LIST(`t1`.`pod`) AS `pods`,
        COLLECT_LIST(`t1`.`peer_name`) AS `peer_names`,
        COUNT(`t1`.`pod`) AS `known_pods`,
        COUNT(`t1`.`peer_name`) AS `known_peer_names`
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
          AND `t0`.`peer_workload` IS NOT DISTINCT FROM `t0`.`node` AS `own_node`
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
        14,
        15,
        16
    ) AS `t2`
  ) AS `t3`
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
) AS `t4`
ORDER BY
  `t4`.`namespace` ASC NULLS LAST,
  `t4`.`workload_kind` ASC NULLS LAST,
  `t4`.`workload` ASC NULLS LAST,
  `t4`.`direction` ASC NULLS LAST,
  `t4`.`protocol` ASC NULLS LAST,
  `t4`.`port` ASC NULLS LAST,
  `t4`.`target_port` ASC NULLS LAST,
  `t4`.`peer_ip` ASC NULLS LAST,
  `t4`.`peer_kind` ASC NULLS LAST,
  `t4`.`peer_namespace` ASC NULLS LAST,
  `t4`.`peer_workload_kind` ASC NULLS LAST,
  `t4`.`peer_workload` ASC NULLS LAST,
  `t4`.`verdict` ASC NULLS LAST,
  `t4`.`own_node` ASC NULLS LAST
