SELECT
  CAST(SUM("t0"."rows") AS BIGINT) AS "rows",
  CAST(SUM("t0"."wrong") AS BIGINT) AS "wrong",
  MIN("t0"."first_seen") AS "first_seen",
  MAX("t0"."last_seen") AS "last_seen"
FROM "days" AS "t0"
