"""A stack that a test or the demo starts is set up by its starter alone."""

from dataclasses import fields

from deploy.local.client import without_settings
from deploy.local.outside import DECIDING
from shared.settings import Settings

MACHINERY = {
    "PATH": "/bin",
    "HOME": "/home/somebody",
    "BROKER": "apache",
    "POSTGRES_FSYNC": "off",
    "CALF_TANSU_BIN": "/opt/tansu",
    "STATE_DIR": ".local",
    "STOP_WITH_PID": "1",
    "JAVA_HOME": "/opt/java",
}


def test_no_setting_is_inherited_and_the_machinery_is() -> None:
    """Neither a setting of the services or the stack nor its _FILE; what finds programs stays."""
    names = {*(each.name.upper() for each in fields(Settings)), *DECIDING, "WEBHOOKS"}
    exported = dict.fromkeys(names, "theirs") | {f"{name}_FILE": "/theirs" for name in names}
    assert without_settings(exported | MACHINERY) == MACHINERY
