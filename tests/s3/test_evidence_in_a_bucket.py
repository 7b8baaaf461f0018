"""Evidence in a bucket, on a server that speaks S3: `pip install s3fs 'moto[server]'`, then run this."""

from collections.abc import Iterator
from datetime import date

import boto3
import pytest
from moto.server import ThreadedMotoServer

from shared.evidence import EvidenceStore, NoEvidence
from shared.sealing import Sealer
from shared.settings import load_settings
from tests.keys import DATA_KEY

NEW_KEY = "another key, with which the tests replace the first one"
OLD, NEWER = "2026-01-01/payment/operation-1", "2026-11-20/payment/operation-2"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a prefix in an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="payments")
    yield "s3://payments/evidence"
    server.stop()


def stored() -> list[str]:
    """Return the names of all objects in the bucket."""
    page = boto3.client("s3").list_objects_v2(Bucket="payments")
    return [each["Key"] for each in page.get("Contents", [])]


def test_evidence_is_kept_in_a_bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, read, sealed anew and purged as in a folder; the setting is taken."""
    monkeypatch.setenv("EVIDENCE_URL", url)
    assert load_settings(()).evidence_url == url
    store = EvidenceStore(url, Sealer(DATA_KEY))
    for reference in (OLD, NEWER):
        store.write(reference, {"reference": reference})
    assert stored() == [f"evidence/{each}.sealed" for each in (OLD, NEWER)]
    assert store.read(OLD) == {"reference": OLD}
    with pytest.raises(NoEvidence):
        store.read(f"{OLD}0")
    turning = EvidenceStore(url, Sealer(NEW_KEY, DATA_KEY))
    assert list(turning.reseal()) == [OLD, NEWER]
    assert list(turning.reseal()) == []
    after = EvidenceStore(url, Sealer(NEW_KEY))
    assert after.purge(date(2026, 6, 1)) == 1
    assert stored() == [f"evidence/{NEWER}.sealed"]
    assert after.read(NEWER) == {"reference": NEWER}
