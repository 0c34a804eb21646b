SELECT
  *
FROM (
  SELECT
    "t1"."namespace",
    "t1"."workload_kind",
    "t1"."workload",
    "t1"."pod",
    "t1"."node",
    MIN("t1"."first_seen") AS "first_seen",
    MAX("t1"."last_seen") AS "last_seen"
  FROM (
    SELECT
      *
    FROM "days" AS "t0"
    WHERE
      "t0"."workload" IS NOT NULL AND "t0"."pod" IS NOT NULL
  ) AS "t1"
  GROUP BY
    1,
    2,
    3,
    4,
    5
) AS "t2"
ORDER BY
  "t2"."namespace" ASC,
  "t2"."workload_kind" ASC,
  "t2"."workload" ASC,
  "t2"."pod" ASC,
  "t2"."node" ASC
