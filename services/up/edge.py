"""Envoy's configuration: the files in envoy/ with their @TOKENS@ filled in, as one document."""

import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

CONFIG_NAME: Final = "envoy.yaml"
# What the document refers to; copied beside it, so that the folder is all that Envoy needs.
_COMPANIONS: Final = ("errors.lua", "console.html", "joulegate.binpb")
_TOKEN: Final = re.compile(r"@([A-Z_]+)@")


@dataclass(frozen=True, slots=True)
class Edge:
    """What differs between two Envoys."""

    folder: Path
    """Where the configuration will lie when Envoy reads it."""
    host: str
    port: int
    admin_socket: Path
    clusters: str
    """The name of a file in envoy/clusters."""
    cors_origins: tuple[str, ...] = ()
    sockets: Mapping[str, Path] = field(default_factory=dict)
    """Of `router`, `router-http`, `dispatch` and `ledger`, for the clusters that are reached that way."""

    def tokens(self) -> dict[str, Any]:
        """The value of each token, to be written as JSON, which YAML contains."""
        return {
            "HOST": self.host,
            "PORT": self.port,
            "ADMIN_SOCKET": str(self.admin_socket),
            "ERRORS_LUA": str(self.folder / "errors.lua"),
            "CONSOLE_PAGE": str(self.folder / "console.html"),
            "DESCRIPTOR": str(self.folder / "joulegate.binpb"),
            "CORS_PERCENT": 100 if self.cors_origins else 0,
            "CORS_ORIGINS": [{"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in self.cors_origins],
            **{f"{name.upper().replace('-', '_')}_SOCKET": str(path) for name, path in self.sockets.items()},
        }


def render(listener: str, clusters: str, edge: Edge) -> str:
    """Envoy's configuration, from the texts of edge.yaml and of a clusters file. Raises KeyError for a token that has no value."""
    tokens = edge.tokens()
    document = listener.replace("@CLUSTERS@", textwrap.indent(clusters, "    "))
    return _TOKEN.sub(lambda token: json.dumps(tokens[token[1]]), document)


def command(envoy: str, config: Path, concurrency: int) -> tuple[str, ...]:
    """The command line that runs Envoy."""
    return (
        *(envoy, "-c", str(config), "--concurrency", str(concurrency)),
        *("--disable-hot-restart", "--log-level", "warn", "--file-flush-interval-msec", "1000"),
        # After the listener is closed, answers tell their connections to go at once.
        *("--drain-time-s", "1", "--drain-strategy", "immediate"),
    )


def write(edge: Edge, folder: Path) -> Path:
    """Writes the configuration and all that it refers to into `folder`, which Envoy may see elsewhere. Returns the file to start from."""
    sources = _sources()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _COMPANIONS:
        source = Path(str(resources.files("joulegate") / name)) if name.endswith(".binpb") else sources / name
        shutil.copyfile(source, folder / name)
    listener, clusters = (sources / "edge.yaml").read_text(), (sources / "clusters" / f"{edge.clusters}.yaml").read_text()
    config = folder / CONFIG_NAME
    config.write_text(render(listener, clusters, edge))
    return config


def _sources() -> Path:
    """The folder envoy/: inside this package in a wheel, at the root of a checkout."""
    packaged = Path(__file__).parent / "envoy"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "envoy"
