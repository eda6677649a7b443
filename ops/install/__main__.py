"""``python -m ops.install``: writes the plain manifests and the Helm chart."""

from ops.install import render

if __name__ == "__main__":
    for path in render.write():
        print(path.relative_to(render.ROOT.parent))
