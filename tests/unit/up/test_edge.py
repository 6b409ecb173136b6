from dataclasses import replace
from pathlib import Path

import pytest

from services.up.edge import Edge, render

EDGE = Edge(Path("/run/edge"), "127.0.0.1", 8000, Path("/run/edge/admin.sock"), "sockets", sockets={"router": Path("/run/router.sock")})


def test_tokens_are_filled_in_as_yaml_values() -> None:
    assert (
        render("{host: @HOST@, port: @PORT@, file: @ERRORS_LUA@}", "", EDGE)
        == '{host: "127.0.0.1", port: 8000, file: "/run/edge/errors.lua"}'
    )


def test_clusters_are_put_in_their_place() -> None:
    text = render("clusters:\n@CLUSTERS@", "- path: @ROUTER_SOCKET@\n  name: router\n", EDGE)
    assert text == 'clusters:\n    - path: "/run/router.sock"\n      name: router\n'


def test_quotes_in_a_value_stay_inside_it() -> None:
    assert render("@HOST@", "", replace(EDGE, host='a"b')) == '"a\\"b"'


def test_type_urls_are_not_tokens() -> None:
    line = '"@type": type.googleapis.com/envoy.X'
    assert render(line, "", EDGE) == line


def test_token_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="LEDGER_SOCKET"):
        render("@LEDGER_SOCKET@", "", EDGE)


def test_cors_is_off_without_origins() -> None:
    template = "@CORS_PERCENT@ @CORS_ORIGINS@"
    assert render(template, "", EDGE) == "0 []"
    assert render(template, "", replace(EDGE, cors_origins=("https://a",))) == '100 [{"exact": "https://a"}]'
    assert render(template, "", replace(EDGE, cors_origins=("*",))) == '100 [{"safe_regex": {"regex": ".*"}}]'
