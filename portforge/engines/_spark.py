"""The engine for captures that outgrow a machine: Spark, local or a cluster. Needs extra and Java.

Spark has no unsigned integers and would wrap a sum in its older mode: ANSI mode is set, which
refuses. Each engine is a session of its own in the process's one Spark: names do not collide.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from portforge.engines._engine import EngineError
from portforge.errors import HostError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["Spark"]

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.filterPushdown": "true",
}
_OLDEST_JAVA = 17
_GLOB = re.compile(r"([\\{}\[\]*?])")


class Spark:
    """Spark as spark-submit or spark-defaults.conf says; by itself on all cores of this machine.

    Raises
    ------
    HostError: no pyspark, no Java, or one that is too old.
    """

    dialect = "pyspark"
    microseconds = "unix_micros"

    def __init__(self) -> None:
        self._session = _session()

    def scan(self, view: str, files: Sequence[str]) -> None:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            rows = self._session.read.parquet(*(_GLOB.sub(r"\\\1", file) for file in files))
            rows.selectExpr("*", "_metadata.file_path AS filename").createOrReplaceTempView(view)

    def keep(self, table: str, sql: str) -> None:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            rows = self._session.sql(sql).persist()
            rows.count()
            rows.createOrReplaceTempView(table)

    def ask(self, sql: str) -> pa.Table:
        """See :class:`portforge.engines.Engine`."""
        with _translated():
            return self._session.sql(sql).toArrow()


def _session() -> SparkSession:
    try:
        from pyspark import SparkConf
        from pyspark.sql import SparkSession
    except ImportError as wrong:
        raise HostError(
            f"the engine spark needs pyspark ({wrong})",
            remedy="pip install 'portforge[spark]'",
        ) from wrong
    _check_java()
    conf = SparkConf()
    if not conf.contains("spark.master"):
        conf.setMaster("local[*]")
        conf.set("spark.ui.enabled", "false").set("spark.ui.showConsoleProgress", "false")
        # 200 is for a cluster: on one machine each costs more than the work in it.
        conf.setIfMissing("spark.sql.shuffle.partitions", str(2 * (os.cpu_count() or 1)))
        conf.set("spark.driver.bindAddress", "127.0.0.1").set("spark.driver.host", "127.0.0.1")
    conf.setIfMissing("spark.driver.memory", "4g").setIfMissing("spark.log.level", "ERROR")
    with _translated():
        builder = SparkSession.builder.appName("portforge").config(conf=conf)
        session = builder.getOrCreate().newSession()
        for name, value in _SETTINGS.items():
            session.conf.set(name, value)
    return session


def _check_java() -> None:
    """Spark's own message without Java is a page of Python."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin/java") if home else "java"
    if shutil.which(java) is None:
        raise HostError(
            "the engine spark needs Java, and there is none",
            place=f"JAVA_HOME={home}" if home else "PATH",
            remedy=f"install Java {_OLDEST_JAVA} or newer (apt-get install default-jre-headless)",
        )
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < _OLDEST_JAVA:
        raise HostError(
            f"the engine spark needs Java {_OLDEST_JAVA} or newer, not "
            f"{found[1] if found else 'one that does not tell its version'}",
            place=java,
            remedy="install a newer one (apt-get install default-jre-headless) or set JAVA_HOME",
        )


@contextmanager
def _translated() -> Iterator[None]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with warnings.catch_warnings():
            # Arrow comes out of it; nothing of ours goes through its pandas.
            warnings.filterwarnings("ignore", "PySpark does not yet fully support", FutureWarning)
            yield
    except (PySparkException, Py4JError) as wrong:
        text = str(wrong)
        if "ARITHMETIC_OVERFLOW" in text:
            raise OverflowError(text.splitlines()[0]) from None
        raise EngineError(text) from None
