"""Have Apache Kafka: its jars are fetched with Maven once, and then used without any network."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from deploy.local.parts import NotInstalled

POM = Path(__file__).with_name("pom.xml")  # names the version
JARS = Path(sys.prefix) / "share" / "apache-kafka"  # in the virtual environment, beside the other servers
CLASSES = JARS / "classes.jsa"  # ready to be mapped by Java, which halves the time to start; may be missing
# Started often, for a short time and beside others: quick to start counts more than quick for hours.
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
QUIET = "-Dlog4j2.level=WARN"
LOOPBACK_ALONE = "-Djava.net.preferIPv4Stack=true"  # else it listens on 127.0.0.1 as an address of IPv6


def java_command(main_class: str, *arguments: str, heap_mb: int, archive: str = "") -> list[str]:
    """The command that runs a class of Kafka; raises NotInstalled.

    `archive` is Java's option for the archive of classes, by default to use the one that is there.
    """
    if not is_fetched():
        message = "Apache Kafka has not been fetched; run `python -m deploy.kafka`"
        raise NotInstalled(message)
    jars = ":".join(str(jar) for jar in sorted(JARS.glob("*.jar")))
    memory = [f"-Xms{heap_mb // 2}m", f"-Xmx{heap_mb}m", archive or f"-XX:SharedArchiveFile={CLASSES}"]
    return [java(), *QUICK_START, *memory, QUIET, LOOPBACK_ALONE, "-cp", jars, main_class, *arguments]


def is_fetched() -> bool:
    """Whether the jars that pom.xml names are there."""
    try:
        return (JARS / POM.name).read_bytes() == POM.read_bytes()
    except FileNotFoundError:
        return False


def fetch() -> None:
    """Fetch the jars that pom.xml names; raises NotInstalled."""
    maven = shutil.which("mvn")
    if maven is None:
        message = "Maven (mvn) is not installed; Debian, Ubuntu: apt install maven, macOS: brew install maven"
        raise NotInstalled(message)
    JARS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=JARS.parent) as folder:
        draft = Path(folder) / "jars"
        command = [maven, "-B", "-q", "-ntp", "--strict-checksums", "-f", str(POM)]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={draft}"]
        if subprocess.run(command, check=False).returncode:
            message = "Maven could not fetch it, see above"
            raise NotInstalled(message)
        shutil.copy(POM, draft)  # says that the others are whole, and of which version
        shutil.rmtree(JARS, ignore_errors=True)
        draft.rename(JARS)


@cache
def java() -> str:
    """The program `java`, tried: a Mac without Java has one that only says so. Raises NotInstalled."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if found is None or not _starts(found):
        message = (
            "Java 17 or newer is not installed, or JAVA_HOME does not name it; "
            "Debian, Ubuntu: apt install default-jre-headless, macOS: brew install openjdk"
        )
        raise NotInstalled(message)
    return found


def _starts(program: str) -> bool:
    try:
        return subprocess.run([program, "-version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
