"""What a user types to install an optional dependency."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the pip command that adds an extra to this installation of sam-edge.

    It names the checkout or the wheel that sam-edge was installed from, as pip recorded it (PEP 610):
    "pip install -e '/home/me/sam-edge[openvino]'". Installed from an index, the name alone will do.
    """
    # Only messages need these; urllib.request alone imports http and ssl.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        record = json.loads(distribution("sam-edge").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        record = {}
    url = urlsplit(record.get("url", ""))
    if url.scheme != "file":
        return f"pip install 'sam-edge[{extra}]'"
    editable = "-e " if record.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}'{url2pathname(url.path)}[{extra}]'"
