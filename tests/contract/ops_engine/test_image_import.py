"""An image made here runs in the real engine."""

from __future__ import annotations

import json
import os
import uuid

import pytest

from ops import engine, engine_api, images

pytestmark = pytest.mark.contract


def test_an_imported_image_runs() -> None:
    host = engine.find()
    assert host is not None, "no container engine: run the tests through ./just test"
    assert os.environ["DOCKER_HOST"] == host
    repo, tag = f"skerry-test-{uuid.uuid4().hex[:8]}", "1"
    busybox = images.find_busybox()
    assert busybox is not None
    engine_api.import_image(host, repo, tag, images.busybox_tar(busybox), ["ENV PATH=/bin", "ENV MARK=here"])
    container = ""
    try:
        assert engine_api.has_image(host, f"{repo}:{tag}")
        config = {
            "Image": f"{repo}:{tag}",
            "Cmd": ["sh", "-c", "test $MARK = here && test -L /bin/wget && echo hi | grep -q hi"],
        }
        status, body = engine_api.request(host, "POST", "/containers/create", json.dumps(config).encode(), json_body=True)
        assert status == 201, body
        container = json.loads(body)["Id"]
        assert engine_api.request(host, "POST", f"/containers/{container}/start")[0] == 204
        status, body = engine_api.request(host, "POST", f"/containers/{container}/wait", timeout=60)
        assert json.loads(body)["StatusCode"] == 0
    finally:
        if container:
            engine_api.request(host, "DELETE", f"/containers/{container}?force=true", timeout=30)
        engine_api.request(host, "DELETE", f"/images/{repo}:{tag}", timeout=30)
    assert not engine_api.has_image(host, f"{repo}:{tag}")


def test_the_images_that_the_demo_needs_are_there_already_or_are_made() -> None:
    host = engine.find()
    assert host is not None
    images.ensure(host)
    assert images.ensure(host) is False
